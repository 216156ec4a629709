"""REINFORCE++: its advantages by loops, its optimum on tables, on-policy updates, and the stage on the tiny chain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular
from tiny_chain import WATCH, check_recording, recipe, run_stages, shortness

from rlhf_jax.algorithms import reinforce_plus_plus
from rlhf_jax.reduce import token_weights
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.stage import Transport
from rlhf_jax.train import init_state, make_update, place, run_epochs
from rlhf_jax.train.metrics import read_metrics

pytestmark = pytest.mark.usefixtures("unoptimised")
TRANSPORT = Transport("jit", 1, 1)
PROBLEM = tabular.tree(seed=7, stop=True)
KL_COEF, SIZE, GROUP = 0.5, 160, 4


def logits_of(problem):
  apply = tabular.make_apply(problem)
  return lambda table, tokens: apply({"logits": table, "values": jnp.zeros(tabular.STATES + 1)}, tokens)[0]


BEHAVIOUR = np.float32(PROBLEM.reference + np.random.default_rng(5).normal(0, 0.5, PROBLEM.reference.shape))


def make_experience(inputs, baseline, kl_coef=KL_COEF):
  return reinforce_plus_plus.make_experience(*inputs, kl_coef=kl_coef, baseline=baseline, samples_per_prompt=GROUP)


@jax.jit
def sampled(temperature=1.0):
  uniform = np.random.default_rng(9).uniform(size=(SIZE, tabular.DEPTH)).astype(np.float32)
  rollout = tabular.sample(PROBLEM, BEHAVIOUR, uniform, temperature)
  logp_ref = tabular.logprobs(PROBLEM, PROBLEM.reference, rollout.tokens, temperature)
  return rollout, logp_ref, tabular.scores(PROBLEM, rollout.tokens)


@pytest.mark.parametrize("baseline", ["none", "group"])
def test_advantages_by_a_loop(baseline):
  rollout, logp_ref, scores = inputs = sampled()
  experience, metrics = make_experience(inputs, baseline)
  mask, kl = np.asarray(rollout.mask), np.float64(rollout.logp) - np.asarray(logp_ref)
  expected = np.zeros(mask.shape)
  means = np.asarray(scores).reshape(-1, GROUP).mean(axis=1).repeat(GROUP)
  for row, t in zip(*np.nonzero(mask), strict=True):
    expected[row, t] = scores[row] - (KL_COEF * kl[row, t:].sum() if baseline == "none" else means[row])
  expected = np.where(mask, (expected - expected[mask].mean()) / expected[mask].std(), 0)
  np.testing.assert_allclose(experience.advantages, expected, atol=1e-5)
  assert metrics["kl/reference"].compute() == pytest.approx(kl.sum() / SIZE, rel=1e-4)


@pytest.mark.parametrize("baseline, temperature", [("none", 0.5), ("group", 2.0)])
def test_at_learning_rate_0_every_minibatch_is_on_policy(baseline, temperature):
  experience, _ = make_experience(sampled(temperature), baseline)
  loss_fn = reinforce_plus_plus.make_loss(logits_of(PROBLEM), clip=(1e-5, 1e-5), temperature=temperature)
  state = place(init_state(BEHAVIOUR, optax.sgd(0.0)), TRANSPORT)
  update = make_update(loss_fn, optax.sgd(0.0), TRANSPORT)
  state, _, metrics = run_epochs(
    update, state, experience, lambda *_: (experience, {}), token_weights, epochs=2, minibatches=4, seed=(0, 0)
  )
  assert metrics["policy/clip_fraction"].compute() == 0 and abs(metrics["policy/approx_kl"].compute()) < 1e-12
  assert metrics["policy/ratio_max"].compute() == pytest.approx(1, abs=1e-6)
  np.testing.assert_array_equal(state.params, BEHAVIOUR)


def test_the_kl_of_the_loss_is_there_with_groups_alone():
  experience, _ = make_experience(sampled(), "group")
  weights = token_weights(experience.mask)
  with_kl, without = (
    reinforce_plus_plus.make_loss(logits_of(PROBLEM), clip=(0.2, 0.2), kl_coef=coef)(BEHAVIOUR, experience, weights)[0]
    for coef in (0.3, 0.0)
  )
  mask = np.asarray(experience.mask)
  d = np.asarray(experience.logp - experience.logp_ref)[mask]
  assert with_kl - without == pytest.approx(0.3 * 0.5 * np.mean(d**2), rel=1e-4)


def trained(problem, baseline, kl_coef, steps=80, size=1024, parts=4):
  optimizer = optax.adam(optax.linear_schedule(0.1, 0.0, steps * parts))
  rng = np.random.default_rng(0)
  uniform = rng.uniform(size=(steps, size, tabular.DEPTH)).astype(np.float32)
  orders = rng.permuted(np.tile(np.arange(size), (steps, 2, 1)), axis=-1).reshape(steps, parts, -1)
  in_loss = kl_coef if baseline == "group" else 0.0
  loss_fn = reinforce_plus_plus.make_loss(logits_of(problem), clip=(0.2, 0.2), kl_coef=in_loss)
  update = make_update(loss_fn, optimizer, TRANSPORT)

  @jax.jit
  def train(state):
    def step(state, draws):
      rollout = tabular.sample(problem, state.params, draws[0])
      logp_ref = tabular.logprobs(problem, problem.reference, rollout.tokens)
      experience, _ = make_experience(
        (rollout, logp_ref, tabular.scores(problem, rollout.tokens)), baseline, kl_coef=kl_coef
      )

      def pass_over(state, rows):
        minibatch = jax.tree.map(lambda x: x[rows], experience)
        state, metrics = update(state, minibatch, token_weights(minibatch.mask))
        return state, metrics["policy/clip_fraction"].values

      return jax.lax.scan(pass_over, state, draws[1])

    return jax.lax.scan(step, state, (uniform, orders))

  return train(place(init_state(jnp.asarray(problem.reference), optimizer), TRANSPORT))


def test_it_converges_to_the_tilted_reference():
  """Whitening changes neither the sign of an advantage's mean nor where the penalised reward is flat."""
  problem = tabular.tree(seed=1, stop=False)
  state, clipped = trained(problem, "none", KL_COEF)
  expected = tabular.optimum(problem, KL_COEF)
  assert np.abs(tabular.distribution(problem, problem.reference) - expected).sum() > 0.4
  assert 0.5 * np.abs(tabular.distribution(problem, state.params) - expected).sum() < 0.03
  assert clipped[:, 0].max() == 0 < clipped.mean()


def test_with_groups_it_learns_on_tables():
  problem = tabular.bandit((0.5, 0.3, 0.2), (0, 1, 2))
  state, _ = trained(problem, "group", kl_coef=0.05, steps=40)
  assert tabular.distribution(problem, state.params)[2] > 0.9


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(baseline="group"), "baseline='group' needs environment.samples_per_prompt >= 2, not 1"),
    (dict(minibatches=3), "minibatches=3 must divide the 64 episodes of a step"),
    (dict(clip=0.2), "clip must be a tuple"),
  ],
)
def test_what_cannot_be_is_refused(changes, message):
  section = recipe("reinforce_plus_plus")["reinforce_plus_plus"]
  with pytest.raises(ConfigError, match=message):
    parse(reinforce_plus_plus.Config, {**section, **changes}, "mine")


@pytest.mark.parametrize("baseline", ["none", "group"])
def test_the_stage_learns(chain, tmp_path, baseline):
  """Short answers are rewarded, and answers become short; with dual clip as the objective."""
  environment = shortness(tmp_path, batch_size=4 if baseline == "group" else 16)
  objective = dict(function="rlhf_jax.objectives:dual_clip_objective", arguments=dict(clip=0.2, bound=3.0))
  settings = dict(num_steps=12, kl_coef=0.01, environment=environment, objective=objective, watch=WATCH)
  settings["optimizer"] = dict(learning_rate=2e-2)
  name = "reinforce_plus_plus" if baseline == "none" else "reinforce_plus_plus_group"
  run_stages(recipe("reinforce_plus_plus", "" if baseline == "none" else baseline), chain, tmp_path, {name: settings})
  rows = read_metrics(tmp_path / name / "metrics.jsonl")
  names = ("reward/proxy", "reward/gold", "kl/reference", "kl/coef", "kl/loss", "loss", "policy/clip_fraction")
  assert {*names} <= rows[0].keys() and rows[0]["policy/ratio_max"] >= 1
  first, last = (np.mean([row["reward/proxy"] for row in part]) for part in (rows[:2], rows[-2:]))
  assert last > first + 0.3
  check_recording(tmp_path / name, kl_coef=0.01 if baseline == "none" else 0.0)  # the clip is the function's
