"""The annotation page in a real headless Chromium: everything from the keyboard, and nothing a model wrote runs."""

import json
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="uvicorn, which serves the page, is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not installed")

from annotation_pages import judgements, keys, make_items, page_of, wait_for_count

from rlhf_jax.feedback.records import UNDONE, Response, make_item
from rlhf_jax.feedback.store import read_store
from rlhf_jax.report.words import visible

ATTACKS = Path(__file__).with_name("xss.json")


def test_nothing_a_model_or_an_annotator_wrote_runs(browser, serve):
  """Each attack as prompt, response, guidelines, and in an annotator's own words that undo brings back."""
  attacks = json.loads(ATTACKS.read_text())
  assert len(attacks) > 30
  groups = [attacks[start : start + 8] for start in range(0, len(attacks), 8)]
  items = [make_item("\n".join(group), [Response(attack) for attack in group]) for group in groups]
  path, _, link = serve(items, "\n\n".join(f"# {attack}\n- {attack}" for attack in attacks), attacks[0][:150])
  with page_of(browser, link) as (page, seen):
    tags = "script, img, iframe, svg, object, embed, math, form, style, base, a, video, portal, meta, link"
    for number, group in enumerate(groups):
      wait_for_count(page, f"{number} of {len(groups)}")
      for _ in ("formatted", "plain"):
        assert page.locator("main").locator(tags).count() == page.locator("aside").locator(tags).count() == 0
        shown = page.locator(".card .text").all_text_contents()
        keys(page, "p")  # nothing happens on a page without formatted text
      assert sorted(shown) == sorted(visible(attack) for attack in group)
      if group is not groups[-1]:
        keys(page, "s", "1")
    for place in range(len(group)):
      keys(page, chr(97 + place), "4")
    keys(page, "a", "t")
    page.keyboard.insert_text(group[0])
    keys(page, "Control+Enter")
    page.wait_for_selector("#done:not([hidden])")
    keys(page, "u")
    page.wait_for_selector("#assignment .card")
    assert page.locator(".critique").first.input_value() == groups[-1][0]
    page.reload()
    page.wait_for_selector("#assignment .card")
    assert page.evaluate("[typeof window.pwned, document.title]") == ["undefined", "Annotate"]
    assert seen == []


def test_the_policy_stops_what_would_slip_through(browser, serve):
  """The second wall by itself: markup put into the page by force does not run, and sets off the alarm."""
  _, _, link = serve(make_items(1, "a", "b"))
  with page_of(browser, link) as (page, seen):
    # After a timeout, because a driver's own evaluation is exempt from the policy.
    page.evaluate("""() => setTimeout(() => {
      const tries = [
        () => { const script = document.createElement("script");
                script.append("window.pwned = 1"); document.body.append(script); },
        () => { const image = document.createElement("img"); image.src = "https://evil.example/x.png";
                document.body.append(image); },
        () => { document.body.setAttribute("onclick", "window.pwned = 2"); document.body.click(); },
        () => { document.body.innerHTML += "<img src=x onerror='window.pwned = 3'>"; },
        () => { eval("window.pwned = 4"); },
        () => { const style = document.createElement("style");
                style.textContent = "body { background: url(https://evil.example/y.png) }";
                document.body.append(style); },
        () => { fetch("https://evil.example/z").catch(() => {}); },
        () => { location.href = "javascript:window.pwned = 5"; },
      ];
      for (const attempt of tries) try { attempt(); } catch {}
    }, 0)""")
    page.wait_for_timeout(300)
    assert page.evaluate("typeof window.pwned") == "undefined"
    violated = {line.split()[-1] for line in seen if line.startswith("console violation")}
    assert violated >= {"require-trusted-types-for", "img-src", "connect-src", "style-src-elem"}
    assert not [line for line in seen if line.startswith(("dialog", "popup"))]


def test_two_responses_from_the_keyboard(browser, serve):
  """Rate, flag, criticise, rewrite, prefer, submit, undo, correct, tie, skip: without a mouse."""
  path, _, link = serve(make_items(3, "left", "right"))
  with page_of(browser, link) as (page, seen):
    assert "#" not in page.url and page.evaluate("document.cookie") == ""
    first = page.locator(".card .text").first.text_content()
    keys(page, "Enter")  # nothing is said yet: refused, with the reason in words
    assert page.locator("#hint").text_content() == "Choose the better response, or rate both"
    keys(page, "a", "6", "b", "x", "2", "Escape", "2", "t")  # the first 2 is a flag, the second a rating
    page.keyboard.insert_text("It is wrong.")
    keys(page, "Escape", "w")
    page.keyboard.insert_text("!")
    keys(page, "Escape", "ArrowLeft", "ArrowLeft", "Enter")
    (judgement,) = judgements(path, 1)
    best = judgement.order[0]
    other = 1 - best
    texts = [response.text for response in read_store(path)[1][0].responses]
    assert texts[best] == first
    assert judgement.ranks[best] == 0 and judgement.strength == 2
    assert (judgement.ratings[best], judgement.ratings[other]) == (6, 2)
    assert judgement.flags[other] == ("dishonest",) and judgement.flags[best] == ()
    assert judgement.critiques[other] == "It is wrong." and judgement.rewrites[other] == f"{texts[other]}!"
    assert 0 < judgement.seconds < 60

    wait_for_count(page, "1 of 3")
    keys(page, "u")
    wait_for_count(page, "0 of 3")
    assert page.locator(".critique").nth(1).input_value() == "It is wrong."
    keys(page, "=", "Enter")
    found = judgements(path, 3)
    assert found[1].skipped == UNDONE and found[2].ranks == (0, 0) and found[2].strength is None
    assert found[2].critiques == found[0].critiques and found[2].supersedes == found[1].id

    wait_for_count(page, "1 of 3")
    keys(page, "s", "2")
    assert judgements(path, 4)[3].skipped == "needs knowledge I lack"
    assert seen == []


def test_a_second_answer_to_one_assignment_is_refused_and_undo_lets_it_count(browser, serve):
  """Two tabs of one annotator show the same assignment and answer it differently."""
  path, origin, link = serve(make_items(2, "x", "y"))
  with page_of(browser, link) as (page, seen):
    other = page.context.new_page()
    other.goto(origin)
    other.wait_for_selector("#assignment .card")
    other.keyboard.press("ArrowLeft")
    other.keyboard.press("Enter")
    (first,) = judgements(path, 1)
    keys(page, "ArrowRight", "ArrowRight", "Enter")
    page.wait_for_selector("#error:not([hidden])")
    assert "you have answered this one already, and otherwise" in page.locator("#error").text_content()
    assert judgements(path, 1) == [first]
    keys(page, "u")
    page.wait_for_selector("#error", state="hidden")
    keys(page, "Enter")
    wait_for_count(page, "1 of 2")
    last = judgements(path, 3)[-1]
    assert (last.item, last.strength, last.ranks) == (first.item, 2, first.ranks[::-1])
    assert [text for text in seen if "409" not in text] == []


def test_a_ranking_with_ties_by_keyboard_and_by_mouse_on_a_phone(browser, serve):
  path, _, link = serve(make_items(2, *"wxyz"))
  with page_of(browser, link, viewport={"width": 360, "height": 740}) as (page, seen):
    keys(page, "a", "Shift+Digit2", "j", "Shift+Digit4", "j", "Shift+Digit2", "d", "ArrowLeft")
    assert page.locator("#hint").text_content() == "D > A = C > B"
    page.reload()  # what was said so far is still there
    page.wait_for_selector("#assignment .card")
    assert page.locator("#hint").text_content() == "D > A = C > B"
    keys(page, "Enter")
    (judgement,) = judgements(path, 1)
    assert [judgement.ranks[index] for index in judgement.order] == [1, 2, 1, 0]
    wait_for_count(page, "1 of 2")
    for place, rank in enumerate((1, 1, 3, 1)):
      page.locator(".card").nth(place).locator(".ranks label").nth(rank - 1).click()
    page.locator(".card").nth(0).locator(".ratings label").nth(6).click()
    page.locator("#submit").click()
    judgement = judgements(path, 2)[1]
    assert [judgement.ranks[index] for index in judgement.order] == [0, 0, 1, 0]
    assert [judgement.ratings[index] for index in judgement.order] == [7, None, None, None]
    page.wait_for_selector("#done:not([hidden])")
    assert seen == []


def test_nothing_is_cut_off_at_any_width_and_both_schemes_are_drawn(browser, serve):
  long = "word " * 300 + "x" * 400 + "\n\tcode = [1, 2]\n"
  _, _, link = serve([make_item("p " * 300, [Response(long + str(n)) for n in range(3)])], "# Guide\n\n" + long)
  expected = {"light": ["rgb(255, 255, 255)", "rgb(26, 31, 41)"], "dark": ["rgb(25, 30, 38)", "rgb(232, 235, 240)"]}
  with page_of(browser, link) as (page, seen):
    for width in (320, 390, 768, 1440):
      page.set_viewport_size({"width": width, "height": 800})
      overflow = """() => [...document.querySelectorAll("body, main, .card, .bar, .actions, .prompt")]
        .filter((node) => node.scrollWidth > node.clientWidth + 1).map((node) => node.className || node.tagName)"""
      assert page.evaluate(overflow) == [], width
    for scheme, colors in expected.items():
      page.emulate_media(color_scheme=scheme)
      style = "node => [getComputedStyle(node).backgroundColor, getComputedStyle(node).color]"
      assert page.eval_on_selector(".card", style) == colors
    assert seen == []
