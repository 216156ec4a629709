"""Curves of best-of-n: from samples by hand, and by the stage on the tiny chain."""

import numpy as np
import pytest
from tiny_chain import SAMPLING, recipe, run_stages

from rlhf_jax import data
from rlhf_jax.evaluation.best_of_n import best_of_n_kl_bound
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.stages import best_of_n_curve

WHOLE = {**SAMPLING, "max_prompt_tokens": 52}  # no prompt is longer

pytestmark = pytest.mark.usefixtures("unoptimised")


def test_points_by_hand():
  """One prompt with three samples of score 0 and one of score 1: the best of two is the latter in half of the pairs."""
  rows = [{"counts": [3, 1], "gold": [2.0, 0.0], "scores": {"judge": [0.0, 1.0]}}]
  one, two, four = best_of_n_curve.curve(rows, "judge")
  assert [point["n"] for point in (one, two, four)] == [1, 2, 4]
  assert [point["proxy"]["mean"] for point in (one, two, four)] == pytest.approx([0.25, 0.5, 1.0])
  assert [point["gold"]["mean"] for point in (one, two, four)] == pytest.approx([1.5, 1.0, 0.0])
  share = 1 - 0.75**2
  kl = share * np.log(share / 0.25) + 0.75**2 * np.log(0.75)
  assert (one["kl"], two["kl"]) == pytest.approx((0.0, kl), abs=1e-6)
  assert two["kl"] < two["kl_bound"] == pytest.approx(float(best_of_n_kl_bound(2)), abs=1e-6)


def test_different_responses_are_counted_by_prompt():
  tokens = np.array([[[1, 2], [1, 3], [1, 2]], [[1, 2], [1, 2], [1, 2]]], np.int32)
  first, counts = best_of_n_curve.different(tokens)
  assert first.tolist() == [0, 1, 3] and counts.tolist() == [2, 1, 3]


def settings(chain, **changes):
  gold = recipe("quickstart")["ppo"]["environment"]["monitor"]
  return dict(
    algorithm="rlhf_jax.stages.best_of_n_curve", policy="sft", prompts=f"{chain}/world/eval_prompts.jsonl",
    num_prompts=5, responses=6, batch_size=2, sampling=WHOLE, models=(f"{chain}/reward_model",), gold=gold,
  ) | changes  # fmt: skip


def test_the_stage_scores_what_it_samples(chain, tmp_path):
  """Gold by the function of the texts; then by a reward model, which is the proxy itself."""
  shared = {**recipe("quickstart"), "curves": settings(chain, missing_eos_score=-9.0)}
  run_stages(shared, chain, tmp_path, {"curves": {}})
  judge = f"{chain}/reward_model"
  rows = [row for _, row in data.read_rows(tmp_path / "curves" / "samples.jsonl")]
  prompts, _ = data.read_prompts(chain / "world" / "eval_prompts.jsonl")
  assert [row["prompt"] for row in rows] == prompts[:5] and all(sum(row["counts"]) == 6 for row in rows)
  for row in rows:
    scores = row["scores"][judge]
    assert all((score == -9.0) == (not done) for score, done in zip(scores, row["finished"], strict=True))
    assert all(-2 <= gold <= 2 for gold in row["gold"])
  results = data.read_json(tmp_path / "curves" / "results.json")
  points = results["curves"][judge]
  assert (results["prompts"], results["responses"]) == (5, 6) and [point["n"] for point in points] == [1, 2, 4]
  assert points[0]["kl"] == 0 and points[0]["gold"]["num"] == 5
  proxies = [point["proxy"]["mean"] for point in points]
  assert proxies == sorted(proxies)
  shared["curves"] = settings(chain, gold={"function": ""}, gold_checkpoint="reward_model")
  run_stages(shared, chain, tmp_path / "again", {"curves": {}})
  for row in (row for _, row in data.read_rows(tmp_path / "again" / "curves" / "samples.jsonl")):
    assert row["gold"] == row["scores"][judge]


@pytest.mark.parametrize(("changes", "told"), [
  (dict(models=()), "models is empty"),
  (dict(gold={"function": ""}), "give exactly one of the two"),
  (dict(gold_checkpoint="reward_model"), "give exactly one of the two"),
])  # fmt: skip
def test_mistakes_are_named(tmp_path, changes, told):
  with pytest.raises(ConfigError, match=told):
    parse(best_of_n_curve.Config, settings(tmp_path, **changes), "curves")
