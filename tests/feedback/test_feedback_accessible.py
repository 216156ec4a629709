"""The annotation page for everybody: no violation that axe-core finds at WCAG 2.2 AA, zoom, and targets for fingers."""

import pytest

pytest.importorskip("uvicorn", reason="uvicorn, which serves the page, is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not installed")

from annotation_pages import close_dialog, keys, page_of, wait_for_count

from rlhf_jax.data.dialogue import Message
from rlhf_jax.feedback.invitations import invite, invite_lead
from rlhf_jax.feedback.project import change_settings, set_questions
from rlhf_jax.feedback.questions import parse_questions
from rlhf_jax.feedback.records import Response, make_item
from rlhf_jax.feedback.store import opened

SUM = " + ".join(f"x_{{{n}}}" for n in range(60))
TEXT = (
  "# Head\n\n**bold** `code` $x^2$ [link](https://e.org)\n\n> quote\n\n```python\nx = 1\n```\n\n"
  f"| a | b |\n|---|---|\n| 1 | 2 |\n\n$${SUM}$$\n"
)
TURNS = (*(Message(role, f"*turn* of the {role} " * 20) for _ in range(5) for role in ("user", "assistant")),
         Message("user", "last"))  # fmt: skip
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
VIEWS = {
  "wide": {"viewport": {"width": 1440, "height": 900}},
  "dark": {"viewport": {"width": 1440, "height": 900}, "color_scheme": "dark"},
  "phone": {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True},
  "zoom": {"viewport": {"width": 320, "height": 256}},
}


def items():
  return [
    make_item(TURNS, [Response(TEXT), Response("word " * 2000)]),
    make_item("three", [Response(text) for text in ("one **x**", "two", "\u05e9\u05dc\u05d5\u05dd")]),
  ]


@pytest.fixture
def violations():
  axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed").Axe()

  def found(page):
    page.wait_for_timeout(250)  # the colours of a change have settled
    response = axe.run(page, options={"runOnly": {"type": "tag", "values": RULES}}).response
    return [(rule["id"], node["html"][:120], node["failureSummary"])
            for rule in response["violations"] for node in rule["nodes"]]  # fmt: skip

  return found


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_axe_finds_no_violation(browser, serve, violations, view):
  _, _, link = serve(items(), f"# Guide\n\n{TEXT}")
  # The page's policy would keep axe out as any other foreign script.
  with page_of(browser, link, bypass_csp=True, **view) as (page, _):
    page.evaluate("localStorage.clear()")
    page.reload()
    page.wait_for_selector("#assignment .card")
    assert violations(page) == []
    page.keyboard.press("o")
    assert violations(page) == []
    page.keyboard.press("Escape")
    keys(page, "a", "t")
    page.keyboard.insert_text("critique")
    keys(page, "Escape", "3", "x", "2", "ArrowLeft", "m", "v")
    page.locator(".scale label").first.click()
    assert violations(page) == []
    for opener in ("#keys-open", "#skip-open", "#mine-open"):
      page.click(opener)
      assert violations(page) == []
      close_dialog(page)
    keys(page, "s", "1")
    wait_for_count(page, "1 of 2")
    keys(page, "v", "b", "Shift+Digit2")
    assert violations(page) == []
    page.route("**/judgements", lambda route: route.abort(), times=1)
    keys(page, "s", "1")
    page.wait_for_selector("#error:not([hidden])")
    assert violations(page) == []
    keys(page, "s", "1")
    page.wait_for_selector("#done:not([hidden])")
    assert violations(page) == []
    page.click("#logout")
    page.wait_for_selector("#login")
    page.wait_for_load_state("networkidle")  # a message of the session that ended may load the page anew
    assert violations(page) == []
    page.fill("#token", "guess")
    keys(page, "Enter")
    page.wait_for_selector("#error:not([hidden])")
    assert violations(page) == []


def test_what_gets_the_focus_is_not_behind_the_prompt(browser, serve):
  """WCAG 2.4.11. The prompt stays in view while the responses are scrolled."""
  _, _, link = serve(items())
  with page_of(browser, link, viewport={"width": 900, "height": 700}) as (page, _):
    for _ in range(40):
      keys(page, "Shift+Tab")
      hidden = page.evaluate("""() => {
        const [focus, prompt] = [document.activeElement, document.querySelector(".prompt")];
        if (focus === document.body || prompt.contains(focus) || !main.contains(focus)) return false;
        return focus.getBoundingClientRect().bottom <= prompt.getBoundingClientRect().bottom;
      }""")
      assert not hidden
    for letter in "ba":
      keys(page, letter)
      top = page.locator(".card.on .letter").bounding_box()["y"]
      assert top >= page.locator(".prompt").bounding_box()["y"] + page.locator(".prompt").bounding_box()["height"]


PANES = {  # what opens a pane -> what closes it
  "#guidelines-toggle": "#guidelines-close",
  "#keys-open": "#keys [data-close]",
  "#skip-open": "#skip [data-close]",
}


@pytest.mark.parametrize("width", [320, 360, 414])
def test_targets_on_a_phone_are_44_pixels(browser, serve, width):
  _, _, link = serve(items(), "# Guide")
  view = {"viewport": {"width": width, "height": 740}, "has_touch": True, "is_mobile": True}
  small = """() => [...document.querySelectorAll("button, label:has(input), input, textarea, summary, a")]
    .filter((node) => node.checkVisibility() && !node.matches("label > [type=radio], label > [type=checkbox]"))
    .map((node) => [node, node.getBoundingClientRect()])
    .filter(([, box]) => box.width < 43.9 || box.height < 43.9)
    .map(([node, box]) => `${node.className || node.id || node.outerHTML} ${box.width} x ${box.height}`)"""
  with page_of(browser, link, **view) as (page, _):
    page.click("summary >> nth=0")
    assert page.evaluate(small) == []
    for opener, closer in PANES.items():
      page.click(opener)
      assert page.evaluate(small) == []
      page.click(closer)
    keys(page, "s", "1")
    wait_for_count(page, "1 of 2")
    assert page.evaluate(small) == []
    page.click("#logout")
    page.wait_for_selector("#login")
    page.wait_for_load_state("networkidle")  # a message of the session that ended may load the page anew
    assert page.evaluate(small) == []


def test_a_zoom_of_400_percent_leaves_room_to_read_and_reaches_everything(browser, serve):
  """A window of 1280 x 1024 at 400 % is one of 320 x 256."""
  _, _, link = serve(items(), f"# Guide\n\n{TEXT}")
  with page_of(browser, link, viewport={"width": 320, "height": 256}) as (page, _):
    page.keyboard.press("Escape")
    wide = """() => [...document.querySelectorAll("body *")].filter((node) => node.checkVisibility() &&
      !node.closest(".formula, .unseen") && node.getBoundingClientRect().right > innerWidth + 1)
      .map((node) => node.outerHTML.slice(0, 80))"""
    assert page.evaluate(wide) == [] and page.evaluate("document.documentElement.scrollWidth") <= 320
    # Nothing stays in front of the text, and each control can be scrolled to.
    fixed = """() => [...document.querySelectorAll("body *")].filter((node) => node.checkVisibility() &&
      ["fixed", "sticky"].includes(getComputedStyle(node).position)).length"""
    assert page.evaluate(fixed) == 0
    for selector in (".ratings label >> nth=0", ".flags label >> nth=7", ".scale label >> nth=6", "summary >> nth=1"):
      page.click(selector)
    page.click("#submit")
    wait_for_count(page, "1 of 2")
    for opener, closer in PANES.items():
      page.click(opener)
      assert page.evaluate(wide) == []
      page.click(closer)


@pytest.mark.parametrize("view", ["dark", "phone"])
def test_axe_finds_no_violation_in_what_a_lead_asks_and_on_the_leads_page(browser, serve, violations, view):
  path, origin, ann, bob = serve(items()[1:], "", "ann", "bob")
  ((_, eve),) = invite(path, ["eve"], origin, expert=True)
  asked = {"ask": ["ranking", "yes_no", "rating", "spans"], "rating": {"aspects": ["helpful"]}}
  with opened(path) as store:
    set_questions(store, parse_questions(asked, "here"), 0.0)
    change_settings(store, {"judgements_per_item": 2, "agreeing": 2, "at_most": 2}, 0.0)
  for link, order in ((ann, "123"), (bob, "321")):
    with page_of(browser, link, bypass_csp=True, **VIEWS[view]) as (page, _):
      for letter, rank in zip("abc", order, strict=True):
        keys(page, letter, f"Shift+Digit{rank}")
      page.locator(".spans summary").first.click()
      assert violations(page) == []
      page.click("#submit")
      page.wait_for_selector("#done:not([hidden])")
  with page_of(browser, eve, bypass_csp=True, **VIEWS[view]) as (page, _):
    page.wait_for_selector("#others:visible")
    assert violations(page) == []
  context = browser.new_context(bypass_csp=True, **VIEWS[view])
  page = context.new_page()
  page.goto(f"{origin}/lead")
  page.wait_for_selector("#login")
  assert violations(page) == []
  page.goto(invite_lead(path, "lea", origin))
  page.wait_for_selector(".item")
  assert violations(page) == []
  page.get_by_role("button", name="Revoke ann").click()
  assert violations(page) == []
  context.close()
