"""The guard around the annotation page: who may talk to it, how much they may send, what their browser may run.

Everything shown on the page is data, written by models that may have been trained to attack it. The page puts text into
the document as text only; the policy below is the second wall: nothing inline runs, nothing is loaded from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from rlhf_jax.data import DataError

MAX_BODY = 256 * 1024  # bytes; the critiques and rewrites of nine long responses fit
TOO_LARGE = 413, f"the request is larger than {MAX_BODY} bytes"
POLICY = (
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'none';"
  " base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
  "content-security-policy": POLICY,
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=()",
  "cache-control": "no-store",
}

Asgi = Callable[[dict, Callable, Callable], Awaitable[None]]


def origin_of(url: str) -> str:
  """The origin "scheme://host[:port]" of a URL a browser would open. Raises DataError for anything else."""
  parts = urlsplit(url)
  try:
    good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
  except ValueError:
    good = False
  if not good or parts.path.strip("/") or parts.query or parts.fragment or parts.username:
    raise DataError(f"--origin {url}: must be a scheme and a host as in https://label.example.org, without a path")
  default = {"http": 80, "https": 443}[parts.scheme]
  host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
  return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, default) else "")


def guard(app: Asgi, origins: Sequence[str]) -> Asgi:
  """Refuses before `app` sees it: a foreign Host, a POST without an Origin of ours, a body that is too large.

  The Host check defeats DNS rebinding; the Origin check forged requests from other pages, beside the SameSite cookie.
  """
  hosts = {urlsplit(origin).netloc for origin in origins}

  async def guarded(scope, receive, send):
    if scope["type"] == "lifespan":
      return await app(scope, receive, send)
    if scope["type"] != "http":
      return None
    send = _with_headers(send)
    refusal = _refusal(scope, hosts, origins)
    if refusal is not None:
      return await _refuse(send, *refusal)
    body = await _read(receive)
    if body is None:
      return await _refuse(send, *TOO_LARGE)
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay():
      return next(messages, None) or await receive()

    return await app(scope, replay, send)

  return guarded


def _refusal(scope: dict, hosts: set[str], origins: Sequence[str]) -> tuple[int, str] | None:
  headers: dict[str, list[str]] = {}
  for name, value in scope["headers"]:
    headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
  if len(headers.get("host", ())) != 1 or headers["host"][0].lower() not in hosts:
    return 421, "this server does not answer to that host name; see --origin"
  if scope["method"] not in ("GET", "HEAD"):
    if headers.get("origin") is None or any(origin not in origins for origin in headers["origin"]):
      return 403, "the request comes from another page"
    if [kind.partition(";")[0].strip().lower() for kind in headers.get("content-type", ())] != ["application/json"]:
      return 415, "the request must be JSON"
  length = headers.get("content-length", ["0"])[0]
  if not length.isdecimal() or int(length) > MAX_BODY:
    return TOO_LARGE
  return None


async def _read(receive: Callable) -> bytes | None:
  """The whole body, or None as soon as it is too large: a chunked one announces no length."""
  body, more = b"", True
  while more:
    message = await receive()
    body += message.get("body", b"")
    if len(body) > MAX_BODY:
      return None
    more = message.get("more_body", False)
  return body


def _with_headers(send: Callable) -> Callable:
  extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

  async def sending(message: dict[str, Any]):
    if message["type"] == "http.response.start":
      message = {**message, "headers": [*message.get("headers", ()), *extra]}
    await send(message)

  return sending


async def _refuse(send: Callable, status: int, reason: str) -> None:
  body = json.dumps({"error": reason}).encode()
  headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
             (b"connection", b"close")]  # fmt: skip
  await send({"type": "http.response.start", "status": status, "headers": headers})
  await send({"type": "http.response.body", "body": body})
