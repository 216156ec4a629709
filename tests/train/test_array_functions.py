"""Objectives, losses and advantages that a config names: what they get, what they may return, how they fail."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.algorithms import dpo, grpo, ppo
from rlhf_jax.objectives import dual_clip_objective, group_normalize, ppo_policy_objective
from rlhf_jax.train import ArrayFunction, RewardError, array_function, group_advantages, policy_objective
from rlhf_jax.train.comparisons import pair_weights
from rlhf_jax.train.functions import called_in
from rlhf_jax.train.pair_losses import Loss, pair_loss
from rlhf_jax.types import Experience

OWN = """
import jax, jax.numpy as jnp
from rlhf_jax.objectives import bradley_terry_loss, ppo_policy_objective

def clipped(logp, batch, clip):
  return ppo_policy_objective(logp, batch.logp, batch.advantages, clip=clip, mask=batch.mask)

def by_name(logp, logp_old, logp_ref, *, advantages, mask, scale):
  return jnp.where(mask, (logp - logp_old) * advantages * scale + logp_ref, 0.0)

def by_length(scores, lengths):
  return scores / lengths

def plain(logp, batch):
  return jnp.where(batch.mask, logp * batch.advantages, 0.0)

def median(scores):
  return scores - jnp.median(scores, axis=-1, keepdims=True)

def hinge(chosen, rejected, ref_chosen, ref_rejected, *, beta, mask, at=1.0):
  return jnp.where(mask > 0, jax.nn.relu(at - beta * (chosen - ref_chosen - rejected + ref_rejected)), 0.0)

def aot(chosen, rejected, ref_chosen, ref_rejected, *, beta, mask):  # arXiv:2406.05882, sorted over the whole batch
  order = lambda x: jnp.sort(jnp.where(mask > 0, x, jnp.inf).ravel()).reshape(x.shape)
  gap = order(chosen - ref_chosen) - order(rejected - ref_rejected)
  gap = jnp.where(jnp.isfinite(gap), gap, 0.0)
  count = jnp.sum(mask > 0)
  losses = jnp.where(jnp.arange(gap.size).reshape(gap.shape) < count, bradley_terry_loss(beta * gap, 0.0), 0.0)
  return jnp.where(mask > 0, jnp.sum(losses) / count, 0.0)

def short(logp, *_, **__): return logp[:, 0]
def wrong(logp, *_, **__): return {}["no such key"]
def text(logp, *_, **__): return "0.5"
"""
SHAPE = (4, 6)
RNG = np.random.default_rng(0)
MASK = np.arange(6) < np.array([[6], [3], [1], [5]])
LOGP = -np.abs(RNG.normal(size=SHAPE)).astype(np.float32)
BATCH = Experience(
  np.zeros(SHAPE, np.int32), MASK, (LOGP + 0.3 * RNG.normal(size=SHAPE)).astype(np.float32),
  RNG.normal(size=SHAPE).astype(np.float32),
)  # fmt: skip


@pytest.fixture
def own(tmp_path):
  path = tmp_path / "own.py"
  path.write_text(OWN)
  return lambda name, **arguments: ArrayFunction(f"{path}:{name}", arguments)


def test_an_objective_of_ones_own_is_what_the_policy_maximises(own):
  found = policy_objective(own("clipped", clip=0.2), None)
  built_in = policy_objective(ArrayFunction(), lambda *a, mask: ppo_policy_objective(*a, clip=0.2, mask=mask))
  jax.tree.map(np.testing.assert_array_equal, jax.jit(found)(LOGP, BATCH), jax.jit(built_in)(LOGP, BATCH))
  value, clipped = policy_objective(own("plain"), None)(LOGP, BATCH)
  assert clipped is None and value.shape == SHAPE


def test_a_function_with_logp_old_gets_the_arrays_that_it_names(own):
  """So those of `rlhf_jax.objectives` need no function around them."""
  batch = BATCH.replace(logp_ref=2 * LOGP)
  value, clipped = jax.jit(policy_objective(own("by_name", scale=2.0), None))(LOGP, batch)
  expected = np.where(MASK, 2 * (LOGP - BATCH.logp) * BATCH.advantages + 2 * LOGP, 0)
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
  assert clipped is None
  settings = ArrayFunction("rlhf_jax.objectives:dual_clip_objective", dict(clip=0.1, bound=1.2))
  expected = dual_clip_objective(LOGP, BATCH.logp, BATCH.advantages, clip=0.1, bound=1.2, mask=MASK)
  jax.tree.map(np.testing.assert_array_equal, policy_objective(settings, None)(LOGP, BATCH), expected)


@pytest.mark.parametrize(
  "name, arguments",
  [
    ("dual_clip_objective", dict(clip=0.2, bound=3.0)), ("cispo_objective", dict(clip=(1.0, 0.3))),
    ("sapo_objective", {}), ("gspo_token_objective", dict(clip=(3e-4, 4e-4))), ("clip_cov_objective", dict(clip=0.2)),
    ("kl_cov_objective", {}), ("ppo_policy_objective", dict(clip=0.2)),
  ],
)  # fmt: skip
def test_every_surrogate_is_an_objective_of_a_config(name, arguments):
  """On-policy each is worth the advantage, or has its slope, and nothing is clipped but by choice."""
  batch = BATCH.replace(logp=LOGP)
  objective = policy_objective(ArrayFunction(f"rlhf_jax.objectives:{name}", arguments), None)
  slope = jax.grad(lambda logp: jnp.sum(objective(logp, batch)[0]))(LOGP)
  sure = objective(LOGP, batch)[1] if "cov" in name else np.zeros(SHAPE)
  expected = np.where(MASK, batch.advantages, 0)
  np.testing.assert_allclose(slope, np.where(sure, slope, expected), rtol=1e-5)


def test_advantages_by_groups_and_their_lengths(own):
  returns = np.float32([1, 2, 6, 3])
  mask = np.arange(6) < np.array([[4], [2], [3], [1]])
  found = group_advantages(array_function(own("by_length"), group_normalize), returns, mask, 2)
  np.testing.assert_array_equal(found, np.float32([0.25, 1, 2, 3])[:, None] * np.ones((1, 6)))
  found = group_advantages(array_function(own("median"), group_normalize), returns, mask, 2)
  np.testing.assert_array_equal(found[:, 0], [-0.5, 0.5, 1.5, -1.5])
  found = group_advantages(
    array_function(ArrayFunction("rlhf_jax.objectives:optimal_baseline"), None), returns, mask, 2
  )
  np.testing.assert_allclose(found[:, 0], [-1 / 3, 2 / 3, 0.75, -2.25], rtol=1e-6)


def test_ppo_and_grpo_train_what_the_function_says(own):
  apply = lambda params, tokens: params  # noqa: E731
  logits = RNG.normal(size=(*SHAPE, 5)).astype(np.float32)
  batch = BATCH.replace(logp_ref=LOGP, values=np.zeros(SHAPE, np.float32), returns=np.ones(SHAPE, np.float32))
  weights = MASK / MASK.sum()
  settings = dict(value_clip=0.2, value_coef=0.5, entropy_coef=0.1)
  value = np.zeros(SHAPE, np.float32)
  losses = {}
  for name, clip, objective in (("own", 9.0, own("clipped", clip=0.1)), ("built in", 0.1, None)):
    loss_fn = ppo.make_loss(lambda p, t: (p, value), clip=clip, **settings, objective=objective)
    losses["ppo", name] = loss_fn(logits, batch, weights)
    loss_fn = grpo.make_loss(apply, clip=(clip, clip), ratio="token", kl_coef=0.1, kl_kind="k3", objective=objective)
    losses["grpo", name] = loss_fn(logits, batch, weights)
  for algorithm in ("ppo", "grpo"):
    jax.tree.map(np.testing.assert_array_equal, losses[algorithm, "own"], losses[algorithm, "built in"])
  loss, metrics = ppo.make_loss(lambda p, t: (p, value), clip=0.1, **settings, objective=own("plain"))(
    logits, batch, weights
  )
  assert loss != losses["ppo", "own"][0] and "policy/clip_fraction" not in metrics


def test_advantages_of_ones_own(own):
  scores = np.float32([[1, 2, 6], [0, 0, 3]])
  assert array_function(ArrayFunction(), group_normalize) is group_normalize
  np.testing.assert_array_equal(array_function(own("median"), group_normalize)(scores), [[-1, 0, 4], [0, 0, 3]])


def groups():
  tokens = np.zeros((5, 3, 4), np.int32)
  ranks = np.array([[0, 1, 2], [1, 0, -1], [0, 0, 1], [2, 0, 1], [1, 1, 0]])
  ref = (-5 + RNG.normal(size=(5, 3))).astype(np.float32)
  return dpo.Groups(tokens, np.ones_like(tokens, bool), ref, np.zeros(5, np.float32)), pair_weights(ranks)


def test_a_loss_of_pairs_is_one_function_of_four_arrays(own):
  batch, weights = groups()
  logits = RNG.normal(size=(15, 4, 7)).astype(np.float32)
  apply = lambda params, tokens: params  # noqa: E731
  mine = dpo.make_loss(apply, Loss("own", 0.3, function=ArrayFunction("rlhf_jax.objectives:dpo_loss")))
  jax.tree.map(
    np.testing.assert_array_equal,
    mine(logits, batch, weights),
    dpo.make_loss(apply, Loss("dpo", 0.3))(logits, batch, weights),
  )
  logp = dpo.response_logprobs(apply, logits, batch.tokens, batch.mask)
  h = np.asarray(logp - batch.ref_logp)
  hinge, _ = dpo.make_loss(apply, Loss("own", 0.3, function=own("hinge", at=2.0)))(logits, batch, weights)
  expected = np.sum(weights * np.maximum(2.0 - 0.3 * (h[:, :, None] - h[:, None, :]), 0))
  assert hinge == pytest.approx(expected, rel=1e-5)


def test_a_loss_of_the_whole_batch_sees_all_of_its_pairs(own):
  """AOT sorts the margins of chosen and of rejected responses apart."""
  batch, weights = groups()
  logp = (-5 + RNG.normal(size=(5, 3))).astype(np.float32)
  losses = pair_loss(Loss("own", 0.5, function=own("aot")))(logp, batch.ref_logp, batch.kl, weights > 0)
  h, (n, i, j) = logp - batch.ref_logp, np.nonzero(weights)
  expected = np.mean(np.logaddexp(0, -0.5 * (np.sort(h[n, i]) - np.sort(h[n, j]))))
  np.testing.assert_allclose(np.asarray(losses)[weights > 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("short", r"own.py:short returned an array of shape \(4,\): it must have the shape \(4, 6\)"),
    ("wrong", r"own.py:wrong raised KeyError: 'no such key' \(.*own.py:\d+\)"),
    ("text", r"own.py:text returned str, which is no array"),
  ],
)
def test_a_failure_names_stage_step_function_and_line(own, name, message):
  for function in (policy_objective(own(name), None), lambda x, batch: array_function(own(name), jnp.sin)(x)):
    with pytest.raises(RewardError, match=f"^mine, step 3: .*{message}"), called_in("step 3", "mine"):
      jax.jit(function)(LOGP, BATCH)


def test_own_needs_a_function_and_the_others_have_none(own):
  for name, function in (("own", ArrayFunction()), ("dpo", own("hinge"))):
    with pytest.raises(ValueError, match="'own' needs a function, others none"):
      Loss(name, 0.1, function=function)
  assert (
    hash(own("hinge", at=2.0)) and dataclasses.replace(Loss("own", 0.1, function=own("hinge")), beta=0.2).beta == 0.2
  )
