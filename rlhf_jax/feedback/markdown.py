"""Markdown with tables and LaTeX as a tree of allowed elements, which no HTML of the text's author can enter.

markdown-it-py parses the text, and latex2mathml the formulas in it: $...$, $$...$$, \\(...\\), \\[...\\], and
environments of equations such as align. What they give is taken over element by element: the tags and attributes below
alone, no link that can be followed and no image that is loaded. The page builds its elements from the tree, so that no
text is ever parsed as HTML.
"""

from __future__ import annotations

import bisect
import functools
import html
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from latex2mathml.commands import MATRICES
from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin

Node = str | list  # a text, or [tag, {attribute: value}, children]

MAX_LENGTH = 20_000  # characters of a text that is still formatted, which bounds the time a text can take
MAX_NESTING = 20  # depth of quotes and lists
MAX_FORMULA = 1_000  # characters of a formula that is still set
# Environments that the converter lacks, or numbers, and what it sets in their place: the beginning and the end.
SET_AS = {
  **dict.fromkeys(("align", "align*", "aligned", "flalign", "flalign*"), (r"\begin{align*}", r"\end{align*}")),
  **dict.fromkeys(("alignat", "alignat*", "alignedat"), (r"\begin{align*}", r"\end{align*}")),
  **dict.fromkeys(("gather", "gather*", "gathered", "multline", "multline*"), (r"\begin{matrix}", r"\end{matrix}")),
  **dict.fromkeys(("eqnarray", "eqnarray*"), (r"\begin{array}{rcl}", r"\end{array}")),
  **dict.fromkeys(("equation", "equation*"), ("", "")),
}
INSIDE = ("aligned", "alignedat", "gathered")  # environments within a formula, which make none by themselves
_DISPLAYED = re.compile(rf"\\begin\{{({'|'.join(re.escape(name) for name in SET_AS if name not in INSIDE)})\}}")
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*\{([a-zA-Z]+\*?)\}(\s*\[[tcb]\])?")  # with its place in a line
# The name of an equation, and the number of columns of alignat.
_UNSEEN = re.compile(r"\\label\s*\{[^{}]*\}|(\\begin\{align(?:at\*?|edat)\})\s*\{\d+\}")
MATHML = frozenset(
  "math mrow mi mn mo mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr mtd mstyle"
  " mpadded mphantom menclose mmultiscripts mprescripts none".split()
)
MATHML_ATTRIBUTES = frozenset(
  "display displaystyle scriptlevel mathvariant stretchy fence form separator largeop movablelimits accent accentunder"
  " linethickness width height depth lspace rspace voffset minsize maxsize columnalign columnspacing rowspacing"
  " columnlines rowlines notation".split()
)


@functools.lru_cache(4096)  # an item is shown to several annotators, and again after each reload
def formatted(text: str) -> list[Node] | None:
  """The tree of a text; None where it is to be shown as it is: without markup, or too long, or nested too deeply."""
  if len(text) > MAX_LENGTH:
    return None
  tokens = _parser().parse(text)
  deep = any(token.level > MAX_NESTING - 2 for token in tokens)  # the parser drops what is nested more deeply
  return None if deep or _is_plain(text, tokens) else _tree(tokens)


@functools.cache
def _parser() -> MarkdownIt:
  # A newline stays one, as chat pages show it. An HTML tag is plain text, and so is the definition of a link, which
  # would not be shown at all.
  options = {"html": False, "breaks": True, "maxNesting": MAX_NESTING}
  parser = MarkdownIt("commonmark", options).enable(["table", "strikethrough"]).disable("reference")
  parser.normalizeLinkText = lambda link: link  # type: ignore[method-assign]  # an address stays as it was written
  parser.use(dollarmath_plugin, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
  parser.inline.ruler.before("escape", "formula", _formula_inline)
  parser.block.ruler.before("fence", "formula", _formula_block, {"alt": ["paragraph", "blockquote", "list"]})
  return parser


class _Display(NamedTuple):
  """Where the LaTeX of a displayed formula starts and ends, and where the formula itself ends, in the source."""

  start: int
  stop: int
  end: int


def _display(source: str, at: int, limit: int) -> _Display | None:
  """The displayed formula that begins here, \\[...\\] or an environment of equations; None where there is none."""
  if source.startswith("\\[", at):
    stop = source.find("\\]", at + 2, limit)
    return None if stop < 0 else _Display(at + 2, stop, stop + 2)
  if begin := _DISPLAYED.match(source, at, limit):
    close = rf"\end{{{begin[1]}}}"
    stop = source.find(close, begin.end(), limit) + len(close)
    return None if stop < len(close) else _Display(at, stop, stop)
  return None


def _formula_inline(state: StateInline, silent: bool) -> bool:
  """The rule of \\(...\\), and of displayed formulas within a line."""
  kind, found = "math_inline_double", _display(state.src, state.pos, state.posMax)
  if state.src.startswith("\\(", state.pos):
    stop = state.src.find("\\)", state.pos + 2, state.posMax)
    kind, found = "math_inline", None if stop < 0 else _Display(state.pos + 2, stop, stop + 2)
  if found is None:
    return False
  if not silent:
    token = state.push(kind, "math", 0)
    token.content = state.src[found.start : found.stop]
  state.pos = found.end
  return True


def _formula_block(state: StateBlock, start: int, stop: int, silent: bool) -> bool:
  """The rule of a displayed formula that begins and ends a block, over several lines."""
  first = state.bMarks[start] + state.tShift[start]
  found = None if state.is_code_block(start) else _display(state.src, first, state.eMarks[stop - 1])
  if found is None:
    return False
  last = bisect.bisect_left(state.eMarks, found.end, start, stop - 1)  # the line in which it ends
  if state.src[found.end : state.eMarks[last]].strip():
    return False
  if any(state.sCount[line] < state.blkIndent and not state.isEmpty(line) for line in range(start + 1, last + 1)):
    return False  # the list in which it began has ended
  if not silent:
    state.line = last + 1
    token = state.push("math_block", "math", 0)
    text = state.getLines(start, last + 1, state.sCount[start], False).strip()  # without the marks of a quote
    token.content = text[found.start - first : len(text) - (found.end - found.stop)]
  return True


def _is_plain(text: str, tokens: Sequence[Token]) -> bool:
  """Whether the tokens say no more than the text: paragraphs with each of its characters but white space."""
  inline = [child for token in tokens for child in token.children or ()]
  kinds = {token.type for token in (*tokens, *inline)}
  if kinds - {"paragraph_open", "paragraph_close", "inline", "text", "softbreak", "hardbreak"}:
    return False
  return "".join("".join(child.content for child in inline).split()) == "".join(text.split())


def _tree(tokens: Iterable[Token]) -> list[Node]:
  root: list[Node] = []
  levels = [root]
  for token in tokens:
    if token.hidden:  # the paragraphs of a list without blank lines
      continue
    if token.nesting == 1:
      node: Node = [_tag(token), _attributes(token), []]
      levels[-1].append(node)
      levels.append(node[2])  # type: ignore[arg-type]  # the children of a node are a list
    elif token.nesting == -1:
      children = levels.pop()
      if token.type == "link_close":
        _tell_address(levels[-1][-1], children)
    else:
      levels[-1] += _leaf(token)
  return root


def _leaf(token: Token) -> list[Node]:
  match token.type:
    case "inline":
      return _tree(token.children or ())
    case "fence" | "code_block":
      language = {"data-language": token.info.strip()} if token.info.strip() else {}
      return [["pre", language, [["code", {}, [token.content]]]]]
    case "code_inline":
      return [["code", {}, [token.content]]]
    case "math_inline":
      return [_formula(token.content, "inline")]
    case "math_inline_double" | "math_block":
      return [["span", {"class": "formula"}, [_formula(token.content, "block")]]]
    case "softbreak" | "hardbreak":
      return [["br", {}, []]]
    case "hr":
      return [["hr", {}, []]]
    case "image":
      address = _address(token, "src")
      return [["span", {"class": "image"}, [f"[image: {token.content}] ({address})"]]]
    case _:
      return [token.content] if token.content else []


def _tag(token: Token) -> str:
  if token.type == "heading_open":
    return f"h{min(int(token.tag[1]) + 2, 6)}"  # below the page's own headings
  return "span" if token.type == "link_open" else token.tag


def _attributes(token: Token) -> dict[str, str]:
  if token.type == "link_open":
    return {"class": "link", "data-address": _address(token, "href")}
  if token.type == "ordered_list_open" and "start" in token.attrs:
    return {"start": str(token.attrs["start"])}
  if token.type in ("th_open", "td_open") and "style" in token.attrs:
    return {"data-align": str(token.attrs["style"]).removeprefix("text-align:")}
  return {}


def _address(token: Token, attribute: str) -> str:
  title = token.attrs.get("title")
  return str(token.attrs.get(attribute, "")) + (f' "{title}"' if title else "")


def _tell_address(link: Node, children: list[Node]) -> None:
  """A link is shown with its address and cannot be followed: it is judged, and a model may have chosen its target."""
  assert isinstance(link, list)
  address = link[1].pop("data-address")
  if children != [address]:
    children.append(["span", {"class": "address"}, [f" ({address})"]])


def _formula(latex: str, display: str) -> Node:
  """The formula in MathML; as code where it is too long or no LaTeX that can be set."""
  try:
    if len(latex) > MAX_FORMULA:
      raise ValueError("too long")
    node = _mathml(convert_to_element(_as_set(latex), display=display))
  except Exception:  # the converter raises errors of many kinds, a RecursionError among them
    return ["code", {"class": "latex"}, [latex]]
  node[1]["aria-label"] = latex.strip()
  return node


def _as_set(latex: str) -> str:
  """The LaTeX with the environments that the converter knows. Raises ValueError where it knows none for one of them."""

  def replaced(found: re.Match[str]) -> str:
    side, name, place = found.groups()
    after = (place or "") if side == "end" else ""
    if name in SET_AS:
      return SET_AS[name][side == "end"] + after
    if rf"\{name}" not in MATRICES:
      raise ValueError(f"the environment {name!r} is unknown")
    return rf"\{side}{{{name}}}{after}"

  return _ENVIRONMENT.sub(replaced, _UNSEEN.sub(r"\1", latex))


def _mathml(element: Element) -> list:
  tag = element.tag.rpartition("}")[2]
  if tag not in MATHML:
    raise ValueError(f"<{tag}> is no element of a formula")
  attributes = {name: value for name, value in element.attrib.items() if name in MATHML_ATTRIBUTES}
  text = [html.unescape(element.text)] if element.text else []  # the converter writes signs as character references
  return [tag, attributes, text + [_mathml(child) for child in element]]
