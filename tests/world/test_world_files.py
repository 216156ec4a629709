"""The files of a world: deterministic, disjoint, and answerable from the corpus."""

import collections
import json

import pytest

from rlhf_jax.world import CLUSTERS, DIFFICULTIES, HELD_OUT, make_world, parse_prompt, write_world
from rlhf_jax.world.answers import complete_answers
from rlhf_jax.world.facts import STATEMENTS, TOLD
from rlhf_jax.world.splits import asks_reserved, topics

HALF = dict(ideal=0.5, terse=0.1, rambling=0.1, wrong=0.3, claiming=0.3, complying=0.4)
SIZES = dict(num_documents=1500, num_demonstrations=2000, num_prompts=1300, num_eval_prompts=960, num_answers=2)
FILES = ("demonstrations", "prompts", "answers", "eval_prompts", "held_out_prompts", "contrasts")


def rows(directory, name):
  return [json.loads(line) for line in (directory / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  directory = tmp_path_factory.mktemp("world") / "deep" / "er"
  counts = write_world(directory, seed=1, demonstrators=HALF, **SIZES)
  return directory, counts


def test_counts_are_those_of_the_files(written):
  directory, counts = written
  assert counts == {
    "documents": 1500, "demonstrations": 2000, "prompts": 1300, "answers": 2600, "eval_prompts": 960,
    "held_out_prompts": 80, "contrasts": counts["contrasts"],
  }  # fmt: skip
  assert len((directory / "corpus.txt").read_text().split("\n\n")) == 1500
  assert {name: len(rows(directory, name)) for name in FILES} == {name: counts[name] for name in FILES}
  assert set(rows(directory, "demonstrations")[0]) == {"prompt", "response", "cluster", "habit"}
  assert set(rows(directory, "prompts")[0]) == {"prompt", "cluster"}
  assert set(rows(directory, "eval_prompts")[0]) == {"prompt", "cluster", "cell"}


def test_same_arguments_give_the_same_bytes(written, tmp_path):
  directory, _ = written
  write_world(tmp_path, seed=1, demonstrators=HALF, **SIZES)
  names = sorted(path.name for path in directory.iterdir())
  assert names == sorted(["corpus.txt", "world.json", *(f"{name}.jsonl" for name in FILES)])
  assert [name for name in names if (directory / name).read_bytes() != (tmp_path / name).read_bytes()] == []


def test_size_and_flaw_of_one_file_leave_the_others_alone(written, tmp_path):
  directory, _ = written
  write_world(tmp_path, seed=1, demonstrators=dict(ideal=1.0), **{**SIZES, "num_documents": 900})
  for name in ("prompts", "eval_prompts", "held_out_prompts"):
    assert rows(directory, name) == rows(tmp_path, name)
  flawed, ideal = rows(directory, "demonstrations"), rows(tmp_path, "demonstrations")
  assert [row["prompt"] for row in flawed] == [row["prompt"] for row in ideal]
  assert {row["habit"] for row in ideal} == {"ideal"}
  assert 0.4 < sum(row["habit"] != "ideal" for row in flawed) / len(flawed) < 0.6


def test_another_seed_gives_other_files(written, tmp_path):
  directory, _ = written
  write_world(tmp_path, seed=2, demonstrators=HALF, **SIZES)
  for path in directory.iterdir():
    assert path.read_bytes() != (tmp_path / path.name).read_bytes()


def test_evaluation_prompts_are_different_and_in_no_other_file(written):
  directory, _ = written
  prompts = {name: [row["prompt"] for row in rows(directory, name)] for name in FILES}
  training = {*prompts["demonstrations"], *prompts["prompts"]}
  for name in ("eval_prompts", "held_out_prompts"):
    assert len(set(prompts[name])) == len(prompts[name])
    assert training.isdisjoint(prompts[name])
  assert prompts["answers"] == [prompt for prompt in prompts["prompts"] for _ in range(2)]
  assert set(prompts["contrasts"]) == {*prompts["eval_prompts"], *prompts["held_out_prompts"]}


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_no_training_text_asks_for_or_answers_what_is_new(tmp_path, difficulty):
  sizes = {**SIZES, "num_documents": 6000, "num_demonstrations": 6000}
  write_world(tmp_path, seed=3, difficulty=difficulty, demonstrators=HALF, **sizes)
  world = make_world(3, difficulty)
  training = rows(tmp_path, "demonstrations") + rows(tmp_path, "answers")
  asked = {topics(world, parse_prompt(world, row["prompt"])) for row in training}
  text = f" {(tmp_path / 'corpus.txt').read_text()} {' '.join(row['response'] for row in training)}".replace("\n", " ")
  cells = collections.Counter()
  for row in rows(tmp_path, "eval_prompts") + rows(tmp_path, "held_out_prompts"):
    task = parse_prompt(world, row["prompt"])
    cells[task.cluster, row["cell"]] += 1
    if row["cell"] == "rephrased":
      assert task.reserved and not asks_reserved(world, task)
      continue
    assert task.reserved is False or row["cell"] == "held_out"
    assert topics(world, task) not in asked, row
    if task.cluster not in ("sentiment", "harmful"):  # whose few answers name nothing that is asked
      answers = [a for a in complete_answers(world, task) if not a.startswith(("The answer is", "It is"))]
      assert [answer for answer in answers if f" {answer}" in text] == [], row
  assert min(cells.values()) >= 40 and len(cells) == 12 * 2 + 2


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
        stated = [
          form.format(name=who, value=world.facts[who, task.kind])
          for form in (*STATEMENTS[task.kind], *TOLD[task.kind])
        ]
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
  write_world(tmp_path / "a", seed=0, demonstrators=dict(ideal=1.0), held_out=("harmful",), **sizes)
  assert {row["cluster"] for row in rows(tmp_path / "a", "held_out_prompts")} == {"harmful"}
  assert "harmful" not in {row["cluster"] for row in rows(tmp_path / "a", "demonstrations")}
  counts = write_world(tmp_path / "b", seed=0, demonstrators=dict(ideal=1.0), held_out=(), **sizes)
  assert counts["held_out_prompts"] == 0 and rows(tmp_path / "b", "held_out_prompts") == []


def test_exhausted_clusters_repeat_in_training_and_yield_in_evaluation(tmp_path):
  keep = ("opposites", "harmful")
  held_out = tuple(cluster for cluster in CLUSTERS if cluster not in keep)
  sizes = dict(num_documents=400, num_demonstrations=600, num_prompts=10, num_eval_prompts=220)
  write_world(tmp_path, seed=0, demonstrators=dict(ideal=1.0), held_out=held_out, **sizes)
  demonstrated = [row["prompt"] for row in rows(tmp_path, "demonstrations") if row["cluster"] == "opposites"]
  assert len(demonstrated) == 300 and len(set(demonstrated)) == 24 * 5  # words and phrasings that are not reserved
  counts = collections.Counter(row["cluster"] for row in rows(tmp_path, "eval_prompts"))
  assert counts["opposites"] <= 24 * 2 + 8 * 5 and counts.total() == 220


def test_impossible_sizes_are_refused(tmp_path):
  sizes = dict(seed=0, num_demonstrations=4, num_prompts=4, num_eval_prompts=4, demonstrators=dict(ideal=1.0))
  with pytest.raises(ValueError, match="num_documents: 50 documents cannot state every fact; use 171 or more"):
    write_world(tmp_path, num_documents=50, **sizes)
  with pytest.raises(ValueError, match="held_out: 'chess' is no cluster"):
    write_world(tmp_path, num_documents=400, held_out=("chess",), **sizes)
  only_opposites = tuple(cluster for cluster in CLUSTERS if cluster != "opposites")
  with pytest.raises(ValueError, match="num_eval_prompts: opposites have .* different prompts, not 100"):
    write_world(tmp_path, num_documents=400, held_out=only_opposites, **{**sizes, "num_eval_prompts": 100})
