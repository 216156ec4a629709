"""The texts of single tokens, as a page shows them: no white space is invisible, no byte is lost."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rlhf_jax.data.tokenizer import Tokenizer, load_tokenizer, token_bytes
from rlhf_jax.report.read_run import Run, mapping

_WHITE = str.maketrans({"\n": "⏎", "\r": "␍", "\t": "⇥"})


class TokenText(NamedTuple):
  """A token as it is shown."""

  text: str
  is_control: bool = False  # whether it is a control token, such as the end of a response, and no part of its text
  ends_line: bool = False


def token_texts(run: Run, notes: list[str]) -> Callable[[int], TokenText]:
  """The function from a token's id to its text, by the run's tokenizer; ids alone where that cannot be read.

  Nothing is downloaded. notes: gets a sentence where the tokenizer cannot be read.
  """
  try:
    tokenizer = _read_tokenizer(run)
  except (OSError, ValueError) as error:
    notes.append(f"Tokens are shown by their ids, as the run's tokenizer cannot be read: {error}.")
    return lambda index: TokenText(f"⟨{index}⟩")
  pieces = token_bytes(tokenizer)

  def text_of(index: int) -> TokenText:
    piece = pieces[index] if 0 <= index < len(pieces) else b""
    if not piece:
      return TokenText(tokenizer.backend.id_to_token(index) or f"⟨{index}⟩", is_control=True)
    return TokenText(shown(piece), ends_line=b"\n" in piece)

  return text_of


def shown(piece: bytes) -> str:
  """The text of a token's bytes: white space as signs, and bytes of a character that is cut over tokens as ⟨C3⟩.

  >>> shown(b" caf\\xc3"), shown(b"\\xa9\\n"), shown(b"  ")
  (' caf⟨C3⟩', '⟨A9⟩⏎', '␣␣')
  """
  parts: list[str] = []
  while piece:
    try:
      parts, piece = [*parts, piece.decode()], b""
    except UnicodeDecodeError as error:
      cut = (f"⟨{byte:02X}⟩" for byte in piece[error.start : error.end])
      parts, piece = [*parts, piece[: error.start].decode(), *cut], piece[error.end :]
  text = "".join(parts).translate(_WHITE)
  return text if text.strip(" ") else text.replace(" ", "␣")


def _read_tokenizer(run: Run) -> Tokenizer:
  """Raises OSError or ValueError where there is none to read."""
  name = run.config.get("tokenizer")
  if not isinstance(name, str):
    raise ValueError("config.json names none")
  if "{model}" in name:
    name = name.replace("{model}", str(_model_path(run)))
  return load_tokenizer(_path(run, name))


def _model_path(run: Run) -> Path:
  """The directory or file of an imported model, or what a download of it has left on this machine."""
  name = str(mapping(run.config.get("model")).get("path"))
  path = _path(run, name)
  if path.exists():
    return path
  from huggingface_hub import snapshot_download  # here, as no other report needs it

  return Path(snapshot_download(name, local_files_only=True))


def _path(run: Run, name: str) -> Path:
  return Path(name.replace("{run}", str(run.directory))).expanduser()
