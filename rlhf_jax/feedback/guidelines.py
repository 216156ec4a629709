"""The guidelines pane: the subset of Markdown that guidelines need, as blocks for the template to escape."""

from __future__ import annotations

import re

Run = tuple[str, str]  # ("" | "strong" | "em", text)


def blocks(text: str) -> list[tuple[str, list[list[Run]]]]:
  """("h2" | "h3" | "p" | "ul" | "ol", lines of runs): # and ## headings, - and 1. lists, paragraphs, ** and *."""
  return [(kind, [_runs(line) for line in lines]) for kind, lines in _blocks(text)]


def _runs(line: str) -> list[Run]:
  parts = re.split(r"(\*\*[^*]+\*\*|\*[^*\s][^*]*\*)", line)
  kinds = [("strong", part[2:-2]) if part[:2] == "**" and len(part) > 4 else ("em", part[1:-1]) for part in parts[1::2]]
  plain = [("", part) for part in parts[::2]]
  return [run for pair in zip(plain, [*kinds, ("", "")], strict=True) for run in pair if run[1]]


def _blocks(text: str) -> list[tuple[str, list[str]]]:
  found: list[tuple[str, list[str]]] = []
  fresh = True  # the next line starts a paragraph of its own
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
      found[-1][1][-1] += f" {line.strip()}"  # a paragraph, or an entry of a list, goes on
    fresh = bool(heading)
  return found
