"""The annotation page as a Starlette application over one store; `security.py` guards it, `queue.py` assigns items.

  GET  /                the page, or the login page without a session
  GET  /static/NAME     one of the files named in STATIC
  POST /login           {"token"} -> a session cookie; POST /logout ends the session
  POST /next            -> the state: {"assignment": the open one or null, "done", "left": numbers of assignments,
                        "last": the judgement that undo would withdraw, or null}; an assignment's "formatted" holds a
                        tree (`markdown.py`) for each turn of the prompt and for each response, null for plain text
  POST /judgements      {"assignment", "guidelines": the page's version, ...an Answer} keeps a judgement -> the state;
                        the same answer again counts once, another one to the same assignment gets 409 and "judged"
  POST /undo            {"judgement"} withdraws it -> the state, with the withdrawn judgement as the assignment's draft

A judgement is on the disk before its request is answered; while the store is damaged or locked, the answer is 503. The
source of a response, the id of an item and whether the item is gold never leave the server, and responses are sent in
their order of display. Tokens are read from bodies only, never from a URL.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import logging
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from rlhf_jax.data import DataError, prompt_value
from rlhf_jax.feedback import queue, tokens
from rlhf_jax.feedback.checks import RATINGS
from rlhf_jax.feedback.connections import bounded_protocol
from rlhf_jax.feedback.markdown import formatted
from rlhf_jax.feedback.records import Annotator
from rlhf_jax.feedback.security import Asgi, guard, origin_of
from rlhf_jax.feedback.store import StoreError, add_guidelines, add_records, find, named_errors, open_store, opened

FLAGS = ("harmful", "dishonest", "off-topic", "incoherent", "private data")
SKIPS = ("I cannot tell", "needs knowledge I lack", "responses are the same", "prompt makes no sense", "too disturbing")
SCRIPTS = (
  "annotate.js", "answer.js", "cards.js", "diff.js", "keys.js", "login.js", "reading.js", "server.js", "storage.js",
  "text.js", "widgets.js",
)  # fmt: skip
STATIC = {
  **dict.fromkeys(SCRIPTS, "text/javascript"),
  "annotate.css": "text/css",
  "icon.svg": "image/svg+xml",
}
HERE = Path(__file__).parent
LOCAL = ("127.0.0.1", "localhost")
_log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]
Act = Callable[[sqlite3.Connection, str, dict, str, float], None]  # store, annotator, body, guidelines' version, time


@dataclasses.dataclass(frozen=True)
class Site:
  """The state that the endpoints share."""

  path: Path
  """File of the store."""
  store: sqlite3.Connection
  """Connection to the store, used by `thread` alone."""
  thread: concurrent.futures.ThreadPoolExecutor
  """Executor with one thread for SQLite, which blocks; as it is the only user of the connection, no lock is needed."""
  guidelines: str
  """Text of the guidelines; "" for none."""
  version: str
  """Version of the guidelines, a hash; "" for none."""
  secure: bool
  """Whether the page is served over HTTPS alone, so that the cookie may be restricted to it."""
  clock: Callable[[], float]
  """Function that returns the seconds since 1970."""

  @property
  def cookie(self) -> str:
    """Name of the session cookie. A browser accepts the prefix __Host- from a secure origin alone."""
    return "__Host-session" if self.secure else "session"

  async def call(self, function: Callable, *arguments: Any) -> Any:
    """function(store, *arguments) on the store's thread. Raises StoreError where the store is damaged or locked."""

    def called() -> Any:
      with named_errors(self.path):
        return function(self.store, *arguments)

    return await asyncio.get_running_loop().run_in_executor(self.thread, called)


def make_app(path: Path, origins: Sequence[str], guidelines: str = "", clock: Callable[[], float] = time.time) -> Asgi:
  """The guarded application.

  origins: the origins under which the page may be opened. guidelines: text in Markdown, "" for none. clock: returns the
  seconds since 1970.

  Raises:
    DataError: `path` is no store.
    StoreError: the store is damaged or locked.
  """
  thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="store")
  with named_errors(path):
    store = thread.submit(open_store, path).result()
    version = thread.submit(add_guidelines, store, guidelines).result() if guidelines else ""
  site = Site(path, store, thread, guidelines, version, all(origin.startswith("https:") for origin in origins), clock)

  @contextlib.asynccontextmanager
  async def lifespan(app: Starlette) -> AsyncIterator[None]:
    yield
    thread.submit(store.close).result()
    thread.shutdown()

  posts = {"/login": _login, "/logout": _logout, **{path: _action(*spec) for path, spec in ACTIONS.items()}}
  routes = [Route("/", _page, methods=["GET"])]
  routes += [Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()]
  routes += [Route(f"/static/{name}", _static(name, kind), methods=["GET"]) for name, kind in STATIC.items()]
  errors = {
    queue.Judged: _error(409, judged=True), queue.NoLease: _error(409), StoreError: _unusable, DataError: _error(400),
  }  # fmt: skip
  app = Starlette(routes=routes, exception_handlers=errors, lifespan=lifespan)
  app.state.site = site
  app.router.redirect_slashes = False
  return guard(app, origins)


def origins_of(host: str, port: int, origin: str | None) -> tuple[str, ...]:
  """The origins under which a page served at host and port may be opened; links name the first.

  origin: the origin that annotators open, or None where the page is for this machine alone.

  Raises:
    DataError: other machines can reach the host, and `origin` is None.
  """
  if origin is not None:
    return (origin_of(origin),)
  if host not in LOCAL:
    raise DataError(
      f"--host {host} is open to other machines: give the address that they open, as in --origin https://{host}"
    )
  return tuple(origin_of(f"http://{name}:{port}") for name in LOCAL)


def invite(path: Path, names: Sequence[str], origin: str, *, renew: bool = False) -> list[tuple[str, str | None]]:
  """Adds annotators and returns (name, link to log in) for each.

  The link is None for an annotator who has one already, unless `renew`. It carries the token in its fragment, the part
  of a URL that a browser does not send.
  """
  with opened(path) as store:
    for name in names:
      if find(store, Annotator, name) is None:
        add_records(store, ([Annotator(name)], [], []))
    fresh = {name for name in names if renew or not tokens.has_token(store, name)}
    return [(n, f"{origin}/#token={tokens.issue_token(store, n)}" if n in fresh else None) for n in names]


def serve(path: Path, host: str, port: int, origins: Sequence[str], guidelines: str) -> None:
  """Runs the application until it is interrupted. Requests are not logged."""
  app = make_app(path, origins, guidelines)
  # Proxy headers are ignored: Host and Origin are checked as the browser sent them.
  uvicorn.run(
    app, host=host, port=port, log_level="warning", access_log=False, server_header=False, proxy_headers=False,
    ws="none", http=bounded_protocol(), limit_concurrency=256, h11_max_incomplete_event_size=32 * 1024,
  )  # fmt: skip


def _site(request: Request) -> Site:
  return request.app.state.site


async def _page(request: Request) -> Response:
  site = _site(request)
  annotator = await site.call(tokens.session_annotator, request.cookies.get(site.cookie, ""), site.clock())
  if annotator is None:
    return HTMLResponse(_render("login.html.jinja"))
  guidelines = formatted(site.guidelines) or ([["p", {"class": "text"}, [site.guidelines]]] if site.guidelines else [])
  values = {"annotator": annotator, "guidelines": guidelines, "version": site.version, "flags": FLAGS}
  return HTMLResponse(_render("annotate.html.jinja", **values, skips=SKIPS, ratings=RATINGS))


async def _login(request: Request) -> Response:
  site = _site(request)
  token = (await _body(request, {"token": str}))["token"]
  session = await site.call(tokens.log_in, token, site.clock())
  if session is None:
    return JSONResponse({"error": "this token is not valid; ask for a new link"}, 403)
  await site.call(tokens.log_out, request.cookies.get(site.cookie, ""))  # the browser forgets the session it had
  response = Response(status_code=204)
  age = int(tokens.SESSION_SECONDS)
  response.set_cookie(site.cookie, session, age, secure=site.secure, httponly=True, samesite="strict")
  return response


async def _logout(request: Request) -> Response:
  site = _site(request)
  await site.call(tokens.log_out, request.cookies.get(site.cookie, ""))
  response = Response(status_code=204)
  response.delete_cookie(site.cookie, secure=site.secure, httponly=True, samesite="strict")
  return response


def _action(fields: dict[str, Any], act: Act) -> Endpoint:
  async def endpoint(request: Request) -> Response:
    site = _site(request)
    body = await _body(request, fields)
    state = await site.call(_act, request.cookies.get(site.cookie, ""), act, body, site.version, site.clock())
    if state is None:
      return JSONResponse({"error": "your session has ended; log in again"}, 401)
    return JSONResponse(state)

  return endpoint


ANSWER: dict[str, Any] = {  # field of queue.Answer -> the type of its JSON; the record checks the rest
  "ratings": list | None, "ranks": list | None, "strength": int | None, "flags": list | None, "critiques": list | None,
  "rewrites": list | None, "skipped": str | None, "seconds": float,
}  # fmt: skip
assert set(ANSWER) == {field.name for field in dataclasses.fields(queue.Answer)}


def _judge(store: sqlite3.Connection, annotator: str, body: dict, version: str, now: float) -> None:
  if body["guidelines"] not in (None, version):  # else the record would name guidelines that were not shown
    raise queue.NoLease("the guidelines have changed since you opened this page; reload it, your answer is kept")
  answer = queue.Answer(**{name: body[name] for name in ANSWER})
  queue.submit(store, annotator, body["assignment"], answer, version, now)


def _undo(store: sqlite3.Connection, annotator: str, body: dict, version: str, now: float) -> None:
  queue.undo(store, annotator, body["judgement"], now)


ACTIONS: dict[str, tuple[dict[str, Any], Act]] = {  # path -> types of the request's fields, action on the store
  "/next": ({}, lambda *_: None),
  "/judgements": ({"assignment": str, "guidelines": str | None, **ANSWER}, _judge),
  "/undo": ({"judgement": str}, _undo),
}


def _act(
  store: sqlite3.Connection, session: str, act: Act, body: dict, version: str, now: float
) -> dict[str, Any] | None:
  """Carries out a request on the store's thread and returns the state after it; None without a valid session."""
  annotator = tokens.session_annotator(store, session, now)
  if annotator is None:
    return None
  act(store, annotator, body, version, now)
  return _state(store, annotator, now)


def _state(store: sqlite3.Connection, annotator: str, now: float) -> dict[str, Any]:
  """The state as the page shows it: of the item only its texts, in the order of display."""
  assignment = queue.next_assignment(store, annotator, now)
  done, left = queue.progress(store, annotator)
  shown = None
  if assignment is not None:
    texts = [assignment.item.responses[index].text for index in assignment.order]
    prompt = prompt_value(assignment.item.prompt)
    turns = [prompt] if isinstance(prompt, str) else [turn.get("content") or "" for turn in prompt]
    shown = {
      "id": assignment.lease,
      "prompt": prompt,
      "responses": texts,
      "formatted": {"prompt": [formatted(turn) for turn in turns], "responses": [formatted(text) for text in texts]},
      "draft": _draft(assignment),
    }
  return {"assignment": shown, "done": done, "left": left, "last": queue.last_judgement(store, annotator)}


def _draft(assignment: queue.Assignment) -> dict[str, Any] | None:
  if assignment.draft is None:
    return None
  fields = {name: getattr(assignment.draft, name) for name in ANSWER if name != "seconds"}
  for name, values in fields.items():
    if isinstance(values, tuple):
      fields[name] = [values[index] for index in assignment.order]
  return fields


async def _body(request: Request, kinds: dict[str, Any]) -> dict[str, Any]:
  """The JSON object of a request; `kinds` gives the type of each field. A field that may be null may be absent."""
  try:
    body = json.loads(await request.body(), parse_constant=_no_constant)
  except (ValueError, RecursionError) as error:
    raise DataError(f"the request is not JSON ({error})") from error
  if not isinstance(body, dict) or body.keys() - kinds:
    raise DataError(f"the request must be an object with the fields {', '.join(kinds)}")
  for name, kind in kinds.items():
    value = body.get(name)
    if kind is float and type(value) is int:
      value = float(value) if abs(value) < 1e15 else math.inf
    if not isinstance(value, kind) or isinstance(value, bool) or value in (math.inf, -math.inf):
      raise DataError(f"the request's field {name!r} has the wrong type")
    body[name] = value
  return body


def _no_constant(name: str) -> NoReturn:
  raise ValueError(f"{name} is no number")


def _error(status: int, **fields: Any) -> Callable[[Request, Exception], Awaitable[Response]]:
  async def handler(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error), **fields}, status)

  return handler


async def _unusable(request: Request, error: Exception) -> Response:
  _log.error("%s", error)
  return JSONResponse({"error": "the server cannot use its store; tell whoever runs it, your answer is kept here"}, 503)


def _static(name: str, kind: str) -> Endpoint:
  content = (HERE / "static" / name).read_bytes()

  async def endpoint(request: Request) -> Response:
    return Response(content, media_type=kind)

  return endpoint


def _render(template: str, **values: Any) -> str:
  return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> jinja2.Environment:
  return jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
