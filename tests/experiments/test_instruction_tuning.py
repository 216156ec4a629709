"""The experiment of instruction tuning: its stages on the world's files, and the figures of its replicates."""

import json
from collections import Counter

import numpy as np
import pytest
from tiny_chain import ROOT, recipe, shared_settings

from rlhf_jax import world
from rlhf_jax.pipeline import run as pipeline
from rlhf_jax.settings import import_module
from rlhf_jax.stages.select_demonstrations import answer_alone, with_turns

analysis = import_module(f"{ROOT}/experiments/instruction_tuning/analyse.py")


def rows_of(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_question_has_one_answer_that_the_gold_reward_calls_ideal():
  made = world.make_world(0)
  for task in world.sample_tasks(made, world.CLUSTERS, 140, seed=0):
    row = world.question(made, task, 4, np.random.default_rng(0))
    gold = world.gold_reward([row["prompt"]] * len(row["choices"]), row["choices"], 0)
    assert 2 <= len(row["choices"]) <= 4 and len(set(row["choices"])) == len(row["choices"])
    assert gold[row["answer"]] == 2.0, row
    assert (np.delete(gold, row["answer"]) < 2.0).all(), row


def test_questions_and_selections_are_written(chain, tmp_path):
  config = recipe("instruction_tuning")
  clusters = ("facts", "reasoning")
  path = f"{chain}/world/demonstrations.jsonl"
  count = Counter(row["cluster"] for row in rows_of(chain / "world/demonstrations.jsonl"))
  wanted = sum(count[cluster] for cluster in clusters)
  parts = dict(all=dict(prompts=f"{chain}/world/eval_prompts.jsonl"),
               sums=dict(prompts=f"{chain}/world/prompts.jsonl", clusters=["arithmetic"], kinds=["plus"]))  # fmt: skip
  selection = dict(config["answer_125_1_data"], demonstrations=path, clusters=clusters, num_demonstrations=wanted)
  stages = {"questions": dict(config["questions"], seed=0, parts=parts), "selection": selection}
  pipeline.run(shared_settings(chain) | {"stages": list(stages), **stages}, tmp_path)
  asked = rows_of(tmp_path / "questions/all.jsonl")
  assert [row["prompt"] for row in asked] == [row["prompt"] for row in rows_of(chain / "world/eval_prompts.jsonl")]
  sums = rows_of(tmp_path / "questions/sums.jsonl")
  assert sums and all("plus" in row["choices"][row["answer"]] for row in sums)
  selected = rows_of(tmp_path / "selection/demonstrations.jsonl")
  assert Counter(row["cluster"] for row in selected) == {cluster: count[cluster] for cluster in clusters}
  assert not any("plus" in row["response"] and "answer is" in row["response"] for row in selected)
  rest = {"selection": dict(selection, start=1, num_demonstrations=wanted - 1)}
  pipeline.run(shared_settings(chain) | {"stages": ["selection"], **rest}, tmp_path / "rest")
  assert rows_of(tmp_path / "rest/selection/demonstrations.jsonl") == selected[1:]
  too_many = {"selection": dict(selection, start=1)}
  with pytest.raises(ValueError, match=f"has {wanted} such demonstrations, not {wanted + 1}"):
    pipeline.run(shared_settings(chain) | {"stages": ["selection"], **too_many}, tmp_path / "more")


def test_a_rationale_is_what_stands_before_the_answer():
  assert answer_alone("3 plus 4 is 7. The answer is 7.") == "The answer is 7."
  assert answer_alone("3 plus 4 is 7.") == "3 plus 4 is 7."


def test_examples_become_earlier_turns_of_the_same_cluster():
  rows = [dict(prompt=f"Ask {i}", response=f"Say {i}.", cluster="ab"[i % 2]) for i in range(8)]
  found = with_turns(rows, (0, 2), np.random.default_rng(0))
  turns = [0 if isinstance(row["prompt"], str) else len(row["prompt"]) for row in found]
  assert set(turns) == {0, 5} and [row["response"] for row in found] == [row["response"] for row in rows]
  for row, asked, count in zip(rows, found, turns, strict=True):
    if not count:
      assert asked == row
      continue
    numbers = [int(turn["content"].removeprefix("Ask ")) for turn in asked["prompt"][::2]]
    assert row["prompt"] == f"Ask {numbers[-1]}"
    assert len(set(numbers)) == 3 and {number % 2 for number in numbers} == {numbers[-1] % 2}
    assert asked["prompt"][1] == {"role": "assistant", "content": f"Say {numbers[0]}."}
  with pytest.raises(ValueError, match="its cluster has 3 other prompts"):
    with_turns(rows, (4,), np.random.default_rng(0))


def test_every_cluster_is_held_out_once_and_selections_are_nested():
  config = recipe("instruction_tuning")
  held_out = []
  for fold in range(1, 8):
    asked = config["questions"]["parts"][f"held_out_{fold}"]["clusters"]
    held_out += asked
    before: set = set()
    for number in (1, 4, 12):
      clusters = set(config[f"clusters_{number}_{fold}_data"]["clusters"])
      assert len(clusters) == number and before < clusters and not clusters & set(asked)
      before = clusters
    assert before == set(config[f"examples_{fold}_data"]["clusters"])
    task = config["zero_shot"]["tasks"][f"held_out_{fold}"]
    assert task["models"] == ("pretrain", *(f"clusters_{number}_{fold}" for number in (1, 4, 12)))
  assert sorted(held_out) == sorted(world.CLUSTERS)
  assert {*recipe("instruction_tuning", "clusters"), *recipe("instruction_tuning", "rationales")} == {*config}


def entry(mean, shots=("0",)):
  cluster = {"acc": {"mean": mean}, "score": {"mean": mean}}
  return {count: {"measures": {}, "clusters": {"a": cluster, "b": {"acc": {"mean": 0.0}}}} for count in shots}


def test_folds_become_intervals_and_paired_differences(tmp_path):
  tasks = {}
  for fold, (few, many) in enumerate(((0.2, 0.4), (0.4, 0.8)), 1):
    models = {"pretrain": 0.1, "pretrain (text)": 0.2, f"clusters_1_{fold}": few, f"clusters_12_{fold}": many}
    for name in ("held_out", "seen"):
      tasks[f"{name}_{fold}"] = {"method": "likelihood", "models": {key: entry(x) for key, x in models.items()}}
  path = tmp_path / "zero_shot" / "few_shot.json"
  path.parent.mkdir()
  path.write_text(json.dumps({"tasks": tasks}))
  found = analysis.collect([tmp_path])
  assert found["values"]["zero_shot"]["held_out"]["0"]["clusters_12"] == [0.2, 0.4]  # the mean over two clusters
  gains = {row["b"]: row for row in found["differences"] if row["task"] == "held_out"}
  assert gains["clusters_1"]["mean"] == pytest.approx(0.15) and gains["clusters_1"]["num"] == 2
  half = 12.706 * np.std([0.1, 0.2], ddof=1) / np.sqrt(2)
  assert gains["clusters_1"]["high"] == pytest.approx(0.15 + half, abs=1e-3)
  assert gains["pretrain (text)"]["mean"] == pytest.approx(0.2)
  with pytest.raises(FileNotFoundError, match="run the recipe first"):
    analysis.collect([tmp_path, tmp_path / "nothing"])


def test_a_fold_of_several_runs_is_their_mean_and_each_run_has_problems_of_its_own(tmp_path):
  for number, (accuracy, steps) in enumerate(((0.2, 1.0), (0.6, 0.5))):
    tasks = {f"held_out_{fold}": {"method": "likelihood", "models": {"pretrain": entry(accuracy)}} for fold in (1, 2)}
    for name in ("zero_shot", "rationales"):
      path = tmp_path / str(number) / name / "few_shot.json"
      path.parent.mkdir(parents=True)
      path.write_text(json.dumps({"tasks": tasks}))
    rows = [dict(task="one_step", model="steps_8_1", prompt="p", score=steps)]
    (path.parent / "responses.jsonl").write_text("\n".join(map(json.dumps, rows)))
  found = analysis.collect([tmp_path / "0", tmp_path / "1"])
  assert found["values"]["zero_shot"]["held_out"]["0"]["pretrain"] == pytest.approx([0.2, 0.2])  # (0.2 + 0.6) / 2 / 2
  steps = found["rationales"]["one_step"]["steps"]["8"]
  assert steps["num"] == 2 and steps["mean"] == 0.75 and sorted(steps["replicates"]) == [0.5, 1.0]


def test_every_claim_has_its_picture(tmp_path):
  def evaluation(name, models, shots):
    tasks = {
      f"{task}_{fold}": {
        "method": "generate" if "answers" in task else "likelihood",
        "models": {model.replace("#", str(fold)): with_score(entry(0.1 * fold, shots)) for model in models},
      }
      for task in ("held_out", "held_out_answers", "seen", "seen_answers")
      for fold in (1, 2)
    }
    path = tmp_path / name / "few_shot.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"tasks": tasks}))

  def with_score(found):
    for result in found.values():
      result["clusters"]["b"]["score"] = {"mean": 0.0}
    return found

  base = ("pretrain", "pretrain (text)")
  evaluation("zero_shot", (*base, "clusters_1_#", "clusters_12_#"), ("0",))
  evaluation("shots", (*base, "clusters_12_#", "examples_#"), ("0", "3"))
  evaluation("masking", ("everything_#",), ("0",))
  evaluation("rationales", (), ())
  rows = [
    dict(task=task, model=f"{form}_{number}_{replicate}", prompt=prompt, score=float(form == "steps" or prompt == "p"))
    for task in ("one_step", "two_steps") for form in ("steps", "answer") for number in (8, 16)
    for replicate in (1, 2) for prompt in "pqr"
  ]  # fmt: skip
  (tmp_path / "rationales" / "responses.jsonl").write_text("\n".join(map(json.dumps, rows)))
  analysis.main([str(tmp_path), "--out", str(tmp_path / "out")])
  found = json.loads((tmp_path / "out/results.json").read_text())
  assert found["rationales"]["one_step"]["difference"]["8"]["mean"] == pytest.approx(2 / 3)
  assert found["rationales"]["two_steps"]["answer"]["16"]["replicates"] == pytest.approx([1 / 3, 1 / 3])
  assert found["values"]["masking"]["seen"]["0"]["clusters_12"] == pytest.approx([0.05, 0.1])
  for name in ("clusters", "examples", "masking", "rationales"):
    assert (tmp_path / f"out/{name}.png").stat().st_size > 5000
