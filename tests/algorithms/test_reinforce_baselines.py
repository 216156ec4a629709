"""REINFORCE's baselines that need more than the returns: the stage on the tiny chain, and what is refused."""

import numpy as np
import pytest
from tiny_chain import WATCH, check_recording, recipe, run_stages, shortness

from rlhf_jax.algorithms import reinforce
from rlhf_jax.objectives import leave_one_out, optimal_baseline, optimal_token_baseline, score_energy
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.types import Rollout

pytestmark = pytest.mark.usefixtures("unoptimised")
RNG = np.random.default_rng(0)
MASK = np.arange(6) < np.array([[6], [3], [2], [5]])
LOGP, LOGP_REF = -np.abs(RNG.normal(size=(2, 4, 6))).astype(np.float32)
ROLLOUT = Rollout(np.zeros((4, 6), np.int32), MASK, np.where(MASK, LOGP, 0), np.ones(4, bool))
SCORES = np.float32([1, 2, 6, 3])


def advantages(baseline, values=None, given=0.0, **changes):
  settings = dict(kl_coef=0.5, baseline=baseline, samples_per_prompt=2, **changes)
  reference = np.where(MASK, LOGP_REF, 0)
  return np.asarray(reinforce.make_experience(ROLLOUT, reference, values, SCORES, given, **settings)[0].advantages)


RETURNS = SCORES - 0.5 * np.where(MASK, LOGP - LOGP_REF, 0).sum(axis=1)


def test_the_score_of_the_greedy_response_is_the_baseline_of_its_prompt():
  found = advantages("greedy", given=np.float32([0.5, 0.5, 2, 2]))
  np.testing.assert_allclose(found[:, 0], RETURNS - [0.5, 0.5, 2, 2], rtol=1e-5)


def test_advantages_of_ones_own_are_of_the_returns_of_a_prompt():
  groups, lengths = RETURNS.reshape(2, 2), np.float32([[6, 3], [2, 5]])
  found = advantages("none", advantages_of=optimal_baseline)
  np.testing.assert_allclose(found[:, 0], np.ravel(optimal_baseline(groups, lengths)), rtol=1e-5)
  np.testing.assert_array_equal(advantages("none", advantages_of=leave_one_out), advantages("leave_one_out"))


def test_the_optimal_token_baseline_is_of_the_rewards_to_go():
  energies = np.asarray(score_energy(RNG.normal(size=(4, 6, 5)).astype(np.float32), ROLLOUT.tokens, mask=MASK))
  kl = np.where(MASK, LOGP - LOGP_REF, 0)
  to_go = np.where(MASK, SCORES[:, None] - 0.5 * np.cumsum(kl[:, ::-1], axis=1)[:, ::-1], 0)
  groups = [x.reshape(2, 2, 6) for x in (to_go, energies, MASK)]
  np.testing.assert_allclose(
    advantages("optimal_token", energies), np.reshape(optimal_token_baseline(*groups), (4, 6)), atol=1e-5
  )


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(baseline="optimal_token"), "baseline 'optimal_token' needs environment.samples_per_prompt >= 2"),
    (dict(advantages=dict(function="rlhf_jax.objectives:optimal_baseline")), "set baseline='none'"),
  ],
)
def test_what_cannot_be_is_refused(changes, message):
  section = recipe("reinforce", "greedy")["reinforce_greedy"]
  with pytest.raises(ConfigError, match=message):
    environment = {**section["environment"], "samples_per_prompt": 1}
    parse(reinforce.Config, {**section, "environment": environment, **changes}, "mine")


@pytest.mark.parametrize("baseline", ["greedy", "optimal_token", "opo"])
def test_the_stage_learns(chain, tmp_path, baseline):
  """Short answers are rewarded, and answers become short."""
  environment = shortness(tmp_path, batch_size=4, samples_per_prompt=4)
  settings = dict(num_steps=14, kl_coef=0.01, optimizer=dict(learning_rate=3e-2), environment=environment, watch=WATCH)
  name = f"reinforce_{baseline}"
  run_stages(recipe("reinforce", baseline), chain, tmp_path, {name: settings})
  rows = read_metrics(tmp_path / name / "metrics.jsonl")
  assert ("reward/greedy" in rows[0]) == ("tokens/greedy" in rows[0]) == (baseline == "greedy")
  first, last = (np.mean([row["reward/proxy"] for row in part]) for part in (rows[:3], rows[-3:]))
  assert last > first + 0.3
  check_recording(tmp_path / name, kl_coef=0.01)
