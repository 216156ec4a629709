"""Refinement: the choice, the reward of texts, and criticism, rewrites and SFT on the tiny chain."""

import json

import numpy as np
import pytest
from tiny_chain import SAMPLING, recipe, run_stages, shortness

from rlhf_jax import data
from rlhf_jax.feedback.exchange import read_records
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.stages import demonstrations, refinement
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.world import critique, gold_score, make_world

pytestmark = pytest.mark.usefixtures("unoptimised")
SFT = dict(num_epochs=1, batch_size=8, length=64, eval_fraction=0.3)


def test_a_rewrite_must_be_usable_and_above_the_response():
  scores = np.array([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0], [5.0, 4.0, 2.0], [0.0, 0.0, 0.0]])
  usable = np.array([[True, True], [False, True], [True, True], [True, True]])
  assert refinement.better(scores, usable).tolist() == [1, 2, -1, -1]


def test_texts_are_scored_as_answers_to_their_prompt():
  tokenizer = data.train_tokenizer(["Say a or b. Go on."], vocab_size=300)
  seen = []

  def reward(rollout, prompts, texts):
    seen.extend(zip(prompts, texts, strict=True))
    lengths = np.asarray(rollout.mask).sum(axis=1)
    said = [data.response_ids(tokenizer, p, t) for p, t in seen]
    assert [n for n, fits in zip(lengths, rollout.finished, strict=True) if fits] == [
      len(ids) for (p, _), ids in zip(seen, said, strict=True) if len(data.prompt_ids(tokenizer, p) + ids) <= 60
    ]
    return lengths

  groups = [["a", "b b"], ["a " * 80, "b"]]
  scores, fits = refinement.score_texts(reward, tokenizer, ["Say a or b.", "Go on."], groups, 60)
  assert seen == [("Say a or b.", "a"), ("Say a or b.", "b b"), ("Go on.", "a " * 80), ("Go on.", "b")]
  assert fits.tolist() == [[True, True], [False, True]] and scores[0, 0] < scores[0, 1]


@pytest.mark.slow
def test_the_recipe_from_criticism_to_sft(chain, tmp_path, capsys):
  config = recipe("refinement")
  config["model"]["max_length"] = 64
  changes = {
    "refinement_demonstrations": dict(num=40),
    "refiner": dict(SFT, optimizer=dict(learning_rate=1e-2)),
    "critiques": dict(num_items=48, batch_size=64, sampling=SAMPLING),
    "refinement": dict(
      batch_size=16, length=64, sampling=dict(SAMPLING, max_prompt_tokens=52), reward=shortness(tmp_path)["reward"]
    ),
    "refined": SFT,
  }
  config["refinement"]["template"] = config["refinement_demonstrations"]["template"] = "{prompt} {response} {critique}"
  run_stages(config, chain, tmp_path, changes)
  demonstrated = [row for _, row in data.read_rows(tmp_path / "refinement_demonstrations" / "demonstrations.jsonl")]
  assert len(demonstrated) == 120 + 40 and all(row["prompt"].count(".") for row in demonstrated[120:])
  _, items, said = read_records(tmp_path / "critiques" / "feedback.db")
  assert len(items) == len(said) == 48 and any(any(judgement.critiques) for judgement in said)
  assert all((judgement.skipped is None) == any(judgement.critiques) for judgement in said)
  rows = [row for _, row in data.read_rows(tmp_path / "refinement" / "demonstrations.jsonl")]
  assert rows and all(row["score"] > row["score_before"] and row["response"] != row["before"] for row in rows)
  assert all(len(row["response"]) < len(row["before"]) for row in rows)  # short is what was rewarded
  assert "no rewrite is better" in capsys.readouterr().out
  assert read_metrics(tmp_path / "refined" / "metrics.jsonl")


def test_mistakes_are_named():
  section = recipe("refinement")["refinement"]
  with pytest.raises(ConfigError, match="template lacks {critique}"):
    parse(refinement.Config, {**section, "template": "{prompt} {response}"}, "refinement")
  with pytest.raises(ConfigError, match="config.refinement.rewrites is 0, and must be at least 1"):
    parse(refinement.Config, {**section, "rewrites": 0}, "refinement")


def test_demonstrations_are_bought(tmp_path):
  stage = Stage("bought", tmp_path, 0, "", Model(1, 8, 1, 1, 8, 8), Transport("jit", 1, 1))
  prompts = ["What is 2 plus 2?", "Name two animals.", "Repeat this sentence: Eva took the cup."]
  (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
  demonstrations.run(
    demonstrations.Config("", 0, "easy", "{run}/prompts.jsonl", 30, dict(ideal=0.5, terse=0.2, wrong=0.3)), stage
  )
  rows = [row for _, row in data.read_rows(tmp_path / "bought" / "demonstrations.jsonl")]
  assert len(rows) == 30 and [row["prompt"] for row in rows].count(prompts[0]) == 10
  for row in rows:
    assert bool(critique(make_world(0), row["prompt"], row["response"])) == (row["habit"] != "ideal")
    assert (gold_score(make_world(0), row["prompt"], row["response"]).total == 2.0) == (row["habit"] == "ideal")
  (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "Why?"}) + "\n")
  with pytest.raises(data.DataError, match="'Why[?]' is no request of the world"):
    demonstrations.run(demonstrations.Config("", 0, "easy", "{run}/prompts.jsonl", 1, dict(ideal=1.0)), stage)
