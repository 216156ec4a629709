"""Policies that sample from a part of the vocabulary: what is learnt from them, exactly, by enumeration."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.objectives import (
  ChunkedLogits,
  kl_estimate,
  kl_exact,
  lm_loss,
  logprobs_and_entropy,
  ppo_policy_objective,
  reinforce_objective,
  token_entropy,
  token_logprobs,
  truncated_logits,
)
from rlhf_jax.sampling import sample_supported, truncate

V = 11
LOGITS = np.random.default_rng(0).normal(0, 1.0, V).astype(np.float32)
TRUNCATIONS = {"top_k": dict(top_k=4), "top_p": dict(top_p=0.7), "min_p": dict(min_p=0.3)}
every_truncation = pytest.mark.parametrize("settings", TRUNCATIONS.values(), ids=TRUNCATIONS)
REWARDS = np.random.default_rng(1).normal(0, 1, V).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("top_k", "top_p", "min_p"))
def support_of(logits, **settings):
  """u8[bytes] of the tokens that can be drawn from logits[V]."""
  return sample_supported(jnp.zeros(1), logits[None], temperature=1.0, **settings)[2][0]


def probabilities(logits, settings):
  weights = np.asarray(truncate(jnp.exp(logits - jnp.max(logits))[None], **settings))[0].astype(np.float64)
  return weights / weights.sum()


@every_truncation
@pytest.mark.parametrize("temperature", [0.5, 1.7])
def test_the_draw_its_log_prob_and_its_support_are_those_of_the_truncated_policy(settings, temperature):
  rows = 400
  logits = jnp.tile(LOGITS, (rows, 1))
  uniform = jax.random.uniform(jax.random.key(0), (rows,))
  tokens, logp, support = sample_supported(uniform, logits, temperature=temperature, **settings)
  p = probabilities(LOGITS / temperature, settings)
  assert 1 < np.count_nonzero(p) < V
  np.testing.assert_allclose(logp, np.log(p[np.asarray(tokens)]), rtol=1e-5)
  assert support.dtype == jnp.uint8 and support.shape == (rows, 2)
  np.testing.assert_array_equal(np.unpackbits(support, axis=1, count=V), np.tile(p > 0, (rows, 1)))
  assert set(np.asarray(tokens).tolist()) <= set(np.flatnonzero(p).tolist())
  # What training computes from the same logits.
  again = token_logprobs(truncated_logits(logits / temperature, support), tokens)
  np.testing.assert_allclose(again, logp, atol=1e-5)


@every_truncation
def test_the_gradient_is_that_of_the_truncated_policy(settings):
  """sum_a p(a) grad objective(a) = grad E_p[R], p the softmax over the tokens that could be drawn, those held fixed."""
  support = jnp.tile(support_of(LOGITS, **settings), (V, 1))
  actions, p = jnp.arange(V), probabilities(LOGITS, settings)
  inside = p > 0

  def expected(theta):
    weights = jnp.where(inside, jnp.exp(theta), 0.0)
    return jnp.sum(weights * REWARDS) / jnp.sum(weights)

  def mean_of(objective):
    def total(theta):
      logp = token_logprobs(truncated_logits(jnp.tile(theta, (V, 1)), support), actions, mask=inside)
      return jnp.sum(jnp.where(inside, p * objective(logp), 0.0))

    return jax.grad(total)(LOGITS)

  exact = jax.grad(expected)(LOGITS)
  old = jnp.log(jnp.where(inside, p, 1.0))
  found = {
    "reinforce": mean_of(lambda logp: reinforce_objective(logp, REWARDS, mask=inside)),
    "ppo": mean_of(lambda logp: ppo_policy_objective(logp, old, REWARDS, clip=0.2, mask=inside)[0]),
  }
  for name, gradient in found.items():
    np.testing.assert_allclose(gradient, exact, atol=1e-6, err_msg=name)
  # With a constant reward nothing is learnt: the scores of the truncated policy have mean 0.
  constant = mean_of(lambda logp: reinforce_objective(logp, 1.0, mask=inside))
  np.testing.assert_allclose(constant, 0, atol=1e-6)


def test_under_the_whole_softmax_a_constant_reward_takes_the_entropy_away():
  """What the support is for: 150 exact steps of REINFORCE with reward 1, of actions drawn from the four likeliest."""
  settings = TRUNCATIONS["top_k"]
  actions = jnp.arange(V)

  def total(theta, p, support):
    logits = jnp.tile(theta, (V, 1))
    logits = logits if support is None else truncated_logits(logits, jnp.tile(support, (V, 1)))
    logp = token_logprobs(logits, actions, mask=p > 0)
    return jnp.sum(p * reinforce_objective(logp, 1.0, mask=p > 0))

  step = jax.jit(jax.grad(total))
  entropies = {}
  for whole in (True, False):
    theta = jnp.asarray(LOGITS)
    for _ in range(150):
      support = None if whole else support_of(theta, **settings)
      theta = theta + 0.5 * step(theta, jnp.asarray(probabilities(theta, settings), jnp.float32), support)
    entropies[whole] = float(token_entropy(theta))
  before = float(token_entropy(jnp.asarray(LOGITS)))
  assert entropies[False] == pytest.approx(before, rel=1e-4)
  assert entropies[True] < before - 0.5


@every_truncation
def test_the_kl_to_a_reference_is_that_of_the_truncated_policy_and_k3_is_biased(settings):
  reference = np.random.default_rng(2).normal(0, 1, V).astype(np.float32)
  support = support_of(LOGITS, **settings)
  p = probabilities(LOGITS, settings)
  inside, actions = p > 0, jnp.arange(V)
  logp = token_logprobs(truncated_logits(jnp.tile(LOGITS, (V, 1)), jnp.tile(support, (V, 1))), actions, mask=inside)
  logp_ref = token_logprobs(jnp.tile(reference, (V, 1)), actions)
  exact = kl_exact(truncated_logits(LOGITS, support), reference)
  k1, k3 = (jnp.sum(p * kl_estimate(logp, logp_ref, kind=kind, mask=inside)) for kind in ("k1", "k3"))
  assert k1 == pytest.approx(float(exact), rel=1e-5)
  missing = float(jnp.sum(jnp.where(inside, 0.0, jnp.exp(logp_ref))))
  assert k3 == pytest.approx(float(exact) - missing, rel=1e-4) and missing > 0.05


def test_in_chunks_the_numbers_are_the_same():
  hidden = jax.random.normal(jax.random.key(0), (2, 7, 5))
  matrix = jax.random.normal(jax.random.key(1), (V, 5))
  logits = jnp.einsum("btd,vd->btv", hidden, matrix)
  support = jax.vmap(jax.vmap(functools.partial(support_of, top_k=4)))(logits)
  tokens = jnp.argmax(logits, axis=-1)
  mask = jnp.arange(7) < jnp.array([[7], [3]])
  support = jnp.where(mask[..., None], support, 0)  # as a rollout has it

  def both(hidden, chunk):
    whole = ChunkedLogits(hidden, lambda x: x @ matrix.T, chunk) if chunk else hidden @ matrix.T
    logits = truncated_logits(whole / 0.7, support)
    values = *logprobs_and_entropy(logits, tokens, mask=mask), lm_loss(logits, tokens, mask=mask)
    return sum(jnp.sum(jnp.arange(1, 15).reshape(2, 7) * x) for x in values), values

  found, expected = (jax.value_and_grad(functools.partial(both, chunk=chunk), has_aux=True)(hidden) for chunk in (3, 0))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)
  assert np.isfinite(found[1]).all() and np.all(found[0][1][0][~mask] == 0)


def test_a_support_of_another_shape_is_refused():
  logits, function = jnp.zeros((3, 4, V)), inspect.unwrap(truncated_logits)  # without the check of its annotations
  for shape in ((3, 4, 1), (3, 4, V), (3, 1, 2), (1, 4, 2), (4, 2), (3, 4)):
    with pytest.raises(ValueError, match=r"support needs the shape \(3, 4, 2\)"):
      function(logits, jnp.zeros(shape, jnp.uint8))
  with pytest.raises(ValueError, match=r"support needs the shape \(3, 4, 2\)"):
    function(ChunkedLogits(logits, lambda x: x, 2), jnp.zeros((3, 1, 2), jnp.uint8))
  assert truncated_logits(logits, None) is logits
