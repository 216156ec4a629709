"""Lengths: set once for a run, where a stage does not set its own; and what they leave out of a user's files."""

import copy
import json

import pytest
from tiny_chain import recipe

from rlhf_jax import data
from rlhf_jax.feedback.exchange import write_records
from rlhf_jax.feedback.records import Annotator, Item, Response
from rlhf_jax.pipeline import check
from rlhf_jax.pipeline.plan import plan
from rlhf_jax.pipeline.recipe import load_config
from rlhf_jax.settings import ConfigError

SHORT, LONG = "Say a.", "Say a. " * 40  # LONG is longer than any row of these tests


@pytest.fixture
def config():
  found = copy.deepcopy(recipe("quickstart"))
  for section in (found["sft"], found["reward_model"]):
    section["length"] = 0
  found["ppo"]["environment"]["sampling"] = dict(max_new_tokens=16, temperature=1.0)
  return found


def stages(config, tmp_path):
  return {step.stage.name: step for step in plan(config, tmp_path)}


def test_a_length_of_zero_is_the_run_s(config, tmp_path):
  found = stages({**config, "max_length": 96}, tmp_path)
  assert (found["sft"].config.length, found["reward_model"].config.length) == (96, 96)
  assert found["ppo"].config.environment.sampling.max_prompt_tokens == 96 - 16
  assert found["pretrain"].config.length == config["pretrain"]["length"]
  assert found["preferences"].config.sampling.max_prompt_tokens == 30


def test_without_one_it_is_the_model_s(config, tmp_path):
  assert stages(config, tmp_path)["sft"].config.length == config["model"]["max_length"]
  config["model"] = dict(path="owner/name")
  with pytest.raises(ConfigError, match=r"^config\.sft\.length is not set, and neither is config\.max_length"):
    plan(config, tmp_path)
  config["max_length"] = 64
  assert stages(config, tmp_path)["sft"].config.length == 64


def test_a_stage_is_made_from_the_length_that_it_takes_from_the_run(config, tmp_path):
  short, long = (
    {name: step.stage.fingerprint for name, step in stages({**config, "max_length": size}, tmp_path).items()}
    for size in (64, 96)
  )
  changed = {name for name in short if short[name] != long[name]}
  assert changed == {"sft", "preferences", "reward_model", "ppo", "evaluation"}  # SFT's dependants with it


@pytest.mark.parametrize(
  ("longest", "told"),
  [
    (0, "config.max_length must be a number of tokens, at least 1, not 0."),
    ("64", "config.max_length must be a number of tokens, at least 1, not '64'."),
    (16, "config.ppo.environment.sampling.max_prompt_tokens: max_new_tokens leaves no token of max_length=16 to a "),
  ],
)
def test_a_length_that_cannot_be_is_refused(longest, told, config, tmp_path):
  with pytest.raises(ConfigError) as error:
    plan({**config, "max_length": longest}, tmp_path)
  assert str(error.value).startswith(told)


def test_it_is_set_on_the_command_line():
  config, _ = load_config(["--config", "quickstart", "--print", "--config.max_length=96"])
  assert config["max_length"] == 96


@pytest.fixture
def own(config, tmp_path):
  """A config of stages that read files of a user's, of which every fourth row, or question, is too long."""
  texts = [SHORT, SHORT, LONG, SHORT] * 2
  data.train_tokenizer([SHORT] * 9, vocab_size=300).save(tmp_path / "tokenizer.json")
  rows = {
    "prompts": [{"prompt": text} for text in texts],
    "demonstrations": [{"prompt": "Say a.", "response": text} for text in texts],
    "questions": [{"question": text, "answer": "a"} for text in texts],
    "comparisons": [{"prompt": "Say a.", "chosen": text, "rejected": "b"} for text in texts],
  }
  for name, found in rows.items():
    data.write_rows(tmp_path / f"{name}.jsonl", found)
  items = [Item(str(i), "Say a.", (Response(text), Response("b"))) for i, text in enumerate(texts)]
  write_records(tmp_path / "records.jsonl", ([Annotator("ann")], items, []))
  config |= {"max_length": 64, "tokenizer": f"{tmp_path}/tokenizer.json", "stages": ("sft", "reward_model")}
  config["sft"] |= {"init": "", "demonstrations": f"{tmp_path}/demonstrations.jsonl"}
  config["reward_model"] |= {
    "init": "sft",
    "comparisons": f"{tmp_path}/comparisons.jsonl",
    "normalize_prompts": f"{tmp_path}/prompts.jsonl",
  }
  return config


def lines(config, tmp_path):
  return check.left_out_lines(plan(config, tmp_path / "run"))


def test_what_is_left_out_of_each_file(own, tmp_path):
  counted = f"25.0% of the first 8 rows of {tmp_path}"
  assert lines(own, tmp_path) == [
    f"sft: length=64 leaves out {counted}/demonstrations.jsonl",
    f"reward_model: max_prompt_tokens=30 leaves out {counted}/prompts.jsonl",
    f"reward_model: length=64 leaves out {counted}/comparisons.jsonl",
  ]
  assert not (tmp_path / "run").exists()


def test_of_a_mixture_each_source_is_counted_as_it_is_asked(own, tmp_path):
  asked = dict(path=f"{tmp_path}/questions.jsonl", templates=(("Q: {question}", "{answer}"),))
  own["sft"]["demonstrations"] = dict(sources=dict(own=dict(path=f"{tmp_path}/demonstrations.jsonl"), asked=asked))
  assert lines(own, tmp_path)[:2] == [
    f"sft: length=64 leaves out 25.0% of the first 8 rows of {tmp_path}/{name}.jsonl"
    for name in ("demonstrations", "questions")
  ]


def test_records_are_counted_by_their_items(own, tmp_path):
  own["reward_model"] |= {"comparisons": "", "feedback": (f"{tmp_path}/records.jsonl",)}
  assert f"length=64 leaves out 25.0% of the first 8 rows of {tmp_path}/records.jsonl" in lines(own, tmp_path)[-1]


def test_single_responses_are_counted(own, tmp_path):
  rows = [{"prompt": "Say a.", "response": text, "label": True} for text in [SHORT, LONG]]
  data.write_rows(tmp_path / "labelled.jsonl", rows)
  kto = {**recipe("kto")["unpaired_kto"], "init": "sft", "labelled": f"{tmp_path}/labelled.jsonl", "length": 0}
  own |= {"stages": ("sft", "own"), "own": kto}
  assert lines(own, tmp_path)[-1] == f"own: length=64 leaves out 50.0% of the first 2 rows of {tmp_path}/labelled.jsonl"


def test_nothing_is_said_where_all_fits_or_there_is_no_tokenizer(own, tmp_path):
  own["max_length"] = 4096
  own["reward_model"]["sampling"] = dict(max_new_tokens=16, temperature=1.0)
  assert lines(own, tmp_path) == []
  own |= {"max_length": 64, "tokenizer": "{run}/vocabulary/tokenizer.json"}
  assert lines(own, tmp_path) == []


def test_a_length_that_leaves_nothing_is_refused(own, tmp_path):
  own["sft"]["length"] = 4
  with pytest.raises(ConfigError) as error:
    lines(own, tmp_path)
  assert str(error.value) == (
    f"config.sft.demonstrations: none of the first 8 rows of {tmp_path}/demonstrations.jsonl fits in length=4; set a "
    "larger length"
  )


def test_a_check_prints_it(own, tmp_path):
  own["reward_model"]["length"] = 40
  own["sft"]["init"] = "base"
  (tmp_path / "run/base/checkpoints").mkdir(parents=True)
  (tmp_path / "run/base/done.json").write_text(json.dumps({"fingerprint": "x"}))
  own["model"]["max_length"] = 64
  told = check.check_run(own, tmp_path / "run").splitlines()
  assert told[0].startswith("sft: length=64 leaves out 25.0% ") and told[-1].startswith("Checked; ")
