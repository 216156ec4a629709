"""The tokenizer of a published model for plain text: its form, its boundaries, and what it refuses."""

import dataclasses

import jax
import pytest
from tiny_chain import a_stage

from rlhf_jax import data
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.models.hub import export_model
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import ImportedModel
from rlhf_jax.stages import plain_text

TEXTS = ["The film is dull, and the other film is lovely. It's a very warm one!\n" * 20]
BOUNDARY = "<|endoftext|>"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
  """A tiny model whose own chat form has <bos> and <eos>, and another control token between its texts."""
  directory = tmp_path_factory.mktemp("published")
  tokenizer = data.train_tokenizer(TEXTS, 300, control=(BOUNDARY,))
  config = DecoderConfig(tokenizer.vocab_size, 1, 16, 2, 1, 16, 64)
  ids = {"pad_token_id": tokenizer.pad_id, "bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
  export_model(directory, config, language_model(config).init(jax.random.key(0)), ids)
  data.export_tokenizer(tokenizer, directory)
  return directory


def made(published, directory, boundary=BOUNDARY):
  stage = dataclasses.replace(a_stage(directory), model=ImportedModel(str(published)))
  stage.directory.mkdir()
  plain_text.run(plain_text.Config(algorithm="rlhf_jax.stages.plain_text", boundary=boundary), stage)
  return data.load_tokenizer(stage.directory / "tokenizer.json")


def test_a_response_goes_on_where_its_prompt_ends(published, tmp_path):
  tokenizer = made(published, tmp_path)
  boundary = tokenizer.control[BOUNDARY]
  prompt, response = "The film", "is a dull one."
  whole = [boundary, *tokenizer.encode(f"{prompt} {response}"), boundary]
  start = data.prompt_ids(tokenizer, prompt)
  assert start == [boundary, *tokenizer.encode(prompt)]
  assert start + data.response_ids(tokenizer, prompt, response) == whole


def test_a_text_ends_at_the_boundary_or_where_a_turn_would(published, tmp_path):
  tokenizer, own = made(published, tmp_path), data.load_tokenizer(published)
  assert tokenizer.eos_id == tokenizer.bos_id == own.control[BOUNDARY]
  assert tokenizer.end_ids == (own.control[BOUNDARY], own.eos_id) and tokenizer.pad_id == own.pad_id
  assert tokenizer.decode(tokenizer.encode("The film")) == "The film"


def test_without_a_boundary_the_tokenizers_own_ends_stay(published, tmp_path):
  tokenizer, own = made(published, tmp_path, boundary=""), data.load_tokenizer(published)
  assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (own.bos_id, own.eos_id, own.pad_id)
  assert data.prompt_ids(tokenizer, "The film")[0] == own.bos_id


def test_a_boundary_in_a_text_is_text(published, tmp_path):
  tokenizer = made(published, tmp_path)
  assert data.prompt_ids(tokenizer, f"The {BOUNDARY}").count(tokenizer.bos_id) == 1


def test_turns_are_refused(published, tmp_path):
  turns = tuple(data.Message(role, "The film") for role in ("user", "assistant", "user"))
  with pytest.raises(data.DataError, match="plain text has no turns: a prompt is one text without a role"):
    data.prompt_ids(made(published, tmp_path), turns)


def test_a_boundary_that_the_tokenizer_does_not_know_is_refused(published, tmp_path):
  with pytest.raises(ConfigError, match=r"config\.stage\.boundary='<\|endoftxt\|>' .*Did you mean '<\|endoftext\|>'"):
    made(published, tmp_path, boundary="<|endoftxt|>")


def test_a_model_that_is_not_published_is_refused(tmp_path):
  with pytest.raises(ConfigError, match="reads a published model"):
    plain_text.run(plain_text.Config(algorithm="rlhf_jax.stages.plain_text"), a_stage(tmp_path))
