"""Tokenizers of published models: beside a tokenizer_config.json, or inside a GGUF file."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from rlhf_jax.data.files import DataError, read_text


class TokenizerParts(NamedTuple):
  """The content of a tokenizer's files."""

  backend: tokenizers.Tokenizer
  pad: str
  """Text of the control token for padding; "" where there is none, for bos and eos too."""
  bos: str
  eos: str
  chat_template: str
  """Jinja template of the model's chat form; "" where there is none."""


def read_published(path: Path) -> TokenizerParts | None:
  """The tokenizer of a directory, of a tokenizer.json with a tokenizer_config.json beside it, or of a GGUF file.

  A model without a <bos> starts its texts with <eos>. Where it has no <pad>, or uses <eos> for it, another control
  token takes its place: padding is never attended to, but with PAD = EOS the end of a text cannot be told from padding.

  Returns:
    None for a tokenizer.json that has no tokenizer_config.json beside it.

  Raises:
    DataError: a file is missing or damaged; the message names the file and the fault.
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
  backend = parse_backend(read_text(source), source)
  pad, bos, eos = names
  return _with_pad(TokenizerParts(backend, pad, bos, eos, template_beside(file) or template), source)


def template_beside(path: Path) -> str:
  """The text of the chat_template.jinja in the same directory; "" where there is none. Raises DataError."""
  file = path.with_name("chat_template.jinja")
  return read_text(file) if file.is_file() else ""


def parse_backend(text: str, path: Path) -> tokenizers.Tokenizer:
  """The tokenizer of a tokenizer.json's text. Raises DataError."""
  try:
    return tokenizers.Tokenizer.from_str(text)
  except Exception as error:  # the library raises bare Exception
    raise DataError(f"{path}: not a tokenizer.json ({error}); save one with Tokenizer.save") from error


def control_tokens(backend: tokenizers.Tokenizer) -> dict[str, int]:
  """{text: id} of the control tokens, which no text may spell."""
  added = backend.get_added_tokens_decoder()
  return {token.content: index for index, token in sorted(added.items()) if token.special}


def _with_pad(found: TokenizerParts, path: Path) -> TokenizerParts:
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


def _text(token: str | dict[str, Any] | None) -> str:
  """The text of a token in tokenizer_config.json, which is a string or an object with the key "content"."""
  return (token.get("content") or "") if isinstance(token, dict) else token or ""


def _read_gguf(path: Path) -> TokenizerParts:
  try:
    from gguf import GGUFReader
  except ImportError as error:
    raise DataError(f"{path}: reading GGUF needs the package gguf: pip install 'rlhf_jax[gguf]'") from error
  try:
    fields = GGUFReader(path).fields
  except (OSError, ValueError) as error:
    raise DataError(f"{path}: not a GGUF file ({error})") from error

  def field(name: str, default: Any) -> Any:
    found = fields.get(f"tokenizer.{name}")
    return default if found is None else found.contents()

  def required(name: str) -> Any:
    found = field(name, None)
    if found is None:
      raise DataError(f"{path}: has no field tokenizer.{name}; name a tokenizer.json of the same model instead")
    return found

  kind, split = required("ggml.model"), field("ggml.pre", "default")
  if kind != "gpt2" or split not in ("smollm", "gpt-2", "default"):
    raise DataError(
      f"{path}: a tokenizer of tokenizer.ggml.model={kind!r}, tokenizer.ggml.pre={split!r} is not supported; name a "
      "tokenizer.json of the same model instead"
    )
  tokens = required("ggml.tokens")
  merges = [tuple(merge.split(" ")) for merge in required("ggml.merges")]
  backend = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
  words = pre_tokenizers.ByteLevel(add_prefix_space=False)
  digits = pre_tokenizers.Digits(individual_digits=True)
  backend.pre_tokenizer = pre_tokenizers.Sequence([digits, words]) if split == "smollm" else words
  backend.decoder = decoders.ByteLevel()
  control = [token for token, type_ in zip(tokens, required("ggml.token_type"), strict=True) if type_ == 3]
  backend.add_special_tokens([tokenizers.AddedToken(token, normalized=False) for token in control])

  def named(name: str) -> str:
    index = field(f"ggml.{name}_token_id", None)
    return "" if index is None else tokens[index]

  return TokenizerParts(backend, named("padding"), named("bos"), named("eos"), field("chat_template", ""))
