"""The guidelines pane: the subset of Markdown that guidelines need, as blocks for the template to escape."""

from __future__ import annotations

import re


def blocks(text: str) -> list[tuple[str, list[str]]]:
  """("h2" | "h3" | "p" | "ul" | "ol", lines) of a text: # and ## headings, - and 1. lists, paragraphs."""
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
