"""Tokenizers of published models: beside a tokenizer_config.json, or inside a GGUF file."""

from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from rlhf_jax.data.files import DataError, read_text
from rlhf_jax.foreign_files import check_downloaded, check_gguf, read_object

MAX_TEMPLATE = 1 << 20  # characters
MAX_ID = (1 << 24) - 1
_NAMES = ("pad", "bos", "eos")


class TokenizerParts(NamedTuple):
  """The content of a tokenizer's files."""

  backend: tokenizers.Tokenizer
  pad: str
  """Text of the control token for padding; "" where there is none, for bos and eos too."""
  bos: str
  eos: str
  chat_template: str
  """Jinja template of the model's chat form; "" where there is none."""
  named: dict[str, str] = {}
  """Special tokens by the names that chat templates know, such as bos_token; {} for those above."""


def read_published(path: Path) -> TokenizerParts | None:
  """The tokenizer of a directory, of a tokenizer.json with a tokenizer_config.json beside it, or of a GGUF file.

  Its control tokens are those of tokenizer_config.json, of special_tokens_map.json as transformers reads it, and, where
  neither names an eos_token, those of the model's config.json. A token with such a part is special, whatever
  tokenizer.json says of it: no text spells it. Other added tokens that are not special are text as any other.

  A model without a <bos> starts its texts with <eos>. Where it has no <pad>, or uses <eos> for it, another control
  token takes its place: padding is never attended to, but with PAD = EOS the end of a text cannot be told from padding.

  Returns:
    None for a tokenizer.json that has none of these files beside it.

  Raises:
    DataError: a file is missing or damaged; the message names the file and the fault.
  """
  if path.suffix == ".gguf":
    return _with_pad(_read_gguf(path), path)
  file = (path if path.is_dir() else path.parent) / "tokenizer_config.json"
  settings, special = _object(file), _object(file.with_name("special_tokens_map.json"))
  model = _object(file.with_name("config.json"))
  if not (file.is_file() or special or "model_type" in model):
    return None
  source = path / "tokenizer.json" if path.is_dir() else path
  backend = parse_backend(read_text(source), source)
  # As transformers reads them: the map counts unless tokenizer_config.json lists the added tokens itself.
  named = special | settings if "added_tokens_decoder" in settings else settings | special
  names = {name: _text(named.get(f"{name}_token"), f"{file}: {name}_token") for name in _NAMES}
  if not names["eos"]:
    names = {name: names[name] or _token_of_id(backend, model, name, file.with_name("config.json")) for name in _NAMES}
  if not names["eos"]:
    raise DataError(f"{file}: has no eos_token, without which no response ends")
  _make_special(backend, [*names.values(), *_listed_special(named, file)])
  template = settings.get("chat_template") or ""
  if isinstance(template, list):  # of named templates
    entries = [entry for entry in template if isinstance(entry, dict)]
    template = next((entry.get("template") for entry in entries if entry.get("name") == "default"), "")
  if not isinstance(template, str) or len(template) > MAX_TEMPLATE:
    raise DataError(f"{file}: chat_template must be a text of at most {MAX_TEMPLATE} characters, or a list with one")
  known = {f"{name}_token": token for name, token in names.items() if token}
  known |= {
    key: _text(named[key], f"{file}: {key}") for key in ("unk_token", "sep_token", "cls_token") if named.get(key)
  }
  parts = TokenizerParts(backend, **names, chat_template=template_beside(file) or template, named=known)
  return _with_pad(parts, source)


def _object(file: Path) -> dict[str, Any]:
  """The JSON object in a file; {} where there is none. Raises DataError."""
  try:
    return read_object(file) if file.is_file() else {}
  except (OSError, ValueError) as error:
    raise DataError(f"{file}: cannot be read as JSON ({error}); copy or download it again") from error


def _token_of_id(backend: tokenizers.Tokenizer, model: dict[str, Any], name: str, file: Path) -> str:
  """The token that a model's config.json names by its id, or by the first of a list of ids; "" for none."""
  index = model.get(f"{name}_token_id")
  index = index[0] if isinstance(index, list) and index else index
  if index is None:
    return ""
  token = backend.id_to_token(index) if type(index) is int and 0 <= index <= MAX_ID else None
  if token is None:
    raise DataError(f"{file}: {name}_token_id={index!r:.40} is no id of the tokenizer beside it")
  return token


def _listed_special(named: dict[str, Any], file: Path) -> list[str]:
  """The tokens that the files list as special beside pad, bos and eos."""
  found: list[Any] = []
  for key in ("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder"):
    listed = named.get(key) or []
    if not isinstance(listed, (list, dict)):
      raise DataError(f"{file}: {key} must be a list or an object, not {listed!r:.80}")
    entries = [*listed.values()] if isinstance(listed, dict) else listed
    if key == "added_tokens_decoder":
      entries = [entry for entry in entries if isinstance(entry, dict) and entry.get("special")]
    found += entries
  return [_text(token, f"{file}: a special token") for token in found]


def _make_special(backend: tokenizers.Tokenizer, names: list[str]) -> None:
  """Makes those of the tokens special that are in the vocabulary and are not: what is special, no text can spell."""
  known = control_tokens(backend)
  missing = [name for name in names if name and name not in known and backend.token_to_id(name) is not None]
  backend.add_special_tokens([tokenizers.AddedToken(name, normalized=False) for name in missing])


def template_beside(path: Path) -> str:
  """The text of the chat_template.jinja in the same directory; "" where there is none. Raises DataError."""
  file = path.with_name("chat_template.jinja")
  if file.is_file() and file.stat().st_size > MAX_TEMPLATE:
    raise DataError(f"{file}: is larger than {MAX_TEMPLATE} bytes, which no chat template is")
  return read_text(file) if file.is_file() else ""


def parse_backend(text: str, path: Path) -> tokenizers.Tokenizer:
  """The tokenizer of a tokenizer.json's text. Raises DataError."""
  try:
    check_downloaded(text[:200].encode())
    return tokenizers.Tokenizer.from_str(text)
  except BaseException as error:  # the library raises bare Exception, and panics as BaseException
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
      raise
    raise DataError(f"{path}: not a tokenizer.json ({str(error)[:200]}); save one with Tokenizer.save") from error


def check_ids(backend: tokenizers.Tokenizer, source: str) -> None:
  """Raises DataError where a tokenizer has no tokens, two tokens with one id, or an id beyond MAX_ID."""
  vocabulary = backend.get_vocab()
  owner: dict[int, str] = {}
  for token, index in vocabulary.items():
    if owner.setdefault(index, token) != token:
      first, second = sorted((owner[index], token))
      raise DataError(f"{source}: the tokens {first!r:.40} and {second!r:.40} have one id, {index}; train it again")
  if not vocabulary or max(owner) > MAX_ID:
    found = f"the id {max(owner)}" if vocabulary else "no tokens"
    raise DataError(f"{source}: has {found}; ids are 0 to {MAX_ID}, and an embedding has a row for each")


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


def _text(token: Any, where: str) -> str:
  """The text of a token in tokenizer_config.json, which is a string or an object with the key "content"."""
  found = (token.get("content") if isinstance(token, dict) else token) or ""
  if not isinstance(found, str):
    raise DataError(f"{where} must be a text, or an object with a text as its 'content', not {found!r:.80}")
  return found


def _read_gguf(path: Path) -> TokenizerParts:
  try:
    from gguf import GGUFReader
  except ImportError as error:
    raise DataError(f"{path}: reading GGUF needs the package gguf: pip install 'rlhf_jax[gguf]'") from error
  try:
    check_gguf(path)  # as the library believes every count
    fields = GGUFReader(path).fields
  except Exception as error:  # the library looks up keys and indices without checks
    raise DataError(f"{path}: not a GGUF file, or damaged ({str(error)[:200]})") from error

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
  tokens, kinds = required("ggml.tokens"), required("ggml.token_type")
  try:
    merges = [tuple(merge.split(" ")) for merge in required("ggml.merges")]
    backend = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 3]
  except DataError:
    raise
  except Exception as error:  # the library raises bare Exception
    raise DataError(f"{path}: its fields tokenizer.ggml.* are damaged ({str(error)[:200]})") from error
  words = pre_tokenizers.ByteLevel(add_prefix_space=False)
  digits = pre_tokenizers.Digits(individual_digits=True)
  backend.pre_tokenizer = pre_tokenizers.Sequence([digits, words]) if split == "smollm" else words
  backend.decoder = decoders.ByteLevel()
  backend.add_special_tokens([tokenizers.AddedToken(token, normalized=False) for token in control])

  def named(name: str) -> str:
    index = field(f"ggml.{name}_token_id", None)
    if index is not None and (type(index) is not int or not 0 <= index < len(tokens)):
      raise DataError(f"{path}: tokenizer.ggml.{name}_token_id={index!r:.40} is no token of {len(tokens)}")
    return "" if index is None else tokens[index]

  return TokenizerParts(backend, named("padding"), named("bos"), named("eos"), field("chat_template", ""))
