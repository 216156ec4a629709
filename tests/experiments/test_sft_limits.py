"""The experiment on the limits of supervised fine-tuning: its figures by hand, and the whole command at tiny sizes."""

import collections
import math

import jax
import numpy as np
import pytest
from tiny_chain import ROOT

from rlhf_jax import data
from rlhf_jax.pipeline.plan import plan
from rlhf_jax.pipeline.recipe import plain
from rlhf_jax.settings import import_module
from rlhf_jax.train.mesh import using_devices
from rlhf_jax.world import gold_score, make_world, parse_prompt

pytestmark = pytest.mark.usefixtures("unoptimised")

FOLDER = ROOT / "experiments" / "sft_limits"
analyse, answers, chosen = (import_module(str(FOLDER / f"{name}.py")) for name in ("analyse", "answers", "chosen"))


def answer(kind, gold, logp, reward, prompt="p", tokens=2):
  """Log-probabilities: `logp` under SFT, 1 more under every model that learns on."""
  learnt = {name: logp + (name != "sft") for name in analyse.LEARNERS}
  return dict(prompt=prompt, kind=kind, gold=gold, tokens=tokens, logp=learnt, reward=reward, style=0.0)


ROWS = [
  answer("usual", 2.0, -1.0, 1.0),
  answer("other words", 2.0, -6.0, 0.5),
  answer("wrong", -1.0, -3.0, -1.0),
  answer("terse", 1.3, -2.0, 0.0),
  answer("usual", 2.0, -1.0, 1.0, "q"),
  answer("other items", 2.0, -2.0, 0.9, "q"),
  answer("wrong", -1.0, -3.0, 1.0, "q", tokens=3),
  answer("rambling", 1.5, -5.0, 0.0, "q"),
]


def sample(total, honest=1.0, harmless=1.0, cluster="facts", cell="rephrased", response=""):
  return dict(total=total, honest=honest, harmless=harmless, cluster=cluster, cell=cell, response=response)


def test_what_training_moves_is_measured_from_sft():
  samples = {name: [sample(-1.0, harmless=0.0, cluster="harmful"), sample(2.0)] for name in analyse.LEARNERS}
  samples["dpo"] = [sample(2.0, cluster="harmful")]
  found = analyse.negatives(ROWS, samples)
  assert set(found["change"]) == {"more_sft", "chosen_sft", "dpo", "ppo"}
  assert found["change"]["dpo"]["usual"] == 1.0 and found["change"]["dpo"]["faulty"] == 1.0
  assert math.isnan(found["change"]["dpo"]["complying"])  # no such answer here
  assert found["helps with harm"]["sft"] == 1.0 and found["helps with harm"]["dpo"] == 0.0


def test_right_answers_stand_against_the_wrong_one_of_their_prompt():
  found = analyse.right_answers(ROWS)
  assert found["chosen"]["other words"]["log p, sft"] == 0.0 and found["chosen"]["other words"]["reward model"] == 1.0
  assert found["chosen"]["other items"]["log p, sft"] == 1.0 and found["chosen"]["other items"]["reward model"] == 0.0
  assert found["chosen"]["other items"]["log p per token, sft"] == 0.5  # -2 / 2 and -3 / 3
  assert found["chosen"]["other words"]["style baseline"] == 0.5
  assert found["cost"]["other words"] == 5.0 and found["cost"]["wrong beside other words"] == 2.0


def test_the_worse_of_two_mistakes():
  found = analyse.mistakes(ROWS)
  # terse above wrong: log p says so; rambling above wrong: log p says the opposite; the reward is right, then wrong.
  assert found["worse"]["log p, sft"] == 0.5 and found["worse"]["reward model"] == 0.5
  assert found["kinds"]["wrong"] == {"gold": 3.0, "log p": 2.0, "reward": 1.0}
  assert found["kinds"]["terse"]["gold"] == pytest.approx(0.7)


def test_faults_are_ideal_grave_or_slight():
  rows = [sample(2.0), sample(-1.0, honest=0.0), sample(1.0), sample(-0.5, harmless=0.0)]
  assert analyse.faults(rows) == {"ideal": 0.25, "grave": 0.5, "slight": 0.25}
  models = {name: [sample(1.0), sample(2.0, cell="new")] for name in ("demonstrators", "sft", "more_sft")}
  models["rated"] = [sample(2.0), sample(2.0, cell="new")]
  found = analyse.levels(models)
  assert found["sft"]["gold"] == 1.5 and found["sft"]["rephrased"] == 1.0
  assert found["rated - more_sft"] == {"gold": 0.5, "rephrased": 1.0, "ideal": 0.5, "grave": 0.0, "slight": -0.5}


def test_the_loss_of_demonstrators_weighs_answers_by_their_habits():
  loss = analyse.demonstrators_loss(ROWS[:4], {"ideal": 1.0, "terse": 3.0})
  assert loss["sft"] == (1 * 1.0 + 3 * 2.0) / (2 + 3 * 2)  # tokens 2 each


def test_different_lists_are_counted():
  rows = [sample(2.0, cluster="listing", response=text) for text in ("a", "a", "b", "c")]
  found = analyse.distinct_lists({"sft": rows, "rated": [sample(2.0)]})
  assert found["sft"] == 0.75 and math.isnan(found["rated"])


def test_answers_are_right_or_faulty_as_their_kind_says():
  world = make_world(0)
  rng = np.random.default_rng(0)
  kinds = collections.Counter()
  for prompt in ("Where does Max live?", "Name two animals.", "What is 2 plus 3?", "Is a dog an animal or a food?"):
    task = parse_prompt(world, prompt)
    if task is None:
      continue
    found = answers.answers(world, task, rng)
    assert found[0][0] == "usual" and len({text for _, text in found}) == len(found)
    for kind, text in found:
      kinds[kind] += 1
      assert (gold_score(world, prompt, text).total == 2.0) == (kind in analyse.RIGHT), (kind, text)
  assert kinds["other words"] > 2 and kinds["other items"] == 1 and kinds["wrong"] >= 3


def test_the_best_response_of_a_comparison_is_chosen():
  ranked = data.Comparison("p", ("a", "b", "c"), (2, 0, 1))
  assert chosen.best_response(ranked) == "b"
  assert chosen.best_response(data.Comparison("p", ("a", "b", "c"), (-1, 1, 1))) == "b"


def test_every_cell_can_be_run(tmp_path):
  found = []
  analyse.sweep.sweep(lambda config, **labels: found.append((config, labels)))
  assert len(found) == 3 * analyse.sweep.SEEDS
  for config, labels in found[:3]:
    steps = plan(plain(config), tmp_path)
    assert ("answers" in [step.stage.name for step in steps]) == (labels["group"] == analyse.sweep.MIDDLE)
    assert config.more.num == config.rated.num_steps * config.rated.environment.batch_size == 2048


@pytest.mark.slow
def test_the_command_at_tiny_sizes(tmp_path, capsys):
  with using_devices(jax.devices()[:1]):
    analyse.main(["--run", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--fast"])
  told = capsys.readouterr().out
  limits = data.read_json(tmp_path / "out" / "results.json")["limits"]
  assert set(limits) == {"negatives", "right answers", "mistakes", "levels", "loss", "gold"}
  assert set(limits["levels"]) == {"none", "some"} and limits["levels"]["none"]["demonstrators"]["ideal"]["mean"] < 0.1
  assert set(limits["loss"]) == {"sft", "more_sft", "rated", "chosen_sft", "dpo", "ppo"}
  assert "| log p, chosen_sft |" in told and (tmp_path / "out" / "results.png").stat().st_size > 0
  (cell,) = (tmp_path / "run" / "cells").glob("*group=some*")
  best = [row for _, row in data.read_rows(cell / "chosen" / "demonstrations.jsonl")]
  compared = [row for _, row in data.read_rows(cell / "preferences" / "comparisons.jsonl")]
  assert [row["prompt"] for row in best] == [row["prompt"] for row in compared]
  assert all(
    row["responses"][row["ranks"].index(0)] == one["response"] for row, one in zip(compared, best, strict=True)
  )
