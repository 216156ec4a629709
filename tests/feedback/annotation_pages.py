"""What the tests do with an annotation page in a browser."""

import contextlib
import time

from rlhf_jax.feedback.records import Response, make_item
from rlhf_jax.feedback.store import read_store


@contextlib.contextmanager
def page_of(browser, link, **options):
  """A page that is logged in, and everything suspicious that happened on it."""
  context = browser.new_context(**options)
  page = context.new_page()
  page.set_default_timeout(10_000)
  origin = link.partition("/#")[0]
  seen = []
  page.on("dialog", lambda dialog: (seen.append(f"dialog {dialog.message}"), dialog.dismiss()))
  page.on("pageerror", lambda error: seen.append(f"error {error}"))
  page.on("console", lambda message: seen.append(f"console {message.text}"))
  known = ("/", "/static/", "/login", "/next", "/judgements", "/undo", "/logout")
  page.on("request", lambda request: request.url.startswith(tuple(f"{origin}{path}" for path in known))
          or seen.append(f"request {request.url}"))  # fmt: skip
  page.on("popup", lambda popup: seen.append(f"popup {popup.url}"))
  page.add_init_script(
    "document.addEventListener('securitypolicyviolation', (e) => console.log(`violation ${e.violatedDirective}`))"
  )
  try:
    page.goto(link)
    page.wait_for_selector("#assignment .card")
    yield page, seen
  finally:
    context.close()


def make_items(count, *texts):
  """Items "item 0", "item 1", ... with the same responses."""
  return [make_item(f"item {n}", [Response(text) for text in texts]) for n in range(count)]


def keys(page, *names):
  for name in names:
    page.keyboard.press(name)


def close_dialog(page):
  page.keyboard.press("Escape")
  page.wait_for_selector("dialog[open]", state="detached")


def wait_for_count(page, text):
  # A selector, for the page's policy forbids the functions of a driver to be evaluated there.
  page.wait_for_selector(f"#count:text-is('{text}')")


def chosen(page, selector):
  """The values that are chosen in the groups of a selector."""
  return page.eval_on_selector_all(f"{selector} input:checked", "inputs => inputs.map((input) => input.value)")


def focused(page):
  """The group of choices or the element that has the focus, and its value."""
  return page.evaluate("""() => {
    const node = document.activeElement;
    return [node.name || node.id || node.className || node.tagName, node.value ?? null];
  }""")


def judgements(path, count):
  """The judgements of a store once there are `count`: the page sends them on its own time."""
  deadline = time.monotonic() + 10
  while len(found := read_store(path)[2]) < count and time.monotonic() < deadline:
    time.sleep(0.05)
  assert len(found) == count
  return found
