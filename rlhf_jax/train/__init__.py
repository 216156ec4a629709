"""Everything between a loss function and a finished run: updates, transports, checkpoints, metrics, the loop.

Modules that only some algorithms need are imported by their names: `batches` and `comparisons` (data from files),
`judgements` (records of feedback), `heldout` (evaluation in batches of one shape).
"""

from rlhf_jax.train.array_functions import (
  ArrayFunction,
  PolicyObjective,
  array_function,
  group_advantages,
  policy_objective,
)
from rlhf_jax.train.checkpoint_errors import CheckpointError
from rlhf_jax.train.course import Loop
from rlhf_jax.train.critic import policy_and_value, with_critic
from rlhf_jax.train.environment import Environment, ImportanceWeights, PolicyConfig, make_environment
from rlhf_jax.train.episodes import Episodes
from rlhf_jax.train.epochs import check_minibatches, learner_counts, run_epochs
from rlhf_jax.train.features import kept_features, text_features
from rlhf_jax.train.functions import (
  Function,
  RewardError,
  make_critic,
  make_measure_function,
  make_score_function,
)
from rlhf_jax.train.greedy import make_greedy_scores
from rlhf_jax.train.loop import run_steps
from rlhf_jax.train.lora import Lora, adapt
from rlhf_jax.train.mesh import make_mesh
from rlhf_jax.train.normalization import make_normalize, normalize_head, score_moments, score_scale
from rlhf_jax.train.old_logprobs import with_logprobs
from rlhf_jax.train.optimizer import Optimizer, make_optimizer, make_schedule
from rlhf_jax.train.progress import report_skips
from rlhf_jax.train.prompts import PromptSet, encode_prompts, load_prompts, load_written
from rlhf_jax.train.ptx import Ptx, open_ptx, with_ptx
from rlhf_jax.train.rewards import (
  Reward,
  make_scorer,
  model_scorer,
  text_scorer,
)
from rlhf_jax.train.rl_metrics import experience_metrics, policy_metrics
from rlhf_jax.train.rows import by_rows, make_energies, make_logprobs
from rlhf_jax.train.sampler import Sampling, load_served, make_sampler
from rlhf_jax.train.signals import Interrupted
from rlhf_jax.train.speed import count_tokens
from rlhf_jax.train.update import (
  Functions,
  LossFn,
  Metrics,
  Update,
  exactly,
  init_state,
  make_functions,
  make_measure,
  make_update,
  place,
)
from rlhf_jax.train.watch import Watch
from rlhf_jax.train.workspace import (
  check_length,
  frozen,
  identity,
  load_imported,
  load_policy,
  load_reward_model,
  load_stage,
  open_workspace,
  policy_of,
  stage_key,
)

__all__ = [
  "ArrayFunction",
  "CheckpointError",
  "Environment",
  "Episodes",
  "Function",
  "Functions",
  "ImportanceWeights",
  "Interrupted",
  "Loop",
  "Lora",
  "LossFn",
  "Metrics",
  "Optimizer",
  "PolicyConfig",
  "PolicyObjective",
  "PromptSet",
  "Ptx",
  "Reward",
  "RewardError",
  "Sampling",
  "Update",
  "Watch",
  "adapt",
  "array_function",
  "by_rows",
  "check_length",
  "check_minibatches",
  "count_tokens",
  "encode_prompts",
  "exactly",
  "experience_metrics",
  "frozen",
  "group_advantages",
  "identity",
  "init_state",
  "kept_features",
  "learner_counts",
  "load_imported",
  "load_policy",
  "load_prompts",
  "load_written",
  "load_served",
  "load_reward_model",
  "load_stage",
  "make_critic",
  "make_energies",
  "make_environment",
  "make_greedy_scores",
  "make_logprobs",
  "make_functions",
  "make_measure",
  "make_measure_function",
  "make_mesh",
  "make_optimizer",
  "make_sampler",
  "make_schedule",
  "make_score_function",
  "make_scorer",
  "make_update",
  "model_scorer",
  "make_normalize",
  "normalize_head",
  "open_ptx",
  "open_workspace",
  "place",
  "policy_and_value",
  "policy_metrics",
  "policy_objective",
  "policy_of",
  "report_skips",
  "run_epochs",
  "run_steps",
  "score_moments",
  "score_scale",
  "stage_key",
  "text_features",
  "text_scorer",
  "with_logprobs",
  "with_critic",
  "with_ptx",
]
