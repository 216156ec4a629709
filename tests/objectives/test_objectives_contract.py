"""What every objective keeps to: masks, empty masks, stopped gradients, dtypes, finite differences, transforms.

The functions under test run side by side in one program per transform, since compiling is most of the cost; each
test then looks at one of them.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify
from jax.sharding import AxisType, PartitionSpec

from rlhf_jax import objectives as O

B, T, V = 3, 5, 4
# A whole row, a stretch that starts late and ends early, and a row without a token.
MASK = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
EMPTY, ALL = np.zeros_like(MASK), np.ones_like(MASK)
RANKS = np.array([[0, 2, 1, 2, 3], [9, 0, 1, 9, 9], [9, 9, 9, 9, 9]])
rng = np.random.default_rng(0)


def normal(*shape):
  return rng.normal(size=shape).astype(np.float32)


def logprobs(*shape):
  return -np.abs(normal(*shape)) - 0.1


class Case(NamedTuple):
  function: Callable[..., jax.Array]  # of the arguments and mask
  arguments: dict[str, np.ndarray]  # [B, T, ...] or [B]
  frozen: str = ""  # arguments that no gradient may reach


def ranked(loss):
  return lambda rewards, mask: loss(rewards, RANKS if mask is None else jnp.where(mask, RANKS, -1))


TWO = dict(logp_chosen=logprobs(B, T), logp_rejected=logprobs(B, T))
FOUR = dict(**TWO, ref_logp_chosen=logprobs(B, T), ref_logp_rejected=logprobs(B, T))
PPO = dict(logp=logprobs(B, T), logp_old=logprobs(B, T), advantages=normal(B, T))
KTO = dict(logp=logprobs(B, T), ref_logp=logprobs(B, T), desirable=np.arange(B * T).reshape(B, T) % 2, kl=normal(B, T))
BCO = {"shift" if key == "kl" else key: array for key, array in KTO.items()}
GSPO = PPO | dict(advantages=normal(B))
TOKENS = dict(logits=normal(B, T, V), tokens=rng.integers(0, V, (B, T)))
VALUES = dict(values=normal(B, T), values_old=normal(B, T), returns=normal(B, T))
LOGPS = dict(logp=logprobs(B, T), logp_ref=logprobs(B, T))
SAMPLER = dict(logp=LOGPS["logp"], logp_sampler=LOGPS["logp_ref"])
TEACHER = dict(logits=TOKENS["logits"], logits_teacher=-TOKENS["logits"][::-1])

CASES = {
  "token_logprobs": Case(O.token_logprobs, TOKENS),
  "logprobs_and_entropy": Case(lambda **kw: sum(O.logprobs_and_entropy(**kw)), TOKENS),
  "ChunkedLogits": Case(
    lambda logits, tokens, mask: O.token_logprobs(O.ChunkedLogits(logits, lambda x: x, 2), tokens, mask=mask), TOKENS
  ),
  "token_entropy": Case(O.token_entropy, dict(logits=normal(B, T, V))),
  "collision_entropy": Case(O.collision_entropy, dict(logits=normal(B, T, V))),
  "lm_loss": Case(functools.partial(O.lm_loss, z_loss=0.1, label_smoothing=0.2), TOKENS),
  "bradley_terry_loss": Case(
    functools.partial(O.bradley_terry_loss, label_smoothing=0.1),
    dict(chosen=normal(B, T), rejected=normal(B, T), margin=normal(B, T)),
  ),
  "pairwise_ranking_loss": Case(ranked(O.pairwise_ranking_loss), dict(rewards=normal(B, T))),
  "plackett_luce_loss": Case(ranked(O.plackett_luce_loss), dict(rewards=normal(B, T))),
  "reward_centring_loss": Case(ranked(O.reward_centring_loss), dict(rewards=normal(B, T))),
  "correctness_loss": Case(O.correctness_loss, dict(rewards=normal(B, T), correct=KTO["desirable"])),
  "rating_loss": Case(O.rating_loss, dict(rewards=normal(B, T), ratings=normal(B, T))),
  "dpo_loss": Case(
    functools.partial(O.dpo_loss, beta=0.5, label_smoothing=0.1), FOUR, "ref_logp_chosen ref_logp_rejected"
  ),
  **{
    name: Case(functools.partial(getattr(O, name), beta=0.5, **options), FOUR, "ref_logp_chosen ref_logp_rejected")
    for name, options in {
      "ipo_loss": {},
      "robust_dpo_loss": dict(label_smoothing=0.1),
      "hinge_loss": {},
      "exo_loss": dict(label_smoothing=0.1),
      "discopop_loss": dict(temperature=0.5),
      "aot_loss": dict(label_smoothing=0.1),
      "aot_unpaired_loss": dict(label_smoothing=0.1),
      "nca_loss": {},
      "apo_zero_loss": {},
      "apo_down_loss": {},
      "sppo_hard_loss": {},
    }.items()
  },
  "bco_loss": Case(functools.partial(O.bco_loss, beta=0.5), BCO, "ref_logp shift"),
  "kto_loss": Case(functools.partial(O.kto_loss, beta=0.5, desirable_weight=2.0), KTO, "ref_logp kl"),
  "orpo_loss": Case(functools.partial(O.orpo_loss, beta=0.5), TWO),
  "simpo_loss": Case(functools.partial(O.simpo_loss, beta=0.5, margin=0.3), TWO),
  "reinforce_objective": Case(O.reinforce_objective, dict(logp=logprobs(B, T), advantages=normal(B, T)), "advantages"),
  "ppo_policy_objective": Case(
    lambda **kw: O.ppo_policy_objective(**kw, clip=(0.5, 0.7))[0], PPO, "logp_old advantages"
  ),
  "sequence_ratio_objective": Case(
    lambda mask, **kw: O.sequence_ratio_objective(**kw, mask=ALL if mask is None else mask, clip=5.0)[0],
    GSPO,
    "logp_old advantages",
  ),
  "cispo_objective": Case(lambda **kw: O.cispo_objective(**kw, clip=(1.0, 9.0))[0], PPO, "logp_old advantages"),
  "clip_cov_objective": Case(
    lambda **kw: O.clip_cov_objective(**kw, clip=(0.5, 0.7), low=1e3, high=1e4)[0], PPO, "logp_old advantages"
  ),
  "dual_clip_objective": Case(
    lambda **kw: O.dual_clip_objective(**kw, clip=(0.5, 0.7), bound=4.0)[0], PPO, "logp_old advantages"
  ),
  "gspo_token_objective": Case(
    lambda mask, **kw: O.gspo_token_objective(**kw, mask=ALL if mask is None else mask, clip=5.0)[0],
    PPO,
    "logp_old advantages",
  ),
  "kl_cov_objective": Case(lambda **kw: O.kl_cov_objective(**kw, share=1.0)[0], PPO, "logp_old advantages"),
  "sapo_objective": Case(O.sapo_objective, PPO, "logp_old advantages"),
  "importance_weights": Case(functools.partial(O.importance_weights, cap=1.1), SAMPLER, "logp logp_sampler"),
  "masked_token_ratios": Case(O.masked_token_ratios, SAMPLER, "logp logp_sampler"),
  "masked_sequence_ratios": Case(
    lambda mask, **kw: O.masked_sequence_ratios(**kw, mask=ALL if mask is None else mask, high=1e9),
    SAMPLER,
    "logp logp_sampler",
  ),
  "generalized_jsd_loss": Case(functools.partial(O.generalized_jsd_loss, beta=0.3), TEACHER, "logits_teacher"),
  "score_energy": Case(O.score_energy, TOKENS),
  "gae": Case(
    lambda mask, **kw: O.gae(**kw, mask=ALL if mask is None else mask, discount=0.9, lam=0.8),
    dict(rewards=normal(B, T), values=normal(B, T)),
  ),
  "discounted_returns": Case(
    lambda mask, **kw: O.discounted_returns(**kw, mask=ALL if mask is None else mask, discount=0.9),
    dict(rewards=normal(B, T)),
  ),
  "value_loss": Case(O.value_loss, VALUES | dict(values_old=None), "returns"),
  "value_loss_clipped": Case(functools.partial(O.value_loss, clip=0.5), VALUES, "values_old returns"),
  "kl_estimate_k1": Case(functools.partial(O.kl_estimate, kind="k1"), LOGPS, "logp_ref"),
  "kl_estimate_k2": Case(functools.partial(O.kl_estimate, kind="k2"), LOGPS, "logp_ref"),
  "kl_estimate_k3": Case(functools.partial(O.kl_estimate, kind="k3"), LOGPS, "logp_ref"),
  "kl_exact": Case(O.kl_exact, dict(logits=normal(B, T, V), logits_ref=normal(B, T, V)), "logits_ref"),
  "shaped_rewards": Case(
    lambda mask, **kw: O.shaped_rewards(**kw, mask=ALL if mask is None else mask, coef=0.1),
    dict(scores=normal(B), kl=normal(B, T)),
  ),
  "davidson_loss": Case(
    functools.partial(O.davidson_loss, tie=0.7),
    dict(zip(("chosen", "rejected", "margin"), VALUES.values(), strict=True)) | dict(tied=KTO["desirable"]),
  ),
  "pairwise_ranking_loss_with_ties": Case(
    ranked(functools.partial(O.pairwise_ranking_loss, tie=0.7)), dict(rewards=VALUES["values"])
  ),
}
ARGUMENTS = {name: {k: v for k, v in case.arguments.items() if v is not None} for name, case in CASES.items()}
WEIGHTS = normal(B, T)
OF_THE_BATCH = {"aot_loss", "aot_unpaired_loss"}  # every element sees all that the mask leaves
every_case = pytest.mark.parametrize("name", CASES)


def call(name, arguments, mask):
  case = CASES[name]
  missing = {key: None for key in case.arguments if key not in arguments}
  return case.function(**arguments, **missing, mask=mask)


def evaluate(arguments, mask):
  """Each case's value, and the gradient of its weighted sum in every float argument."""

  def one(name, arguments):
    floats = {key: x for key, x in arguments.items() if jnp.issubdtype(x.dtype, jnp.floating)}
    rest = {key: x for key, x in arguments.items() if key not in floats}

    def total(floats):
      value = call(name, floats | rest, mask)
      return jnp.sum(value * (WEIGHTS if value.ndim == 2 else WEIGHTS[:, 0])), value

    gradient, value = jax.grad(total, has_aux=True)(floats)
    return value, gradient

  return {name: one(name, arguments[name]) for name in arguments}


def values_of(arguments, mask):
  return {name: call(name, arguments[name], mask) for name in arguments}


jitted = jax.jit(evaluate)
# For the programs that are run once, half the time to compile.
jit_quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def poisoned(arguments, mask, poison):
  """Arguments with `poison` (or for integers an index out of range) wherever the mask is off."""

  def one(x):
    on = mask if x.ndim > 1 else mask.any(-1)
    bad = np.float32(poison) if x.dtype == np.float32 else 10**6
    return np.where(on.reshape(on.shape + (1,) * (x.ndim - on.ndim)), x, bad).astype(x.dtype)

  return jax.tree.map(one, arguments)


@functools.cache
def results(poison=None, empty=False):
  mask = EMPTY if empty else MASK
  return jitted(ARGUMENTS if poison is None else poisoned(ARGUMENTS, mask, poison), mask)


def test_every_function_is_covered():
  not_per_token = {
    "adaptive_kl_coef", "group_centre", "group_normalize", "leave_one_out", "length_adaptive_lambda",
    "optimal_baseline", "optimal_token_baseline", "truncated_logits", "wpo_weights",
  }  # fmt: skip
  covered = {name.removesuffix("_clipped").removesuffix("_k1").removesuffix("_with_ties") for name in CASES} - {
    "kl_estimate_k2",
    "kl_estimate_k3",
  }
  assert covered | not_per_token == set(O.__all__)
  assert all(callable(getattr(O, name)) for name in O.__all__)


@every_case
def test_masked_positions_change_nothing(name):
  value, gradient = results()[name]
  for poison in (float("nan"), float("inf"), -float("inf"), 3e38):
    poisoned_value, poisoned_gradient = results(poison)[name]
    np.testing.assert_array_equal(poisoned_value, value)
    jax.tree.map(np.testing.assert_array_equal, poisoned_gradient, gradient)


@pytest.mark.parametrize("name", ["lm_loss", "sequence_ratio_objective"])
def test_masked_inputs_are_replaced_before_any_arithmetic(name):
  # Here a selection of the results alone would pass the test above, and leave NaN in the gradient of an option.
  checked = checkify.checkify(functools.partial(call, name), errors=checkify.nan_checks)
  error, _ = jax.jit(checked)(poisoned(ARGUMENTS[name], MASK, float("nan")), MASK)
  error.throw()


@every_case
def test_value_and_gradient_are_zero_where_masked(name):
  value, gradient = results()[name]
  for leaf in (value, *gradient.values()):
    assert not np.any(leaf[~(MASK if leaf.ndim > 1 else MASK.any(-1))])


@every_case
def test_an_empty_mask_gives_zeros(name):
  for leaf in jax.tree.leaves(results(float("nan"), empty=True)[name]):
    np.testing.assert_array_equal(leaf, 0)


@every_case
def test_gradients_are_stopped_at_what_is_held_fixed_and_only_there(name):
  _, gradient = results()[name]
  frozen = CASES[name].frozen.split()
  for key, leaf in gradient.items():
    assert np.any(leaf) == (key not in frozen), key


@functools.cache
def without_mask():
  return jit_quickly(functools.partial(values_of, mask=None))(ARGUMENTS)


@pytest.mark.parametrize("name", [name for name in CASES if name not in OF_THE_BATCH])
def test_the_mask_leaves_the_other_values_alone(name):
  # The whole row of MASK sees all of its sequence; for functions of one position the other rows must agree too.
  masked, plain = np.asarray(results()[name][0]), np.asarray(without_mask()[name])
  np.testing.assert_allclose(masked[0], plain[0], rtol=1e-6, atol=1e-6)
  along = {"gae", "discounted_returns", "gspo_token_objective", "masked_sequence_ratios"}
  along |= {"sequence_ratio_objective", "shaped_rewards"}
  if masked.ndim == 2 and name not in along:
    np.testing.assert_allclose(masked[MASK], plain[MASK], rtol=1e-6, atol=1e-6)


@functools.cache
def in_bfloat16():
  low = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.dtype == np.float32 else x, ARGUMENTS)
  back = jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == jnp.bfloat16 else x, low)
  return jit_quickly(values_of)(low, MASK), jitted(back, MASK)


@every_case
def test_bfloat16_inputs_are_computed_in_float32(name):
  low, exact = in_bfloat16()[0][name], in_bfloat16()[1][name][0]
  assert low.dtype == exact.dtype == jnp.float32
  np.testing.assert_allclose(low, exact, rtol=1e-5, atol=1e-6)


STEP = 1e-2


@functools.cache
def differences():
  """Random directions in what is not held fixed, and the results a step along and a step against each."""
  draw = np.random.default_rng(1)
  of_ties = np.random.default_rng(2)  # so that the directions of what has kinks are still those that meet none

  def direction(name, key, x):
    live = x.dtype == np.float32 and key not in CASES[name].frozen.split()
    generator = of_ties if name in ("davidson_loss", "pairwise_ranking_loss_with_ties") else draw
    return (generator.normal(size=x.shape) * live).astype(x.dtype)

  def moved(along, step):
    return jitted(jax.tree.map(lambda x, d: (x + step * d).astype(x.dtype), ARGUMENTS, along), MASK)

  directions = [
    {n: {key: direction(n, key, x) for key, x in a.items()} for n, a in ARGUMENTS.items()} for _ in range(6)
  ]
  return [(along, moved(along, STEP), moved(along, -STEP)) for along in directions]


# Their slope is not that of their value, on purpose: part of it is held fixed.
FIXED_IN_PART = {"cispo_objective", "gspo_token_objective"}


@pytest.mark.parametrize("name", [name for name in CASES if name not in FIXED_IN_PART])
def test_gradients_equal_finite_differences(name):
  _, gradient = results()[name]
  for along, ahead, behind in differences():
    rise = np.asarray(ahead[name][0], np.float64) - np.asarray(behind[name][0], np.float64)
    slope = sum(np.sum(np.asarray(g) * along[name][key]) for key, g in gradient.items())
    # The tolerance allows for curvature, and for a kink (a clip) between the two points.
    weighted = np.sum(rise * (WEIGHTS if rise.ndim == 2 else WEIGHTS[:, 0]))
    np.testing.assert_allclose(slope, weighted / (2 * STEP), rtol=2e-2, atol=2e-2)


@functools.cache
def in_parallel(how):
  """Results of (ARGUMENTS, MASK) and (others, ALL), vmapped on each device; and what they should be."""
  devices = jax.device_count()
  others = jax.tree.map(lambda x: x[::-1], ARGUMENTS)
  batch = jax.tree.map(lambda *x: np.stack([np.stack(x)] * devices), (ARGUMENTS, MASK), (others, ALL))
  expected = jax.tree.map(lambda *x: np.stack([np.stack(x)] * devices), jitted(ARGUMENTS, MASK), jitted(others, ALL))
  if how == "pmap":
    values = jax.pmap(jax.vmap(values_of))(*batch)
    return values, {name: value for name, (value, _) in expected.items()}
  mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
  spec = PartitionSpec("data")
  vmapped = jax.vmap(jax.vmap(evaluate))  # over the one part of each device, and over what it holds
  return jit_quickly(jax.shard_map(vmapped, mesh=mesh, in_specs=spec, out_specs=spec))(*batch), expected


@pytest.mark.parametrize("how", ["pmap", "shard_map"])
@every_case
def test_vmapped_on_every_device_the_result_is_the_same(name, how):
  found, expected = in_parallel(how)
  jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-5, atol=1e-5), found[name], expected[name])
