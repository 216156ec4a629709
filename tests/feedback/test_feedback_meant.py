"""What an annotation page records is what was meant: the keyboard, input methods, line ends, tabs and links."""

import functools
import json

import pytest

pytest.importorskip("uvicorn", reason="uvicorn, which serves the page, is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not installed")

from annotation_pages import chosen, close_dialog, focused, judgements, keys, make_items, page_of, wait_for_count

from rlhf_jax.feedback.invitations import invite_lead
from rlhf_jax.feedback.project import set_questions
from rlhf_jax.feedback.questions import Comparison, Flags, Questions, Rating
from rlhf_jax.feedback.records import UNDONE, Judgement, Response, make_item
from rlhf_jax.feedback.store import add_records, opened, read_store

PAIR = ("left", "right")


# --- keys ---


def test_arrows_in_a_row_of_choices_stay_there(browser, serve):
  _, _, link = serve(make_items(1, *PAIR))
  with page_of(browser, link) as (page, seen):
    page.focus(".ratings input >> nth=0")
    keys(page, "ArrowRight")
    assert chosen(page, ".card") == ["2"] and chosen(page, ".scale") == []
    keys(page, "ArrowDown", "ArrowUp", "ArrowLeft", "ArrowLeft", "ArrowLeft")  # the row does not go round
    assert chosen(page, ".card") == ["1"] and focused(page) == ["ratings-0", "1"]
    keys(page, "7", "ArrowRight", "ArrowLeft")
    assert chosen(page, ".card") == ["6"] and focused(page) == ["ratings-0", "6"]
    page.focus(".scale input >> nth=5")
    keys(page, "ArrowRight", "ArrowRight")
    assert chosen(page, ".scale") == ["3"] and chosen(page, ".card") == ["6"]
    keys(page, "2")  # a digit chooses in the row that has the focus too
    assert chosen(page, ".scale") == ["-2"] and chosen(page, ".card") == ["6"]
    assert seen == []


def test_arrows_in_a_row_of_ranks_stay_there(browser, serve):
  _, _, link = serve(make_items(1, *"xyz"))
  with page_of(browser, link) as (page, _):
    page.focus(".ranks input >> nth=1")
    keys(page, "ArrowRight", "ArrowRight")
    assert chosen(page, ".ranks") == ["2"] and chosen(page, ".ratings") == []
    keys(page, "1")
    assert chosen(page, ".ranks") == ["0"] and chosen(page, ".ratings") == []


@pytest.mark.parametrize("selector", [".chip input", "summary", "#skip-open", "#submit", "#undo ~ button", ".critique"],
                         ids=["flag", "summary", "skip", "submit", "tool", "text"])  # fmt: skip
def test_arrows_on_other_controls_are_no_preference(browser, serve, selector):
  _, _, link = serve(make_items(1, "**left**", "right"))
  with page_of(browser, link) as (page, _):
    page.click("summary >> nth=0")
    page.focus(f"{selector} >> nth=0")
    keys(page, "ArrowRight", "ArrowLeft", "ArrowLeft")
    assert chosen(page, "body") == ["on"]  # the setting of the keys alone


def test_arrows_elsewhere_are_a_preference(browser, serve):
  _, _, link = serve(make_items(1, *PAIR))
  with page_of(browser, link) as (page, _):
    keys(page, "ArrowRight")
    assert chosen(page, ".scale") == ["1"]
    keys(page, "a", "ArrowLeft", "ArrowLeft")
    assert chosen(page, ".scale") == ["-1"]
    # The arrows of a number pad whose digits are off.
    page.dispatch_event("body", "keydown", {"key": "ArrowLeft", "code": "Numpad4", "bubbles": True})
    assert chosen(page, ".scale") == ["-2"] and chosen(page, ".card") == []


def test_enter_presses_a_button_and_submits_from_a_choice(browser, serve):
  path, _, link = serve(make_items(2, *PAIR))
  with page_of(browser, link) as (page, _):
    keys(page, "ArrowLeft")
    page.focus("summary >> nth=0")
    keys(page, "Enter")
    assert page.locator(".critique").first.is_visible() and judgements(path, 0) == []
    page.focus("#skip-open")
    keys(page, "Enter")
    assert page.locator("#skip").is_visible() and judgements(path, 0) == []
    close_dialog(page)
    page.focus(".chip input >> nth=1")
    keys(page, "Space", "Enter")  # a flag stays as it was set
    (judgement,) = judgements(path, 1)
    assert judgement.flags[judgement.order[0]] == ("dishonest",)


def test_a_key_that_is_held_acts_once(browser, serve):
  path, _, link = serve(make_items(3, *PAIR))
  with page_of(browser, link) as (page, _):
    for done in range(2):
      keys(page, "=", "Enter")
      wait_for_count(page, f"{done + 1} of 3")
    for _ in range(4):
      page.keyboard.down("u")
      page.wait_for_timeout(60)
    page.keyboard.up("u")
    assert [judgement.skipped for judgement in judgements(path, 3)] == [None, None, UNDONE]


def test_keys_of_another_alphabet_and_locked_capitals_are_commands(browser, serve):
  _, _, link = serve(make_items(1, *PAIR))
  with page_of(browser, link) as (page, _):
    page.dispatch_event("body", "keydown", {"key": "\u0438", "code": "KeyB", "bubbles": True})
    assert page.locator(".card.on .letter").text_content() == "B"
    page.dispatch_event("body", "keydown", {"key": "A", "code": "KeyA", "bubbles": True})
    assert page.locator(".card.on .letter").text_content() == "A"


def test_keys_of_a_single_character_can_be_switched_off(browser, serve):
  path, _, link = serve(make_items(1, *PAIR))
  with page_of(browser, link) as (page, _):
    keys(page, "?")
    page.click("#shortcuts")
    close_dialog(page)
    page.reload()
    page.wait_for_selector("#assignment .card")
    page.focus(".card >> nth=0")
    keys(page, "3", "=", "s", "b", "t", "y", "u", "?", "x")
    assert page.locator("dialog[open]").count() == 0 and chosen(page, "#assignment") == chosen(page, ".scale") == []
    page.click("#skip-open")
    keys(page, "2")
    close_dialog(page)
    page.focus(".card >> nth=0")
    keys(page, "ArrowRight", "Enter")
    assert judgements(path, 1)[0].strength == 1


def test_digits_and_arrows_in_a_row_that_the_lead_asks_for_stay_there(browser, serve):
  path, _, link = serve(make_items(1, *PAIR))
  with opened(path) as store:
    asked = ("rating", "comparison", "yes_no", "text", "spans")
    set_questions(store, Questions(ask=asked, rating=Rating(aspects=("honest",))), 0.0)
  with page_of(browser, link) as (page, seen):
    page.focus(".asked input >> nth=0")
    keys(page, "5", "ArrowLeft")
    assert chosen(page, ".asked") == ["4"] and chosen(page, ".ratings") == chosen(page, ".scale") == []
    page.focus("[name=yes-no-0] >> nth=0")
    keys(page, "ArrowRight", "ArrowRight")
    assert chosen(page, ".asked") == ["4", "false"] and chosen(page, ".scale") == []
    keys(page, "b", "t")  # the critique is not hidden among the marked parts
    assert focused(page)[0] == "critique" and not page.locator(".spans[open]").count()
    assert seen == []


def test_yes_and_no_have_keys_of_their_own(browser, serve):
  """Of the selected response, or of a single one; typed in a text they are letters; the switch turns them off."""
  single = make_item("one", [Response("alone")])
  path, _, link = serve([*make_items(1, *PAIR), single, make_item("last", [Response("only")])])
  with opened(path) as store:
    set_questions(store, Questions(ask=("comparison", "yes_no", "text"), required=("yes_no",)), 0.0)
  with page_of(browser, link) as (page, seen):
    keys(page, "y")
    assert chosen(page, ".asked") == []  # neither response is selected
    keys(page, "a", "y", "b", "n", "n")
    assert chosen(page, ".asked") == ["true"]  # the same key took the second answer back
    keys(page, "n", "t", "y", "n", "Escape", "Enter")
    (judgement,) = judgements(path, 1)
    assert [judgement.yes_no[index] for index in judgement.order] == [True, False]
    assert judgement.critiques[judgement.order[1]] == "yn"
    wait_for_count(page, "1 of 3")
    keys(page, "n", "Enter")
    assert judgements(path, 2)[1].yes_no == (False,)
    wait_for_count(page, "2 of 3")
    keys(page, "?")
    assert "answer yes, no for the selected response" in page.locator("#keys").text_content()
    page.click("#shortcuts")
    close_dialog(page)
    page.focus(".card")
    keys(page, "y", "n")
    assert chosen(page, ".asked") == [] and seen == []


def test_a_key_of_the_browser_skips_nothing(browser, serve):
  path, _, link = serve(make_items(1, *PAIR))
  with page_of(browser, link) as (page, _):
    keys(page, "s", "Control+2", "Alt+2", "Meta+2")
    assert page.locator("#skip").is_visible() and judgements(path, 0) == []
    keys(page, "2")
    assert judgements(path, 1)[0].skipped == "needs knowledge I lack"


# --- questions that change ---


def test_what_is_not_asked_any_more_is_no_part_of_an_answer_that_was_begun(browser, serve):
  """Else the server would refuse what the page no longer shows."""
  path, _, link = serve(make_items(1, *PAIR))
  with page_of(browser, link) as (page, _):
    keys(page, "a", "7", "t", "x", "Escape", "b", "3", "x", "1", "Escape", "=")
    asked = Questions(
      ask=("comparison", "rating", "flags"), rating=Rating(points=5), flags=Flags(("odd",)),
      comparison=Comparison(tie=False),
    )  # fmt: skip
    with opened(path) as store:
      set_questions(store, asked, 0.0)
    keys(page, "Enter")
    page.wait_for_selector("#error:not([hidden])")
    assert "the questions have changed" in page.locator("#error").text_content()
    page.reload()
    page.wait_for_selector("#assignment .card")
    assert chosen(page, "#assignment") == ["3"] and chosen(page, ".scale") == []  # what still fits is kept
    keys(page, "a", "5", "ArrowRight", "Enter")
    (judgement,) = judgements(path, 1)
    assert [judgement.ratings[index] for index in judgement.order] == [5, 3]
    assert judgement.flags is judgement.critiques is None and judgement.ranks[judgement.order[1]] == 0


def test_a_strength_that_was_never_said_is_not_recorded_with_a_correction(browser, serve):
  path, _, link = serve(make_items(2, *PAIR))
  with opened(path) as store:
    _, items, _ = read_store(path)
    add_records(store, ([], [], [Judgement("j", items[0].id, "ann", (0, 1), ranks=(0, 1))]))
  with page_of(browser, link) as (page, _):
    keys(page, "u")
    wait_for_count(page, "0 of 2")
    assert chosen(page, ".scale") == []


# --- input methods ---


def test_enter_that_confirms_a_word_of_an_input_method_skips_nothing(browser, serve):
  path, _, link = serve(make_items(1, *PAIR))
  with page_of(browser, link) as (page, _):
    session = page.context.new_cdp_session(page)

    def compose(text, *names):
      session.send("Input.imeSetComposition", {"text": text, "selectionStart": len(text), "selectionEnd": len(text)})
      keys(page, *names)

    keys(page, "s")
    page.focus("#reason")
    compose("に", "Enter")
    assert page.locator("#skip").is_visible() and judgements(path, 0) == []
    session.send("Input.insertText", {"text": "日本"})
    # Safari tells only by the key's code that the key which ends a word was the input method's.
    page.dispatch_event("#reason", "keydown", {"key": "Enter", "keyCode": 229, "bubbles": True})
    assert page.locator("#skip").is_visible() and judgements(path, 0) == []
    close_dialog(page)
    page.focus(".card >> nth=0")
    keys(page, "ArrowLeft", "t")
    compose("に", "Control+Enter", "Escape")
    assert focused(page)[0] == "critique" and judgements(path, 0) == []
    session.send("Input.insertText", {"text": "日本"})
    keys(page, "Control+Enter")
    (judgement,) = judgements(path, 1)
    assert judgement.critiques[judgement.order[0]] == "日本" and judgement.skipped is None


# --- texts ---


LINES = {
  "unix": "one\ntwo\n", "windows": "one\r\ntwo\r\n", "mac": "one\rtwo", "mixed": "one\r\ntwo\nthree\r", "none": "one",
  "other": "one\u2028two\x0bthree\x0cfour\x85five\u00a0\u0301e", "long": "x" * 30_000,
}  # fmt: skip


@pytest.mark.parametrize("text", LINES.values(), ids=LINES)
def test_a_rewrite_is_what_was_changed(browser, serve, text):
  path, _, link = serve([make_item(f"item {n}", [Response(text)]) for n in range(4)])
  with page_of(browser, link) as (page, _):
    keys(page, "a", "4", "w", "Escape", "Enter")  # looked at
    wait_for_count(page, "1 of 4")
    keys(page, "a", "4", "w", "Control+Enter")  # submitted from the field
    wait_for_count(page, "2 of 4")
    keys(page, "a", "4", "w", "End", "!", "Backspace", "Control+Enter")  # changed and changed back
    wait_for_count(page, "3 of 4")
    keys(page, "a", "4", "w", "Control+End", "!", "Control+Enter")
    found = judgements(path, 4)
    assert [judgement.rewrites for judgement in found[:3]] == [None] * 3
    changed = text if text == LINES["mixed"] else f"{text}!"  # mixed ends cannot be put back
    expected = "one\ntwo\nthree\n!" if text == LINES["mixed"] else changed
    assert found[3].rewrites == (expected,)


def test_an_answer_lasts_where_the_browser_stores_nothing(browser, serve):
  path, _, link = serve(make_items(1, *PAIR))
  with page_of(browser, link) as (page, seen):
    page.add_init_script("Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }")
    page.reload()
    page.wait_for_selector("#assignment .card")
    keys(page, "ArrowRight", "a", "5")
    assert chosen(page, ".scale") == ["1"] and chosen(page, ".card") == ["5"]
    keys(page, "Enter")
    assert judgements(path, 1)[0].strength == 1
    assert seen == []


# --- tabs and requests ---


def another_tab(page, origin):
  other = page.context.new_page()
  other.goto(origin)
  other.wait_for_selector("#assignment .card")
  return other


def test_the_same_answer_from_two_tabs_counts_once(browser, serve):
  path, origin, link = serve(make_items(2, *PAIR))
  with page_of(browser, link) as (page, seen):
    other = another_tab(page, origin)
    for tab in (other, page):
      keys(tab, "ArrowLeft", "Enter")
      wait_for_count(tab, "1 of 2")
    assert len(judgements(path, 1)) == 1
    assert seen == []


@pytest.mark.parametrize("second", [("s", "1"), ("a", "3", "ArrowLeft", "Enter")], ids=["skip", "rating"])
def test_a_different_answer_of_any_kind_is_refused_and_shown(browser, serve, second):
  path, origin, link = serve(make_items(2, *PAIR))
  with page_of(browser, link) as (page, _):
    other = another_tab(page, origin)
    keys(other, "ArrowLeft", "Enter")
    first = judgements(path, 1)
    keys(page, *second)
    page.wait_for_selector("#error:not([hidden])")
    assert "your first answer counts until you undo it" in page.locator("#error").text_content()
    assert page.locator("#count").text_content() == "0 of 2" and judgements(path, 1) == first
    page.reload()
    wait_for_count(page, "1 of 2")


def test_what_came_second_returns_to_its_own_item_alone(browser, serve):
  """Two items of one prompt: after another judgement meanwhile, undo brings back a different item of that prompt."""
  items = [make_item("one prompt", [Response(f"{n} left"), Response(f"{n} right")]) for n in range(3)]
  path, origin, link = serve(items)
  with page_of(browser, link) as (page, _):
    other = another_tab(page, origin)
    keys(other, "ArrowLeft", "Enter")
    wait_for_count(other, "1 of 3")
    keys(page, "ArrowRight", "ArrowRight", "ArrowRight", "Enter")
    page.wait_for_selector("#error:not([hidden])")
    keys(other, "u")
    wait_for_count(other, "0 of 3")
    keys(other, "=", "Enter")
    wait_for_count(other, "1 of 3")
    keys(page, "u")  # the first answer is withdrawn already: the page shows the next item
    page.wait_for_selector("#error", state="hidden")
    assert page.locator(".card .text").first.text_content().startswith("1 ") and chosen(page, ".scale") == []
    assert len(judgements(path, 3)) == 3


def test_an_answer_whose_reply_is_lost_counts_once(browser, serve):
  path, _, link = serve(make_items(2, *PAIR))
  with page_of(browser, link) as (page, _):

    def lose(route):
      route.fetch()
      route.abort()

    page.route("**/judgements", lose, times=1)
    keys(page, "ArrowLeft", "Enter")
    page.wait_for_selector("#error:not([hidden])")
    assert "cannot be reached" in page.locator("#error").text_content() and chosen(page, ".scale") == ["-1"]
    keys(page, "Enter")
    wait_for_count(page, "1 of 2")
    assert len(judgements(path, 1)) == 1


def test_nothing_changes_while_an_answer_is_on_its_way(browser, serve):
  path, _, link = serve(make_items(2, *PAIR))
  with page_of(browser, link) as (page, _):
    waiting = []
    page.route("**/judgements", lambda route: waiting.append(route), times=1)
    keys(page, "a", "5", "t")
    page.keyboard.insert_text("so")
    keys(page, "Escape", "ArrowLeft", "Control+Enter")
    page.wait_for_selector("body.busy")
    page.wait_for_timeout(50)
    before = chosen(page, ".card"), chosen(page, ".scale")
    keys(page, "ArrowRight", "ArrowRight", "b", "2", "=", "s", "Enter")
    page.keyboard.insert_text("much")
    page.click(".card .ratings label >> nth=0", force=True)
    assert (chosen(page, ".card"), chosen(page, ".scale")) == before == (["5"], ["-1"])
    assert page.locator(".critique").first.input_value() == "so" and page.locator("dialog[open]").count() == 0
    waiting[0].continue_()
    wait_for_count(page, "1 of 2")
    assert chosen(page, "#assignment") == chosen(page, ".scale") == []
    (judgement,) = judgements(path, 1)
    assert judgement.critiques[judgement.order[0]] == "so" and judgement.strength == 1


# --- links ---


def names_of(page):
  return page.locator(".who").text_content()


def test_a_link_that_is_pasted_into_an_open_page_logs_in(browser, serve):
  _, origin, link = serve(make_items(1, *PAIR))
  page = browser.new_page()
  page.goto(origin)
  page.wait_for_selector("#login")
  page.wait_for_load_state("networkidle")
  page.goto(link)  # only the fragment changes, so that nothing is loaded
  page.wait_for_selector("#assignment .card")
  assert names_of(page) == "ann" and "#" not in page.url
  page.context.close()


def test_a_link_replaces_the_annotator_and_keeps_what_was_not_submitted(browser, serve):
  path, origin, ann, bob = serve(make_items(2, *PAIR), "", "ann", "bob")
  with page_of(browser, ann) as (page, seen):
    cookie = page.context.cookies()[0]["value"]
    keys(page, "ArrowLeft")
    page.goto(bob)
    page.wait_for_selector(".who:text-is('bob')")
    page.wait_for_selector("#assignment .card")
    keys(page, "ArrowRight", "Enter")
    assert judgements(path, 1)[0].annotator == "bob"
    page.goto(ann)
    page.wait_for_selector(".who:text-is('ann')")
    page.wait_for_selector("#assignment .card")
    assert chosen(page, ".scale") == ["-1"]
    assert seen == []
    page.context.clear_cookies()  # the first session has ended with the browser's cookie
    page.context.add_cookies([{"name": "session", "value": cookie, "url": origin}])
    page.goto(origin)
    page.wait_for_selector("#login")


def test_a_link_in_one_tab_changes_all_tabs(browser, serve):
  path, origin, ann, bob = serve(make_items(2, *PAIR), "", "ann", "bob")
  with page_of(browser, ann) as (page, _):
    other = page.context.new_page()
    other.goto(bob)
    for tab in (other, page):
      tab.wait_for_selector(".who:text-is('bob')")
      tab.wait_for_selector("#assignment .card")
    keys(page, "ArrowLeft", "Enter")
    assert judgements(path, 1)[0].annotator == "bob"
    other.click("#logout")
    for tab in (other, page):
      tab.wait_for_selector("#login")


def test_a_link_that_is_not_valid_leaves_nobody_in_doubt(browser, serve):
  path, origin, link = serve(make_items(1, *PAIR))
  with page_of(browser, link) as (page, _):
    page.goto(f"{origin}/#token=guess")
    page.wait_for_selector("#error:not([hidden])")
    told = page.locator("#error").text_content()
    assert "this token is not valid" in told and "You are still logged in as ann" in told
    keys(page, "ArrowLeft", "Enter")
    assert page.locator("#assignment").is_hidden() and judgements(path, 0) == []
    page.reload()
    page.wait_for_selector("#assignment .card")


@pytest.mark.parametrize("form", ["{link}", "<{link}>", "Your link: {link}.", "{token}", " {token}\n", "{encoded}"],
                         ids=["link", "angles", "sentence", "token", "space", "encoded"])  # fmt: skip
def test_the_field_takes_what_people_paste(browser, serve, form):
  _, origin, link = serve(make_items(1, *PAIR))
  token = link.partition("#token=")[2]
  page = browser.new_page()
  page.goto(origin)
  page.wait_for_load_state("networkidle")
  page.fill("#token", form.format(link=link, token=token, encoded=link.replace("=", "%3D")))
  keys(page, "Enter")
  page.wait_for_selector("#assignment .card")
  page.context.close()


@pytest.mark.parametrize("form", ["{origin}/?from=mail#token={token}", "{origin}/#token={token}).",
                                  "{origin}/#token%3D{token}", "{origin}/#x=1&token={token}"],
                         ids=["query", "sentence", "encoded", "more"])  # fmt: skip
def test_a_link_that_a_mail_program_altered_logs_in(browser, serve, form):
  _, origin, link = serve(make_items(1, *PAIR))
  page = browser.new_page()
  page.goto(form.format(origin=origin, token=link.partition("#token=")[2]))
  page.wait_for_selector("#assignment .card")
  page.context.close()


def test_a_link_of_the_lead_works_in_an_open_page(browser, serve):
  path, origin, _ = serve(make_items(1, *PAIR))
  page = browser.new_page()
  page.goto(f"{origin}/lead")
  page.wait_for_selector("#login")
  page.wait_for_load_state("networkidle")
  for name in ("head", "deputy"):
    page.goto(invite_lead(path, name, origin))
    page.wait_for_selector(f".who:text-is('{name}')")
    assert page.url == f"{origin}/lead"
  page.context.close()


def fulfill(body, route):
  route.fulfill(body=body, content_type="text/html")


def test_a_link_on_another_site_opens_the_page(browser, serve):
  """A browser leaves a strict cookie out when it comes from another site."""
  _, origin, link = serve(make_items(1, *PAIR))
  with page_of(browser, link) as (page, _):
    for target in (origin, link):
      site = page.context.new_page()
      body = f"<a href={json.dumps(target)}>open</a>"
      site.route("http://mail.example/", functools.partial(fulfill, body))
      site.goto("http://mail.example/")
      site.click("a")
      site.wait_for_selector("#assignment .card")
      assert names_of(site) == "ann"
