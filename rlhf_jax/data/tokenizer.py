"""Byte-level BPE that loses nothing: decode(encode(text)) == text, and no text spells a control token."""

import functools
import hashlib
import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from rlhf_jax.data.chat_templates import TemplateFailure
from rlhf_jax.data.dialogue import OWN_TEMPLATES
from rlhf_jax.data.files import DataError, PathLike, read_text
from rlhf_jax.data.published_tokenizer import (
  TokenizerParts,
  check_ids,
  control_tokens,
  parse_backend,
  read_published,
  template_beside,
)
from rlhf_jax.data.turn_ends import listed_ends, template_end
from rlhf_jax.writing import write_bytes

SPECIALS = ("<pad>", "<bos>", "<eos>")

# Text that a tokenizer must give back unchanged: control tokens spelled in it, case, accents that normalisers compose,
# runs of spaces, control characters, right-to-left and zero-width text, emoji.
_PROBE = "  Ab \n\n\tcafe\u0301 \x00 1234 \u05e9\u200f\u200b \U0001f469\u200d\U0001f680 "

# A word, a digit or a run of signs, each with the space before it; or a run of line ends; or other white space.
_WORD = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|[\r\n]+|\s+(?!\S)|\s+"

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # a lone byte in the spelling of SentencePiece


@dataclass(frozen=True)
class Tokenizer:
  """A trained vocabulary, made by `train_tokenizer` or `load_tokenizer`."""

  backend: tokenizers.Tokenizer = field(repr=False, compare=False)
  """Tokenizer of the library `tokenizers`."""
  pad_id: int
  """Id of <pad>, which differs from the two others."""
  bos_id: int
  """Id of <bos>, which starts a text; the same as eos_id for models that have no <bos>."""
  eos_id: int
  """Id of <eos>, which ends a response."""
  vocab_size: int
  """Number of rows that an embedding needs: the largest id plus 1."""
  fingerprint: str
  """SHA-256 (hex) of the canonical JSON and the chat form; tokenizers with equal fingerprints encode equally."""
  control: Mapping[str, int] = field(default_factory=dict, repr=False, compare=False)
  """Control tokens, which no text can spell, with their ids."""
  chat_template: str = field(default="", repr=False)
  """Jinja chat template of a published model; "" for the project's own chat form."""
  named: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
  """Special tokens by the names that chat templates know: bos_token, eos_token, pad_token and so on."""
  end_ids: tuple[int, ...] = field(default=(), repr=False, compare=False)
  """Ids of the tokens that end a turn of the assistant, eos_id first (see `rlhf_jax.data.turn_ends`)."""

  @functools.cached_property
  def parsing(self) -> tokenizers.Tokenizer:
    """The same tokenizer reading control tokens that a text spells, for texts whose control tokens are meant."""
    parsing = tokenizers.Tokenizer.from_str(self.backend.to_str())
    parsing.no_padding()
    added = {token.content for token in parsing.get_added_tokens_decoder().values()}
    parsing.add_special_tokens(
      [tokenizers.AddedToken(name, normalized=False) for name in self.control if name not in added]
    )
    return parsing

  @functools.cached_property
  def end_tokens(self) -> tuple[str, ...]:
    """The tokens that end a turn of the assistant."""
    return tuple(filter(None, map(self.backend.id_to_token, self.end_ids)))

  @functools.cached_property
  def splits_before_spaces(self) -> bool:
    """Whether a text ending in a sign and a text starting with a space and a sign or letter are tokenised apart.

    That holds for the words of `train_tokenizer`: no token has a space behind another character.
    """
    parts = json.loads(self.backend.to_str())
    return parts["normalizer"] is None and parts["pre_tokenizer"] == json.loads(_own_words())

  def encode(self, text: str) -> list[int]:
    """Token ids of the text, without <bos> or <eos>; "<eos>" spelled out is ordinary text.

    Raises:
      ValueError: the string holds an unpaired surrogate, which no byte sequence encodes.
    """
    try:
      return self.backend.encode(text, add_special_tokens=False).ids
    except TypeError as error:
      raise ValueError(f"cannot encode {text[:60]!r}: not a string of valid Unicode") from error

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """`encode` of many texts, on all cores. Raises ValueError."""
    try:
      return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]
    except TypeError as error:
      raise ValueError("cannot encode a text that is not a string of valid Unicode") from error

  def decode(self, ids: Iterable[int]) -> str:
    """The text of token ids; control tokens and ends of turns are skipped, broken UTF-8 becomes U+FFFD."""
    kept = [int(index) for index in ids if index not in self.end_ids]
    return self.backend.decode(kept, skip_special_tokens=True)

  def save(self, path: PathLike) -> None:
    """Writes the tokenizer.json that `load_tokenizer` reads."""
    write_bytes(path, self.backend.to_str(pretty=True).encode())


def train_tokenizer(texts: Iterable[str], vocab_size: int, control: Sequence[str] = ()) -> Tokenizer:
  """Byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909) with <pad> 0, <bos> 1, <eos> 2; deterministic.

  Each digit is a token, so that a number is spelled the same way wherever it stands.

  Args:
    vocab_size: tokens at most; small texts may give fewer.
    control: further control tokens, such as those of a chat template; they have the ids from 3 on.

  Raises:
    ValueError: `vocab_size` has no room for the 3 control tokens and the 256 bytes.
  """
  specials = [*dict.fromkeys((*SPECIALS, *control))]
  smallest = len(specials) + 256
  if vocab_size < smallest:
    raise ValueError(f"vocab_size is {vocab_size}; the least is {smallest} ({len(specials)} control tokens, 256 bytes)")
  backend = tokenizers.Tokenizer(models.BPE())
  backend.pre_tokenizer = _words()
  backend.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size,
    min_frequency=2,
    special_tokens=specials,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  backend.train_from_iterator(texts, trainer=trainer)
  return _wrap(TokenizerParts(backend, *SPECIALS, ""), "the trained tokenizer")


def _words() -> pre_tokenizers.PreTokenizer:
  split = pre_tokenizers.Split(tokenizers.Regex(_WORD), behavior="isolated")
  return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


@functools.cache
def _own_words() -> str:
  backend = tokenizers.Tokenizer(models.BPE())
  backend.pre_tokenizer = _words()
  return json.dumps(json.loads(backend.to_str())["pre_tokenizer"])


def load_tokenizer(path: PathLike) -> Tokenizer:
  """Reads a tokenizer.json, or the tokenizer of a published model: its directory, or its *.gguf file.

  A tokenizer_config.json beside the file names the control tokens and the chat template; a chat_template.jinja beside
  it takes precedence.

  Raises:
    DataError: the file is missing or not a tokenizer, lacks <pad>, <bos> or <eos>, has one token for two of
      them, or does not give back the text it encodes.
  """
  path = Path(path)
  published = read_published(path)
  source = path / "tokenizer.json" if path.is_dir() else path
  if published:
    return _wrap(published, str(path), "is it complete?", listed_ends(source))
  backend = parse_backend(read_text(source), source)
  return _wrap(TokenizerParts(backend, *SPECIALS, template_beside(source)), str(path))


def _wrap(
  found: TokenizerParts, source: str, remedy: str = "train a byte-level BPE anew", listed_ends: tuple[int, ...] = ()
) -> Tokenizer:
  backend = found.backend
  backend.no_truncation()  # a stored truncation would cut long text without a word
  names = (found.pad, found.bos, found.eos)
  if names == SPECIALS and found.chat_template in OWN_TEMPLATES:  # as `export_tokenizer` writes the project's own form
    found = found._replace(chat_template="")
  ids = {token: index for token in names if (index := backend.token_to_id(token)) is not None}
  missing = [token for token in dict.fromkeys(names) if token not in ids]
  own = names == SPECIALS and not found.chat_template
  if missing:
    raise DataError(
      f"{source}: has no {', '.join(missing)}; name its own control tokens in a tokenizer_config.json beside it "
      f"(eos_token, bos_token, pad_token), or train it again with {', '.join(SPECIALS)}"
    )
  listed = dict(ids)
  if own and backend.padding is not None:
    listed["the padding section"] = backend.padding["pad_id"]
  # With PAD == EOS a mask of (token != PAD) hides the stop token, and the model never learns to stop. This check sees
  # every tokenizer: a trained one, a tokenizer.json, a published model's, a GGUF file's.
  shared = len(set(ids.values())) < len(ids) or found.pad in (found.bos, found.eos)
  if shared or listed.get("the padding section", ids[found.pad]) != ids[found.pad]:
    listing = ", ".join(f"{token} {index}" for token, index in listed.items())
    raise DataError(f"{source}: PAD, BOS and EOS must be distinct tokens, found {listing}; train it again")
  check_ids(backend, source)
  backend.no_padding()
  backend.encode_special_tokens = True  # not stored in the JSON: set at every load
  probe = "".join(dict.fromkeys(names)) + _PROBE
  decoded = backend.decode(backend.encode(probe, add_special_tokens=False).ids, skip_special_tokens=True)
  if decoded != probe and (own or decoded != unicodedata.normalize("NFC", probe)):  # Qwen composes accents
    raise DataError(f"{source}: does not give back the text it encodes; {remedy}")
  canonical = json.dumps(json.loads(backend.to_str()), sort_keys=True, separators=(",", ":"))
  canonical += OWN_TEMPLATES[0] if own else json.dumps([*names, found.chat_template])
  named = found.named or dict(zip(("pad_token", "bos_token", "eos_token"), names, strict=True))
  try:
    end = template_end(backend, found.chat_template, named) if found.chat_template else None
  except TemplateFailure as error:
    raise DataError(f"{source}: the model's chat template cannot be used: {error}") from error
  ends = (ids[found.eos], *listed_ends, *(() if end is None else (end,)))
  return Tokenizer(
    backend=backend,
    pad_id=ids[found.pad],
    bos_id=ids[found.bos],
    eos_id=ids[found.eos],
    vocab_size=max(backend.get_vocab().values()) + 1,  # ids may have gaps; an embedding needs the largest
    fingerprint=hashlib.sha256(canonical.encode()).hexdigest(),
    control=control_tokens(backend) | {found.bos: ids[found.bos], found.eos: ids[found.eos]},
    chat_template=found.chat_template,
    named=named,
    end_ids=tuple(dict.fromkeys(ends)),
  )


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
  """The bytes of every token, by id; b"" for control tokens, which decoding skips, and for ids without a token.

  Byte-level vocabularies (GPT-2's, and this project's own) spell each byte as a character; vocabularies of
  SentencePiece write a space as U+2581 and lone bytes as <0x0A>.
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


def ids_without_token(tokenizer: Tokenizer, rows: int) -> tuple[tuple[int, int], ...]:
  """Ranges [first, last + 1) of ids below `rows` that are no token: the padding of a vocabulary, and gaps within it.

  rows: the number of rows of the embedding, at least the tokenizer's vocab_size.
  """
  ids = sorted({*tokenizer.backend.get_vocab().values(), rows})
  return tuple((before + 1, index) for before, index in itertools.pairwise([-1, *ids]) if index > before + 1)


def _byte_of() -> dict[str, int]:
  """{character: byte} of GPT-2's alphabet: printable bytes are their own characters, the rest those from U+0100 on."""
  printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [byte for byte in range(256) if byte not in printable]
  return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
