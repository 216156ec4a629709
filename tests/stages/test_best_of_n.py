"""Best-of-n: its choice, its KL on a table, the file it writes, and SFT on that file."""

import itertools

import numpy as np
import pytest
import tabular
from tiny_chain import SAMPLING, recipe, run_stages, shortness

from rlhf_jax import data
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.stages import best_of_n
from rlhf_jax.train.metrics import read_metrics

pytestmark = pytest.mark.usefixtures("unoptimised")


def test_the_best_usable_response_wins_and_the_first_of_equals():
  scores = np.array([[1.0, 3.0, 2.0], [2.0, 2.0, 1.0], [5.0, -1.0, -2.0], [0.0, 0.0, 0.0]])
  usable = np.array([[True, True, True], [True, True, True], [False, True, True], [False, False, False]])
  assert best_of_n.best(scores, usable).tolist() == [1, 0, 1, -1]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_its_kl_is_within_the_bound(n):
  """Every n-tuple of responses there is: KL <= log n - (n - 1) / n, and its mean score is E[max]."""
  problem = tabular.tree(seed=2, stop=False)
  rows = tabular.leaves(problem)
  p = np.asarray(tabular.distribution(problem, problem.reference), np.float64)
  scores = np.asarray(tabular.scores(problem, rows))
  tuples = np.array(list(itertools.product(range(len(rows)), repeat=n)))
  chances = p[tuples].prod(axis=1)
  winners = tuples[np.arange(len(tuples)), best_of_n.best(scores[tuples], np.ones_like(tuples, bool))]
  q = np.bincount(winners, weights=chances, minlength=len(rows))
  kl, bound = np.sum(q * np.log(q / p)), np.log(n) - (n - 1) / n
  assert -1e-9 <= kl <= bound + 1e-6 and (n == 1 or kl > 0.5 * bound)
  below = np.array([p[scores < s].sum() for s in scores]), np.array([p[scores <= s].sum() for s in scores])
  np.testing.assert_allclose(q, below[1] ** n - below[0] ** n, atol=1e-9)  # no two scores are equal


def settings(tmp_path, **changes):
  environment = shortness(tmp_path)
  part = dict(num_prompts=50, responses=6, batch_size=16, reward=environment["reward"], sampling=SAMPLING)
  return {**part, **changes}


def test_the_stage_writes_what_sft_reads(chain, tmp_path, capsys):
  """Fifty prompts in batches of sixteen; then SFT on the shortest answers, which the model learns."""
  sft = dict(num_epochs=4, batch_size=8, length=64, eval_fraction=0.3, optimizer=dict(learning_rate=1e-2))
  changes = {"best_of_n": settings(tmp_path), "rejection_sft": sft}
  run_stages(recipe("best_of_n"), chain, tmp_path, changes)
  rows = [row for _, row in data.read_rows(tmp_path / "best_of_n" / "demonstrations.jsonl")]
  prompts, _ = data.read_prompts(chain / "world" / "prompts.jsonl")
  assert [row["prompt"] for row in rows] == [prompt for prompt in prompts[:55] if prompt in {r["prompt"] for r in rows}]
  for row in rows:
    assert row["score"] == pytest.approx(-len(row["response"]) / 10, abs=1e-5)
  assert np.mean([row["score"] - row["mean_score"] for row in rows]) > 0.1
  assert 5 < len(rows) < 50
  assert f"skipped {50 - len(rows)} of 50 rows: every response is unfinished or empty" in capsys.readouterr().out
  metrics = read_metrics(tmp_path / "rejection_sft" / "metrics.jsonl")
  assert metrics[-1]["loss"] < metrics[0]["loss"] and "eval/loss" in metrics[-1]


def test_no_response_that_ends_is_an_error(chain, tmp_path, monkeypatch):
  monkeypatch.setattr(best_of_n, "best", lambda scores, usable: np.full(len(scores), -1))
  with pytest.raises(data.DataError, match="best_of_n: .*sft gave no prompt a response that ends"):
    run_stages(recipe("best_of_n"), chain, tmp_path, {"best_of_n": settings(tmp_path, num_prompts=8)})
  assert not (tmp_path / "best_of_n" / "demonstrations.jsonl").exists()


def test_mistakes_are_named(chain, tmp_path):
  section = recipe("best_of_n")["best_of_n"]
  with pytest.raises(ConfigError, match="config.best_of_n.responses is 0, and must be at least 1"):
    parse(best_of_n.Config, {**section, "responses": 0}, "best_of_n")
  reward = dict(section["reward"], checkpoint="sft")
  with pytest.raises(ConfigError, match="config.best_of_n.reward.checkpoint: stage '.*sft' is no reward model"):
    run_stages(recipe("best_of_n"), chain, tmp_path, {"best_of_n": settings(tmp_path, reward=reward)})
