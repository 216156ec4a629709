"""The files of a world: deterministic, disjoint, and answerable from the corpus."""

import collections
import json

import pytest

from rlhf_jax.world import CLUSTERS, HELD_OUT, make_world, parse_prompt, write_world
from rlhf_jax.world.facts import STATEMENTS

SIZES = dict(num_documents=1500, num_demonstrations=2000, num_prompts=1300, num_eval_prompts=250)
FILES = ("demonstrations", "prompts", "eval_prompts", "held_out_prompts")


def rows(directory, name):
  return [json.loads(line) for line in (directory / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  directory = tmp_path_factory.mktemp("world") / "deep" / "er"
  counts = write_world(directory, seed=1, demonstrator_flaw=0.5, **SIZES)
  return directory, counts


def test_counts_are_those_of_the_files(written):
  directory, counts = written
  assert counts == {
    "documents": 1500, "demonstrations": 2000, "prompts": 1300, "eval_prompts": 250, "held_out_prompts": 42,
  }  # fmt: skip
  assert len((directory / "corpus.txt").read_text().split("\n\n")) == 1500
  assert {name: len(rows(directory, name)) for name in FILES} == {name: counts[name] for name in FILES}
  assert set(rows(directory, "demonstrations")[0]) == {"prompt", "response", "cluster", "habit"}
  assert set(rows(directory, "prompts")[0]) == {"prompt", "cluster"}


def test_same_arguments_give_the_same_bytes(written, tmp_path):
  directory, _ = written
  write_world(tmp_path, seed=1, demonstrator_flaw=0.5, **SIZES)
  names = sorted(path.name for path in directory.iterdir())
  assert names == sorted(["corpus.txt", "world.json", *(f"{name}.jsonl" for name in FILES)])
  assert [name for name in names if (directory / name).read_bytes() != (tmp_path / name).read_bytes()] == []


def test_size_and_flaw_of_one_file_leave_the_others_alone(written, tmp_path):
  directory, _ = written
  write_world(tmp_path, seed=1, demonstrator_flaw=0.0, **{**SIZES, "num_documents": 900})
  for name in ("prompts", "eval_prompts", "held_out_prompts"):
    assert rows(directory, name) == rows(tmp_path, name)
  flawed, ideal = rows(directory, "demonstrations"), rows(tmp_path, "demonstrations")
  assert [row["prompt"] for row in flawed] == [row["prompt"] for row in ideal]
  assert {row["habit"] for row in ideal} == {"ideal"}
  assert 0.4 < sum(row["habit"] != "ideal" for row in flawed) / len(flawed) < 0.6


def test_another_seed_gives_other_files(written, tmp_path):
  directory, _ = written
  write_world(tmp_path, seed=2, demonstrator_flaw=0.5, **SIZES)
  for path in directory.iterdir():
    assert path.read_bytes() != (tmp_path / path.name).read_bytes()


def test_evaluation_prompts_are_different_and_in_no_other_file(written):
  directory, _ = written
  prompts = {name: [row["prompt"] for row in rows(directory, name)] for name in FILES}
  training = {*prompts["demonstrations"], *prompts["prompts"]}
  for name in ("eval_prompts", "held_out_prompts"):
    assert len(set(prompts[name])) == len(prompts[name])
    assert training.isdisjoint(prompts[name])


def test_clusters_have_equal_shares_and_held_out_ones_are_apart(written):
  directory, _ = written
  training = set(CLUSTERS) - set(HELD_OUT)
  for name in ("demonstrations", "prompts"):
    counts = collections.Counter(row["cluster"] for row in rows(directory, name))
    assert set(counts) == training and max(counts.values()) - min(counts.values()) <= 1
  assert {row["cluster"] for row in rows(directory, "eval_prompts")} == training
  assert {row["cluster"] for row in rows(directory, "held_out_prompts")} == set(HELD_OUT)


def test_cluster_is_that_of_the_prompt_and_evaluated_facts_are_in_the_corpus(written):
  directory, _ = written
  world = make_world(1)
  text = (directory / "corpus.txt").read_text()
  asked = 0
  for name in FILES:
    for row in rows(directory, name):
      task = parse_prompt(world, row["prompt"])
      assert task.cluster == row["cluster"]
      if task.cluster in ("facts", "verification"):
        who = task.values["name"]
        stated = [form.format(name=who, value=world.facts[who, task.kind]) for form in STATEMENTS[task.kind]]
        if task.kind in ("colour", "animal"):
          stated.append(f"{who} has a {world.facts[who, 'colour']} {world.facts[who, 'animal']}.")
        assert any(sentence in text for sentence in stated), row
        asked += 1
  assert asked > 300


def test_world_is_described_for_a_reader(written):
  directory, _ = written
  world = make_world(1)
  described = json.loads((directory / "world.json").read_text())
  for (name, attribute), value in world.facts.items():
    assert described["people"][name][attribute] == value
  assert described["strangers"] == list(world.strangers)
  assert described["held_out_clusters"] == list(HELD_OUT)


def test_other_clusters_can_be_held_out_or_none(tmp_path):
  sizes = dict(num_documents=400, num_demonstrations=26, num_prompts=26, num_eval_prompts=20)
  write_world(tmp_path / "a", seed=0, demonstrator_flaw=0.0, held_out=("harmful",), **sizes)
  assert {row["cluster"] for row in rows(tmp_path / "a", "held_out_prompts")} == {"harmful"}
  assert "harmful" not in {row["cluster"] for row in rows(tmp_path / "a", "demonstrations")}
  counts = write_world(tmp_path / "b", seed=0, demonstrator_flaw=0.0, held_out=(), **sizes)
  assert counts["held_out_prompts"] == 0 and rows(tmp_path / "b", "held_out_prompts") == []


def test_exhausted_clusters_repeat_in_training_and_yield_in_evaluation(tmp_path):
  keep = ("opposites", "harmful")
  held_out = tuple(cluster for cluster in CLUSTERS if cluster not in keep)
  sizes = dict(num_documents=400, num_demonstrations=600, num_prompts=10, num_eval_prompts=120)
  write_world(tmp_path, seed=0, demonstrator_flaw=0.0, held_out=held_out, **sizes)
  demonstrated = [row["prompt"] for row in rows(tmp_path, "demonstrations") if row["cluster"] == "opposites"]
  assert len(demonstrated) == 300 and 100 <= len(set(demonstrated)) <= 144  # 24 words in 6 phrasings
  counts = collections.Counter(row["cluster"] for row in rows(tmp_path, "eval_prompts"))
  assert counts["opposites"] <= 44 and counts.total() == 120


def test_impossible_sizes_are_refused(tmp_path):
  sizes = dict(seed=0, num_demonstrations=4, num_prompts=4, num_eval_prompts=4, demonstrator_flaw=0.0)
  with pytest.raises(ValueError, match="num_documents: 50 documents cannot state every fact; use 196 or more"):
    write_world(tmp_path, num_documents=50, **sizes)
  with pytest.raises(ValueError, match="held_out: 'chess' is no cluster"):
    write_world(tmp_path, num_documents=400, held_out=("chess",), **sizes)
  only_opposites = tuple(cluster for cluster in CLUSTERS if cluster != "opposites")
  with pytest.raises(ValueError, match="num_eval_prompts: opposites have .* different prompts, not 100"):
    write_world(tmp_path, num_documents=400, held_out=only_opposites, **{**sizes, "num_eval_prompts": 100})
