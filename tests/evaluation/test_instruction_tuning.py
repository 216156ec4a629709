"""The experiment of instruction tuning: its stages on the world's files, and the figures of its replicates."""

import json
from collections import Counter

import numpy as np
import pytest
from tiny_chain import recipe, shared_settings

from rlhf_jax import pipeline, world
from rlhf_jax.algorithms.select_demonstrations import answer_alone
from rlhf_jax.evaluation import instruction_tuning


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
               sums=dict(prompts=f"{chain}/world/prompts.jsonl", clusters=("arithmetic",)))  # fmt: skip
  selection = dict(config["no_thought_1_data"], demonstrations=path, clusters=clusters, num_demonstrations=wanted)
  stages = {"questions": dict(config["questions"], seed=0, parts=parts), "selection": selection}
  pipeline.run(shared_settings(chain) | {"stages": list(stages), **stages}, tmp_path)
  asked = rows_of(tmp_path / "questions/all.jsonl")
  assert [row["prompt"] for row in asked] == [row["prompt"] for row in rows_of(chain / "world/eval_prompts.jsonl")]
  assert {row["cluster"] for row in rows_of(tmp_path / "questions/sums.jsonl")} == {"arithmetic"}
  selected = rows_of(tmp_path / "selection/demonstrations.jsonl")
  assert Counter(row["cluster"] for row in selected) == {cluster: count[cluster] for cluster in clusters}
  assert not any("plus" in row["response"] and "answer is" in row["response"] for row in selected)
  too_many = {"selection": dict(selection, num_demonstrations=wanted + 1)}
  with pytest.raises(ValueError, match=f"has {wanted} such demonstrations, not {wanted + 1}"):
    pipeline.run(shared_settings(chain) | {"stages": ["selection"], **too_many}, tmp_path / "more")


def test_a_rationale_is_what_stands_before_the_answer():
  assert answer_alone("3 plus 4 is 7. The answer is 7.") == "The answer is 7."
  assert answer_alone("3 plus 4 is 7.") == "3 plus 4 is 7."


def test_the_recipe_keeps_the_held_out_clusters_out_and_nests_its_selections():
  config = recipe("instruction_tuning")
  held_out = set(config["world"]["held_out"])
  for replicate in (1, 2, 3):
    before: set = set()
    for number in (2, 4, 8, 12):
      clusters = set(config[f"clusters_{number}_{replicate}_data"]["clusters"])
      assert len(clusters) == number and before < clusters and not clusters & held_out
      before = clusters
  assert before == set(world.training_clusters(held_out))


def test_replicates_become_one_interval(tmp_path):
  def entry(mean):
    return {"0": {"measures": {"acc": {"mean": mean, "low": mean, "high": mean, "num": 10}}}}

  means = {"pretrain": 0.5, "pretrain (text)": 0.4, "clusters_2_1": 0.5, "clusters_12_1": 0.6, "clusters_12_2": 0.8}
  models = {name: entry(mean) for name, mean in {**means, "clusters_12_1 (text)": 0.1}.items()}
  for name in ("zero_shot", "shots"):
    path = tmp_path / name / "few_shot.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"tasks": {"held_out": {"method": "likelihood", "models": models}}}))
  found = instruction_tuning.collect(tmp_path)["zero_shot"]["held_out"]["0"]
  assert found["clusters_12"]["mean"] == pytest.approx(0.7) and found["clusters_12"]["num"] == 2
  assert found["clusters_12 (text)"]["mean"] == 0.1 and found["pretrain"]["num"] == 10
  instruction_tuning.main([str(tmp_path), "--out", str(tmp_path / "out")])
  assert (tmp_path / "out/results.png").stat().st_size > 5000
  with pytest.raises(FileNotFoundError, match="run the recipe first"):
    instruction_tuning.collect(tmp_path / "nothing")
