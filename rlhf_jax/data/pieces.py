"""What each token of a vocabulary adds to a text, as bytes."""

import json
import re

from rlhf_jax.data.tokenizer import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
  """The bytes of every token, by id; none for control tokens, which decoding skips, and for ids without a token.

  Byte-level vocabularies (GPT-2's, and this project's own) spell each byte as a character; those of SentencePiece write
  a space as U+2581 and lone bytes as <0x0A>.
  """
  spelled = _byte_of() if "ByteLevel" in json.dumps(json.loads(tokenizer.backend.to_str())["decoder"]) else None
  plain = {token.content for token in tokenizer.backend.get_added_tokens_decoder().values()}
  pieces = [b""] * tokenizer.vocab_size
  for text, index in tokenizer.backend.get_vocab().items():
    if text in tokenizer.control:
      continue
    if text in plain:
      pieces[index] = text.encode()
    elif spelled:
      pieces[index] = bytes(spelled[char] for char in text)
    else:
      byte = _BYTE.fullmatch(text)
      pieces[index] = bytes([int(byte[1], 16)]) if byte else text.replace("\u2581", " ").encode()
  return pieces


def _byte_of() -> dict[str, int]:
  """GPT-2's alphabet: printable bytes stand for themselves, the others for the characters from U+0100 on."""
  printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [byte for byte in range(256) if byte not in printable]
  return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
