"""A browser, and an annotation page to open in it."""

import contextlib
import os
import shutil
import threading

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser():
  sync_api = pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not installed")
  program = next(filter(None, map(shutil.which, BROWSERS)), None)
  if program is None:
    pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)} is on the path")
  root = [] if os.geteuid() else ["--no-sandbox"]  # Chromium has no sandbox for root
  with sync_api.sync_playwright() as driver:
    try:
      opened = driver.chromium.launch(executable_path=program, args=root)
    except sync_api.Error as error:
      pytest.skip(f"{program} does not start here: {str(error).splitlines()[0]}")
    yield opened
    opened.close()


@pytest.fixture
def serve(tmp_path):
  """serve(items, guidelines, *names) -> (the path of the store, the origin, a link to log in for each name)."""
  uvicorn = pytest.importorskip("uvicorn", reason="uvicorn, which serves the page, is not installed")
  from rlhf_jax.feedback.collect import collect
  from rlhf_jax.feedback.invitations import invite
  from rlhf_jax.feedback.server import make_app, origins_of
  from rlhf_jax.feedback.store_settings import Settings

  with contextlib.ExitStack() as stack:

    def start(items, guidelines="", *names):
      path = tmp_path / "a.db"
      collect(path, items, settings=Settings(gold_every=0))
      listener = uvicorn.Config("", host="127.0.0.1", port=0).bind_socket()
      port = listener.getsockname()[1]
      origins = origins_of("127.0.0.1", port, None)
      config = uvicorn.Config(make_app(path, origins, guidelines), log_level="warning", access_log=False)
      server = uvicorn.Server(config)
      thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
      thread.start()
      stack.callback(thread.join)
      stack.callback(setattr, server, "should_exit", True)
      return path, origins[0], *(link for _, link in invite(path, names or ["ann"], origins[0]))

    yield start
