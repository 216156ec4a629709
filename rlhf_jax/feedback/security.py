"""The guard around the annotation page: accepted hosts and origins, the size of a request, the content policy.

Everything shown on the page is data, written by models that may have been trained to attack it. The page puts text into
the document as text only. The policy below is a second defence: no inline script or style runs, and nothing is loaded
from another server.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from rlhf_jax.data import DataError

MAX_BODY = 256 * 1024  # bytes, enough for the critiques and rewrites of nine long responses
TOO_LARGE = 413, f"the request is larger than {MAX_BODY} bytes"
POLICY = (
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'none';"
  " base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
# Features of browsers that the page does not use, and that a script in it shall not have either.
FEATURES = (
  "accelerometer autoplay browsing-topics camera clipboard-read clipboard-write display-capture encrypted-media "
  "fullscreen geolocation gyroscope hid idle-detection local-fonts magnetometer microphone midi payment "
  "picture-in-picture publickey-credentials-get screen-wake-lock serial usb xr-spatial-tracking"
).split()
HEADERS = {
  "content-security-policy": POLICY,
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-embedder-policy": "require-corp",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "origin-agent-cluster": "?1",
  "permissions-policy": ", ".join(f"{feature}=()" for feature in FEATURES),
  "x-permitted-cross-domain-policies": "none",
  "cache-control": "no-store",
}

ENCRYPTED = {"strict-transport-security": "max-age=31536000"}  # a year, where every origin is served over HTTPS

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Message, Receive, Send], Awaitable[None]]


def origin_of(url: str) -> str:
  """The origin "scheme://host[:port]" of an http or https URL without a path. Raises DataError for another URL."""
  parts = urlsplit(url)
  host = parts.hostname or ""
  try:
    good = parts.scheme in ("http", "https") and host and parts.port != 0
  except ValueError:
    good = False
  if not good or parts.path.strip("/") or parts.query or parts.fragment or parts.username:
    raise DataError(f"--origin {url}: must be a scheme and a host as in https://label.example.org, without a path")
  default = {"http": 80, "https": 443}[parts.scheme]
  host = f"[{host}]" if ":" in host else host
  return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, default) else "")


def guard(app: Asgi, origins: Sequence[str]) -> Asgi:
  """`app` behind checks of each request: its Host, the Origin of a POST, its type and its size.

  The Host check defeats DNS rebinding. The Origin check and the SameSite cookie each defeat requests that another page
  forges.
  """
  hosts = {urlsplit(origin).netloc for origin in origins}
  headers = HEADERS | (ENCRYPTED if all(origin.startswith("https:") for origin in origins) else {})

  async def guarded(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
      return await app(scope, receive, send)
    if scope["type"] != "http":
      return None
    send = _with_headers(send, headers)
    refusal = _refusal(scope, hosts, origins)
    if refusal is not None:
      return await _refuse(send, *refusal)
    body = await _read(receive)
    if body is None:
      return await _refuse(send, *TOO_LARGE)
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
      return next(messages, None) or await receive()

    return await app(scope, replay, send)

  return guarded


def _refusal(scope: Message, hosts: set[str], origins: Sequence[str]) -> tuple[int, str] | None:
  headers: dict[str, list[str]] = {}
  for name, value in scope["headers"]:
    headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
  if len(headers.get("host", ())) != 1 or headers["host"][0].lower() not in hosts:
    return 421, "this server does not serve that host name; start it with --origin and the address that you open"
  if scope["method"] not in ("GET", "HEAD"):
    if headers.get("origin") is None or any(origin not in origins for origin in headers["origin"]):
      return 403, "the request comes from another page"
    if [kind.partition(";")[0].strip().lower() for kind in headers.get("content-type", ())] != ["application/json"]:
      return 415, "the request must be JSON"
  length = headers.get("content-length", ["0"])[0]
  if not length.isdecimal() or int(length) > MAX_BODY:
    return TOO_LARGE
  return None


async def _read(receive: Receive) -> bytes | None:
  """The whole body, or None as soon as it is too large. Counted here too, as a chunked body announces no length."""
  body, more = b"", True
  while more:
    message = await receive()
    body += message.get("body", b"")
    if len(body) > MAX_BODY:
      return None
    more = message.get("more_body", False)
  return body


def _with_headers(send: Send, headers: Mapping[str, str]) -> Send:
  extra = [(name.encode(), value.encode()) for name, value in headers.items()]

  async def sending(message: Message) -> None:
    if message["type"] == "http.response.start":
      message = {**message, "headers": [*message.get("headers", ()), *extra]}
    await send(message)

  return sending


async def _refuse(send: Send, status: int, reason: str) -> None:
  body = json.dumps({"error": reason}).encode()
  headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
             (b"connection", b"close")]  # fmt: skip
  await send({"type": "http.response.start", "status": status, "headers": headers})
  await send({"type": "http.response.body", "body": body})
