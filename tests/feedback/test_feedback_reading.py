"""An annotation page shows what is judged: conversations, formatted text, differences, any direction, any length."""

import pytest

pytest.importorskip("uvicorn", reason="uvicorn, which serves the page, is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not installed")

from annotation_pages import keys, make_items, page_of, wait_for_count

from rlhf_jax.data.dialogue import Message
from rlhf_jax.feedback.records import Response, make_item

MARKDOWN = (
  "# Roots\n\n**Both** of $x^2 = 4$ are:\n\n\\[\nx = \\frac{4}{2}\n\\]\n\n```python\nx = [2, -2]\n```\n\n"
  "| n | x |\n|--:|---|\n| 1 | 2 |\n\n[docs](https://e.org)\n\n![plot](https://e.org/x.png)"
)


def test_markdown_code_tables_and_formulas_and_plain_text_one_key_away(browser, serve):
  _, _, link = serve(
    [make_item("Solve $x^2 = 4$.", [Response(MARKDOWN), Response("plain")])], "# Guide\n\n- **be** $x$"
  )
  with page_of(browser, link) as (page, seen):
    card = page.locator(".card", has=page.locator("h3"))
    for selector, text in {
      "h3": "Roots",
      "strong": "Both",
      "pre code": "x = [2, -2]\n",
      "td >> nth=0": "1",
      ".link": "docs (https://e.org)",
      ".image": "[image: plot] (https://e.org/x.png)",
    }.items():
      assert card.locator(selector).text_content() == text
    assert card.locator("math").count() == 2 and card.locator("math mfrac").count() == 1
    height = "node => node.getBoundingClientRect().height"
    assert card.locator("mfrac").evaluate(height) > 1.3 * card.locator("mfrac mn >> nth=0").evaluate(height)
    assert card.locator("pre").evaluate("node => getComputedStyle(node.firstChild).fontFamily").endswith("monospace")
    assert page.locator("#prompt math").count() == page.locator("aside math").count() == 1
    assert page.locator("aside strong").text_content() == "be"
    keys(page, "p")
    assert card.count() == page.locator("#prompt math").count() == 0
    assert sorted(page.locator(".card .text").all_text_contents()) == sorted([MARKDOWN, "plain"])
    page.reload()  # the choice is remembered
    page.wait_for_selector("#assignment .card")
    assert page.locator("#prompt .text").text_content() == "Solve $x^2 = 4$."
    page.click("#plain")
    assert page.locator("#prompt math").count() == 1
    assert seen == []


def test_without_formatted_text_or_guidelines_there_is_no_switch_and_no_pane(browser, serve):
  _, _, link = serve(make_items(1, "one"))
  with page_of(browser, link) as (page, seen):
    assert page.locator("#plain").is_hidden() and page.locator("#marked").is_hidden()
    assert page.locator("aside, #guidelines-toggle").count() == 0
    keys(page, "o", "p", "v", "m", "Escape")
    assert page.locator(".card .text").text_content() == "one"
    assert seen == []


@pytest.mark.parametrize("size", [(1280, 800), (360, 740), (320, 256)], ids=["wide", "phone", "zoom"])
def test_a_conversation_shows_its_turns_and_the_last_question_is_in_view(browser, serve, size):
  turns = [Message("system", "Be **kind**.")]
  for n in range(8):
    turns += [Message("user", f"question {n} " * 20), Message("assistant", f"answer {n} " * 60)]
  prompt = (*turns, Message("user", "the last question"))
  _, _, link = serve([make_item(prompt, [Response("x"), Response("y")]), *make_items(1, "x", "y")])
  with page_of(browser, link, viewport={"width": size[0], "height": size[1]}) as (page, seen):
    names = page.locator(".turn h3").all_text_contents()
    assert names == ["system", *["user", "assistant"] * 8, "user"]
    assert page.locator(".turn strong").text_content() == "kind"
    inside = """node => {
      const box = node.getBoundingClientRect();
      const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
      return node.contains(top) && box.top >= 0 && box.bottom <= innerHeight;
    }"""
    assert page.locator(".turn >> nth=-1").evaluate(inside)
    keys(page, "s", "1")
    wait_for_count(page, "1 of 2")
    assert page.locator(".turn").count() == 0 and page.locator("#prompt").text_content() == "item 0"
    assert page.locator("#prompt").evaluate(inside)
    assert seen == []


def test_differences_are_marked(browser, serve):
  texts = ("The sky is blue today.", "The sea is blue.")
  _, _, link = serve([make_item("p", [Response(text) for text in texts]), make_item("q", map(Response, "abc"))])
  with page_of(browser, link) as (page, seen):
    keys(page, "v")
    marked = {tuple(card.locator("mark").all_text_contents()) for card in page.locator(".card").all()}
    assert marked == {("sky", "today"), ("sea",)}
    assert sorted(page.locator(".card .text").all_text_contents()) == sorted(texts)
    keys(page, "v")
    assert page.locator("mark").count() == 0
    keys(page, "v", "s", "1")
    wait_for_count(page, "1 of 2")
    assert page.locator("mark").count() == 2  # three are compared with the first, or the selected one
    keys(page, "b")
    assert page.locator(".card:has(mark) .letter").all_text_contents() == ["A", "C"]
    assert seen == []


PIECES = (
  ("a b c", "a c", ["b"]), ("", "x", []), ("x y", "", ["x y"]), ("same", "same", []), ("a\r\nb", "a\nb", []),
  ("x a b c y", "a z b c", ["x", "y"]), ("a b", "b a", ["a"]),
  ("\u6211\u559c\u6b22\u732b", "\u6211\u559c\u6b22\u72d7", ["\u732b"]),  # no spaces between words
  ("w " * 5000 + "end", "v " * 5000 + "end", ["w " * 4999 + "w"]),  # too long for an alignment
)  # fmt: skip


def test_the_marks_are_what_the_other_text_lacks(browser, serve):
  _, _, link = serve(make_items(1, "x"))
  with page_of(browser, link) as (page, _):
    for text, other, marked in PIECES:
      pieces = page.evaluate("""async ([text, other]) => {
        const { newPieces } = await import("/static/diff.js");
        const { unixLines } = await import("/static/text.js");
        return newPieces(unixLines(text), unixLines(other));
      }""", [text, other])  # fmt: skip
      assert "".join(piece for piece, _ in pieces) == text.replace("\r\n", "\n")
      assert [piece for piece, new in pieces if new] == marked


def test_each_paragraph_has_its_own_direction(browser, serve):
  arabic, hebrew = "\u0645\u0631\u062d\u0628\u0627", "\u05e9\u05dc\u05d5\u05dd"
  texts = (f"{arabic} one\nsecond line", f"**{hebrew}**\n\n- {hebrew} `x`\n\nsecond")
  _, _, link = serve([make_item(f"{arabic}?", [Response(text) for text in texts])])
  with page_of(browser, link) as (page, _):
    starts = """node => {
      const range = document.createRange();
      const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
      const [from, box] = [[], node.getBoundingClientRect()];
      for (let text = walker.nextNode(); text; text = walker.nextNode()) {
        let at = 0;
        for (const line of text.data.split("\\n")) {
          range.setStart(text, at);
          range.setEnd(text, at + line.length);
          const place = range.getBoundingClientRect();
          if (line.trim()) from.push(place.left - box.left < box.right - place.right ? "left" : "right");
          at += line.length + 1;
        }
      }
      return from;
    }"""
    plain = page.locator(".card .text", has_text="second line")
    assert plain.evaluate(starts) == ["right", "left"]
    formatted = page.locator(".card .text.formatted")
    assert [block.evaluate("node => getComputedStyle(node).direction") for block in formatted.locator("> *").all()] == [
      "rtl", "rtl", "ltr"]  # fmt: skip
    assert formatted.evaluate(starts)[0] == "right" and formatted.evaluate(starts)[-1] == "left"
    assert page.locator("#prompt .text").evaluate(starts) == ["right"]


def test_a_very_long_text_is_folded(browser, serve):
  long = "word " * 3000
  _, _, link = serve([make_item(long, [Response(long), Response("line\n" * 150), Response("short")])])
  with page_of(browser, link) as (page, seen):
    heights = "() => [...document.querySelectorAll('.passage .text')].map((node) => node.clientHeight > 520)"
    assert page.locator(".unfold").count() == 3 and not any(page.evaluate(heights))
    assert "3,000 words" in page.locator(".prompt .unfold").text_content()
    keys(page, "m")
    assert sum(page.evaluate(heights)) == 3
    page.click(".card .unfold >> nth=0")
    assert sum(page.evaluate(heights)) == 2
    assert seen == []
