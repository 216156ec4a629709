"""RLOO: its exact gradient and optimum on tables, the ratio of whole sequences, and the stage on the tiny chain."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular
from tiny_chain import WATCH, check_recording, recipe, run_stages, shortness

from rlhf_jax.algorithms import reinforce, rloo
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.stage import Transport
from rlhf_jax.train import init_state, make_update, place, run_epochs
from rlhf_jax.train.metrics import read_metrics

pytestmark = pytest.mark.usefixtures("unoptimised")
TRANSPORT = Transport("jit", 1, 1)
PROBLEM = tabular.tree(seed=7, stop=True)
KL_COEF, CLIP, SIZE, GROUP = 0.5, 0.2, 160, 4


def logits_of(problem):
  apply = tabular.make_apply(problem)
  return lambda table, tokens: apply({"logits": table, "values": jnp.zeros(tabular.STATES + 1)}, tokens)[0]


def perturbed(spread, seed):
  return np.float32(PROBLEM.reference + np.random.default_rng(seed).normal(0, spread, PROBLEM.reference.shape))


BEHAVIOUR, MOVED = perturbed(0.5, 5), perturbed(0.8, 6)


@jax.jit
def sampled(temperature=1.0):
  uniform = np.random.default_rng(9).uniform(size=(SIZE, tabular.DEPTH)).astype(np.float32)
  rollout = tabular.sample(PROBLEM, BEHAVIOUR, uniform, temperature)
  logp_ref = tabular.logprobs(PROBLEM, PROBLEM.reference, rollout.tokens, temperature)
  return rollout, logp_ref, tabular.scores(PROBLEM, rollout.tokens)


@functools.partial(jax.jit, static_argnames="group")
def make_experience(inputs, group=GROUP):
  return rloo.make_experience(*inputs, kl_coef=KL_COEF, samples_per_prompt=group)


@pytest.mark.parametrize("group, temperature", [(2, 1.0), (2, 2.0)])
def test_the_expected_gradient_is_the_exact_one(group, temperature):
  """Every group of responses there is, against the gradient of E[score] - kl_coef KL; REINFORCE's is the same."""
  rows = tabular.leaves(PROBLEM)
  groups = np.array(list(itertools.product(range(len(rows)), repeat=group)))  # [groups, group]

  @jax.jit
  def gradients(table):
    p = tabular.distribution(PROBLEM, table, temperature)[groups].prod(axis=1)
    rollout = tabular.rollout_of(PROBLEM, table, rows[groups.reshape(-1)], temperature)
    logp_ref = tabular.logprobs(PROBLEM, PROBLEM.reference, rollout.tokens, temperature)
    inputs = rollout, logp_ref, tabular.scores(PROBLEM, rollout.tokens)
    experience, _ = make_experience(inputs, group)
    weights = jnp.repeat(p / group, group)  # [B]
    loss_fn = rloo.make_loss(logits_of(PROBLEM), clip=CLIP, temperature=temperature)
    got = jax.grad(lambda table: loss_fn(table, experience, weights)[0])(table)
    settings = dict(kl_coef=KL_COEF, baseline="leave_one_out", samples_per_prompt=group)
    experience, _ = reinforce.make_experience(inputs[0], logp_ref, None, inputs[2], 0.0, **settings)
    token_loss = reinforce.make_loss(
      lambda table, tokens: (logits_of(PROBLEM)(table, tokens), None),
      value_coef=0.0,
      entropy_coef=0.0,
      temperature=temperature,
    )
    shares = weights[:, None] * rollout.mask
    token_level = jax.grad(lambda table: token_loss(table, experience, shares)[0])(table)
    exact = jax.grad(tabular.expected_return, argnums=1)(PROBLEM, table, KL_COEF, temperature)
    return got, token_level, -exact

  got, token_level, expected = gradients(BEHAVIOUR)
  assert np.abs(expected).max() > 0.05
  np.testing.assert_allclose(got, expected, atol=1e-6)
  np.testing.assert_allclose(token_level, expected, atol=1e-6)


def test_the_return_is_the_score_less_the_kl_of_the_sequence():
  rollout, logp_ref, scores = sampled()
  experience, metrics = make_experience((rollout, logp_ref, scores))
  kl = np.float64(rollout.logp - logp_ref).sum(axis=1)
  returns = (np.asarray(scores) - KL_COEF * kl).reshape(-1, GROUP)
  expected = returns - (returns.sum(axis=1, keepdims=True) - returns) / (GROUP - 1)
  np.testing.assert_allclose(experience.advantages[:, 0], expected.reshape(-1), atol=1e-5)
  assert metrics["reward/return"].compute() == pytest.approx(returns.mean(), abs=1e-5)
  assert metrics["kl/reference"].compute() == pytest.approx(kl.mean(), rel=1e-4)
  assert metrics["kl/coef"].compute() == KL_COEF


def test_integer_scores_do_not_truncate():
  rollout, logp_ref, _ = sampled()
  scores = np.arange(SIZE, dtype=np.int32) % 3 - 1
  of_integers, of_floats = (make_experience((rollout, logp_ref, x))[0] for x in (scores, np.float32(scores)))
  np.testing.assert_array_equal(of_integers.advantages, of_floats.advantages)


def test_one_ratio_for_the_sequence_and_its_clip_by_a_loop():
  """The product of the tokens' ratios: not PPO's, which clips each token, nor GSPO's, which takes their mean."""
  rollout, _, _ = inputs = sampled()
  experience, _ = make_experience(inputs)
  loss_fn = jax.jit(rloo.make_loss(logits_of(PROBLEM), clip=CLIP))
  loss, metrics = loss_fn(MOVED, experience, rloo.sequence_mean(rollout.mask))
  logp = np.asarray(tabular.logprobs(PROBLEM, MOVED, rollout.tokens), np.float64)
  objectives, clipped = [], []
  for row, mask in enumerate(np.asarray(rollout.mask)):
    ratio = np.exp(logp[row, mask].sum() - np.asarray(rollout.logp)[row, mask].sum())
    advantage = float(experience.advantages[row, 0])
    objectives.append(min(ratio * advantage, np.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage))
    clipped.append(objectives[-1] != ratio * advantage)
  assert float(loss) == pytest.approx(-np.mean(objectives), rel=1e-4)
  assert metrics["policy/clip_fraction"].compute() == pytest.approx(np.mean(clipped)) and 0.2 < np.mean(clipped) < 0.8


def test_at_learning_rate_0_every_minibatch_is_on_policy():
  temperature = 0.5
  experience, _ = make_experience(sampled(temperature))
  loss_fn = rloo.make_loss(logits_of(PROBLEM), clip=CLIP, temperature=temperature)
  update = make_update(loss_fn, optax.sgd(0.0), TRANSPORT)
  state = place(init_state(BEHAVIOUR, optax.sgd(0.0)), TRANSPORT)
  state, _, metrics = run_epochs(
    update, state, experience, lambda *_: (experience, {}), rloo.sequence_mean, epochs=2, minibatches=4, seed=(0, 0)
  )
  assert metrics["policy/clip_fraction"].compute() == 0
  assert abs(metrics["policy/approx_kl"].compute()) < 1e-12
  # Every episode is in exactly one minibatch of each epoch, and its ratio is 1.
  assert metrics["loss"].compute() == pytest.approx(-float(experience.advantages[:, 0].mean()), abs=1e-6)
  np.testing.assert_array_equal(state.params, BEHAVIOUR)


def test_garbage_at_masked_positions_leaves_loss_and_gradient_unchanged():
  rollout, logp_ref, scores = sampled()
  outside = ~np.asarray(rollout.mask)
  garbage = np.resize(np.float32([np.nan, np.inf, -np.inf, 1e30]), outside.shape)
  loss_fn = jax.jit(jax.value_and_grad(rloo.make_loss(logits_of(PROBLEM), clip=CLIP), has_aux=True))
  results = []
  for spoil in (False, True):
    logp, ref = (np.where(outside & spoil, garbage, x) for x in (rollout.logp, logp_ref))
    table = np.concatenate([MOVED[:-1], np.full_like(MOVED[-1:], np.nan)]) if spoil else MOVED
    experience, metrics = make_experience((rollout.replace(logp=logp), ref, scores))
    (loss, more), grads = loss_fn(table, experience, rloo.sequence_mean(rollout.mask))
    results.append((loss, grads, {key: x.compute() for key, x in (metrics | more).items()}))
  jax.tree.map(np.testing.assert_array_equal, *results)


def test_it_converges_to_the_tilted_reference():
  """`p_ref exp(score / kl_coef) / Z`, by two epochs of two minibatches on each rollout."""
  problem, steps, size, parts = tabular.tree(seed=2, stop=True), 50, 1024, 4
  optimizer = optax.adam(optax.linear_schedule(0.1, 0.0, steps * parts))
  rng = np.random.default_rng(0)
  uniform = rng.uniform(size=(steps, size, tabular.DEPTH)).astype(np.float32)
  orders = rng.permuted(np.tile(np.arange(size), (steps, 2, 1)), axis=-1).reshape(steps, parts, -1)
  update = make_update(rloo.make_loss(logits_of(problem), clip=0.5), optimizer, TRANSPORT)

  @jax.jit
  def train(state):
    def step(state, draws):
      rollout = tabular.sample(problem, state.params, draws[0])
      logp_ref = tabular.logprobs(problem, problem.reference, rollout.tokens)
      experience, _ = make_experience((rollout, logp_ref, tabular.scores(problem, rollout.tokens)))

      def pass_over(state, rows):
        minibatch = jax.tree.map(lambda x: x[rows], experience)
        state, metrics = update(state, minibatch, rloo.sequence_mean(minibatch.mask))
        return state, metrics["policy/clip_fraction"].values

      return jax.lax.scan(pass_over, state, draws[1])

    return jax.lax.scan(step, state, (uniform, orders))

  state, clipped = train(place(init_state(jnp.asarray(problem.reference), optimizer), TRANSPORT))
  expected = tabular.optimum(problem, KL_COEF)
  assert np.abs(tabular.distribution(problem, problem.reference) - expected).sum() > 0.4
  assert 0.5 * np.abs(tabular.distribution(problem, state.params) - expected).sum() < 0.02
  assert clipped[:, 0].max() == 0 < clipped.mean()


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(samples_per_prompt=1), "samples_per_prompt=1 must be >= 2"),
    (dict(batch_size=3, samples_per_prompt=3), "minibatches=2 must divide the 9 episodes of a step"),
  ],
)
def test_what_cannot_be_is_refused(changes, message):
  section = recipe("rloo")["rloo"]
  with pytest.raises(ConfigError, match=message):
    parse(rloo.Config, {**section, "environment": {**section["environment"], **changes}}, "rloo")


def test_the_stage_learns(chain, tmp_path):
  """Short answers are rewarded, and answers become short."""
  environment = shortness(tmp_path, batch_size=4, samples_per_prompt=4)
  settings = dict(num_steps=16, kl_coef=0.01, optimizer=dict(learning_rate=3e-2), environment=environment, watch=WATCH)
  run_stages(recipe("rloo"), chain, tmp_path, {"rloo": settings})
  rows = read_metrics(tmp_path / "rloo" / "metrics.jsonl")
  names = ("reward/proxy", "reward/gold", "reward/return", "kl/reference", "kl/coef", "loss", "response/length")
  assert {*names, "policy/entropy", "policy/clip_fraction", "policy/approx_kl"} <= rows[0].keys()
  assert abs(rows[0]["kl/reference"]) < 1e-4 < rows[-1]["kl/reference"]
  first, last = (np.mean([row["reward/proxy"] for row in part]) for part in (rows[:4], rows[-4:]))
  assert last > first + 0.3
  check_recording(tmp_path / "rloo", "clipped", kl_coef=0.01)
