"""Stop strings against a search of the whole text, and the bytes of tokens against the tokenizer's own decoding."""

import random

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from rlhf_jax import data
from rlhf_jax.data.tokenizer import Tokenizer
from rlhf_jax.sampling import before_stop, stop_table

TEXT = "The cat sat. \n\nHuman: Où est Zoë? 👩‍🚀 12 34\tיום"


@pytest.mark.parametrize("stops", [("aba",), ("aab", "b c"), ("a", "abab"), ("abab", "bab", "é"), ("ab\n\nab",)])
def test_the_automaton_finds_what_a_search_finds(stops):
  rng = random.Random(0)
  texts = ["a", "b", "ab", "aab", " c", "\n", "\n\n", "ba\n", "é", "", "cabab"]
  pieces = [text.encode() for text in texts] + ["é".encode()[:1], "é".encode()[1:]]
  table = stop_table(pieces, stops)
  for _ in range(300):
    state, text = 0, b""
    for token in rng.choices(range(len(pieces)), k=12):
      state, text = table[state, token], text + pieces[token]
      assert (state == len(table) - 1) == any(stop.encode() in text for stop in stops)


def test_an_empty_stop_string_is_refused():
  with pytest.raises(ValueError, match="empty string"):
    stop_table([b"a"], ("x", ""))


def test_the_text_before_the_first_stop_string():
  assert before_stop("one. two; three", (";", ".")) == "one"
  assert before_stop("one", (";", ".")) == "one"


def test_token_bytes_spell_what_is_encoded():
  tokenizer = data.train_tokenizer([TEXT] * 3, 320)
  pieces = data.token_bytes(tokenizer)
  assert len(pieces) == tokenizer.vocab_size
  assert b"".join(pieces[index] for index in tokenizer.encode(TEXT)) == TEXT.encode()
  assert {pieces[index] for index in (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id)} == {b""}
  assert len(set(pieces) & {bytes([byte]) for byte in range(256)}) == 256


def test_token_bytes_of_a_sentencepiece_vocabulary():
  words = ["</s>", "<0xC3>", "<0xA9>", "\u2581caf", "\u2581"]
  backend = Backend(models.BPE({word: index for index, word in enumerate(words)}, [], byte_fallback=True))
  backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
  tokenizer = Tokenizer(backend, 4, 0, 0, 6, "", {"</s>": 0})
  assert data.token_bytes(tokenizer) == [b"", b"\xc3", b"\xa9", b" caf", b" ", b""]
