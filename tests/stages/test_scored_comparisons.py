"""The stage comparison_accuracy on an untrained reward model: what is scored, left out, held out and refused."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest

from rlhf_jax import data
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.stages import comparison_accuracy
from rlhf_jax.train import identity, init_state, text_scorer
from rlhf_jax.train.checkpoint import open_checkpoints, save

pytestmark = pytest.mark.usefixtures("unoptimised")
PROMPTS = [f"Where is {name}?" for name in ("Tom", "Eve", "Max", "Ann", "Joe", "Pam", "Ben", "Meg")]
ROWS = [
  {"prompt": prompt, "chosen": "In Oakford.", "rejected": "4", "subset": "short" if n % 2 else "other"}
  for n, prompt in enumerate(PROMPTS)
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run with the untrained models "policy" and "judge", and files of comparisons."""
  root = tmp_path_factory.mktemp("run")
  tokenizer = data.train_tokenizer([" ".join(PROMPTS), "In Oakford. 4"], 300)
  tokenizer.save(root / "tokenizer.json")
  data.write_rows(root / "pairs.jsonl", [*ROWS, {**ROWS[0], "chosen": "In Oakford. " * 20}])
  data.write_rows(root / "train.jsonl", [{**ROWS[0], "prompt": f"Who is {n}?"} for n in range(3)])
  ranking = {"prompt": "What is 2?", "responses": ["4", "In Oakford.", "no"], "ranks": [0, 1, 1]}
  data.write_rows(root / "rankings.jsonl", [ranking])
  shape = Model(num_layers=1, d_model=16, num_heads=2, num_kv_heads=1, d_ff=16, max_length=64)
  stage = Stage("bench", root, 0, f"{root}/tokenizer.json", shape, Transport("jit", 1, 1), "print")
  model = language_model(DecoderConfig(tokenizer.vocab_size, **dataclasses.asdict(shape)))
  params = jax.jit(model.init)(jax.random.key(0))
  judge = model.init_head(jax.random.key(1), params)
  for name, kept in (("policy", params), ("judge", judge)):
    with open_checkpoints(root / name / "checkpoints") as checkpoints:
      save(checkpoints, init_state(kept, optax.identity()), identity(stage, model, tokenizer))
  return stage, text_scorer(model, tokenizer, judge, 4, stage.transport)


def sets_of(stage, **settings):
  given = {"models": ("judge",), "comparisons": {"mine": "{run}/pairs.jsonl"}, "batch_size": 4, **settings}
  comparison_accuracy.run(parse(comparison_accuracy.Config, {"algorithm": "", **given}, stage.name), stage)
  return json.loads((stage.directory / "results.json").read_text())["sets"]


def test_the_scores_are_those_of_the_reward_model(run, capsys):
  stage, score = run
  comparisons = {"mine": "{run}/pairs.jsonl", "rankings": {"path": "{run}/rankings.jsonl"}}
  found = sets_of(stage, comparisons=comparisons, train="{run}/train.jsonl")
  assert (found["mine"]["comparisons"], found["mine"]["left_out"]) == (8, {"longer than 64 tokens": 1})
  assert "pairs.jsonl: skipped 1 of 9 rows: longer than 64 tokens" in capsys.readouterr().out
  right = score(PROMPTS, ["In Oakford."] * 8) > score(PROMPTS, ["4"] * 8)
  models = found["mine"]["models"]
  assert list(models) == ["judge", "longer", "bag of words"]
  assert models["judge"]["accuracy"]["mean"] == np.mean(right)
  assert models["judge"]["subsets"]["short"]["accuracy"]["mean"] == np.mean(right[1::2])
  assert models["longer"]["accuracy"]["mean"] == models["bag of words"]["accuracy"]["mean"] == 1.0
  four, oakford, no = score(["What is 2?"] * 3, ["4", "In Oakford.", "no"])
  ranked = found["rankings"]["models"]
  assert ranked["judge"]["accuracy"]["mean"] == ((four > oakford) + (four > no)) / 2
  assert ranked["judge"]["accuracy"]["num"] == 2 and ranked["longer"]["accuracy"]["mean"] == 0.0
  assert ranked["bag of words"]["accuracy"]["mean"] == 0.0  # it has learnt against "4", and does not know "no"


def test_held_out_prompts_are_scored_and_the_others_train_the_words(run, capsys):
  stage, _ = run
  found = sets_of(stage, train="{run}/pairs.jsonl", eval_fraction=0.5)
  held_out = sum(data.is_held_out(prompt, 0.5, stage.seed) for prompt in PROMPTS)
  assert 0 < held_out < 8 and found["mine"]["comparisons"] == held_out
  printed = capsys.readouterr().out
  assert "of 9 rows: their prompt is scored" in printed


@pytest.mark.parametrize(
  "settings, error, message",
  [
    (dict(models=("policy",)), ConfigError, "config.bench.models: stage 'policy' is no reward model"),
    (dict(models=()), ConfigError, "needs models and comparisons"),
    (dict(train="{run}/pairs.jsonl"), data.DataError, "all prompts are scored, which leaves none to train"),
    (dict(eval_fraction=1e-9), data.DataError, "none of 0 comparisons has at most 64 tokens"),
  ],
  ids=["policy", "no model", "train", "nothing held out"],
)
def test_mistakes_are_named(run, settings, error, message):
  with pytest.raises(error, match=message):
    sets_of(run[0], **settings)
