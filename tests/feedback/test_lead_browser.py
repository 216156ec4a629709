"""In a real browser: what a lead asks for is asked and kept, and the lead's page works by keyboard alone."""

import pytest

pytest.importorskip("uvicorn", reason="uvicorn, which serves the page, is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not installed")

from annotation_pages import judgements, make_items, page_of, wait_for_count

from rlhf_jax.feedback.invitations import invite, invite_lead
from rlhf_jax.feedback.project import change_settings, set_questions
from rlhf_jax.feedback.questions import parse_questions
from rlhf_jax.feedback.records import Annotator, Judgement, Response, make_item
from rlhf_jax.feedback.store import add_records, opened, read_store

ALL = {
  "ask": ["comparison", "yes_no", "rating", "spans"],
  "required": ["yes_no"],
  "comparison": {"strengths": 1, "both_bad": True},
  "yes_no": {"question": "Would you send it?"},
  "rating": {"points": 3, "labels": ["bad", "fair", "good"], "overall": False, "aspects": ["helpful", "honest"]},
  "spans": {"labels": ["false", "rude"]},
}


def ask(path, mapping):
  with opened(path) as store:
    set_questions(store, parse_questions(mapping, "here"), 0.0)


def card(page, letter):
  return page.locator(f"[aria-label='Response {letter}']")


def test_what_is_asked_is_shown_and_recorded(browser, serve):
  """Spans are counted in characters of the response: a cat outside the basic plane is one, and so are CR and LF."""
  texts = "A 😺 sat.\r\nIt lied.", "No."
  path, _, link = serve([make_item("Who sat?", [Response(text) for text in texts])])
  ask(path, ALL)
  with page_of(browser, link) as (page, seen):
    assert page.locator("#scale label").all_inner_texts() == ["A", "=", "B"]
    assert page.locator(".ratings:visible, .flags:visible, details:has(.critique):visible").count() == 0
    assert page.locator("#hint").inner_text() == "Say yes or no for both"
    first = page.locator(".card").first.locator(".passage").inner_text()
    cat, no = ("A", "B") if "sat" in first else ("B", "A")
    card(page, cat).get_by_role("radio", name="Yes").press("Space")
    card(page, no).get_by_role("radio", name="No", exact=True).press("Space")
    card(page, cat).get_by_label("honest of response").get_by_role("radio", name="3 good").press("Space")
    assert page.locator("#hint").inner_text() == ""
    page.get_by_role("button", name="Both are bad").press("Enter")
    card(page, cat).locator(".spans summary").press("Enter")
    field = card(page, cat).locator(".spans textarea")
    field.press("Control+End")
    for _ in range(len("It lied.")):
      field.press("Shift+ArrowLeft")
    card(page, cat).get_by_role("button", name="Mark as false").press("Enter")
    assert "false: “It lied.”" in card(page, cat).locator(".spans li").inner_text()
    field.press("Control+Home")
    field.press("Shift+ArrowRight")
    card(page, cat).get_by_role("button", name="Mark as rude").press("Enter")
    card(page, cat).locator(".spans li", has_text="rude").get_by_role("button").press("Enter")
    page.reload()  # the draft is kept
    page.wait_for_selector(".spans li")
    page.locator("#submit").click()
    (judgement,) = judgements(path, 1)
    assert judgement.ranks == (0, 0) and judgement.all_bad and judgement.strength is None
    assert judgement.yes_no == (True, False) and judgement.aspects == {"honest": (3, None)}
    (span,), nothing = judgement.spans
    assert texts[0][span[0] : span[1]] == "It lied." and span[2] == "false" and nothing == ()
    assert judgement.questions and not seen


def test_an_expert_reads_which_parts_others_marked(browser, serve):
  item = make_item("Who sat?", [Response("A 😺 sat."), Response("No.")])
  path, origin, _ = serve([item])
  ask(path, {"ask": ["comparison", "spans"]})
  said = [
    Judgement("1", item.id, "ann", (0, 1), ranks=(0, 1), spans=(((2, 7, "false"),), ())),
    Judgement("2", item.id, "bob", (0, 1), ranks=(1, 0), spans=((), ())),
  ]
  with opened(path) as store:
    change_settings(store, {"judgements_per_item": 2, "agreeing": 2, "at_most": 2}, 0.0)
    add_records(store, ([Annotator("bob")], [], said))
  ((_, link),) = invite(path, ["eve"], origin, expert=True)
  with page_of(browser, link) as (page, _):
    letter = "A" if "sat" in page.locator(".card .passage").first.inner_text() else "B"
    told = page.locator("#others li").all_inner_texts()
    assert f"marked parts: {letter} false “😺 sat”" in told[0] and "marked parts: none" in told[1]


def test_an_earlier_judgement_is_found_and_corrected_or_left(browser, serve):
  path, _, link = serve(make_items(3, "one", "two"))
  with page_of(browser, link) as (page, seen):
    for number in range(2):
      page.keyboard.press("ArrowLeft")
      page.keyboard.press("Enter")
      wait_for_count(page, f"{number + 1} of 3")
    page.get_by_role("button", name="My judgements").press("Enter")
    page.locator("#mine-search").fill("ITEM 0")
    page.wait_for_selector("#mine-found button:only-child")
    page.locator("#mine-found button").press("Enter")
    page.wait_for_selector("#correction:visible")
    assert page.locator("#prompt").inner_text() == "item 0" and len(read_store(path)[2]) == 2
    page.get_by_role("button", name="Keep it as it was").press("Enter")
    page.wait_for_selector("#correction", state="hidden")
    page.get_by_role("button", name="My judgements").press("Enter")
    page.locator("#mine-found button", has_text="item 1").click()
    page.wait_for_selector("#correction:visible")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    said = judgements(path, 3)
    assert said[2].supersedes == said[1].id and said[2].ranks != said[1].ranks
    assert not seen


def test_the_lead_sees_what_is_disputed_invites_and_revokes(browser, serve):
  """What models and annotators wrote is text on this page too."""
  attack = "<img src=x onerror=alert(1)>"
  path, origin, *links = serve([make_item(attack, [Response(attack), Response("two")])], "", "ann", attack[:20])
  with opened(path) as store:
    change_settings(store, {"judgements_per_item": 2, "agreeing": 2, "at_most": 2}, 0.0)
  for link, key in zip(links, ("ArrowLeft", "ArrowRight"), strict=True):
    with page_of(browser, link) as (page, _):
      # Towards the first response as stored, then the second, wherever they are shown.
      shown_first = "img" in page.locator(".card").first.locator(".passage").inner_text()
      page.keyboard.press(key if shown_first else {"ArrowLeft": "ArrowRight", "ArrowRight": "ArrowLeft"}[key])
      page.keyboard.press("Enter")
      page.wait_for_selector("#done:visible")
  context = browser.new_context()
  page = context.new_page()
  page.set_default_timeout(10_000)
  seen = []
  page.on("dialog", lambda dialog: (seen.append(dialog.message), dialog.dismiss()))
  page.on("pageerror", lambda error: seen.append(str(error)))
  page.on("console", lambda message: seen.append(message.text))
  page.goto(invite_lead(path, "lea", origin))
  page.wait_for_selector(".numbers dd")
  assert "token" not in page.url
  numbers = dict(zip(*(page.locator(f".numbers {tag}").all_inner_texts() for tag in ("dt", "dd")), strict=True))
  assert numbers["Items disputed"] == "1" and numbers["Equal votes"] == "0 %" and numbers["Skips"] == "0"
  assert page.locator(".item h3").inner_text() == attack and page.locator("main img").count() == 0
  page.locator("#invite-name").fill("eve")
  page.locator("#invite-expert").press("Space")
  page.get_by_role("button", name="Invite").press("Enter")
  page.wait_for_selector("#link:visible")
  told = page.locator("#link").inner_text()
  link = told.partition("once: ")[2]
  with page_of(browser, link) as (expert, problems):
    assert "Your judgement settles this item" in expert.locator("#others").inner_text()
    assert expert.locator("#others li").count() == 2
    expert.keyboard.press("ArrowLeft")
    expert.keyboard.press("Enter")
    expert.wait_for_selector("#done:visible")
    assert not problems
  page.locator("#state").select_option("settled")
  page.get_by_role("button", name="Find").press("Enter")
  page.wait_for_selector(".item small:text-is('settled')")
  assert "eve, settles the item" in page.locator(".item").inner_text()
  page.get_by_role("button", name="Revoke ann").press("Enter")
  page.locator("#revoke-yes").press("Enter")
  page.wait_for_selector("td:text-is('ann (revoked)')")
  assert invite(path, ["ann"], origin, renew=True) == [("ann", None)]
  page.locator("#judgements_per_item").fill("9")
  page.get_by_role("button", name="Change").press("Enter")
  page.wait_for_selector("#error:visible")
  assert "at_most" in page.locator("#error").inner_text()
  assert [text for text in seen if "400" not in text] == []  # the browser tells of the refused settings
  context.close()
