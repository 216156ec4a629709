"""The pages for readers, and what stands in them: commands and blocks of code."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
OWN = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
PAGES = [ROOT / name for name in OWN]
PAGES += sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name not in ("api", "_build"))


class Block(NamedTuple):
  """A fenced block. language: what stands after the fence, "" where nothing does."""

  page: Path
  language: str
  text: str


BLOCKS = [
  Block(page, language, text)
  for page in PAGES
  for language, text in re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text(), re.S | re.M)
]


def code(language: str, mark: str) -> str:
  """The one block of a language that has this text in it."""
  (found,) = (block.text for block in BLOCKS if block.language == language and mark in block.text)
  return found


def commands() -> list[tuple[Path, list[str]]]:
  """(page, words) of every command line: in blocks of bash, and on lines that are set in by four spaces."""
  lines = [
    (block.page, line)
    for block in BLOCKS
    if block.language == "bash"
    for line in block.text.replace("\\\n", " ").splitlines()
  ]
  for page in PAGES:
    lines += [(page, line) for line in re.findall(r"^    ((?:rlhf-jax|python) .*)$", page.read_text(), re.M)]
  return [(page, shlex.split(part)) for page, line in lines for part in line.split("&&") if part.strip()]
