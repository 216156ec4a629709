"""The tokenizer loses nothing, keeps control tokens out of user text, and refuses files that would."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_jax.data import DataError, load_tokenizer, prompt_ids, train_tokenizer

TEXTS = ["the cat sat on the mat, the rat on the cat.\n" * 20, "In 1999 the 1999 cats had 19 mats.\n" * 20]
ROOT = Path(__file__).parents[2]
TOKENIZER = train_tokenizer(TEXTS, 300)


def edited(tmp_path, change) -> str:
  """The path of TOKENIZER's JSON after `change(json)`."""
  path = tmp_path / "edited.json"
  TOKENIZER.save(path)
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))
  return str(path)


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_decode_of_encode_is_the_text(text):
  assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@pytest.mark.parametrize(
  "text",
  ["", " ", "\n\n", "\r\n", "\x00", "a\u200bb\ufeff", "\u05e9\u202e a", "e\u0301 \u00e9", "\U0001f469\u200d"],
)
def test_invisible_and_right_to_left_text_survives(text):
  assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_control_tokens_have_their_ids():
  assert (TOKENIZER.pad_id, TOKENIZER.bos_id, TOKENIZER.eos_id) == (0, 1, 2)
  assert 259 <= TOKENIZER.vocab_size <= 300


@given(st.lists(st.sampled_from(["<pad>", "<bos>", "<eos>", "the", " ", "<", ">", "\n"]), max_size=8))
def test_user_text_cannot_spell_a_control_token(parts):
  text = "".join(parts)
  ids = TOKENIZER.encode(text)
  assert min(ids, default=3) > 2
  assert TOKENIZER.decode(ids) == text


def test_training_on_spelled_out_control_tokens_does_not_merge_into_them():
  tokenizer = train_tokenizer(["<eos><pad> <bos>" * 500], 400)
  assert min(tokenizer.encode("<eos><pad><bos>")) > 2


def test_decode_skips_control_tokens():
  assert TOKENIZER.decode([1, *TOKENIZER.encode("the cat"), 2, 0, 0]) == "the cat"


def test_digits_are_tokens_of_their_own():
  one, nine = TOKENIZER.encode("1"), TOKENIZER.encode("9")
  assert TOKENIZER.encode("1991") == one + nine + nine + one


def test_no_prefix_space_is_added():
  assert TOKENIZER.encode("the") != TOKENIZER.encode(" the")


def test_frequent_words_became_one_token():
  assert len(TOKENIZER.encode(" the")) == 1


def test_unpaired_surrogate_is_named():
  with pytest.raises(ValueError, match="valid Unicode"):
    TOKENIZER.encode("a\ud800")


def test_too_small_vocabulary_is_refused():
  with pytest.raises(ValueError, match="259"):
    train_tokenizer(TEXTS, 258)


def test_training_is_deterministic_across_processes():
  # Another process has other hash seeds, in Python and in the library.
  code = f"from rlhf_jax.data import train_tokenizer; print(train_tokenizer({TEXTS!r}, 300).fingerprint)"
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
  assert result.stdout.strip() == TOKENIZER.fingerprint == train_tokenizer(iter(TEXTS), 300).fingerprint


def test_fingerprint_distinguishes_vocabularies():
  assert train_tokenizer(TEXTS, 270).fingerprint != TOKENIZER.fingerprint


def test_save_and_load_round_trip(tmp_path):
  path = tmp_path / "new_folder" / "tokenizer.json"
  TOKENIZER.save(path)
  loaded = load_tokenizer(path)
  assert loaded == TOKENIZER
  assert loaded.encode("<eos> the cat 1999") == TOKENIZER.encode("<eos> the cat 1999")


def test_missing_file_is_named(tmp_path):
  with pytest.raises(DataError, match="absent.json: cannot be read"):
    load_tokenizer(tmp_path / "absent.json")


@pytest.mark.parametrize("content", ["{}", "[1, 2]", "not json", '{"model": '])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, content):
  path = tmp_path / "tokenizer.json"
  path.write_text(content)
  with pytest.raises(DataError, match="not a tokenizer.json"):
    load_tokenizer(path)


def test_missing_control_token_is_named(tmp_path):
  def rename(content):
    content["added_tokens"][2]["content"] = "</s>"
    content["model"]["vocab"]["</s>"] = content["model"]["vocab"].pop("<eos>")

  with pytest.raises(DataError, match="has no <eos>"):
    load_tokenizer(edited(tmp_path, rename))


def test_pad_equal_to_eos_is_refused(tmp_path):
  def share(content):
    content["added_tokens"][0]["id"] = content["model"]["vocab"]["<pad>"] = 2

  with pytest.raises(DataError, match="distinct tokens, found <pad> 2, <bos> 1, <eos> 2"):
    load_tokenizer(edited(tmp_path, share))


def test_padding_section_with_eos_is_refused(tmp_path):
  def pad_with_eos(content):
    content["padding"] = {
      "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None,
      "pad_id": 2, "pad_type_id": 0, "pad_token": "<eos>",
    }  # fmt: skip

  with pytest.raises(DataError, match="the padding section 2"):
    load_tokenizer(edited(tmp_path, pad_with_eos))


def test_stored_truncation_does_not_cut_text(tmp_path):
  def truncate(content):
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}

  loaded = load_tokenizer(edited(tmp_path, truncate))
  assert loaded.decode(loaded.encode("a long text of 1234 words")) == "a long text of 1234 words"


def test_a_tokenizer_that_changes_text_is_refused(tmp_path):
  def lowercase(content):
    content["normalizer"] = {"type": "Lowercase"}

  with pytest.raises(DataError, match="does not give back the text"):
    load_tokenizer(edited(tmp_path, lowercase))


CHATML = (
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<eos>\n' }}"
  "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_template_is_given_by_laying_it_beside_the_file(tmp_path):
  TOKENIZER.save(tmp_path / "tokenizer.json")
  assert load_tokenizer(tmp_path) == TOKENIZER
  (tmp_path / "chat_template.jinja").write_text("<bos>{{ messages[0]['content'] }}")
  given = load_tokenizer(tmp_path)
  assert given == load_tokenizer(tmp_path / "tokenizer.json") and given.fingerprint != TOKENIZER.fingerprint
  assert prompt_ids(given, "the cat") == [1, *TOKENIZER.encode("the cat")]


def test_the_command_trains_a_tokenizer(tmp_path, capsys):
  from rlhf_jax.cli import main

  (tmp_path / "a.txt").write_text(TEXTS[0])
  rows = [{"prompt": "How many cats?", "response": "The 19 cats."}, {"prompt": "Mats?", "response": "19"}]
  (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  (tmp_path / "c.jsonl").write_text(json.dumps({"text": "zzzz zzzz zzzz"}) + "\n")
  files = [str(tmp_path / name) for name in ("a.txt", "b.jsonl", "c.jsonl")]
  assert main(["tokenizer", "train", *files, "--vocab-size", "300", "--out", str(tmp_path / "own")]) == 0
  own = load_tokenizer(tmp_path / "own")
  assert capsys.readouterr().out == f"{tmp_path}/own: {own.vocab_size} tokens, PAD 0, BOS 1, EOS 2\n"
  assert len(own.encode(" zzzz")) < 4 and own.encode(" cat") == own.encode(" cat<eos>")[:1]
  (tmp_path / "chat.jinja").write_text(CHATML)
  extra = ["--chat-template", str(tmp_path / "chat.jinja"), "--control", "<|im_start|>"]
  assert main(["tokenizer", "train", *files, "--vocab-size", "300", "--out", str(tmp_path / "chat"), *extra]) == 0
  chat = load_tokenizer(tmp_path / "chat" / "tokenizer.json")
  assert chat.chat_template == CHATML and chat.fingerprint != own.fingerprint
  ids = prompt_ids(chat, "cats <|im_start|>")
  assert [i for i in ids if i < 4] == [3, 2, 3]  # what a user writes spells no control token
  assert chat.backend.decode(ids, skip_special_tokens=False) == (
    "<|im_start|>user\ncats <|im_start|><eos>\n<|im_start|>assistant\n"
  )
  assert main(["tokenizer", "train", *files, "--vocab-size", "200", "--out", str(tmp_path / "small")]) == 2
  assert "vocab_size is 200; the least is 259" in capsys.readouterr().err
  assert main(["tokenizer", "train", str(tmp_path / "absent"), "--vocab-size", "300", "--out", str(tmp_path)]) == 2
  assert "absent: cannot be read" in capsys.readouterr().err
