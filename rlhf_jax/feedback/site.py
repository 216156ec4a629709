"""What the endpoints of all pages share: the store on its thread, requests in JSON, answers to errors, templates."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import functools
import json
import logging
import math
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rlhf_jax.data import DataError
from rlhf_jax.feedback.store import named_errors

HERE = Path(__file__).parent
Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]
_log = logging.getLogger(__name__)


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
  origin: str
  """Origin that links name."""
  secure: bool
  """Whether the page is served over HTTPS alone, so that the cookie may be restricted to it."""
  clock: Callable[[], float]
  """Function that returns the seconds since 1970."""

  def cookie(self, name: str = "session") -> str:
    """Full name of a cookie. A browser accepts the prefix __Host- from a secure origin alone."""
    return f"__Host-{name}" if self.secure else name

  def set_cookie(self, response: Response, name: str, value: str, seconds: float) -> None:
    """Lets the browser keep a cookie that no script can read, and that it sends to this site's own pages alone."""
    full = self.cookie(name)
    response.set_cookie(full, value, int(seconds), secure=self.secure, httponly=True, samesite="strict")

  def delete_cookie(self, response: Response, name: str) -> None:
    """Lets the browser forget a cookie."""
    response.delete_cookie(self.cookie(name), secure=self.secure, httponly=True, samesite="strict")

  async def call(self, function: Callable, *arguments: Any) -> Any:
    """function(store, *arguments) on the store's thread. Raises StoreError where the store is damaged or locked."""

    def called() -> Any:
      with named_errors(self.path):
        return function(self.store, *arguments)

    return await asyncio.get_running_loop().run_in_executor(self.thread, called)


async def read_body(request: Request, kinds: dict[str, Any]) -> dict[str, Any]:
  """The JSON object of a request; `kinds` gives the type of each field. A field that may be null may be absent.

  Raises:
    DataError: the body is no JSON, or a field is unknown or has another type.
  """
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
    # true is an int of Python, and no number here
    wrong = isinstance(value, bool) and kind not in (bool, bool | None)
    if wrong or not isinstance(value, kind) or value in (math.inf, -math.inf):
      raise DataError(f"the request's field {name!r} has the wrong type")
    body[name] = value
  return body


def error_handler(status: int, **fields: Any) -> Callable[[Request, Exception], Awaitable[Response]]:
  """A handler that answers an exception with its message as "error", and with `fields`."""

  async def handler(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error), **fields}, status)

  return handler


async def unusable(request: Request, error: Exception) -> Response:
  """The answer while the store cannot be used; the log names the file, the answer does not."""
  _log.error("%s", error)
  return JSONResponse({"error": "the server cannot use its store; tell whoever runs it, your answer is kept here"}, 503)


def static(name: str, kind: str) -> Endpoint:
  """The endpoint of a file of static/, read once."""
  content = (HERE / "static" / name).read_bytes()

  async def endpoint(request: Request) -> Response:
    return Response(content, media_type=kind)

  return endpoint


def render(template: str, **values: Any) -> str:
  """The HTML of a template, with the values escaped."""
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


def _no_constant(name: str) -> NoReturn:
  raise ValueError(f"{name} is no number")
