"""Docstrings of the package are plain text with backticks; this turns them into reStructuredText.

Text in single backticks becomes code, everything else is escaped, and what is indented keeps its lines.
"""

import re
import textwrap
from typing import Any

CODE = re.compile(r"``.+?``|`[^`]+`", re.S)
SPECIAL = re.compile(r"([\\*|`_])")
# Code must stand between such characters; elsewhere an escaped blank, which is not shown, separates it.
OPENS = frozenset(["", *" \n'\"([{<-/:"])
CLOSES = frozenset(["", *" \n'\")]}>-/\\:.,;!?"])
ARRAY_LIKE = re.compile(r"(?:[~\w.]+\.)?Array \| (?:[~\w.]+ \| )+complex")
# An annotation with a shape stands for one type of JAX's arrays, one of NumPy's, and the numbers that fit.
NUMBERS = r"(?: \| (?:~?numpy\.)?(?:bool|number|int|float|complex)\b)*"
SHAPED = re.compile(
  rf"~?(?:jaxtyping\.)?(\w+)\[jaxlib\._jax\.Array, '([^']*)'\] \| ~?(?:jaxtyping\.)?\1\[ndarray, '\2'\]{NUMBERS}"
)
RETURNED = re.compile(r"~?(?:jaxtyping\.)?(\w+)\[jaxlib\._jax\.Array, ('[^']*')\]")
SEPARATE = "\\ "


def plain(text: str) -> str:
  """Text -> the same text as reStructuredText, with code for what stands in backticks."""
  parts, end = [], 0
  for found in CODE.finditer(text):
    parts.append(SPECIAL.sub(r"\\\1", text[end : found.start()]))
    inner = " ".join(found.group().strip("`").split())
    before, after = text[: found.start()][-1:], text[found.end() :][:1]
    parts.append(f"{SEPARATE if before not in OPENS else ''}``{inner}``{SEPARATE if after not in CLOSES else ''}")
    end = found.end()
  return "".join([*parts, SPECIAL.sub(r"\\\1", text[end:])])


def blocks(lines: list[str]) -> list[list[str]]:
  """The runs of lines between empty ones."""
  found: list[list[str]] = [[]]
  for line in lines:
    if line.strip():
      found[-1].append(line.rstrip())
    elif found[-1]:
      found.append([])
  return [block for block in found if block]


def convert(lines: list[str]) -> list[str]:
  """A docstring's lines -> lines of reStructuredText."""
  result: list[str] = []
  for block in blocks(lines):
    margin = len(block[0]) - len(block[0].lstrip())
    if block[0].lstrip().startswith(">>>"):
      result += [line[margin:] for line in block]
    elif margin:
      result += _indented(block)
    else:
      head = next((i for i, line in enumerate(block) if line.startswith(" ")), len(block))
      tail = next((i for i in range(head, len(block)) if not block[i].startswith(" ")), len(block))
      result += plain("\n".join(block[:head])).split("\n")
      if head < tail:
        result += ["", *_indented(block[head:tail])]
      if tail < len(block):
        result += ["", *convert(block[tail:])]
    result.append("")
  return result


def _indented(block: list[str]) -> list[str]:
  """Lines that are set in: a list where each entry starts with a dash or hangs, else lines kept as they are."""
  lines = textwrap.dedent("\n".join(block)).split("\n")
  if lines[0].startswith("- "):
    entries = [[]]
    for line in lines:
      if line.startswith("- ") and entries[-1]:
        entries.append([])
      entries[-1].append(line.removeprefix("- ").strip())
    return [line for entry in entries for line in ("* " + plain("\n".join(entry)).replace("\n", "\n  ")).split("\n")]
  columns = any(re.search(r"\S {2,}\S", line) for line in lines)
  if columns:  # a table, a drawing: its spaces mean something
    return ["::", "", *(f"  {line}" for line in lines)]
  if any(line.startswith(" ") for line in lines):  # entries whose further lines hang
    joined: list[str] = []
    for line in lines:
      if line.startswith(" ") and joined:
        joined[-1] += " " + line.strip()
      else:
        joined.append(line)
    lines = joined
  return [f"| {plain(line)}" for line in lines]


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
  """Event `autodoc-process-docstring`. What Python says of a field of a NamedTuple says nothing."""
  lines[:] = [] if lines and lines[0].startswith("Alias for field number") else convert(lines)


def leave_out(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
  """Event `autodoc-skip-member`: the method that flax gives to every dataclass of arrays."""
  return True if name == "replace" and "flax" in getattr(obj, "__module__", "") else None


def name_types(app: Any, what: str, name: str, obj: Any, options: Any, signature: Any, returns: Any) -> Any:
  """Event `autodoc-process-signature`: ArrayLike and shapes as they are written, not as the types they stand for."""
  return (written(signature), returns and written(returns)) if signature else None


def written(text: str) -> str:
  """A signature with ArrayLike, Scalar and shapes such as `Num[ArrayLike, '*b']` as the source has them."""
  text = SHAPED.sub(lambda found: f"{found[1]}[ArrayLike, '{found[2]}']" if found[2] else "Scalar", text)
  return ARRAY_LIKE.sub("ArrayLike", RETURNED.sub(r"\1[Array, \2]", text))


def setup(app: Any) -> dict[str, bool]:
  app.connect("autodoc-process-docstring", process)
  app.connect("autodoc-skip-member", leave_out)
  app.connect("autodoc-process-signature", name_types)
  return {"parallel_read_safe": True}
