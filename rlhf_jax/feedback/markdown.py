"""Markdown with tables and LaTeX as a tree of allowed elements, which no HTML of the text's author can enter.

markdown-it-py parses the text, and latex2mathml the formulas in it: $...$, $$...$$, \\(...\\), \\[...\\]. What they
give is taken over element by element: the tags and attributes below alone, no link that can be followed and no image
that is loaded. The page builds its elements from the tree, so that no text is ever parsed as HTML.
"""

from __future__ import annotations

import functools
import html
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element

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
  parser.use(dollarmath_plugin, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
  parser.inline.ruler.before("escape", "math_brackets", _bracket_inline)
  parser.block.ruler.before("fence", "math_brackets", _bracket_block, {"alt": ["paragraph", "blockquote", "list"]})
  return parser


def _bracket_inline(state: StateInline, silent: bool) -> bool:
  """The rule of \\(...\\) and of \\[...\\] within a line."""
  close = {"\\(": "\\)", "\\[": "\\]"}.get(state.src[state.pos : state.pos + 2])
  end = -1 if close is None else state.src.find(close, state.pos + 2, state.posMax)
  if end < 0:
    return False
  if not silent:
    token = state.push("math_inline" if close == "\\)" else "math_inline_double", "math", 0)
    token.content = state.src[state.pos + 2 : end]
  state.pos = end + 2
  return True


def _bracket_block(state: StateBlock, start: int, stop: int, silent: bool) -> bool:
  """The rule of \\[...\\] that begins and ends a block, over several lines."""
  first = state.bMarks[start] + state.tShift[start]
  if state.is_code_block(start) or not state.src.startswith("\\[", first):
    return False
  end = state.src.find("\\]", first + 2, state.eMarks[stop - 1])
  last = next((line for line in range(start, stop) if end + 2 <= state.eMarks[line]), None)
  if end < 0 or last is None or state.src[end + 2 : state.eMarks[last]].strip():
    return False
  if not silent:
    state.line = last + 1
    token = state.push("math_block", "math", 0)
    token.content = state.src[first + 2 : end]
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
    node = _mathml(convert_to_element(latex, display=display))
  except Exception:  # the converter raises errors of many kinds, a RecursionError among them
    return ["code", {"class": "latex"}, [latex]]
  node[1]["aria-label"] = latex.strip()
  return node


def _mathml(element: Element) -> list:
  tag = element.tag.rpartition("}")[2]
  if tag not in MATHML:
    raise ValueError(f"<{tag}> is no element of a formula")
  attributes = {name: value for name, value in element.attrib.items() if name in MATHML_ATTRIBUTES}
  text = [html.unescape(element.text)] if element.text else []  # the converter writes signs as character references
  return [tag, attributes, text + [_mathml(child) for child in element]]
