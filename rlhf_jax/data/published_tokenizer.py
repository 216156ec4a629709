"""Tokenizers as published models carry them: beside a tokenizer_config.json, or inside a GGUF file."""

import json
from pathlib import Path
from typing import NamedTuple

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from rlhf_jax.data.files import DataError, read_text


class Published(NamedTuple):
  """What such a file says; a control token is named by its text, and "" where there is none."""

  backend: tokenizers.Tokenizer
  pad: str
  bos: str
  eos: str
  chat_template: str


def read_published(path: Path) -> Published | None:
  """The tokenizer of a directory, of a tokenizer.json with a tokenizer_config.json beside it, or of a GGUF file.

  A model without a <bos> starts its texts with <eos>. Where it has no <pad>, or uses <eos> for it, another control
  token takes its place: padding is never attended to, but where PAD is EOS nobody else can tell where a text ends.

  Returns:
    None for a tokenizer.json that stands alone.

  Raises:
    DataError: naming the file and what is missing.
  """
  if path.suffix == ".gguf":
    return _with_pad(_read_gguf(path), path)
  file = (path if path.is_dir() else path.parent) / "tokenizer_config.json"
  if not file.is_file():
    return None
  try:
    settings = json.loads(read_text(file))
  except ValueError as error:
    raise DataError(f"{file}: not JSON ({error})") from error
  names = [_text(settings.get(f"{name}_token")) for name in ("pad", "bos", "eos")]
  if not names[2]:
    raise DataError(f"{file}: has no eos_token, without which no response ends")
  source = path / "tokenizer.json" if path.is_dir() else path
  template = settings.get("chat_template") or ""
  if isinstance(template, list):
    template = next((entry["template"] for entry in template if entry["name"] == "default"), "")
  beside = file.with_name("chat_template.jinja")
  if beside.is_file():
    template = read_text(beside)
  return _with_pad(Published(parse_backend(read_text(source), source), *names, template), source)


def parse_backend(text: str, path: Path) -> tokenizers.Tokenizer:
  """The tokenizer of a tokenizer.json's text. Raises DataError."""
  try:
    return tokenizers.Tokenizer.from_str(text)
  except Exception as error:  # the library raises bare Exception
    raise DataError(f"{path}: not a tokenizer.json ({error}); save one with Tokenizer.save") from error


def control_tokens(backend: tokenizers.Tokenizer) -> dict[str, int]:
  """Text -> id of the tokens that no text may spell."""
  added = backend.get_added_tokens_decoder()
  return {token.content: index for index, token in sorted(added.items()) if token.special}


def _with_pad(found: Published, path: Path) -> Published:
  found = found._replace(bos=found.bos or found.eos)
  if found.pad and found.pad not in (found.bos, found.eos):
    return found
  names = control_tokens(found.backend)
  free = [name for name in names if name not in (found.bos, found.eos) and name not in found.chat_template]
  free.sort(key=lambda name: "pad" not in name)
  zero = "\u0100"  # how a byte-level vocabulary spells the byte 0, which no text holds
  if not free and found.backend.token_to_id(zero) is not None:
    free = [zero]
  if not free:
    raise DataError(f"{path}: no token is left for padding; add one, and name it as pad_token in tokenizer_config.json")
  return found._replace(pad=free[0])


def _text(token: str | dict | None) -> str:
  """tokenizer_config.json names a token by its text, or by a dictionary with it."""
  return (token.get("content") or "") if isinstance(token, dict) else token or ""


def _read_gguf(path: Path) -> Published:
  try:
    from gguf import GGUFReader
  except ImportError as error:
    raise DataError(f"{path}: reading GGUF needs the package gguf: pip install 'rlhf_jax[gguf]'") from error
  try:
    fields = GGUFReader(path).fields
  except (OSError, ValueError) as error:
    raise DataError(f"{path}: not a GGUF file ({error})") from error

  def field(name, default=None):
    found = fields.get(f"tokenizer.{name}")
    return default if found is None else found.contents()

  kind, split = field("ggml.model"), field("ggml.pre", "default")
  if kind != "gpt2" or split not in ("smollm", "gpt-2", "default"):
    raise DataError(
      f"{path}: a tokenizer of tokenizer.ggml.model={kind!r}, tokenizer.ggml.pre={split!r} is not supported; name a "
      "tokenizer.json of the same model instead"
    )
  tokens = field("ggml.tokens")
  merges = [tuple(merge.split(" ")) for merge in field("ggml.merges")]
  backend = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
  words = pre_tokenizers.ByteLevel(add_prefix_space=False)
  digits = pre_tokenizers.Digits(individual_digits=True)
  backend.pre_tokenizer = pre_tokenizers.Sequence([digits, words]) if split == "smollm" else words
  backend.decoder = decoders.ByteLevel()
  control = [token for token, type_ in zip(tokens, field("ggml.token_type"), strict=True) if type_ == 3]
  backend.add_special_tokens([tokenizers.AddedToken(token, normalized=False) for token in control])

  def named(name):
    index = field(f"ggml.{name}_token_id")
    return "" if index is None else tokens[index]

  return Published(backend, named("padding"), named("bos"), named("eos"), field("chat_template", ""))
