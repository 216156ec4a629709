"""From prompts to the queue: whose responses, how many, where from; and a run's checkpoints through the command."""

import contextlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import data
from rlhf_jax.cli import main
from rlhf_jax.feedback.collect import Policy, collect, make_items, read_gold, read_responses
from rlhf_jax.feedback.exchange import read_records
from rlhf_jax.feedback.records import Response, make_item
from rlhf_jax.feedback.store import open_store
from rlhf_jax.feedback.store_settings import Settings, read_settings
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.pipeline.plan import plan
from rlhf_jax.settings import ConfigError
from rlhf_jax.tools.ask import open_policies
from rlhf_jax.train import CheckpointError, identity
from rlhf_jax.train.checkpoint import open_checkpoints, save
from rlhf_jax.types import TrainState


def echo(name):
  """A policy that answers with its name, its seed and a number."""

  def sample(prompts, count, seed):
    return [[f"{name}{seed} {prompt} {i}" for i in range(count)] for prompt in prompts]

  return Policy(sample, {"checkpoint": name, "sampling": {"temperature": 0.5}})


def test_policies_take_turns_and_leave_their_mark():
  """By hand: 3 samples from 2 policies; the policies take turns, prompt by prompt, to give two of them."""
  items, skips = make_items(["p", "q"], [echo("a"), echo("b")], 3, seed=7)
  assert not skips
  assert [[response.text for response in item.responses] for item in items] == [
    ["a7 p 0", "a7 p 1", "b8 p 0"], ["a7 q 0", "b8 q 0", "b8 q 1"]]  # fmt: skip
  sources = [response.source for response in items[0].responses]
  assert sources[0] == {"checkpoint": "a", "sampling": {"temperature": 0.5, "seed": 7}}
  assert sources[2] == {"checkpoint": "b", "sampling": {"temperature": 0.5, "seed": 8}}
  with pytest.raises(data.DataError, match="-k 1 is less than the 2 policies"):
    make_items(["p"], [echo("a"), echo("b")], 1, seed=7)


def test_equal_texts_count_once_and_what_cannot_be_compared_is_counted():
  same = Policy(lambda prompts, count, seed: [["x"] * count if p != "long" else [] for p in prompts], {})
  existing = {"p": [Response("x", {"file": "f"}), Response("y", {"file": "f"}), Response(" ")], "r": [Response("z")]}
  items, skips = make_items(["p", "q", "long"], [same], 4, 0, existing)
  assert [(item.prompt, [r.text for r in item.responses]) for item in items] == [("p", ["x", "y"]), ("r", ["z"])]
  assert items[0].responses[0].source == {"sampling": {"seed": 0}, "also": [{"file": "f"}]}  # the first one's is first
  assert skips == {"fewer than two different responses": 1, "no response": 1}


def test_collecting_twice_adds_nothing_and_other_settings_are_refused(tmp_path):
  path = tmp_path / "a.db"
  items, _ = make_items(["p", "q"], [echo("a")], 2, 0)
  assert collect(path, items, settings=Settings(seed=1)) == 2
  assert collect(path, items, settings=Settings(seed=1)) == 0
  more, _ = make_items(["r"], [echo("a")], 2, 0)
  assert collect(path, more, settings=Settings(seed=1)) == 1
  with pytest.raises(data.DataError, match="was made with seed 1, which cannot change"):
    collect(path, more, settings=Settings(seed=2))
  with pytest.raises(data.DataError, match="10 responses; a page shows 9 at most"):
    collect(path, [make_item("p", [Response(str(i)) for i in range(10)])])


@pytest.mark.parametrize(
  "row", ['{"prompt": "p"}', '{"response": "r"}', '{"prompt": "p", "responses": "r"}', '{"prompt": "p", "response": 1}',
          '{"prompt": "p", "responses": ["a", null]}', '{"prompt": "p", "response": "\\ud800"}'],
)  # fmt: skip
def test_a_malformed_row_of_responses_is_named_with_file_and_line(row, tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text('{"prompt": "p", "response": "r", "extra": 1}\n\n' + row + "\n")
  with pytest.raises(data.DataError, match="a.jsonl:3: "):
    read_responses(path)


def test_the_command_queues_existing_responses_and_gold(tmp_path, capsys):
  responses, gold, out = tmp_path / "r.jsonl", tmp_path / "g.jsonl", tmp_path / "a.db"
  responses.write_text('{"prompt": "p", "responses": ["a", "b"]}\n{"prompt": "p", "response": "c"}\n'
                       '{"prompt": "q", "responses": ["a", "a"]}\n')  # fmt: skip
  gold.write_text('{"prompt": "g", "chosen": "yes", "rejected": "no"}\n')
  command = ["collect", "--responses", str(responses), "--gold", str(gold), "--judgements", "3", "--seed", "5"]
  assert main([*command, "--gold-every", "4", "--out", str(out)]) == 0
  printed = capsys.readouterr().out
  assert "prompts: skipped 1: fewer than two different responses" in printed
  assert f"{out}: 1 items and 1 gold items, 2 of them new" in printed
  _, items, _ = read_records(out)
  assert [(item.prompt, len(item.responses), item.gold_ranks) for item in items] == [("p", 3, None), ("g", 2, (0, 1))]
  assert items[0].responses[2] == Response("c", {"file": "r.jsonl"})
  with contextlib.closing(open_store(out)) as store:
    assert read_settings(store) == Settings(5, 3, 4)
  assert [item.gold_ranks for item in read_gold(gold)[0]] == [(0, 1)]


@pytest.mark.parametrize("arguments", [[], ["run"], ["--prompts", "p.jsonl"], ["run", "--responses", "r.jsonl"]])
def test_a_run_and_prompts_go_together(arguments, tmp_path, capsys):
  assert main(["collect", *arguments, "--out", str(tmp_path / "a.db")]) == 2
  assert "RUN and --prompts go together" in capsys.readouterr().err


def test_the_command_converts(tmp_path, capsys):
  item = make_item("p", [Response("a"), Response("b")])
  collect(tmp_path / "a.db", [item])
  assert main(["convert", str(tmp_path / "a.db"), str(tmp_path / "a.jsonl")]) == 0
  assert capsys.readouterr().out == f"{tmp_path}/a.jsonl: 0 annotators, 1 items, 0 judgements\n"
  assert read_records(tmp_path / "a.jsonl") == ([], [item], [])
  assert main(["convert", str(tmp_path / "a.db"), str(tmp_path / "b.jsonl"), "--as", "pairs"]) == 2
  assert "none of its judgements holds pairs" in capsys.readouterr().err


STAGE = "import dataclasses\n@dataclasses.dataclass\nclass Config:\n  algorithm: str\ndef run(config, stage): ...\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A finished run by hand, untrained: two checkpoints of `sft`, one of `rl` (policy and value), a reward model."""
  root = tmp_path_factory.mktemp("run")
  (root / "stage.py").write_text(STAGE)
  model = dict(num_layers=1, d_model=16, num_heads=2, num_kv_heads=2, d_ff=16, max_length=48)
  names = ("sft", "rl", "scores", "unfinished")
  config = {"seed": 0, "stages": names, "tokenizer": "{run}/tokenizer.json", "model": model,
            "transport": dict(kind="jit", fsdp=1, microbatches=1),
            **{name: {"algorithm": str(root / "stage.py")} for name in names}}  # fmt: skip
  (root / "config.json").write_text(json.dumps(config))
  data.train_tokenizer(["where does Max live? Max lives in Oakford. " * 20], 300).save(root / "tokenizer.json")
  tokenizer = data.load_tokenizer(root / "tokenizer.json")
  lm = language_model(DecoderConfig(tokenizer.vocab_size, **plan(config, root)[0].stage.model.__dict__))
  trees = [lm.init(jax.random.key(seed)) for seed in range(3)]
  headed = {**trees[2], "head": lm.init_head(jax.random.key(3), trees[2])}
  made = {"sft": {1: trees[0], 2: trees[1]}, "rl": {1: {"policy": trees[2], "value": headed}}, "scores": {1: headed}}
  for step in plan(config, root):
    for number, params in made.get(step.stage.name, {}).items():
      with open_checkpoints(step.stage.directory / "checkpoints") as checkpoints:
        state = TrainState(jnp.int32(number) + jnp.zeros((), jnp.int32), params, (), ())
        save(checkpoints, state, identity(step.stage, lm, tokenizer))
    if step.stage.name in made:
      (step.stage.directory / "done.json").write_text(json.dumps({"fingerprint": step.stage.fingerprint, "seconds": 1}))
  return root


def test_the_command_samples_checkpoints_of_a_run(run, tmp_path, capsys):
  prompts, out = tmp_path / "p.jsonl", tmp_path / "a.db"
  texts = ["Where does Max live?", "Hi", "long " * 60]
  prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
  command = ["collect", str(run), "--prompts", str(prompts), "-k", "3", "--max-new-tokens", "5", "--seed", "4"]
  assert main([*command, "--stages", "sft@1,sft,rl", "--out", str(out)]) == 0
  assert "prompts: skipped 1: no response" in capsys.readouterr().out
  _, items, _ = read_records(out)
  assert [item.prompt for item in items] == texts[:2]
  for item in items:
    sources = [response.source for response in item.responses]
    assert [Path(source["checkpoint"]).name for source in sources] == ["sft@1", "sft", "rl"]
    assert sources[1]["sampling"] == {"temperature": 1.0, "max_new_tokens": 5, "seed": 5}
    assert all(len(source["fingerprint"]) == 16 for source in sources)


def test_a_prompt_gets_the_samples_made_for_it(run):
  """At temperature 0 a response depends on its prompt alone, wherever it stands in the batch."""
  (policy,) = open_policies(run, ["sft"], 0.0, 6)
  prompts = [f"Where does {name} live?" for name in ("Max", "Ann", "Bob", "Eve")]
  together = policy.sample(prompts, 2, 0)
  assert [a == b for a, b in together] == [True] * 4
  assert policy.sample(prompts[::-1], 1, 0) == [answers[:1] for answers in together[::-1]]
  many = policy.sample(prompts, 40, 0)  # more than a batch
  assert np.shape(many) == (4, 40) and all(set(row) == {pair[0]} for row, pair in zip(many, together, strict=True))


def test_the_last_language_model_is_the_default(run):
  (policy,) = open_policies(run, [], 1.0, 4)
  assert policy.source["checkpoint"] == f"{run}/rl"


@pytest.mark.parametrize(
  "name, error, message",
  [
    ("stf", ConfigError, "no finished model of a stage 'stf'. Did you mean 'sft'?"),
    ("unfinished", ConfigError, "no finished model of a stage 'unfinished'"),
    ("sft@", ConfigError, "'sft@' is neither STAGE nor STAGE@STEP"),
    ("sft@x", ConfigError, "'sft@x' is neither STAGE nor STAGE@STEP"),
    ("sft@7", CheckpointError, "has no checkpoint of step 7; it has 1, 2"),
    ("scores", ConfigError, "'scores' of .* is a reward model, which gives no text a probability"),
  ],
)
def test_a_stage_that_cannot_be_sampled_is_named(name, error, message, run):
  with pytest.raises(error, match=message):
    open_policies(run, [name], 1.0, 4)
