"""No function of objectives/ or reduce broadcasts: an argument of another shape is refused while tracing.

Sizes are equal on purpose (B = T = V), so that a wrong shape would go through, along the wrong axis.
"""

import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from jax.typing import ArrayLike

from rlhf_jax import objectives, reduce

N = 4
PAIR, ROW, CUBE = (N, N), (N,), (N, N, N)
# function -> (its array arguments with their shapes, other arguments)
FOUR = dict.fromkeys(("logp_chosen", "logp_rejected", "ref_logp_chosen", "ref_logp_rejected", "mask"), PAIR)
TWO = dict.fromkeys(("logp_chosen", "logp_rejected", "mask"), PAIR)
PPO = dict.fromkeys(("logp", "logp_old", "advantages", "mask"), PAIR)
SHAPES = {
  "aot_loss": (FOUR | dict.fromkeys(("beta", "label_smoothing"), PAIR), {}),
  "aot_unpaired_loss": (FOUR | dict.fromkeys(("beta", "label_smoothing"), PAIR), {}),
  "apo_down_loss": (FOUR | dict(beta=PAIR), {}),
  "apo_zero_loss": (FOUR | dict(beta=PAIR), {}),
  "bco_loss": (dict.fromkeys(("logp", "ref_logp", "desirable", "shift", "beta", "mask"), PAIR), {}),
  "bradley_terry_loss": (dict.fromkeys(("chosen", "rejected", "margin", "label_smoothing", "mask"), PAIR), {}),
  "discounted_returns": (dict.fromkeys(("rewards", "mask", "discount"), PAIR), {}),
  "collision_entropy": (dict(logits=CUBE, mask=PAIR), {}),
  "correctness_loss": (dict.fromkeys(("rewards", "correct", "mask"), PAIR), {}),
  "davidson_loss": (dict.fromkeys(("chosen", "rejected", "tied", "tie", "margin", "mask"), PAIR), {}),
  "discopop_loss": (FOUR | dict.fromkeys(("beta", "temperature"), PAIR), {}),
  "dpo_loss": (FOUR | dict.fromkeys(("beta", "label_smoothing"), PAIR), {}),
  "exo_loss": (FOUR | dict.fromkeys(("beta", "label_smoothing"), PAIR), {}),
  "gae": (dict.fromkeys(("rewards", "values", "mask", "discount", "lam"), PAIR) | dict(bootstrap=ROW), {}),
  "hinge_loss": (FOUR | dict(beta=PAIR), {}),
  "ipo_loss": (FOUR | dict(beta=PAIR), {}),
  "kl_estimate": (dict.fromkeys(("logp", "logp_ref", "mask"), PAIR), {}),
  "kl_exact": (dict(logits=CUBE, logits_ref=CUBE, mask=PAIR), {}),
  "kto_loss": (
    dict.fromkeys(
      ("logp", "ref_logp", "desirable", "kl", "beta", "desirable_weight", "undesirable_weight", "mask"), PAIR
    ),
    {},
  ),
  "lm_loss": (dict(logits=CUBE, tokens=PAIR, mask=PAIR), {}),
  "logprobs_and_entropy": (dict(logits=CUBE, tokens=PAIR, mask=PAIR), {}),
  "nca_loss": (FOUR | dict(beta=PAIR), {}),
  "orpo_loss": (TWO | dict(beta=PAIR), {}),
  "pairwise_ranking_loss": (dict(rewards=PAIR, ranks=PAIR, margin=ROW, tie=ROW), {}),
  "plackett_luce_loss": (dict(rewards=PAIR, ranks=PAIR), {}),
  "cispo_objective": (PPO, dict(clip=0.2)),
  "clip_cov_objective": (PPO, dict(clip=0.2)),
  "dual_clip_objective": (PPO, dict(clip=0.2)),
  "generalized_jsd_loss": (dict(logits=CUBE, logits_teacher=CUBE, mask=PAIR), dict(beta=0.5)),
  "gspo_token_objective": (PPO, dict(clip=0.2)),
  "kl_cov_objective": (PPO, {}),
  "masked_sequence_ratios": (dict.fromkeys(("logp", "logp_sampler", "mask"), PAIR), {}),
  "importance_weights": (dict.fromkeys(("logp", "logp_sampler", "mask"), PAIR), {"cap": 2.0}),
  "masked_token_ratios": (dict.fromkeys(("logp", "logp_sampler", "mask"), PAIR), {}),
  "optimal_baseline": (dict(rewards=PAIR, lengths=PAIR), {}),
  "optimal_token_baseline": (dict.fromkeys(("returns", "energies", "mask"), CUBE), {}),
  "ppo_policy_objective": (PPO, dict(clip=0.2)),
  "sapo_objective": (PPO, {}),
  "score_energy": (dict(logits=CUBE, tokens=PAIR, mask=PAIR), {}),
  "rating_loss": (dict.fromkeys(("rewards", "ratings", "mask"), PAIR), {}),
  "reinforce_objective": (dict.fromkeys(("logp", "advantages", "mask"), PAIR), {}),
  "reward_centring_loss": (dict(rewards=PAIR, ranks=PAIR), {}),
  "robust_dpo_loss": (FOUR | dict.fromkeys(("beta", "label_smoothing"), PAIR), {}),
  "sequence_ratio_objective": (dict(logp=PAIR, logp_old=PAIR, advantages=ROW, mask=PAIR), dict(clip=0.2)),
  "shaped_rewards": (dict(scores=ROW, kl=PAIR, mask=PAIR, token_scores=PAIR), dict(coef=0.1)),
  "simpo_loss": (TWO | dict(beta=PAIR, margin=PAIR), {}),
  "sppo_hard_loss": (FOUR | dict(beta=PAIR), {}),
  "token_entropy": (dict(logits=CUBE, mask=PAIR), {}),
  "token_logprobs": (dict(logits=CUBE, tokens=PAIR, mask=PAIR), {}),
  "value_loss": (dict.fromkeys(("values", "values_old", "returns", "mask"), PAIR), dict(clip=0.2)),
  "masked_mean": (dict(x=PAIR, mask=PAIR), {}),
  "masked_moments": (dict(x=PAIR, mask=PAIR), {}),
  "masked_sum": (dict(x=PAIR, mask=PAIR), {}),
  "per_token": (dict(x=ROW, like=PAIR), {}),
  "select": (dict(x=PAIR, mask=PAIR), {}),
  "select_rows": (dict(x=CUBE, mask=PAIR), {}),
  "wpo_weights": (dict.fromkeys(("logp", "entropy", "mask"), PAIR), {}),
  "weighted_sum": (dict(x=PAIR, weights=PAIR), {}),
  "whiten": (dict(x=PAIR, mask=PAIR), {}),
}
# One array, or none: there is nothing to broadcast it against.
ALONE = {
  "ChunkedLogits",
  "adaptive_kl_coef",
  "constant_weights",
  "float32",
  "group_centre",
  "group_normalize",
  "leave_one_out",
  "length_adaptive_lambda",
  "ordered_pairs",
  "sequence_weights",
  "tied_pairs",
  "token_weights",
  "truncated_logits",  # whose support counts bits: tests/objectives/test_truncation.py
}


def function_of(name):
  """The function itself, without the check of its annotations that tests add."""
  return inspect.unwrap(getattr(objectives, name, None) or getattr(reduce, name))


def wrong(shape):
  """Other shapes of at least one axis, all of which broadcast against `shape` or one that is longer by an axis."""
  found = {(*shape, N), (N, *shape), (1, *shape), (*shape, 1), shape[:-1]}
  for sizes in itertools.product((1, N), repeat=len(shape)):
    found.add(sizes)
  return sorted(found - {shape, ()})


def made(shape, dtype=np.float32):
  return np.ones(shape, dtype)


def arguments(shapes):
  integers = ("tokens", "ranks", "mask", "desirable", "correct", "tied")
  return {name: made(shape, np.int32 if name in integers else np.float32) for name, shape in shapes.items()}


def tried(name):
  """The arguments with one of another shape each, and its name."""
  shapes, _ = SHAPES[name]
  right = arguments(shapes)
  for key, whole in shapes.items():
    rows = [other for other, shape in shapes.items() if shape == whole and other != key]
    for shape in wrong(whole):
      if rows or shape[:-1] != whole[:-1]:  # where there is a value for each row alone, rows may have any length
        yield key, right | {key: made(shape, right[key].dtype)}


def test_every_function_of_several_arrays_is_tried():
  public = {name for name in (*objectives.__all__, *reduce.__all__) if name != "check_shapes"}
  assert set(SHAPES) | ALONE == public
  assert sum(len(list(tried(name))) for name in SHAPES) > 900


@pytest.mark.parametrize("name", SHAPES)
def test_the_right_shapes_go_through_and_every_other_is_refused(name):
  shapes, options = SHAPES[name]
  function = functools.partial(function_of(name), **options)
  jax.eval_shape(lambda arrays: function(**arrays), arguments(shapes))
  for key, bad in tried(name):
    with pytest.raises(ValueError, match=f"^{name}: .* needs the shape") as refusal:
      jax.eval_shape(lambda arrays: function(**arrays), bad)
    assert f"{bad[key].shape}" in str(refusal.value)


@pytest.mark.parametrize("name", sorted({*objectives.__all__, *reduce.__all__} - {"ChunkedLogits", "check_shapes"}))
def test_every_array_of_a_public_function_has_its_axes_in_its_annotation(name):
  function = getattr(objectives, name, None) or getattr(reduce, name)
  for key, annotation in inspect.unwrap(function).__annotations__.items():
    assert annotation not in (ArrayLike, jax.Array), f"{name}: {key}"


def test_annotations_are_checked_in_tests():
  with pytest.raises(jaxtyping.TypeCheckError, match="advantages"):
    objectives.reinforce_objective(jnp.zeros((3, 4)), jnp.zeros((4, 3)))


HOW = ("eager", "jit", "vmap", "pmap", "shard_map")


@pytest.mark.parametrize("how", HOW)
def test_a_wrong_shape_is_refused_under_every_transform(how):
  devices = jax.device_count()
  mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
  spec = PartitionSpec("data")
  objective = function_of("ppo_policy_objective")

  def inner(logp, advantages):
    return objective(logp, logp, advantages, clip=0.2)

  several = lambda x: np.stack([x] * devices)  # noqa: E731
  transformed, place = {
    "eager": (inner, jnp.asarray),
    "jit": (jax.jit(inner), jnp.asarray),
    "vmap": (jax.vmap(inner), several),
    "pmap": (jax.pmap(inner), several),
    "shard_map": (jax.shard_map(jax.vmap(inner), mesh=mesh, in_specs=spec, out_specs=spec), several),
  }[how]
  jax.block_until_ready(transformed(place(made(PAIR)), place(made(PAIR))))
  for shape in ((N,), (N, 1), (1, N)):
    with pytest.raises(ValueError, match=r"advantages has shape .* and logp has \(4, 4\)"):
      transformed(place(made(PAIR)), place(made(shape)))


def test_a_scalar_stands_for_every_element():
  logp = jnp.linspace(-3.0, -1.0, 12).reshape(3, 4)
  mask = jnp.arange(4) < jnp.array([[4], [2], [0]])
  whole = functools.partial(jnp.full, logp.shape)
  for given in (lambda x: x, jnp.float32, whole):
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    close(objectives.reinforce_objective(logp, given(2.0), mask=mask), jnp.where(mask, 2 * logp, 0))
    close(objectives.bradley_terry_loss(logp, 0.0, margin=given(0.5)), jnp.log1p(jnp.exp(0.5 - logp)))
    close(objectives.gae(logp, given(0.0), mask, lam=given(0.0)), jnp.where(mask, logp, 0))
    close(objectives.kto_loss(logp, logp, True, given(0.0), beta=given(0.1)), whole(0.5))
    close(reduce.weighted_sum(logp, given(0.5)), 0.5 * jnp.sum(logp))
    close(reduce.masked_mean(logp, given(1)), jnp.mean(logp))
