"""The lead's page under /lead, behind a link of its own; `lead_view.py` computes what it shows.

  GET  /lead            the page, or its login page without a session
  POST /lead/login      {"token"} -> a session cookie; POST /lead/logout ends the session
  POST /lead/overview   -> progress, speed and agreement, of each annotator and in all
  POST /lead/browse     {"search", "annotator", "state", "flag", "skip"} -> {"found": items with all their judgements}
  POST /lead/settings   {a setting: its new value, ...} -> the settings
  POST /lead/invite     {"annotator", "expert", "renew"} -> {"link": to log in, or null where there is one already}
  POST /lead/revoke     {"annotator", "discounted"}; POST /lead/restore {"annotator"} -> {"link"}

A lead sees what no annotator may see: names, sources, gold items. An annotator's session opens none of this.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from rlhf_jax.feedback import tokens
from rlhf_jax.feedback.invitations import add_annotator, annotator_link
from rlhf_jax.feedback.lead_view import browse, overview
from rlhf_jax.feedback.project import change_settings, restore, revoke, revoked
from rlhf_jax.feedback.site import Endpoint, Site, read_body, render

Act = Callable[[sqlite3.Connection, Site, str, dict], dict[str, Any]]  # store, site, lead, body -> the answer


def routes(site: Site) -> list[Route]:
  """The routes of the lead's page over the site's store."""

  async def page(request: Request) -> Response:
    name = await site.call(tokens.session_name, _session(request), site.clock(), tokens.LEAD)
    return HTMLResponse(render("login.html.jinja", lead=True) if name is None else render("lead.html.jinja", lead=name))

  async def log_in(request: Request) -> Response:
    token = (await read_body(request, {"token": str}))["token"]
    session = await site.call(tokens.log_in, token, site.clock(), tokens.LEAD)
    if session is None:
      return JSONResponse({"error": "this token is not valid; ask for a new link"}, 403)
    response = Response(status_code=204)
    site.set_cookie(response, "lead", session, tokens.SESSION_SECONDS)
    return response

  async def log_out(request: Request) -> Response:
    await site.call(tokens.log_out, _session(request), tokens.LEAD)
    response = Response(status_code=204)
    site.delete_cookie(response, "lead")
    return response

  def _session(request: Request) -> str:
    return request.cookies.get(site.cookie("lead"), "")

  def action(fields: dict[str, Any], act: Act) -> Endpoint:
    def acted(store: sqlite3.Connection, session: str, body: dict) -> dict[str, Any] | None:
      lead = tokens.session_name(store, session, site.clock(), tokens.LEAD)
      return None if lead is None else act(store, site, lead, body)

    async def endpoint(request: Request) -> Response:
      answer = await site.call(acted, _session(request), await read_body(request, fields))
      if answer is None:
        return JSONResponse({"error": "your session has ended; log in again"}, 401)
      return JSONResponse(answer)

    return endpoint

  posts: dict[str, Endpoint] = {"/lead/login": log_in, "/lead/logout": log_out}
  posts |= {f"/lead/{name}": action(*spec) for name, spec in ACTIONS.items()}
  found = [Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()]
  return [Route("/lead", page, methods=["GET"]), *found]


def _overview(store: sqlite3.Connection, site: Site, lead: str, body: dict) -> dict[str, Any]:
  return overview(store, site.clock())


def _browse(store: sqlite3.Connection, site: Site, lead: str, body: dict) -> dict[str, Any]:
  return {"found": browse(store, **body)}


def _settings(store: sqlite3.Connection, site: Site, lead: str, body: dict) -> dict[str, Any]:
  changes = {name: value for name, value in body.items() if value is not None}
  return dataclasses.asdict(change_settings(store, changes, site.clock(), lead))


def _invite(store: sqlite3.Connection, site: Site, lead: str, body: dict) -> dict[str, Any]:
  name = body["annotator"]
  add_annotator(store, name, body["expert"])
  known = name in revoked(store) or (tokens.has_token(store, name) and not body["renew"])
  return {"link": None if known else annotator_link(store, name, site.origin)}


def _revoke(store: sqlite3.Connection, site: Site, lead: str, body: dict) -> dict[str, Any]:
  revoke(store, body["annotator"], site.clock(), discounted=body["discounted"], by=lead)
  return {}


def _restore(store: sqlite3.Connection, site: Site, lead: str, body: dict) -> dict[str, Any]:
  restore(store, body["annotator"], site.clock(), by=lead)
  return {"link": annotator_link(store, body["annotator"], site.origin)}


_CHANGED = dict.fromkeys(("judgements_per_item", "gold_every", "agreeing", "at_most"), int | None)
ACTIONS: dict[str, tuple[dict[str, Any], Act]] = {  # path -> types of the request's fields, action on the store
  "overview": ({}, _overview),
  "browse": ({"search": str, "annotator": str, "state": str, "flag": str, "skip": int}, _browse),
  "settings": ({**_CHANGED, "lease_seconds": float | None}, _settings),
  "invite": ({"annotator": str, "expert": bool, "renew": bool}, _invite),
  "revoke": ({"annotator": str, "discounted": bool}, _revoke),
  "restore": ({"annotator": str}, _restore),
}
