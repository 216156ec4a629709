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
  POST /mine            {"search", "skip"} -> {"found": the annotator's own judgements}
  POST /correct         {"judgement"} -> the state, with the judgement as the draft; it counts until it is corrected
  POST /give-up         {"assignment"} ends a correction -> the state

`lead_page.py` adds the lead's page under /lead. A judgement is on the disk before its request is answered; while the
store is damaged or locked, the answer is 503. The source of a response, the id of an item and whether the item is gold
never reach an annotator, and responses are sent in their order of display. Tokens are read from bodies only, never from
a URL.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from rlhf_jax.data import DataError, prompt_value
from rlhf_jax.feedback import corrections, lead_page, queue, tokens
from rlhf_jax.feedback.connections import bounded_protocol
from rlhf_jax.feedback.draw import progress
from rlhf_jax.feedback.markdown import formatted
from rlhf_jax.feedback.project import current_questions
from rlhf_jax.feedback.records import Judgement
from rlhf_jax.feedback.security import Asgi, guard, origin_of
from rlhf_jax.feedback.site import Endpoint, Site, error_handler, read_body, render, static, unusable
from rlhf_jax.feedback.store import add_guidelines, counted_judgements, named_errors, open_store
from rlhf_jax.feedback.store_rows import StoreError

SCRIPTS = (
  "annotate.js", "answer.js", "cards.js", "diff.js", "keys.js", "lead.js", "login.js", "mine.js", "more.js",
  "reading.js", "server.js", "spans.js", "storage.js", "text.js", "widgets.js",
)  # fmt: skip
STATIC = {
  **dict.fromkeys(SCRIPTS, "text/javascript"),
  "annotate.css": "text/css",
  "lead.css": "text/css",
  "icon.svg": "image/svg+xml",
}
LOCAL = ("127.0.0.1", "localhost")

Act = Callable[[sqlite3.Connection, str, dict, str, float], None]  # store, annotator, body, guidelines' version, time


def make_app(path: Path, origins: Sequence[str], guidelines: str = "", clock: Callable[[], float] = time.time) -> Asgi:
  """The guarded application.

  origins: the origins under which the page may be opened. guidelines: text in Markdown, "" for none. clock: returns the
  seconds since 1970.

  Raises:
    DataError: `path` is no store.
    StoreError: the store is damaged or locked.
  """
  thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="store")
  lead_thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="lead")
  with named_errors(path):
    store = thread.submit(open_store, path).result()
    version = thread.submit(add_guidelines, store, guidelines).result() if guidelines else ""
    # The lead's page reads everything, and has a connection of its own so that annotators do not wait for it.
    lead_store = lead_thread.submit(open_store, path).result()
  secure = all(origin.startswith("https:") for origin in origins)
  site = Site(path, store, thread, guidelines, version, origins[0], secure, clock)

  @contextlib.asynccontextmanager
  async def lifespan(app: Starlette) -> AsyncIterator[None]:
    yield
    for executor, connection in ((thread, store), (lead_thread, lead_store)):
      executor.submit(connection.close).result()
      executor.shutdown()

  posts = {
    "/login": _login,
    "/logout": _logout,
    "/mine": _mine,
    **{path: _action(*spec) for path, spec in ACTIONS.items()},
  }
  routes = [Route("/", _page, methods=["GET"])]
  routes += [Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()]
  routes += lead_page.routes(dataclasses.replace(site, store=lead_store, thread=lead_thread))
  routes += [Route(f"/static/{name}", static(name, kind), methods=["GET"]) for name, kind in STATIC.items()]
  errors = {
    queue.Judged: error_handler(409, judged=True), queue.NoLease: error_handler(409), StoreError: unusable,
    DataError: error_handler(400),
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
  annotator = await site.call(tokens.session_name, request.cookies.get(site.cookie(), ""), site.clock())
  if annotator is None:
    return HTMLResponse(render("login.html.jinja", lead=False))
  asked = await site.call(current_questions)
  questions = {**dataclasses.asdict(asked), "version": asked.version}
  guidelines = formatted(site.guidelines) or ([["p", {"class": "text"}, [site.guidelines]]] if site.guidelines else [])
  values = {"annotator": annotator, "guidelines": guidelines, "version": site.version}
  return HTMLResponse(render("annotate.html.jinja", **values, asked=asked, questions=json.dumps(questions)))


async def _login(request: Request) -> Response:
  site = _site(request)
  token = (await read_body(request, {"token": str}))["token"]
  session = await site.call(tokens.log_in, token, site.clock())
  if session is None:
    return JSONResponse({"error": "this token is not valid; ask for a new link"}, 403)
  await site.call(tokens.log_out, request.cookies.get(site.cookie(), ""))  # the browser forgets the session it had
  response = Response(status_code=204)
  site.set_cookie(response, "session", session, tokens.SESSION_SECONDS)
  return response


async def _logout(request: Request) -> Response:
  site = _site(request)
  await site.call(tokens.log_out, request.cookies.get(site.cookie(), ""))
  response = Response(status_code=204)
  site.delete_cookie(response, "session")
  return response


def _action(fields: dict[str, Any], act: Act) -> Endpoint:
  async def endpoint(request: Request) -> Response:
    site = _site(request)
    body = await read_body(request, fields)
    state = await site.call(_act, request.cookies.get(site.cookie(), ""), act, body, site.version, site.clock())
    if state is None:
      return _ended()
    return JSONResponse(state)

  return endpoint


ANSWER: dict[str, Any] = {  # field of queue.Answer -> the type of its JSON; the record checks the rest
  "ratings": list | None, "ranks": list | None, "strength": int | None, "all_bad": bool | None, "yes_no": list | None,
  "aspects": dict | None, "flags": list | None, "critiques": list | None, "rewrites": list | None,
  "spans": list | None, "skipped": str | None, "seconds": float,
}  # fmt: skip
assert set(ANSWER) == {field.name for field in dataclasses.fields(queue.Answer)}


def _judge(store: sqlite3.Connection, annotator: str, body: dict, version: str, now: float) -> None:
  if body["guidelines"] not in (None, version):  # else the record would name guidelines that were not shown
    raise queue.NoLease("the guidelines have changed since you opened this page; reload it, your answer is kept")
  questions = current_questions(store)
  if body["questions"] not in (None, questions.version):
    raise queue.NoLease("the questions have changed since you opened this page; reload it, your answer is kept")
  answer = queue.Answer(**{**{name: body[name] for name in ANSWER}, "all_bad": bool(body["all_bad"])})
  queue.submit(store, annotator, body["assignment"], answer, version, now, questions)


def _undo(store: sqlite3.Connection, annotator: str, body: dict, version: str, now: float) -> None:
  corrections.undo(store, annotator, body["judgement"], now)


def _correct(store: sqlite3.Connection, annotator: str, body: dict, version: str, now: float) -> None:
  corrections.correct(store, annotator, body["judgement"], now)


def _give_up(store: sqlite3.Connection, annotator: str, body: dict, version: str, now: float) -> None:
  corrections.give_up(store, annotator, body["assignment"])


ACTIONS: dict[str, tuple[dict[str, Any], Act]] = {  # path -> types of the request's fields, action on the store
  "/next": ({}, lambda *_: None),
  "/judgements": ({"assignment": str, "guidelines": str | None, "questions": str | None, **ANSWER}, _judge),
  "/undo": ({"judgement": str}, _undo),
  "/correct": ({"judgement": str}, _correct),
  "/give-up": ({"assignment": str}, _give_up),
}


async def _mine(request: Request) -> Response:
  site = _site(request)
  body = await read_body(request, {"search": str, "skip": int})

  def found(store: sqlite3.Connection, session: str) -> list | None:
    annotator = tokens.session_name(store, session, site.clock())
    return None if annotator is None else corrections.own_judgements(store, annotator, body["search"], body["skip"])

  mine = await site.call(found, request.cookies.get(site.cookie(), ""))
  return _ended() if mine is None else JSONResponse({"found": mine})


def _ended() -> Response:
  return JSONResponse({"error": "your session has ended; log in again"}, 401)


def _act(
  store: sqlite3.Connection, session: str, act: Act, body: dict, version: str, now: float
) -> dict[str, Any] | None:
  """Carries out a request on the store's thread and returns the state after it; None without a valid session."""
  annotator = tokens.session_name(store, session, now)
  if annotator is None:
    return None
  act(store, annotator, body, version, now)
  return _state(store, annotator, now)


def _state(store: sqlite3.Connection, annotator: str, now: float) -> dict[str, Any]:
  """The state as the page shows it: of the item only its texts, in the order of display."""
  assignment = queue.next_assignment(store, annotator, now)
  done, left = progress(store, annotator)
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
      "draft": None if assignment.draft is None else _said(assignment.draft, assignment.order),
      "correction": assignment.correction,
      "others": None,
    }
    if assignment.final:
      disputed = counted_judgements(store, assignment.item.id)
      shown["others"] = [_said(said, assignment.order) for said in disputed if said.annotator != annotator]
  return {"assignment": shown, "done": done, "left": left, "last": corrections.last_judgement(store, annotator)}


def _said(judgement: Judgement, order: tuple[int, ...]) -> dict[str, Any]:
  """The fields of a judgement as the page sends them: every sequence is indexed by the place on the page."""

  def moved(values: Any) -> Any:
    return [values[index] for index in order] if isinstance(values, tuple) else values

  fields = {name: moved(getattr(judgement, name)) for name in ANSWER if name != "seconds"}
  if judgement.aspects is not None:
    fields["aspects"] = {name: moved(ratings) for name, ratings in judgement.aspects.items()}
  return fields
