"""The ten properties that most of the bugs of this folder break, each on its own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from miniature import ADAM, experience_of, ppo_config, rollout_by_hand

from rlhf_jax import data
from rlhf_jax.algorithms import ppo, sft
from rlhf_jax.objectives import (
  discounted_returns,
  gae,
  kl_estimate,
  kl_exact,
  leave_one_out,
  lm_loss,
  ppo_policy_objective,
  reinforce_objective,
  sequence_ratio_objective,
  shaped_rewards,
  token_logprobs,
)
from rlhf_jax.reduce import token_weights
from rlhf_jax.stage import Transport
from rlhf_jax.train import init_state, make_update, place, update
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.train.parameters import load_params
from rlhf_jax.types import Batch


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_1_without_learning_the_ratio_is_1(draw, small, temperature):
  """Invariant 1. Learning rate 0, any temperature and padding: ratio 1, approximate KL 0, clip fraction 0.

  `test_the_sampling_temperature_reaches_policy_and_reference` holds a whole run of PPO to the same.
  """
  rollout = draw(temperature=temperature)
  advantages = np.where(rollout.mask, np.float32(np.linspace(-1, 1, 10)), 0)
  zeros = np.zeros(rollout.mask.shape, np.float32)
  experience = ppo.Experience(rollout.tokens, rollout.mask, rollout.logp, advantages, zeros, zeros)
  loss_fn = ppo.make_loss(
    lambda params, tokens: small.model.apply_with_value(params, tokens),
    clip=0.2, value_clip=0.2, value_coef=0.0, entropy_coef=0.0, temperature=temperature,
  )  # fmt: skip
  for rows in (slice(0, 4), slice(4, 8)):
    batch = jax.tree.map(lambda x, rows=rows: x[rows], experience)
    loss, metrics = jax.jit(loss_fn)(small.params, batch, token_weights(batch.mask))
    assert metrics["policy/clip_fraction"].compute() == 0
    assert metrics["policy/approx_kl"].compute() == pytest.approx(0, abs=1e-9)
    assert float(loss) == pytest.approx(-batch.advantages[np.asarray(batch.mask)].mean(), abs=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_2_where_the_policy_is_the_reference_every_kl_is_0(draw, small, temperature):
  """Invariant 2. Every estimator, on every token, at every sampling temperature."""
  rollout = draw(temperature=temperature)
  logits = small.apply(small.params, rollout.tokens) / temperature
  logp_ref = token_logprobs(logits, rollout.tokens, mask=rollout.mask)
  for kind in ("k1", "k2", "k3"):
    np.testing.assert_allclose(kl_estimate(rollout.logp, logp_ref, kind=kind), 0, atol=1e-5)
  np.testing.assert_allclose(kl_exact(logits, logits, mask=rollout.mask), 0, atol=1e-6)


def test_3_masked_positions_change_nothing():
  """Invariant 3. NaN and Inf at masked positions of every input: loss, metrics and gradients are bitwise the same."""
  rollout = rollout_by_hand([3, 1, 2])
  mask = rollout.mask
  draws = np.random.default_rng(0).normal(size=(5, *mask.shape)).astype(np.float32)
  logits = np.random.default_rng(1).normal(size=(*mask.shape, 5)).astype(np.float32)
  loss_fn = ppo.make_loss(lambda params, tokens: params, clip=0.1, value_clip=0.1, value_coef=0.5, entropy_coef=0.1)

  @jax.jit
  def update(rollout, logp_ref, values, params, fill):
    experience, metrics = experience_of(
      rollout, logp_ref, jnp.arange(3.0), values=values, kl_coef=0.1, whiten_rewards=True, whiten_advantages=True
    )
    fields = {name: getattr(experience, name) for name in ("logp", "advantages", "values", "returns")}
    experience = experience.replace(**{name: jnp.where(mask, x, fill) for name, x in fields.items()})
    (loss, more), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, experience, token_weights(mask))
    return loss, grads, {name: metric.sum() for name, metric in (metrics | more).items()}

  def with_garbage(garbage):
    logp, logp_ref, values, new_values = (np.where(mask, x, garbage) for x in draws[:4])
    params = np.where(mask[..., None], logits, garbage), new_values
    tokens = np.where(mask, rollout.tokens, 0 if garbage == 0 else 99)
    return update(rollout.replace(tokens=tokens, logp=logp), logp_ref, values, params, np.float32(garbage))

  clean = with_garbage(np.float32(0))
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(clean))
  for garbage in (np.nan, np.inf, -np.inf):
    jax.tree.map(np.testing.assert_array_equal, with_garbage(np.float32(garbage)), clean)


LENGTHS = np.array([7, 1, 2, 1, 7, 7, 2, 1, 1, 1, 3, 1, 1, 1, 2, 1])
TRANSPORTS = [Transport("jit", 1, 2), Transport("shard_map", 1, 1)]  # pmap: test_a_mean_is_over_all_tokens...


@pytest.fixture(scope="module")
def split(small):
  """(params, batch, its (loss, gradients) without a split)."""
  tokens = np.asarray(jax.random.randint(jax.random.key(6), (16, 8), 2, 13))
  mask = (np.arange(8) >= 1) & (np.arange(8) <= LENGTHS[:, None])
  # Of the parameters before they were made sharper: those amplify rounding a thousand times.
  params = {"decoder": jax.tree.map(lambda x: x / 3, small.params["decoder"])}
  return params, Batch(tokens, mask), plain_gradient(small, params, Batch(tokens, mask))


@pytest.mark.parametrize("transport", TRANSPORTS, ids=lambda t: t.kind)
def test_4_any_split_gives_the_same_loss_and_gradients(small, split, transport):
  """Invariant 4. Microbatches, devices and packed rows."""
  if 16 % (jax.device_count() * transport.microbatches):
    pytest.skip("16 rows do not divide")
  if transport.kind != "jit" and jax.device_count() == 1:
    pytest.skip("needs several devices")
  params, batch, whole = split
  optimizer = optax.sgd(1.0)
  state = place(init_state(params, optimizer), transport)
  update = make_update(sft.make_loss(small.model.apply), optimizer, transport)
  state, metrics = update(state, batch, token_weights(batch.mask))
  assert metrics["loss"].compute() == pytest.approx(float(whole[0]), rel=1e-5)
  grads = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), params, state.params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, whole[1])
  if transport.kind != "jit":
    return
  packed = data.pack_rows({"tokens": batch.tokens, "mask": batch.mask}, 16, 0)
  assert len(packed["tokens"]) < 8
  packed = plain_gradient(small, params, Batch(**packed))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), packed, whole)


def plain_gradient(small, params, batch):
  def loss(params):
    logits = small.model.apply(params, batch.tokens, batch.segments)
    return jnp.sum(lm_loss(logits, batch.tokens) * batch.mask) / batch.mask.sum()

  return jax.jit(jax.value_and_grad(loss))(params)


def test_5_padded_equals_unpadded_equals_packed(small):
  """Invariant 5. Log-probs of the default family; `test_logits_of_padded_unpadded_and_packed_rows` has all of them."""
  tokens = np.asarray(jax.random.randint(jax.random.key(7), (2, 6), 2, 13))
  inside = np.arange(6) < np.array([[6], [4]])
  padded = np.asarray(small.apply(small.params, np.where(inside, tokens, 0)))
  alone = np.asarray(small.apply(small.params, tokens[1:, :4]))
  np.testing.assert_allclose(padded[1, :4], alone[0], atol=1e-5)
  packed = data.pack_rows({"tokens": tokens, "mask": inside}, 10, 0)
  together = np.asarray(small.apply(small.params, packed["tokens"], packed["segments"]))
  np.testing.assert_allclose(together[0], padded[inside], atol=1e-5)


def test_6_the_cache_gives_the_log_probs_of_the_full_forward(draw, small):
  """Invariant 6. Log-probs recorded while decoding are those of the full forward on the same tokens."""
  rollout = draw(seed=1)
  logp = token_logprobs(small.apply(small.params, rollout.tokens), rollout.tokens, mask=rollout.mask)
  np.testing.assert_allclose(rollout.logp, logp, atol=1e-5)
  assert np.asarray(rollout.mask).sum() > 16


LOGITS = jnp.array([0.3, -0.5, 1.0, 0.1])
REWARDS = jnp.array([1.0, -2.0, 0.5, 3.0])


@pytest.mark.parametrize("loss", ["reinforce", "ppo", "gspo", "leave_one_out", "kl_k2", "kl_exact", "kl_reward"])
def test_7_gradients_are_exact_by_enumeration(loss):
  """Invariant 7. Every policy and KL loss, over all outcomes of a vocabulary of four."""
  p, old = jax.nn.softmax(LOGITS), jax.nn.log_softmax(LOGITS)
  reference = jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1]))
  ones = jnp.ones((4, 1))

  def pairs(z):
    logp = jax.nn.log_softmax(z)
    advantages = leave_one_out(jnp.stack(jnp.meshgrid(REWARDS, REWARDS, indexing="ij"), axis=-1))  # [4, 4, 2]
    first, second = jnp.broadcast_arrays(logp[:, None], logp[None])
    both = reinforce_objective(first, advantages[..., 0]) + reinforce_objective(second, advantages[..., 1])
    return jnp.sum(p[:, None] * p * both) / 2

  expected_loss = {
    "reinforce": lambda z: p @ reinforce_objective(jax.nn.log_softmax(z), REWARDS),
    "ppo": lambda z: p @ ppo_policy_objective(jax.nn.log_softmax(z), old, REWARDS, clip=0.2)[0],
    "gspo": lambda z: p @ sequence_ratio_objective(
      jax.nn.log_softmax(z)[:, None], old[:, None], REWARDS, ones, clip=0.2
    )[0][:, 0],
    "leave_one_out": pairs,
    "kl_k2": lambda z: p @ kl_estimate(jax.nn.log_softmax(z), reference, kind="k2"),
    "kl_exact": lambda z: kl_exact(z, reference),
    "kl_reward": lambda z: p @ reinforce_objective(jax.nn.log_softmax(z), kl_estimate(old, reference)),
  }[loss]  # fmt: skip

  def exact(z):
    q = jax.nn.softmax(z)
    return q @ (jnp.log(q) - reference) if loss.startswith("kl") else q @ REWARDS

  got, expected = jax.jit(jax.grad(expected_loss))(LOGITS), jax.jit(jax.grad(exact))(LOGITS)
  assert np.abs(expected).max() > 0.1
  np.testing.assert_allclose(got, expected, atol=1e-6)


def test_8_advantages_returns_and_rewards_equal_a_plain_loop():
  """Invariant 8. GAE and returns equal a loop; the score enters exactly once, on the last response token."""
  rng = np.random.default_rng(3)
  mask = (np.arange(7) >= np.array([[1], [2], [3]])) & (np.arange(7) < np.array([[6], [7], [4]]))
  kl, values = (np.where(mask, x, 9).astype(np.float32) for x in rng.normal(size=(2, 3, 7)))
  scores = np.float32([1, -2, 0.5])
  rewards = np.asarray(shaped_rewards(scores, kl, mask, coef=0.3))
  advantages, returns = (np.zeros((3, 7)) for _ in range(2))
  expected = np.zeros((3, 7))
  for row in range(3):
    places, next_value, next_advantage, to_go = np.flatnonzero(mask[row]), 0.0, 0.0, 0.0
    for t in places[::-1]:
      expected[row, t] = -0.3 * kl[row, t] + (scores[row] if t == places[-1] else 0)
      delta = expected[row, t] + 0.9 * next_value - values[row, t]
      advantages[row, t] = next_advantage = delta + 0.9 * 0.8 * next_advantage
      returns[row, t] = to_go = expected[row, t] + 0.9 * to_go
      next_value = values[row, t]
  np.testing.assert_allclose(rewards, expected, atol=1e-6)
  np.testing.assert_allclose(gae(rewards, values, mask, discount=0.9, lam=0.8), advantages, atol=1e-5)
  np.testing.assert_allclose(discounted_returns(rewards, mask, discount=0.9), returns, atol=1e-5)


def test_9_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(workspace, tmp_path, monkeypatch, on_one_device):
  """Invariant 9. Fine-tuning with Adam, killed behind the checkpoint of its second step."""
  config = sft.Config(
    algorithm="", init=str(workspace.root / "init"), demonstrations=str(workspace.root / "demonstrations.jsonl"),
    eval_fraction=0.2, num_epochs=6, batch_size=8, length=48, evaluate_every=0, checkpoint_every=2,
    optimizer=dataclasses.replace(ADAM, decay="linear"),
  )  # fmt: skip

  updates, calls = [], []

  def killed(*arguments):
    updates[:] = updates or [make_update(*arguments)]  # one program for all three runs

    def step(*inputs):
      calls.append(1)
      if len(calls) == 4:
        raise KeyboardInterrupt
      return updates[0](*inputs)

    return step

  monkeypatch.setattr(update, "make_update", killed)
  with pytest.raises(KeyboardInterrupt):
    sft.run(config, workspace.stage("sft", tmp_path / "cut"))
  for name in ("cut", "whole"):
    sft.run(config, workspace.stage("sft", tmp_path / name))
  cut, whole = (load_params(tmp_path / name / "sft" / "checkpoints", {}) for name in ("cut", "whole"))
  jax.tree.map(np.testing.assert_array_equal, cut, whole)
  rows = [read_metrics(tmp_path / name / "sft" / "metrics.jsonl") for name in ("cut", "whole")]
  assert rows[0] == rows[1] and len(rows[0]) > 4


CHANGES = dict(
  discount=0.9, lam=0.5, clip=0.05, value_clip=0.05, value_coef=0.7, entropy_coef=0.3, kl_coef=0.4,
  whiten_rewards=True, whiten_advantages=True,
)  # fmt: skip


@pytest.mark.parametrize("key", [None, *CHANGES])
def test_10_a_config_key_that_is_changed_changes_the_update(key):
  """Invariant 10, of the numbers of PPO; `test_every_config_key_is_read` goes over all keys of all stages."""
  if key is None:
    assert update_under(ppo_config(kl_coef=0.1)) == update_under(ppo_config(kl_coef=0.1))
  else:
    changed = update_under(dataclasses.replace(ppo_config(kl_coef=0.1), **{key: CHANGES[key]}))
    assert changed != update_under(ppo_config(kl_coef=0.1))


@functools.cache
def update_under(config):
  rollout = rollout_by_hand([3, 1, 2])
  draws = np.random.default_rng(0).normal(size=(3, *rollout.mask.shape)).astype(np.float32)
  logits = np.random.default_rng(1).normal(size=(*rollout.mask.shape, 5)).astype(np.float32)
  settings = {name: getattr(config, name) for name in ("clip", "value_clip", "value_coef", "entropy_coef")}

  @jax.jit
  def loss(values, kl_coef):
    experience, _ = ppo.make_experience(rollout, draws[0], draws[1], jnp.arange(3.0), kl_coef, config)
    loss_fn = ppo.make_loss(lambda params, tokens: (logits, draws[2]), **settings)
    return loss_fn({}, experience, token_weights(rollout.mask))[0]

  return float(loss(draws[2], jnp.float32(config.kl_coef)))
