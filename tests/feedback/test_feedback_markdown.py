"""Formatted text: by hand, and under attack."""

import json
from pathlib import Path

import pytest

from rlhf_jax.feedback.markdown import MATHML, MATHML_ATTRIBUTES, MAX_FORMULA, MAX_LENGTH, formatted

ATTACKS = json.loads(Path(__file__).with_name("xss.json").read_text())
TAGS = set("p br hr h3 h4 h5 h6 ul ol li blockquote pre code em strong s span table thead tbody tr th td".split())
ATTRIBUTES = {"class", "start", "data-language", "data-align", "aria-label"}


def nodes(tree):
  for node in tree or ():
    if not isinstance(node, str):
      yield node
      yield from nodes(node[2])


def words(tree):
  return "".join(node if isinstance(node, str) else words(node[2]) for node in tree)


def test_blocks_and_marks():
  text = "# Head\nA *b* **c** ~~d~~ `e`\nline\n\n3. x\n4. y\n\n> q\n\n---\n\n```python\nf(\n```"
  assert formatted(text) == [
    ["h3", {}, ["Head"]],
    ["p", {}, ["A ", ["em", {}, ["b"]], " ", ["strong", {}, ["c"]], " ", ["s", {}, ["d"]], " ", ["code", {}, ["e"]],
               ["br", {}, []], "line"]],
    ["ol", {"start": "3"}, [["li", {}, ["x"]], ["li", {}, ["y"]]]],
    ["blockquote", {}, [["p", {}, ["q"]]]],
    ["hr", {}, []],
    ["pre", {"data-language": "python"}, [["code", {}, ["f(\n"]]]],
  ]  # fmt: skip


def test_a_table_keeps_its_alignment():
  assert formatted("| a | b |\n|--:|---|\n| 1 | 2 |") == [
    ["table", {}, [
      ["thead", {}, [["tr", {}, [["th", {"data-align": "right"}, ["a"]], ["th", {}, ["b"]]]]]],
      ["tbody", {}, [["tr", {}, [["td", {"data-align": "right"}, ["1"]], ["td", {}, ["2"]]]]]],
    ]],
  ]  # fmt: skip


@pytest.mark.parametrize("text", ["$x_1$", "\\(x_1\\)", "$$x_1$$", "\\[x_1\\]", "\\[\nx_1\n\\]", "see \\[x_1\\]"],
                         ids=["dollar", "bracket", "dollars", "square", "lines", "in a line"])  # fmt: skip
def test_each_way_to_write_a_formula(text):
  (formula,) = [node for node in nodes(formatted(text)) if node[0] == "math"]
  index = ["msub", {}, [["mi", {}, ["x"]], ["mn", {}, ["1"]]]]
  block = "[" in text or "$$" in text
  assert formula[1] == {"display": "block" if block else "inline", "aria-label": "x_1"}
  assert formula[2] == [["mrow", {}, [index]]]


@pytest.mark.parametrize("text", ["It costs $5, and $6 later.", "a \\$x$ b$", "$ x $", "\\(x", "\\[x"],
                         ids=["prices", "escaped", "spaces", "open bracket", "open square"])  # fmt: skip
def test_what_is_no_formula(text):
  assert not [node for node in nodes(formatted(text)) if node[0] == "math"]


@pytest.mark.parametrize("latex", ["{" * 900, "\\frac" * 90, "x" * (MAX_FORMULA + 1)],
                         ids=["deep", "unfinished", "long"])  # fmt: skip
def test_a_formula_that_cannot_be_set_is_shown_as_it_is_written(latex):
  assert formatted(f"${latex}$") == [["p", {}, [["code", {"class": "latex"}, [latex]]]]]


def test_links_and_images_tell_their_address_and_are_none():
  text = '[docs](https://e.org "why") <https://f.org> ![plot](https://e.org/x.png)'
  assert formatted(text) == [["p", {}, [
    ["span", {"class": "link"}, ["docs", ["span", {"class": "address"}, [' (https://e.org "why")']]]], " ",
    ["span", {"class": "link"}, ["https://f.org"]], " ",
    ["span", {"class": "image"}, ["[image: plot] (https://e.org/x.png)"]],
  ]]]  # fmt: skip


def test_the_elements_are_those_of_a_list():
  marked = [f"**x** ${attack}$" for attack in ATTACKS] + [f"- **x**\n- {attack}" for attack in ATTACKS]
  more = [
    "$\\href{javascript:alert(1)}{x}$",
    "$\\style{background:url(x)}{y} \\class{a}{b}$",
    "**b** [x](data:text/html,y)",
  ]
  for attack in (*ATTACKS, *marked, *more):
    for tag, attributes, _ in nodes(formatted(attack)):
      assert tag in TAGS | MATHML and set(attributes) <= ATTRIBUTES | MATHML_ATTRIBUTES, attack
      assert attributes.get("class") in (None, "link", "address", "image", "latex", "formula"), attack


@pytest.mark.parametrize("text", ["", "  ", "one\ntwo\n\nthree", "<b>x</b> & y", "1 < 2 * 3", "a_b_c"],
                         ids=["empty", "space", "lines", "html", "signs", "underscores"])  # fmt: skip
def test_a_text_without_markup_is_shown_as_it_is(text):
  assert formatted(text) is None


@pytest.mark.parametrize("depth", [1, 8, 17, 18, 19, 20, 21, 50])
@pytest.mark.parametrize("mark", ["> ", "- "], ids=["quote", "list"])
def test_nothing_is_dropped_however_deep(mark, depth):
  tree = formatted(mark * depth + "word")
  assert tree is None or words(tree) == "word"
  assert (tree is None) == (depth > 17 if mark == "> " else depth > 8)


def test_the_definition_of_a_link_is_shown():
  assert words(formatted("**b**\n\n[hidden]: https://e.org")) == "b[hidden]: https://e.org"


def test_a_text_that_is_too_long_is_shown_as_it_is():
  assert formatted("**b**" + "x" * (MAX_LENGTH - 5)) is not None
  assert formatted("**b**" + "x" * (MAX_LENGTH - 4)) is None


SUM = r"x &= y + 1 \\ &= 2"


@pytest.mark.parametrize(
  "text",
  [
    rf"\begin{{align}}{SUM}\end{{align}}", f"Thus:\n\\begin{{align*}}\n{SUM}\n\\end{{align*}}\nso.",
    rf"$$\begin{{aligned}}[t] {SUM} \end{{aligned}}$$", rf"\[ \begin{{alignedat}}{{2}} {SUM} \end{{alignedat}} \]",
    rf"we see \begin{{align}}\label{{eq:1}} {SUM} \end{{align}} so", f"> \\begin{{align}}\n> {SUM}\n> \\end{{align}}",
    f"- \\begin{{align}}\n  {SUM}\n  \\end{{align}}", r"\begin{gather} x = y + 1 \\ = 2 \end{gather}",
    r"\begin{eqnarray} x &=& y + 1 \\ &=& 2 \end{eqnarray}",
    rf"\begin{{equation}}\begin{{split}} {SUM} \end{{split}}\end{{equation}}",
  ],
  ids=["alone", "lines", "dollars", "alignedat", "in a line", "quote", "list", "gather", "eqnarray", "equation"],
)  # fmt: skip
def test_equations_in_lines_are_a_table_without_numbers(text):
  (formula,) = [node for node in nodes(formatted(text)) if node[0] == "math"]
  assert formula[1]["display"] == "block"
  rows = [node for node in nodes([formula]) if node[0] == "mtr"]
  assert ["".join(words([row]).split()) for row in rows] == ["x=y+1", "=2"]


@pytest.mark.parametrize(
  "text",
  [r"\begin{align} x", r"\begin{itemize} \item x \end{itemize}", "- \\[ x\n- \\] y", r"\begin{align} x \end{gather}"],
  ids=["open", "no formula", "over two entries", "other end"],
)
def test_what_is_no_displayed_formula(text):
  assert not [node for node in nodes(formatted(text)) if node[0] == "math"]


def test_an_environment_that_cannot_be_set_is_shown_as_it_is_written():
  latex = r"\begin{tikzcd} A \arrow[r] & B \end{tikzcd}"
  assert formatted(f"$${latex}$$") == [["span", {"class": "formula"}, [["code", {"class": "latex"}, [latex]]]]]


@pytest.mark.parametrize("address", ["https://e.org/a%23b", "https://e.org/a%2fb", "https://e.org/?q=%26%3D#c%25"])
def test_an_address_is_shown_as_it_was_written(address):
  alone, named, image = formatted(f"<{address}>\n\n[x]({address})\n\n![x]({address})")
  assert alone[2] == [["span", {"class": "link"}, [address]]]
  assert words([named]) == f"x ({address})" and words([image]) == f"[image: x] ({address})"
