"""The page of tokens in a browser: keys, the pointer, colours, and no violation that axe-core finds at WCAG 2.2 AA."""

import contextlib
import json

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not installed")

from rlhf_jax.report.inspection import write_inspection

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
VIEWS = {"light": {}, "dark": {"color_scheme": "dark"}, "phone": {"viewport": {"width": 360, "height": 740}}}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
  """The page of a run with two responses of twelve tokens, whose numbers run from -0.5 up."""
  root = tmp_path_factory.mktemp("run")
  (root / "ppo" / "samples").mkdir(parents=True)
  config = {"stages": ["ppo"], "ppo": {"algorithm": "rlhf_jax.algorithms.ppo"}}
  (root / "config.json").write_text(json.dumps(config))
  (root / "ppo" / "metrics.jsonl").write_text('{"step": 1, "reward/proxy": 0.1}\n')
  row = {"step": 1, "split": "train", "prompt": "Why?", "response": "Because.", "kl": 0.5}
  rows = [{**row, "row": number, "reward": number} for number in (0, 1)]
  (root / "ppo" / "samples.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  mask = np.ones((2, 12), bool)
  slope = np.broadcast_to(np.arange(12) / 10 - 0.5, mask.shape)
  arrays = dict(logp=-np.ones(mask.shape), logp_ref=-1 - slope, logp_after=-1 + slope, entropy=slope + 0.5)
  arrays |= dict(rewards=slope, advantages=slope, values=slope, returns=slope + 0.2, clipped=slope > 0.3)
  np.savez(root / "ppo" / "samples" / "1.npz", tokens=np.arange(24).reshape(2, 12), mask=mask, **arrays)
  return write_inspection(root).as_uri()


@pytest.fixture
def open_page(browser, address):
  """open_page(**options of the context) -> the page; nothing else may be asked for, and nothing may fail."""
  with contextlib.ExitStack() as stack:
    seen = []

    def start(**options):
      context = browser.new_context(**options)
      stack.callback(context.close)
      page = context.new_page()
      page.set_default_timeout(10_000)
      page.on("pageerror", lambda error: seen.append(str(error)))
      page.on("request", lambda request: request.url == address or seen.append(request.url))
      page.goto(address)
      return page

    yield start
    assert seen == []


def focused(page):
  """(index of the response with the focus, index of its token)."""
  return page.evaluate(
    """() => {
      const responses = [...document.querySelectorAll(".tokens")], token = document.activeElement;
      const at = responses.findIndex((response) => response.contains(token));
      return [at, at < 0 ? -1 : [...responses[at].querySelectorAll(".token")].indexOf(token)];
    }"""
  )


def test_keys_walk_from_token_to_token_and_show_their_numbers(open_page):
  page = open_page()
  page.focus("#quantity")
  page.keyboard.press("Tab")
  assert focused(page) == [0, 0]
  for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 11), ("ArrowRight", 11)):
    page.keyboard.press(key)
    assert focused(page) == [0, place]
  assert "token 12, id 23" in page.inner_text("#numbers") and "active" in page.inner_text("#numbers")
  page.keyboard.press("Escape")
  assert page.is_hidden("#numbers")
  page.keyboard.press("Tab")
  assert focused(page) == [1, 0]
  page.keyboard.press("Shift+Tab")
  assert focused(page) == [0, 11]  # where it was left


def test_the_pointer_shows_numbers_and_leaves_none_behind(open_page):
  page = open_page()
  page.hover(".token >> nth=3")
  lines = page.inner_text("#numbers").split("\n")
  assert "KL" in lines and "−0.2" in lines
  page.mouse.move(2, 2)
  assert page.is_hidden("#numbers")


def test_the_colours_are_of_the_quantity_that_is_chosen(open_page):
  page = open_page()

  def colours():
    return page.eval_on_selector_all(
      ".piece", "pieces => pieces.map((piece) => getComputedStyle(piece).backgroundColor)"
    )

  before = colours()
  page.select_option("#quantity", "kl")
  assert colours() == before  # a script and the page as it is written agree
  assert len({before[0], before[5], before[11]}) == 3
  page.select_option("#quantity", "clipped")
  after = colours()
  assert len(set(after[:12])) == 2 and after[0] != after[11]
  assert page.inner_text("#scale").split() == ["no", "yes"]


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_axe_finds_no_violation(open_page, view):
  axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed").Axe()
  page = open_page(**view)
  page.focus(".token >> nth=0")
  response = axe.run(page, options={"runOnly": {"type": "tag", "values": RULES}}).response
  found = [(rule["id"], node["html"][:120]) for rule in response["violations"] for node in rule["nodes"]]
  assert found == []
  assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
