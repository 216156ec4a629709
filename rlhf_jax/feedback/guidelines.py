"""The guidelines of an annotation page: a subset of Markdown, parsed into blocks of text that the template escapes."""

from __future__ import annotations

import re

Run = tuple[str, str]  # ("" | "strong" | "em", text)


def blocks(text: str) -> list[tuple[str, list[list[Run]]]]:
  """The blocks of a text, each a kind ("h2", "h3", "p", "ul", "ol") and its lines as runs of plain or marked text.

  Known are headings (#, ## and more), lists (- or *, 1. or 1)), paragraphs, **strong** and *emphasis*; anything else is
  plain text.
  """
  return [(kind, [_runs(line) for line in lines]) for kind, lines in _blocks(text)]


def _runs(line: str) -> list[Run]:
  parts = re.split(r"(\*\*[^*]+\*\*|\*[^*\s][^*]*\*)", line)
  kinds = [("strong", part[2:-2]) if part[:2] == "**" and len(part) > 4 else ("em", part[1:-1]) for part in parts[1::2]]
  plain = [("", part) for part in parts[::2]]
  return [run for pair in zip(plain, [*kinds, ("", "")], strict=True) for run in pair if run[1]]


def _blocks(text: str) -> list[tuple[str, list[str]]]:
  found: list[tuple[str, list[str]]] = []
  fresh = True  # whether the next line starts a new paragraph
  for line in text.splitlines():
    heading = re.match(r"(#{1,6})\s+(.*)", line)
    entry = re.match(r"\s*([-*]|\d+[.)])\s+(.*)", line)
    if not line.strip():
      fresh = True
      continue
    if heading:
      found.append(("h2" if len(heading[1]) == 1 else "h3", [heading[2].strip()]))
    elif entry:
      kind = "ul" if entry[1] in "-*" else "ol"
      if not found or found[-1][0] != kind:
        found.append((kind, []))
      found[-1][1].append(entry[2].strip())
    elif fresh or found[-1][0] in ("h2", "h3"):
      found.append(("p", [line.strip()]))
    else:
      found[-1][1][-1] += f" {line.strip()}"  # the paragraph or list entry continues
    fresh = bool(heading)
  return found
