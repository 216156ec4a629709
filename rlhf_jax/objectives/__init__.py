"""Objectives: pure functions of arrays that return one value per token, sequence or pair, always in float32.

A `_loss` is minimised and an `_objective` maximised, so the minus sign appears once, in the algorithm. Nothing is
reduced over the batch: that is `rlhf_jax.reduce.weighted_sum`. Advantages, returns, old log-probs, old values and
everything of the reference are `stop_gradient`ed inside. With `mask` (boolean or numeric, nonzero counts), masked
inputs are replaced before any arithmetic: the result there is 0 and so is its gradient, whatever stood there.

`[...]` is any shape, the same for all arguments where nothing else is said; a scalar fits everywhere. An array with
another number of axes raises ValueError while the function is traced: a value for each sequence, [B], would otherwise
broadcast along the tokens of [B, T] where B is T.
"""

from rlhf_jax.objectives.advantages import (
  group_centre,
  group_normalize,
  leave_one_out,
  optimal_baseline,
  optimal_token_baseline,
)
from rlhf_jax.objectives.anchored import (
  apo_down_loss,
  apo_zero_loss,
  bco_loss,
  kto_loss,
  nca_loss,
  sppo_hard_loss,
)
from rlhf_jax.objectives.chunked import ChunkedLogits
from rlhf_jax.objectives.direct import (
  aot_loss,
  aot_unpaired_loss,
  discopop_loss,
  dpo_loss,
  exo_loss,
  hinge_loss,
  ipo_loss,
  robust_dpo_loss,
  wpo_weights,
)
from rlhf_jax.objectives.distillation import generalized_jsd_loss
from rlhf_jax.objectives.kl import adaptive_kl_coef, kl_estimate, kl_exact, shaped_rewards
from rlhf_jax.objectives.language import (
  collision_entropy,
  lm_loss,
  logprobs_and_entropy,
  score_energy,
  token_entropy,
  token_logprobs,
  truncated_logits,
)
from rlhf_jax.objectives.mismatch import importance_weights, masked_sequence_ratios, masked_token_ratios
from rlhf_jax.objectives.policy import (
  ppo_policy_objective,
  reinforce_objective,
  sequence_ratio_objective,
)
from rlhf_jax.objectives.preference import (
  bradley_terry_loss,
  correctness_loss,
  davidson_loss,
  pairwise_ranking_loss,
  plackett_luce_loss,
  rating_loss,
  reward_centring_loss,
)
from rlhf_jax.objectives.reference_free import orpo_loss, simpo_loss
from rlhf_jax.objectives.surrogates import (
  cispo_objective,
  clip_cov_objective,
  dual_clip_objective,
  gspo_token_objective,
  kl_cov_objective,
  sapo_objective,
)
from rlhf_jax.objectives.value import discounted_returns, gae, length_adaptive_lambda, value_loss

__all__ = [
  "ChunkedLogits",
  "adaptive_kl_coef",
  "aot_loss",
  "aot_unpaired_loss",
  "apo_down_loss",
  "apo_zero_loss",
  "bco_loss",
  "bradley_terry_loss",
  "cispo_objective",
  "clip_cov_objective",
  "collision_entropy",
  "correctness_loss",
  "davidson_loss",
  "discopop_loss",
  "discounted_returns",
  "dpo_loss",
  "dual_clip_objective",
  "exo_loss",
  "gae",
  "generalized_jsd_loss",
  "group_centre",
  "group_normalize",
  "gspo_token_objective",
  "hinge_loss",
  "importance_weights",
  "ipo_loss",
  "kl_cov_objective",
  "kl_estimate",
  "kl_exact",
  "kto_loss",
  "leave_one_out",
  "length_adaptive_lambda",
  "lm_loss",
  "logprobs_and_entropy",
  "masked_sequence_ratios",
  "masked_token_ratios",
  "nca_loss",
  "optimal_baseline",
  "optimal_token_baseline",
  "orpo_loss",
  "pairwise_ranking_loss",
  "plackett_luce_loss",
  "ppo_policy_objective",
  "rating_loss",
  "reinforce_objective",
  "reward_centring_loss",
  "robust_dpo_loss",
  "sapo_objective",
  "score_energy",
  "sequence_ratio_objective",
  "shaped_rewards",
  "simpo_loss",
  "sppo_hard_loss",
  "token_entropy",
  "token_logprobs",
  "truncated_logits",
  "value_loss",
  "wpo_weights",
]
