"""An annotation page to open in a browser."""

import contextlib
import threading

import pytest


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
