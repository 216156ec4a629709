"""Completions of a text by a published model and by stages of a run: tokens, perplexities, examples, and mistakes."""

import io
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import data
from rlhf_jax.cli import main
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.models.hub import export_model
from rlhf_jax.tools import complete as tool
from rlhf_jax.tools.any_model import open_models
from rlhf_jax.train import Sampling

pytestmark = pytest.mark.usefixtures("unoptimised")
TEXT = "Tom lives in"
SAMPLING = Sampling(max_new_tokens=6, temperature=0.7, top_k=40)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
  """The directory of a tiny published model."""
  directory = tmp_path_factory.mktemp("published")
  tokenizer = data.train_tokenizer(["Tom lives in Oakford. Eve lives in Stowe.\n\n" * 4], 300)
  config = DecoderConfig(tokenizer.vocab_size, 1, 16, 2, 1, 16, 64)
  ids = {"pad_token_id": tokenizer.pad_id, "bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
  export_model(directory, config, jax.jit(language_model(config).init)(jax.random.key(0)), ids)
  data.export_tokenizer(tokenizer, directory)
  return directory


@pytest.fixture(scope="module")
def completed(published):
  """(the opened model, its parameters, three completions)."""
  (opened,) = open_models(published)
  params = opened.load()
  return opened, params, tool.complete(opened, params, TEXT, SAMPLING, 3, seed=5)


def perplexity(opened, params, ids, start):
  """exp of the mean loss of ids[start:], from all logits by NumPy."""
  logits = np.asarray(opened.model.apply(params, jnp.array([ids])), np.float64)[0]
  logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return np.exp(-np.mean([logp[place, ids[place]] for place in range(start, len(ids))]))


def test_perplexities_are_of_the_text_and_of_what_was_drawn_at_temperature_1(completed, monkeypatch):
  opened, params, found = completed
  measured, made = [], tool.make_likelihood

  def spied(*settings):
    likelihood = made(*settings)
    return lambda params, pairs: (measured.extend(pairs), likelihood(params, pairs))[1]

  monkeypatch.setattr(tool, "make_likelihood", spied)
  assert tool.complete(opened, params, TEXT, SAMPLING, 3, seed=5) == found
  ids = [opened.tokenizer.bos_id, *opened.tokenizer.encode(TEXT)]
  assert found.prompt_tokens == len(ids) - 1
  assert found.prompt_perplexity == pytest.approx(perplexity(opened, params, ids, 1), rel=1e-4)
  for one, (context, drawn) in zip(found.completions, measured[:3], strict=True):
    assert context == ids and len(drawn) == one.num_tokens and opened.tokenizer.decode(drawn) == one.text
    assert one.perplexity == pytest.approx(perplexity(opened, params, ids + drawn, len(ids)), rel=1e-4)
  assert len({one.text for one in found.completions}) > 1


def test_the_first_completions_are_those_of_fewer_draws(completed):
  opened, params, found = completed
  alone = tool.complete(opened, params, TEXT, SAMPLING, 1, seed=5)
  assert [one.text for one in alone.completions] == [found.completions[0].text]


def test_the_shown_text_has_numbers_and_no_control_characters():
  ended = tool.Completion(" Oak\nford\x1b", 3, 2.5, True)
  shown = tool.completed_text("sft", tool.Completed(4, 7.123, [ended, ended._replace(finished=False)]))
  assert shown.splitlines() == [
    "sft: the prompt's 4 tokens have perplexity 7.12",
    "", "  1  perplexity 2.50, 3 tokens, ended", "      Oak", "     ford·",
    "", "  2  perplexity 2.50, 3 tokens", "      Oak", "     ford·",
  ]  # fmt: skip


def test_the_first_space_of_a_completion_stays():
  """A vocabulary of SentencePiece drops the space in front of a text that is decoded alone."""
  pieces = {1: "Tom", 2: " lives", 3: " here"}
  tokenizer = SimpleNamespace(decode=lambda ids: "".join(pieces[index] for index in ids).removeprefix(" "))
  assert tokenizer.decode([2, 3]) == "lives here"
  assert tool._continuation(tokenizer, [1], [2, 3]) == " lives here"


def test_examples_stand_before_the_text(tmp_path):
  rows = [
    {"question": "Who is Tom?", "answer": ["A baker", "baker"]},
    {"prompt": "Who is Eve?", "response": "A sailor"},
    {"instruction": "Say who", "input": "Max is.", "output": "A cook"},
  ]
  data.write_rows(tmp_path / "rows.jsonl", rows)
  shown = tool.few_shot_text(tmp_path / "rows.jsonl", 2, "Who is Tom?")
  assert shown == "Who is Eve? A sailor\n\nSay who\nMax is. A cook\n\nWho is Tom?"
  assert tool.few_shot_text(tmp_path / "rows.jsonl", 0, "Who is Tom?") == "Who is Tom?"
  with pytest.raises(data.DataError, match="has 2 examples beside the text, and --shots asks for 3"):
    tool.few_shot_text(tmp_path / "rows.jsonl", 3, "Who is Tom?")


def test_a_space_at_the_end_that_belongs_to_the_next_word():
  tokenizer = data.train_tokenizer(["a an and any a an and any are as at"] * 4, 300)
  assert tokenizer.encode(" and") != [*tokenizer.encode(" "), *tokenizer.encode("and")]
  found = [tool.ends_inside_a_token(tokenizer, text) for text in ("and", "and ", "and\n", "and, ")]
  assert found == [False, True, False, True]


def test_the_command_completes_a_file_or_standard_input(published, tmp_path, monkeypatch, capsys):
  (tmp_path / "text.txt").write_text(f"{TEXT}\n")
  arguments = ["complete", str(published), "-n", "2", "--max-new-tokens", "4", "--seed", "3"]
  assert main([*arguments, "--file", str(tmp_path / "text.txt")]) == 0
  first = capsys.readouterr()
  assert first.out.startswith(f"     {TEXT}\n\n{published}: the prompt's ") and first.err == ""
  assert "\n  2  perplexity " in first.out and "\n  3  " not in first.out
  monkeypatch.setattr("sys.stdin", io.StringIO(f"{TEXT}\n"))
  assert main(arguments) == 0
  assert capsys.readouterr().out == first.out


def test_examples_end_a_completion_at_an_empty_line(published, tmp_path, capsys):
  data.write_rows(tmp_path / "rows.jsonl", [{"prompt": "Eve lives in", "answer": "Stowe."}])
  examples = ["--examples", str(tmp_path / "rows.jsonl"), "--shots", "1"]
  assert main(["complete", str(published), f"{TEXT} ", *examples, "--max-new-tokens", "2"]) == 0
  found = capsys.readouterr()
  assert found.out.startswith(f"     Eve lives in Stowe.\n\n     {TEXT}\n")
  assert "warning: the text ends in a space" in found.err


def test_stages_of_a_run_are_completed_in_turn(chain, capsys):
  assert main(["complete", str(chain), TEXT, "--stage", "pretrain,sft", "--max-new-tokens", "3"]) == 0
  printed = capsys.readouterr().out
  assert 0 < printed.index("\npretrain: the prompt's ") < printed.index("\nsft: the prompt's ")
  (last,) = open_models(chain)
  assert last.name == "ppo" and set(last.load()) == {"decoder"}


@pytest.mark.parametrize(
  "arguments, message",
  [
    ([" \n"], "the text is empty"),
    ([TEXT, "--file", "x"], "give the text or --file, not both"),
    ([TEXT, "-n", "2", "--temperature", "0"], "at --temperature 0 all completions are the same"),
    ([TEXT, "--shots", "2"], "--examples FILE and --shots K go together"),
    ([TEXT, "--stage", "sft"], "is no run, and has no stage 'sft'"),
    ([TEXT * 20], "tokens with <bos>, and "),
  ],
  ids=["empty", "both", "greedy", "shots", "stage", "long"],
)
def test_mistakes_are_named_before_a_model_is_loaded(published, monkeypatch, capsys, arguments, message):
  monkeypatch.setattr("rlhf_jax.tools.any_model.load_pretrained", None)
  assert main(["complete", str(published), *arguments]) == 2
  assert message in capsys.readouterr().err


def test_mistakes_of_stages_are_named(chain, capsys):
  for stage, message in (("sfd", "Did you mean 'sft'?"), ("sft,reward_model", "is a reward model")):
    assert main(["complete", str(chain), TEXT, "--max-new-tokens", "8", "--stage", stage]) == 2
    assert message in capsys.readouterr().err
  config = json.loads((chain / "config.json").read_text())
  assert main(["complete", str(chain), TEXT, "--max-new-tokens", str(config["model"]["max_length"])]) == 2
  assert "reads 64 at most, 64 new ones included" in capsys.readouterr().err
