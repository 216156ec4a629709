"""Online DPO: its optimum on tables, its losses and weights by hand, and the stage on the tiny chain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular
from tiny_chain import WATCH, check_recording, recipe, run_stages, shortness

from rlhf_jax.algorithms import dpo, online_dpo
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.stage import Transport
from rlhf_jax.train import init_state, make_update, place
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.train.pair_losses import Loss

pytestmark = pytest.mark.usefixtures("unoptimised")
TRANSPORT = Transport("jit", 1, 1)
SIZE, STEPS = 1024, 150
PROBLEMS = {
  "bandit": (tabular.bandit((0.5, 0.3, 0.2), (0, 1, 2)), 1.0),
  "ragged": (tabular.tree(seed=2, stop=True), 0.5),
}


def logits_of(problem):
  apply = tabular.make_apply(problem)
  return lambda table, tokens: apply({"logits": table, "values": jnp.zeros(tabular.STATES + 1)}, tokens)[0]


def experience_of(problem, rollout, scores, samples):
  logp_ref = tabular.logprobs(problem, problem.reference, rollout.tokens)
  experience, metrics = online_dpo.make_experience(rollout, logp_ref, scores, samples_per_prompt=samples)
  return experience, metrics


@pytest.mark.parametrize("name", PROBLEMS)
def test_it_finds_the_optimum_of_rlhf_with_a_judge_of_bradley_terry(name):
  """Gumbel noise on both scores makes P(i beats j) = sigmoid(r_i - r_j)."""
  problem, beta = PROBLEMS[name]
  optimizer = optax.adam(optax.linear_schedule(0.1, 0.0, STEPS))
  update = make_update(online_dpo.make_loss(logits_of(problem), Loss("dpo", beta)), optimizer, TRANSPORT)

  @jax.jit
  def train(state, uniform, noise):
    def step(state, draws):
      rollout = tabular.sample(problem, state.params, draws[0])
      scores = tabular.scores(problem, rollout.tokens) + draws[1]
      experience, _ = experience_of(problem, rollout, scores, 2)
      better = scores.reshape(-1, 2)[:, :, None] > scores.reshape(-1, 2)[:, None, :]
      state, metrics = update(state, online_dpo.grouped(experience, 2), better / (SIZE / 2))
      return state, metrics["policy/approx_kl"].values

    return jax.lax.scan(step, state, (uniform, noise))

  rng = np.random.default_rng(0)
  uniform = rng.uniform(size=(STEPS, SIZE, tabular.DEPTH)).astype(np.float32)
  noise = rng.gumbel(size=(STEPS, SIZE)).astype(np.float32)
  state, approx_kl = train(place(init_state(jnp.asarray(problem.reference), optimizer), TRANSPORT), uniform, noise)
  expected = tabular.optimum(problem, beta)
  assert np.abs(tabular.distribution(problem, problem.reference) - expected).sum() > 0.3
  assert 0.5 * np.abs(tabular.distribution(problem, state.params) - expected).sum() < 0.03
  np.testing.assert_allclose(approx_kl, 0, atol=1e-5)  # one update for each rollout


@pytest.mark.parametrize("name", ["dpo", "sigmoid_norm", "simpo", "ipo"])
def test_its_loss_is_that_of_dpo_on_the_pairs_that_the_scores_make(name):
  problem = PROBLEMS["ragged"][0]
  rng = np.random.default_rng(1)
  table = np.float32(problem.reference + rng.normal(0, 0.5, problem.reference.shape))
  rollout = tabular.sample(problem, table, rng.uniform(size=(12, tabular.DEPTH)).astype(np.float32))
  scores = np.round(rng.normal(size=12)).astype(np.float32)  # some of them tie
  experience, metrics = experience_of(problem, rollout, jnp.asarray(scores), 3)
  weights = online_dpo.preferences(scores, 3)
  moved = np.float32(table + rng.normal(0, 0.3, table.shape))
  settings = Loss(name, 0.4)
  found, parts = jax.jit(online_dpo.make_loss(logits_of(problem), settings))(
    moved, online_dpo.grouped(experience, 3), weights
  )
  shape = (4, 3, tabular.WIDTH)
  ref_logp = np.where(rollout.mask, experience.logp_ref, 0).sum(axis=1).reshape(4, 3)
  groups = dpo.Groups(rollout.tokens.reshape(shape), rollout.mask.reshape(shape), ref_logp, np.zeros(4, np.float32))
  expected, others = jax.jit(dpo.make_loss(logits_of(problem), settings))(moved, groups, weights)
  assert float(found) == pytest.approx(float(expected), rel=1e-5)
  for key in ("accuracy", "margin"):
    assert parts[key].compute() == pytest.approx(others[key].compute(), rel=1e-5)
  kl = np.where(rollout.mask, rollout.logp - experience.logp_ref, 0).sum(axis=1).mean()
  assert metrics["kl/reference"].compute() == pytest.approx(kl, rel=1e-4)


def test_preferences_and_advantages_by_hand():
  scores = np.float32([1, 3, 2, 0, 0, 0, 5, 5, 1])
  weights = online_dpo.preferences(scores, 3)
  expected = np.zeros((3, 3, 3))
  expected[0, 1, 0] = expected[0, 1, 2] = expected[0, 2, 0] = 1 / 6  # the group of ties has no weight
  expected[2, 0, 2] = expected[2, 1, 2] = 1 / 4
  np.testing.assert_allclose(weights, expected, rtol=1e-6)
  assert not online_dpo.preferences(np.ones(4), 2).any()
  problem = PROBLEMS["bandit"][0]
  rollout = tabular.sample(problem, problem.reference, np.full((9, tabular.DEPTH), 0.1, np.float32))
  experience, _ = experience_of(problem, rollout, jnp.asarray(scores), 3)
  assert experience.advantages[:, 1].tolist() == [-1, 1, 0, 0, 0, 0, 0.5, 0.5, -1]
  assert not np.any(experience.advantages[:, 2:])


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(environment=dict(samples_per_prompt=1)), "samples_per_prompt=1 must be >= 2"),
    (dict(loss=dict(name="kto")), "loss.name='kto' needs mismatched pairs"),
    (dict(loss=dict(weighting="wpo")), "loss.weighting='wpo' is for pairs of others"),
  ],
)
def test_what_cannot_be_is_refused(changes, message):
  section = recipe("online_dpo")["online_dpo"]
  changed = {key: {**section[key], **value} for key, value in changes.items()}
  with pytest.raises(ConfigError, match=message):
    parse(online_dpo.Config, {**section, **changed}, "online_dpo")


def test_the_stage_learns(chain, tmp_path):
  """Short answers are rewarded, and answers become short."""
  environment = shortness(tmp_path, batch_size=8, samples_per_prompt=2)
  settings = dict(num_steps=16, optimizer=dict(learning_rate=3e-2), environment=environment, watch=WATCH)
  run_stages(recipe("online_dpo"), chain, tmp_path, {"online_dpo": settings})
  rows = read_metrics(tmp_path / "online_dpo" / "metrics.jsonl")
  names = ("reward/proxy", "reward/gold", "kl/reference", "loss", "accuracy", "margin", "response/length")
  assert {*names, "policy/entropy", "policy/approx_kl"} <= rows[0].keys()
  assert rows[0]["accuracy"] == 0.5  # before the first update there is no margin
  assert abs(rows[0]["kl/reference"]) < 1e-4 < rows[-1]["kl/reference"]
  first, last = (np.mean([row["reward/proxy"] for row in part]) for part in (rows[:4], rows[-4:]))
  assert last > first + 0.3
  check_recording(tmp_path / "online_dpo")


def test_a_step_without_a_pair_makes_no_update(chain, tmp_path):
  (tmp_path / "even.py").write_text("def score(prompts, responses): return [1.0] * len(responses)\n")
  environment = shortness(tmp_path, batch_size=8, samples_per_prompt=2)
  environment["reward"]["function"] = f"{tmp_path}/even.py:score"
  run_stages(recipe("online_dpo"), chain, tmp_path, {"online_dpo": dict(num_steps=2, environment=environment)})
  rows = read_metrics(tmp_path / "online_dpo" / "metrics.jsonl")
  assert [row["reward/groups_alike"] for row in rows] == [1, 1] and not any("loss" in row for row in rows)
