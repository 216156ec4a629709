"""What is recorded of single tokens, against plain forwards in NumPy and ratios worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.stage import Transport
from rlhf_jax.train.token_arrays import clip_active, make_token_arrays
from rlhf_jax.types import Experience, Rollout

VOCAB, TEMPERATURE, KL_COEF = 5, 0.7, 0.25
TOKENS = np.array([[1, 2, 3, 4, 0], [2, 4, 4, 0, 0], [3, 1, 2, 1, 4], [1, 1, 1, 1, 1]], np.int32)
MASK = np.array([[0, 0, 1, 1, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1], [0, 1, 1, 1, 1]], bool)
TRANSPORTS = {
  "jit": Transport("jit", 1, 1),
  "fsdp": Transport("jit", fsdp=2, microbatches=2),
  "pmap": Transport("pmap", 1, 1),
}


def apply(params, tokens):
  """A bigram model: the prediction for a token is the row of the token before it."""
  return params["table"][jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)))]


@pytest.mark.parametrize("transport", TRANSPORTS.values(), ids=TRANSPORTS)
def test_they_equal_a_plain_forward(transport):
  rng = np.random.default_rng(0)
  table = rng.normal(size=(VOCAB, VOCAB)).astype(np.float32)
  logp, logp_ref = np.where(MASK, -rng.uniform(size=(2, *MASK.shape)), 0).astype(np.float32)
  drawable = rng.uniform(size=(*MASK.shape, VOCAB)) < 0.6
  np.put_along_axis(drawable, TOKENS[..., None], True, axis=-1)
  rollout = Rollout(TOKENS, MASK, logp, np.ones(4, bool), support=np.packbits(drawable, axis=-1))
  extra = dict(values=logp, returns=2 * logp, logp_ref=logp_ref)
  experience = rollout.experience(3 * logp, **extra)
  scores, token_scores = np.array([1, -2, 3, 4], np.float32), np.where(MASK, 0.5, 0).astype(np.float32)
  arrays = make_token_arrays(apply, TEMPERATURE, transport, num=3, clip=(0.1, 0.3))
  drawn = rollout, scores, token_scores
  found = {name: np.asarray(x) for name, x in arrays({"table": table}, drawn, experience, KL_COEF).items()}

  logits = table[np.pad(TOKENS[:, :-1], ((0, 0), (1, 0)))].astype(np.float64) / TEMPERATURE
  weights = np.exp(logits) * drawable
  p = weights / weights.sum(axis=-1, keepdims=True)
  after = np.where(MASK, np.log(np.take_along_axis(p, TOKENS[..., None], axis=-1)[..., 0]), 0)
  entropy = np.where(MASK, -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1), 0)
  np.testing.assert_allclose(found["logp_after"], after[:3], atol=1e-5)
  np.testing.assert_allclose(found["entropy"], entropy[:3], atol=1e-5)
  # Half a point on each of two tokens, the rest of the score on the last one, and the penalty on both.
  last = np.array([[0, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]])
  rewards = token_scores[:3] + last * (scores[:3, None] - 1.0) - KL_COEF * (logp - logp_ref)[:3]
  np.testing.assert_allclose(found["rewards"], rewards, atol=1e-6)
  ratio, advantages = np.exp(after - logp)[:3], 3 * logp[:3]
  expected = MASK[:3] & np.where(advantages > 0, ratio > 1.3, (advantages < 0) & (ratio < 0.9))
  assert expected.any() and (found["clipped"] == expected).all()
  given = {"tokens": TOKENS, "mask": MASK, "logp": logp, "advantages": 3 * logp, **extra}
  for name, values in given.items():
    np.testing.assert_array_equal(found[name], values[:3])
  assert found.keys() == {*given, "logp_after", "entropy", "rewards", "clipped"}


def test_what_an_algorithm_does_not_have_is_absent():
  rollout = Rollout(TOKENS, MASK, np.zeros(MASK.shape, np.float32), np.ones(4, bool))
  experience = rollout.experience(np.ones(MASK.shape, np.float32), logp_ref=rollout.logp)
  arrays = make_token_arrays(apply, 1.0, TRANSPORTS["jit"], num=2)
  drawn = rollout, np.ones(4, np.float32), None
  found = arrays({"table": np.zeros((VOCAB, VOCAB), np.float32)}, drawn, experience, 0.0)
  assert found.keys() == {"tokens", "mask", "logp", "logp_ref", "advantages", "logp_after", "entropy", "rewards"}
  np.testing.assert_allclose(found["entropy"][0], np.log(5) * MASK[0], rtol=1e-6)
  assert found["rewards"].tolist() == [[0, 0, 0, 1, 0], [0, 0, 1, 0, 0]]


def clipped(ratios, advantages, mask, **settings):
  logp = jnp.log(jnp.array(ratios))
  batch = Experience(jnp.zeros(logp.shape, int), jnp.array(mask, bool), jnp.zeros(logp.shape), jnp.array(advantages))
  return clip_active(logp, batch, **settings).astype(int).tolist()


def test_the_clip_is_active_where_a_ratio_has_gone_far_enough_with_its_advantage():
  ratios = [[1.3, 0.7, 1.1, 1.3, 0.7, 9.0]]
  advantages = [[1.0, 1.0, 1.0, -1.0, -1.0, 1.0]]
  mask = [[1, 1, 1, 1, 1, 0]]
  assert clipped(ratios, advantages, mask, clip=0.2, ratio="token") == [[1, 0, 0, 0, 1, 0]]
  assert clipped(ratios, advantages, mask, clip=(0.4, 0.05), ratio="token") == [[1, 0, 1, 0, 0, 0]]


def test_a_ratio_of_the_response_is_clipped_on_all_its_tokens():
  """Ratios of 1.3 and 1.1: their geometric mean is 1.196, their product 1.43."""
  ratios, mask = [[1.3, 1.1, 9.0], [1.3, 1.1, 9.0]], [[1, 1, 0], [1, 1, 0]]
  advantages = [[1.0] * 3, [-1.0] * 3]
  assert clipped(ratios, advantages, mask, clip=0.19, ratio="sequence") == [[1, 1, 0], [0, 0, 0]]
  assert clipped(ratios, advantages, mask, clip=0.2, ratio="sequence") == [[0, 0, 0], [0, 0, 0]]
  assert clipped(ratios, advantages, mask, clip=0.4, ratio="product") == [[1, 1, 0], [0, 0, 0]]
  assert clipped(ratios, advantages, mask, clip=0.5, ratio="product") == [[0, 0, 0], [0, 0, 0]]
