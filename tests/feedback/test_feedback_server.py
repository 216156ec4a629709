"""The annotation server over HTTP: what it tells, what it refuses, and what it never loses."""

import contextlib
import json
import re
import sqlite3
import sys
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the feedback extra is not installed")
pytest.importorskip("httpx", reason="httpx, which the client of the tests needs, is not installed")

from starlette.testclient import TestClient

from rlhf_jax.cli import main
from rlhf_jax.data import DataError
from rlhf_jax.feedback.collect import collect
from rlhf_jax.feedback.invitations import invite
from rlhf_jax.feedback.records import UNDONE, Response, make_item
from rlhf_jax.feedback.security import MAX_BODY, origin_of
from rlhf_jax.feedback.server import make_app, origins_of
from rlhf_jax.feedback.store import read_store
from rlhf_jax.feedback.store_settings import Settings
from rlhf_jax.settings import import_module

ROOT = Path(__file__).parents[2]
ORIGIN = "http://127.0.0.1:8000"
TEXTS = ("the first text", "the second text")
SECRET = {"checkpoint": "runs/secret/ppo", "sampling": {"temperature": 1.0}}


@pytest.fixture
def store(tmp_path):
  path = tmp_path / "a.db"
  responses = [Response(text, SECRET) for text in TEXTS]
  items = [make_item(f"item {n}", responses) for n in range(4)]
  collect(path, items, [make_item("gold", responses, (0, 1))], Settings(gold_every=2))
  return path


@pytest.fixture
def connect(store):
  """connect(name or None, origins) -> a client, logged in as that annotator."""
  with contextlib.ExitStack() as stack:

    def client(name="ann", origin=ORIGIN, guidelines="# Be kind <b>\n\n- to **all**", **headers):
      app = make_app(store, (origin, *origins_of("127.0.0.1", 8000, None)), guidelines)
      headers = {"Origin": origin, **headers}
      found = stack.enter_context(TestClient(app, base_url=origin, headers=headers, raise_server_exceptions=False))
      if name is not None:
        ((_, link),) = invite(store, [name], origin, renew=True)
        assert found.post("/login", json={"token": link.partition("#token=")[2]}).status_code == 204
      return found

    yield client


def judgements(store):
  return read_store(store)[2]


def test_an_annotator_works_through_the_queue(connect, store):
  client = connect()
  state = client.post("/next", json={}).json()
  total = state["left"]
  assert state["done"] == 0 and state["last"] is None and 4 < total <= 5
  while (assignment := state["assignment"]) is not None:
    assert sorted(assignment["responses"]) == sorted(TEXTS) and assignment["draft"] is None
    answer = {"ranks": [0, 1], "strength": 2, "ratings": [6, 2], "flags": [[], ["harmful"]], "seconds": 0.001}
    state = client.post("/judgements", json={"assignment": assignment["id"], **answer}).json()
  assert (state["done"], state["left"]) == (total, 0)
  for judgement in judgements(store):
    best = judgement.order[0]
    assert judgement.ranks[best] == 0 and judgement.ratings[best] == 6 and judgement.flags[best] == ()
    assert judgement.strength == 2 and judgement.guidelines and judgement.created > "2026"


def test_nothing_tells_what_an_item_is_or_where_a_response_is_from(connect):
  client = connect()
  state = client.post("/next", json={}).json()
  seen = []
  while state["assignment"] is not None:
    assert set(state) == {"assignment", "done", "left", "last"}
    assert set(state["assignment"]) == {"id", "prompt", "responses", "formatted", "draft", "correction", "others"}
    assert "secret" not in json.dumps(state) and "gold_ranks" not in json.dumps(state)
    seen.append(state["assignment"]["prompt"])
    state = client.post(
      "/judgements", json={"assignment": state["assignment"]["id"], "ranks": [0, 0], "seconds": 0}
    ).json()
  assert "gold" in seen


def test_a_reload_finds_the_same_assignment_and_undo_brings_back_what_was_said(connect, store):
  client = connect()
  first = client.post("/next", json={}).json()
  assert client.post("/next", json={}).json() == first
  said = {"ranks": [1, 0], "strength": 3, "ratings": [None, 7], "flags": [["harmful"], []], "critiques": ["bad", ""],
          "rewrites": ["", ""], "skipped": None, "all_bad": False, "yes_no": None, "aspects": None,
          "spans": None}  # fmt: skip
  state = client.post("/judgements", json={"assignment": first["assignment"]["id"], **said, "seconds": 1}).json()
  undone = client.post("/undo", json={"judgement": state["last"]}).json()
  assert undone["assignment"]["prompt"] == first["assignment"]["prompt"]
  assert undone["assignment"]["responses"] == first["assignment"]["responses"]
  assert undone["assignment"]["draft"] == said
  assert client.post("/undo", json={"judgement": state["last"]}).json() == undone
  client.post("/judgements", json={"assignment": undone["assignment"]["id"], "skipped": "I cannot tell", "seconds": 1})
  assert [judgement.skipped for judgement in judgements(store)] == [None, UNDONE, "I cannot tell"]


def test_a_double_submission_counts_once(connect, store):
  client = connect()
  assignment = client.post("/next", json={}).json()["assignment"]["id"]
  replies = [
    client.post("/judgements", json={"assignment": assignment, "ranks": [0, 1], "seconds": 1}) for _ in range(3)
  ]
  assert {reply.status_code for reply in replies} == {200} and len({reply.text for reply in replies}) == 1
  other = client.post("/judgements", json={"assignment": assignment, "ranks": [1, 0], "seconds": 1})
  assert other.status_code == 409 and other.json()["judged"] is True
  assert "your first answer counts until you undo it" in other.json()["error"]
  assert len(judgements(store)) == 1


def test_a_store_that_cannot_be_used_gets_503_and_its_file_is_named_in_the_log(connect, store, monkeypatch, caplog):
  monkeypatch.setattr("rlhf_jax.feedback.store.WAIT_SECONDS", 0.1)
  client = connect()
  with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as other:
    other.execute("BEGIN EXCLUSIVE")
    reply = client.post("/next", json={})
    assert reply.status_code == 503 and "your answer is kept here" in reply.json()["error"]
    assert str(store) not in reply.text
    assert f"{store}: the store cannot be used (database is locked)" in caplog.text
  assert client.post("/next", json={}).status_code == 200


WRONG = [
  ({"assignment": "0123456789abcdef"}, 409),
  *(({name: value}, 400) for name, values in {
    "assignment": [3, None], "ranks": [[0], [0, "1"], {"0": 1}, [[0], [1]], None], "ratings": [[0, 8], "12"],
    "strength": [7, True, 1.0], "flags": [[["a\nb"], []], [{"a": 1}, []]], "critiques": [[1, 2], ["\ud800", ""]],
    "seconds": ["1", None, True, 10**400], "skipped": ["why", ""], "annotator": ["bob"],
  }.items() for value in values),
]  # fmt: skip


def test_a_wrong_answer_is_refused_and_nothing_is_kept(connect, store):
  client = connect()
  assignment = client.post("/next", json={}).json()["assignment"]["id"]
  kind = {"Content-Type": "application/json"}
  for change, status in WRONG:
    body = json.dumps({"assignment": assignment, "ranks": [0, 1], "seconds": 1, **change})
    reply = client.post("/judgements", content=body, headers=kind)
    assert reply.status_code == status and reply.json()["error"], change
  for body in (b"", b"{", b"[]", b"null", b'{"seconds": NaN}', b"\xff", b"[" * 100_000):
    for path in ("/login", "/next", "/judgements", "/undo"):
      reply = client.post(path, content=body, headers=kind)
      assert reply.status_code == 400 and reply.json()["error"], (path, body[:9])
  assert judgements(store) == []
  assert client.post("/next", json={}).json()["assignment"]["id"] == assignment


def test_without_a_session_there_is_only_the_way_in(connect, store):
  client = connect(None)
  page = client.get("/")
  assert page.status_code == 200 and "Log in to annotate" in page.text and "kind" not in page.text
  for path in ("/next", "/judgements", "/undo"):
    fields = {"/judgements": {"assignment": "x", "seconds": 1}, "/undo": {"judgement": "x"}}.get(path, {})
    assert client.post(path, json=fields).status_code == 401
  assert client.post("/login", json={"token": "guess"}).status_code == 403
  assert "set-cookie" not in client.post("/login", json={"token": "guess"}).headers
  client.cookies.set("session", "guess")
  assert client.post("/next", json={}).status_code == 401


def test_the_cookie_is_strict_and_no_script_can_read_it(connect, store):
  ((_, link),) = invite(store, ["ann"], ORIGIN)
  assert invite(store, ["ann"], ORIGIN) == [("ann", None)]  # a token is told once
  token = link.removeprefix(f"{ORIGIN}/#token=")
  cookie = connect(None).post("/login", json={"token": token}).headers["set-cookie"]
  assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; ")) and token not in cookie
  https = connect(None, "https://label.example.org").post("/login", json={"token": token}).headers["set-cookie"]
  assert https.startswith("session=") and "Secure" not in https  # it is also served at http://127.0.0.1
  app = make_app(store, ("https://label.example.org",))
  with TestClient(app, base_url="https://label.example.org") as client:
    cookie = client.post("/login", json={"token": token}, headers={"Origin": "https://label.example.org"})
    assert cookie.headers["set-cookie"].startswith("__Host-session=") and "Secure" in cookie.headers["set-cookie"]


def test_a_token_in_a_url_is_not_taken(connect, store):
  """URLs end in logs and histories; the link carries the token behind a #, which is never sent."""
  ((_, link),) = invite(store, ["ann"], ORIGIN)
  token = link.partition("#token=")[2]
  client = connect(None)
  assert "Log in to annotate" in client.get(f"/?token={token}").text
  assert client.post(f"/login?token={token}", json={}).status_code == 400
  assert client.get("/login").status_code == 405


def test_log_out_ends_the_session(connect):
  client = connect()
  cookie = dict(client.cookies)
  assert client.post("/logout", json={}).status_code == 204
  client.cookies.update(cookie)
  assert client.post("/next", json={}).status_code == 401


def test_a_judgement_names_the_guidelines_the_page_showed(connect, store):
  old = connect(guidelines="Be kind.")
  assignment = old.post("/next", json={}).json()["assignment"]["id"]
  version = re.search('data-guidelines="([0-9a-f]{12})"', old.get("/").text)[1]
  new = connect(None, guidelines="Be honest.")
  new.cookies.update(old.cookies)
  answer = {"assignment": assignment, "ranks": [0, 1], "seconds": 1, "guidelines": version}
  reply = new.post("/judgements", json=answer)
  assert reply.status_code == 409 and "the guidelines have changed" in reply.json()["error"]
  assert old.post("/judgements", json=answer).status_code == 200
  assert [judgement.guidelines for judgement in judgements(store)] == [version]


def test_one_annotator_cannot_touch_anothers_work(connect, store):
  ann, bob = connect("ann"), connect("bob")
  assignment = ann.post("/next", json={}).json()["assignment"]["id"]
  bob.post("/next", json={})
  assert bob.post("/judgements", json={"assignment": assignment, "ranks": [0, 1], "seconds": 1}).status_code == 409
  last = ann.post("/judgements", json={"assignment": assignment, "ranks": [0, 1], "seconds": 1}).json()["last"]
  assert bob.post("/undo", json={"judgement": last}).status_code == 409
  assert [judgement.annotator for judgement in judgements(store)] == ["ann"]


def test_a_foreign_host_is_refused(connect):
  """DNS rebinding: a name of the attacker's that resolves to this machine."""
  client = connect()
  for host in ("evil.example", "127.0.0.1", "127.0.0.1:8001", "127.0.0.1.evil.example:8000", ""):
    for method, path in (("GET", "/"), ("GET", "/static/annotate.js"), ("POST", "/next")):
      assert client.request(method, path, headers={"Host": host}).status_code == 421, host


def test_a_post_from_a_foreign_page_is_refused(connect):
  client = connect()
  for origin in ("http://evil.example", "null", "https://127.0.0.1:8000", "http://127.0.0.1:8001", ""):
    for path in ("/login", "/logout", "/next", "/judgements", "/undo"):
      assert client.post(path, json={}, headers={"Origin": origin}).status_code == 403, origin
  del client.headers["Origin"]
  assert client.post("/next", json={}).status_code == 403


def test_only_json_is_taken(connect):
  """A form of another page can send text/plain or form data without asking, but no JSON."""
  client = connect()
  for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
    assert client.post("/next", content=b"{}", headers={"Content-Type": kind}).status_code == 415


def test_a_body_is_bounded_whether_it_tells_its_length_or_not(connect, store):
  client = connect()
  kind = {"Content-Type": "application/json"}
  announced = client.post("/next", content=b"x" * (MAX_BODY + 1), headers=kind)
  chunked = client.post("/next", content=(b"x" * 65536 for _ in range(8)), headers=kind)
  assert announced.status_code == chunked.status_code == 413
  assert client.post("/next", content=b"{}", headers={**kind, "Content-Length": "-1"}).status_code == 413
  assert client.post("/next", json={}).status_code == 200


PATHS = [
  "/static/../store.py", "/static/..%2fstore.py", "/static/%2e%2e/%2e%2e/store.py", "/static//etc/passwd",
  "/static/annotate.css/../../store.py", "/static/annotate.css%00.py", "/static/", "/static", "/a.db", "/../a.db",
  "/templates/annotate.html.jinja", "/static/..\\store.py", "/static/annotate.css/", "/static/annotate.html.jinja",
]  # fmt: skip


def test_only_the_named_files_are_served(connect):
  client = connect()
  for path in PATHS:
    assert client.get(path, follow_redirects=False).status_code == 404, path
  assert client.get("/static/annotate.css").status_code == 200


def test_every_answer_carries_the_policy(connect):
  client = connect()
  replies = [client.get("/"), client.get("/static/annotate.js"), client.get("/none"), client.post("/next", json={}),
             client.post("/next", json={}, headers={"Origin": "http://evil.example"})]  # fmt: skip
  for reply in replies:
    policy = dict(part.strip().split(" ", 1) for part in reply.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in str(policy)
    assert reply.headers["x-content-type-options"] == "nosniff" and reply.headers["cache-control"] == "no-store"
    assert reply.headers["referrer-policy"] == "no-referrer" and reply.headers["x-frame-options"] == "DENY"
    assert reply.headers["cross-origin-opener-policy"] == reply.headers["cross-origin-resource-policy"] == "same-origin"
    assert reply.headers["cross-origin-embedder-policy"] == "require-corp"
    assert reply.headers["origin-agent-cluster"] == "?1"
    assert reply.headers["x-permitted-cross-domain-policies"] == "none"
    assert {"camera=()", "microphone=()", "usb=()"} <= set(reply.headers["permissions-policy"].split(", "))
    assert "strict-transport-security" not in reply.headers  # it is also served at http://127.0.0.1


def test_an_encrypted_page_stays_encrypted(store):
  with TestClient(make_app(store, ("https://label.example.org",)), base_url="https://label.example.org") as client:
    assert client.get("/").headers["strict-transport-security"] == "max-age=31536000"


def test_the_pages_hold_nothing_inline_and_escape_what_people_wrote(connect, store):
  client = connect("<script>alert(1)</script>", guidelines="# <img src=x onerror=alert(1)>\n\n- **<b>**")
  for page in (client.get("/").text, connect(None).get("/").text):
    assert not re.search(r"<script(?![^>]*\ssrc=)", page) and not re.search(r"<[^>]*\s(on\w+|style)\s*=", page)
    assert "<style" not in page and "javascript:" not in page
    assert all(url.startswith("/static/") for url in re.findall(r'(?:src|href)="([^"]*)"', page))
  page = client.get("/").text
  assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "&lt;img src=x" in page
  assert "<strong>&lt;b&gt;</strong>" in page


def test_the_address_is_this_machine_unless_a_name_is_given():
  assert origins_of("127.0.0.1", 8000, None) == ("http://127.0.0.1:8000", "http://localhost:8000")
  assert origins_of("0.0.0.0", 8000, "https://Label.example.org/") == ("https://label.example.org",)
  with pytest.raises(DataError, match="--host 0.0.0.0 is open to other machines"):
    origins_of("0.0.0.0", 8000, None)
  assert origin_of("http://[::1]:80") == "http://[::1]" and origin_of("https://a.b:8443") == "https://a.b:8443"
  for url in ("label.example.org", "ftp://a.b", "https://a.b/path", "https://u@a.b", "https://a.b:99999", "https://"):
    with pytest.raises(DataError, match="must be a scheme and a host"):
      origin_of(url)


def test_annotate_tells_what_is_wrong_before_it_serves(tmp_path, capsys):
  assert main(["annotate", str(tmp_path / "none.db")]) == 2
  assert "there is no such file" in capsys.readouterr().err
  assert main(["annotate", str(tmp_path / "none.db"), "--host", "0.0.0.0"]) == 2
  assert "give the address that they open" in capsys.readouterr().err


def test_without_a_library_the_command_says_what_to_install(monkeypatch, capsys):
  for name in [name for name in sys.modules if name.startswith(("rlhf_jax.feedback.server", "starlette"))]:
    monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, "starlette", None)
  assert main(["annotate", "a.db"]) == 2
  told = capsys.readouterr().err
  assert "starlette" in told and "`pip install rlhf_jax` brings" in told


def test_kill_9_under_load_loses_no_acknowledged_judgement(tmp_path):
  """Two kills here; benchmarks/feedback_server.py does twenty."""
  benchmark = import_module(str(ROOT / "benchmarks" / "feedback_server.py"))
  path = tmp_path / "a.db"
  tokens = benchmark.make_store(path, 1000, 4)
  result = benchmark.count_losses(path, tokens, kills=2, seed=0)
  assert result["acknowledged"] > 10 and result["kills"] == 2
  assert result["lost"] == 0 and result["twice"] == 0
