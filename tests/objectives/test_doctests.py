"""The examples in the docstrings run, and every public function has one, with the names that users write."""

import doctest
import importlib
import inspect
import re

import jax
import pytest

from rlhf_jax import objectives, reduce

MODULES = [
  "reduce",
  *(
    f"objectives.{name}"
    for name in (
      "advantages",
      "anchored",
      "direct",
      "distillation",
      "kl",
      "language",
      "mismatch",
      "policy",
      "preference",
      "reference_free",
      "surrogates",
      "value",
    )
  ),
]
# More keyword arguments with defaults may come; these names and defaults stay.
API = """
token_logprobs(logits, tokens)
token_entropy(logits)
lm_loss(logits, tokens, *, z_loss=0.0, label_smoothing=0.0)
bradley_terry_loss(chosen, rejected, *, margin=0.0, label_smoothing=0.0)
pairwise_ranking_loss(rewards, ranks)
plackett_luce_loss(rewards, ranks)
reward_centring_loss(rewards, ranks)
correctness_loss(rewards, correct)
rating_loss(rewards, ratings)
dpo_loss(logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, *, beta, label_smoothing=0.0)
robust_dpo_loss(logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, *, beta, label_smoothing)
ipo_loss(logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, *, beta)
hinge_loss(logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, *, beta)
exo_loss(logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, *, beta, label_smoothing=0.001)
discopop_loss(logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, *, beta, temperature=0.05)
aot_loss(logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, *, beta, label_smoothing=0.0)
aot_unpaired_loss(logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, *, beta, label_smoothing=0.0)
nca_loss(logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, *, beta)
apo_zero_loss(logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, *, beta)
apo_down_loss(logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, *, beta)
sppo_hard_loss(logp_chosen, logp_rejected, ref_logp_chosen, ref_logp_rejected, *, beta)
wpo_weights(logp, entropy, mask)
collision_entropy(logits)
bco_loss(logp, ref_logp, desirable, shift, *, beta)
kto_loss(logp, ref_logp, desirable, kl, *, beta)
orpo_loss(logp_chosen, logp_rejected, *, beta)
simpo_loss(logp_chosen, logp_rejected, *, beta)
reinforce_objective(logp, advantages)
ppo_policy_objective(logp, logp_old, advantages, *, clip)
sequence_ratio_objective(logp, logp_old, advantages, mask, *, clip)
leave_one_out(rewards)
group_normalize(rewards, *, eps=1e-06, ddof=0)
gae(rewards, values, mask, *, discount=1.0, lam=0.95)
discounted_returns(rewards, mask, *, discount=1.0)
value_loss(values, values_old, returns, *, clip=None)
kl_estimate(logp, logp_ref, *, kind='k1')
kl_exact(logits, logits_ref)
shaped_rewards(scores, kl, mask, *, coef)
adaptive_kl_coef(coef, kl, num_samples, *, target, horizon)
masked_sum(x, mask)
masked_mean(x, mask)
masked_moments(x, mask)
whiten(x, mask, *, shift_mean=True)
weighted_sum(x, weights)
token_weights(mask)
sequence_weights(mask)
constant_weights(mask, length)
""".split("\n")[1:-1]


@pytest.mark.parametrize("line", API)
def test_the_public_names_and_arguments_stay(line):
  name, promised = line.split("(", 1)
  keywords = promised.partition("*")[2]
  signature = inspect.signature(getattr(objectives, name, None) or getattr(reduce, name))
  kept = [
    p.replace(annotation=p.empty)
    for p in signature.parameters.values()
    if p.kind is not p.KEYWORD_ONLY or re.search(rf"\b{p.name}\b", keywords)
  ]
  assert f"({promised}" == str(signature.replace(parameters=kept, return_annotation=signature.empty))
  added = signature.parameters.keys() - {p.name for p in kept}
  assert all(signature.parameters[name].default is not inspect.Parameter.empty for name in added)


def jitted(function):
  """An example is then one program to compile, not one for each of its operations."""
  parameters = inspect.signature(function).parameters.values()
  return jax.jit(function, static_argnames=[p.name for p in parameters if p.kind is p.KEYWORD_ONLY])


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
  module = importlib.import_module(f"rlhf_jax.{name}")
  public = {name: vars(module)[name] for name in module.__all__}
  assert [name for name, function in public.items() if ">>>" not in function.__doc__] in ([], ["float32"])
  examples = doctest.testmod(module, extraglobs={name: jitted(function) for name, function in public.items()})
  assert examples.attempted >= len(public) - 1 and not examples.failed
