"""The lead's page over HTTP: what it tells, who may open it, and what annotators may do with their own judgements."""

import contextlib

import pytest

pytest.importorskip("uvicorn", reason="uvicorn, which serves the page, is not installed")
pytest.importorskip("httpx", reason="httpx, which the client of the tests needs, is not installed")

from starlette.testclient import TestClient

from rlhf_jax.cli import main
from rlhf_jax.data import DataError
from rlhf_jax.feedback.collect import collect
from rlhf_jax.feedback.invitations import invite, invite_lead
from rlhf_jax.feedback.lead_view import STATES
from rlhf_jax.feedback.project import set_questions
from rlhf_jax.feedback.questions import Questions, Skip, parse_questions
from rlhf_jax.feedback.records import Response, make_item
from rlhf_jax.feedback.server import make_app, origins_of
from rlhf_jax.feedback.store import opened, read_store
from rlhf_jax.feedback.store_settings import Settings
from rlhf_jax.feedback.tokens import log_in

ORIGIN = "http://127.0.0.1:8000"
LEAD_POSTS = {
  "/lead/overview": {},
  "/lead/browse": {"search": "", "annotator": "", "state": "all", "flag": "", "skip": 0},
  "/lead/settings": {"judgements_per_item": 3},
  "/lead/invite": {"annotator": "zoe", "expert": True, "renew": True},
  "/lead/revoke": {"annotator": "ann", "discounted": True},
  "/lead/restore": {"annotator": "ann"},
}
OWN_POSTS = {"/mine": {"search": "", "skip": 0}, "/correct": {"judgement": "x"}, "/give-up": {"assignment": "x"}}


def token_of(link):
  return link.partition("#token=")[2]


@pytest.fixture
def store(tmp_path):
  path = tmp_path / "a.db"
  responses = [Response("first", {"checkpoint": "sft", "step": 9}), Response("second")]
  items = [make_item(f"item {n}", responses) for n in range(3)]
  collect(path, items, settings=Settings(gold_every=0, judgements_per_item=2, agreeing=2, at_most=2))
  return path


@pytest.fixture
def clock():
  return [1000.0]


@pytest.fixture
def connect(store, clock):
  """connect(name) -> a client that is logged in as that annotator; as the lead for "lead", as nobody for None."""
  with contextlib.ExitStack() as stack:

    def client(name, expert=False):
      app = make_app(store, origins_of("127.0.0.1", 8000, None), clock=lambda: clock[0])
      found = stack.enter_context(TestClient(app, base_url=ORIGIN, headers={"Origin": ORIGIN}))
      if name == "lead":
        token = token_of(invite_lead(store, "lea", ORIGIN, renew=True))
        assert found.post("/lead/login", json={"token": token}).status_code == 204
      elif name is not None:
        ((_, link),) = invite(store, [name], ORIGIN, renew=True, expert=expert)
        assert found.post("/login", json={"token": token_of(link)}).status_code == 204
      return found

    yield client


def judge(client, best, **fields):
  """A judgement for the text `best`, or a tie for None; the answer of the server, or None without an assignment."""
  assignment = client.post("/next", json={}).json()["assignment"]
  if assignment is None:
    return None
  ranks = [0 if best is None else int(text != best) for text in assignment["responses"]]
  return client.post("/judgements", json={"assignment": assignment["id"], "ranks": ranks, "seconds": 1, **fields})


def overview(lead):
  return lead.post("/lead/overview", json={}).json()


def browse(lead, **fields):
  reply = lead.post("/lead/browse", json={**LEAD_POSTS["/lead/browse"], **fields})
  assert reply.status_code == 200, reply.text
  return reply.json()["found"]


def test_nobody_but_the_lead_opens_the_leads_page(connect, store):
  """Neither without a session, nor with an annotator's token or cookie, nor with a guess under the lead's cookie."""
  ((_, link),) = invite(store, ["ann"], ORIGIN)
  annotator, nobody = connect("ann"), connect(None)
  forged = connect(None)
  forged.cookies.set("lead", annotator.cookies["session"])
  for client in (annotator, nobody, forged):
    assert "Log in as lead" in client.get("/lead").text
    for path, body in LEAD_POSTS.items():
      assert client.post(path, json=body).status_code == 401, path
  for token in (token_of(link), "guess", ""):
    assert nobody.post("/lead/login", json={"token": token}).status_code == 403
  with opened(store) as inside:
    assert inside.execute("SELECT COUNT(*) FROM events").fetchone() == (0,)
  assert "zoe" not in {person.id for person in read_store(store)[0]}


def test_the_lead_is_no_annotator_and_annotators_own_posts_need_their_session(connect, store):
  lead = connect("lead")
  assert "Log in to annotate" in lead.get("/").text
  lead.cookies.set("session", lead.cookies["lead"])
  for client in (lead, connect(None)):
    for path, body in OWN_POSTS.items():
      assert client.post(path, json=body).status_code == 401, path
  token = token_of(invite_lead(store, "lea", ORIGIN, renew=True))
  assert connect(None).post("/login", json={"token": token}).status_code == 403


def test_the_leads_posts_are_guarded_like_all_others(connect):
  lead = connect("lead")
  for path, body in LEAD_POSTS.items():
    assert lead.post(path, json=body, headers={"Origin": "http://evil.example"}).status_code == 403
    assert lead.post(path, json=body, headers={"Host": "evil.example"}).status_code == 421
    assert lead.post(path, json={**body, "extra": 1}).status_code == 400
  for path, body in (
    ("/lead/browse", {"skip": "0"}), ("/lead/browse", {"state": "closed"}), ("/lead/settings", {"agreeing": True}),
    ("/lead/settings", {"judgements_per_item": 0}), ("/lead/revoke", {"annotator": "nobody", "discounted": False}),
    ("/lead/revoke", {"annotator": "nobody", "discounted": 1}), ("/lead/restore", {"annotator": "nobody"}),
    ("/lead/invite", {"annotator": "a\nb", "expert": False, "renew": False}),
  ):  # fmt: skip
    reply = lead.post(path, json={**(LEAD_POSTS[path] if path == "/lead/browse" else {}), **body})
    assert reply.status_code == 400 and reply.json()["error"], body


def test_a_lead_who_logs_out_or_gets_a_new_link_is_out(connect, store):
  lead = connect("lead")
  cookies = dict(lead.cookies)
  assert "Progress" in lead.get("/lead").text
  assert lead.post("/lead/logout", json={}).status_code == 204
  lead.cookies.update(cookies)
  assert lead.post("/lead/overview", json={}).status_code == 401
  other = connect("lead")
  assert invite_lead(store, "lea", ORIGIN) is None  # a link is told once
  invite_lead(store, "lea", ORIGIN, renew=True)
  assert other.post("/lead/overview", json={}).status_code == 401


def test_the_numbers_by_hand(connect, clock, store):
  lead, ann, bob = connect("lead"), connect("ann"), connect("bob")
  for client, votes, pace in ((ann, ("first", "first", None), 30), (bob, ("first", "second", None), 60)):
    for best in votes:
      client.post("/next", json={})  # the lease begins; the page was in view since
      clock[0] += pace
      assert judge(client, best, seconds=pace / 2).status_code == 200
  judged = overview(lead)
  assert judged["items"] == {"open": 0, "disputed": 1, "settled": 0, "done": 2, "gold": 0, "skipped": 0, "all": 3}
  numbers = judged["judgements"]
  assert (numbers["judged"], numbers["skipped"], numbers["today"]) == (6, 0, 6)
  assert numbers["agreement"] == pytest.approx(2 / 3)
  # Votes: first twice, first and second, tie twice. Observed disagreement 2 of 6; expected (36 - 9 - 1 - 4) / 5.
  assert numbers["alpha"] == pytest.approx(1 - 2 / (22 / 5))
  assert numbers["median_seconds"] == pytest.approx(22.5) and numbers["per_hour"] == pytest.approx(120 + 60)
  people = {person["id"]: person for person in judged["annotators"]}
  assert people["ann"]["judged"] == 3 and people["ann"]["per_hour"] == pytest.approx(120)
  assert people["bob"]["median_seconds"] == 30 and people["bob"]["agreement"] == pytest.approx(2 / 3)
  assert people["ann"]["gold"] is None and not people["ann"]["revoked"]
  assert judged["days"] == [["1970-01-01", 6]]
  assert judged["settings"]["agreeing"] == 2 and judged["questions"]["version"] == ""


def test_a_project_without_judgements_has_numbers_too(connect):
  judged = overview(connect("lead"))["judgements"]
  assert judged["judged"] == 0 and judged["agreement"] is judged["alpha"] is judged["per_hour"] is None


def test_items_are_found_by_text_state_annotator_and_flag(connect):
  lead, ann, bob = connect("lead"), connect("ann"), connect("bob")
  judge(ann, "first", critiques=["Really", ""], flags=[["harmful"], []])
  judge(bob, "second")
  judge(ann, None, ranks=None, skipped="I cannot tell")
  everything = browse(lead)
  assert [item["prompt"] for item in everything] == ["item 0", "item 1", "item 2"]
  assert [item["state"] for item in everything] == ["disputed", "open", "open"]
  assert everything[0]["responses"] == [{"text": "first", "models": ["sft@9"]}, {"text": "second", "models": []}]
  first, second = everything[0]["judgements"]
  assert (first["annotator"], first["ranks"], second["ranks"]) == ("ann", [0, 1], [1, 0]) and first["current"]
  for fields, prompts in (
    ({"search": "ITEM 1"}, ["item 1"]), ({"search": "really"}, ["item 0"]), ({"state": "disputed"}, ["item 0"]),
    ({"state": "open"}, ["item 1", "item 2"]), ({"state": "skipped"}, ["item 1"]), ({"annotator": "bob"}, ["item 0"]),
    ({"flag": "harmful"}, ["item 0"]), ({"flag": "rude"}, []), ({"skip": 2}, ["item 2"]), ({"state": "gold"}, []),
  ):  # fmt: skip
    assert [item["prompt"] for item in browse(lead, **fields)] == prompts, fields
  assert set(STATES) >= {item["state"] for item in everything}


def test_an_expert_settles_what_is_disputed_and_sees_what_others_said_but_not_who(connect):
  lead, ann, bob = connect("lead"), connect("ann"), connect("bob")
  eve = connect("eve", expert=True)
  judge(ann, "first", critiques=["Good", "Bad"])
  judge(bob, "second")
  assignment = eve.post("/next", json={}).json()["assignment"]
  assert assignment["prompt"] == "item 0" and len(assignment["others"]) == 2
  place = assignment["responses"].index("first")
  assert [other["ranks"][place] for other in assignment["others"]] == [0, 1]
  assert all("annotator" not in other for other in assignment["others"])
  assert judge(eve, "second").status_code == 200
  (settled,) = browse(lead, state="settled")
  assert settled["judgements"][-1]["final"] is True and settled["judgements"][-1]["annotator"] == "eve"
  assert overview(lead)["items"]["settled"] == 1
  assert eve.post("/next", json={}).json()["assignment"]["others"] is None


def test_an_experts_own_judgement_is_not_among_those_of_others(connect):
  ann, bob, eve = connect("ann"), connect("bob"), connect("eve", expert=True)
  judge(ann, "first")
  judge(bob, "second")
  judge(eve, "second")
  (mine,) = eve.post("/mine", json={"search": "", "skip": 0}).json()["found"]
  assignment = eve.post("/correct", json={"judgement": mine["id"]}).json()["assignment"]
  place = assignment["responses"].index("first")
  assert sorted(other["ranks"][place] for other in assignment["others"]) == [0, 1]


def test_an_item_is_not_settled_by_an_expert_who_does_not_count(connect):
  lead, ann, bob, eve = connect("lead"), connect("ann"), connect("bob"), connect("eve", expert=True)
  judge(ann, "first")
  judge(bob, "second")
  judge(eve, "second")
  assert [item["prompt"] for item in browse(lead, state="settled")] == ["item 0"]
  lead.post("/lead/revoke", json={"annotator": "eve", "discounted": True})
  assert browse(lead, state="settled") == []
  assert [item["prompt"] for item in browse(lead, state="disputed")] == ["item 0"]


def test_a_restart_keeps_the_links_of_those_who_are_not_revoked(store, monkeypatch, capsys):
  """The command line names whom it restores; a second time nobody is to be restored."""
  monkeypatch.setattr("rlhf_jax.feedback.server.serve", lambda *arguments: None)
  ((_, link),) = invite(store, ["ann"], ORIGIN)

  def told(*flags):
    assert main(["annotate", str(store), *flags]) == 0
    return capsys.readouterr().out

  assert "#token=" not in told("--restore", "ann")
  with opened(store) as inside:
    assert log_in(inside, token_of(link), 0.0)
  told("--revoke", "ann")
  assert "#token=" in told("--restore", "ann") and "#token=" not in told("--restore", "ann")


def test_settings_change_for_a_page_that_is_open(connect):
  lead, ann = connect("lead"), connect("ann")
  while judge(ann, "first") is not None:
    pass
  assert ann.post("/next", json={}).json()["assignment"] is None
  bob, cid = connect("bob"), connect("cid")
  while judge(bob, "first") is not None:
    pass
  assert judge(cid, "first") is None
  changed = lead.post("/lead/settings", json={"judgements_per_item": 3, "at_most": 3})
  assert changed.json()["judgements_per_item"] == 3 and judge(cid, "first").status_code == 200
  (event,) = overview(lead)["events"]
  assert event["by"] == "lea" and event["kind"] == "settings"


def test_questions_change_for_a_page_that_is_open(connect, store):
  ann = connect("ann")
  assignment = ann.post("/next", json={}).json()["assignment"]["id"]
  assert 'value="private data"' in ann.get("/").text
  asked = parse_questions({"ask": ["yes_no"], "required": ["yes_no"], "yes_no": {"question": "Good?"}}, "here")
  with opened(store) as inside:
    set_questions(inside, asked, 0.0)
  body = {"assignment": assignment, "ranks": [0, 1], "seconds": 1, "questions": ""}
  old = ann.post("/judgements", json=body)
  assert old.status_code == 409 and "the questions have changed" in old.json()["error"]
  page = ann.get("/").text
  assert 'value="private data"' not in page and "Good?" in page and asked.version in page
  for answer, message in (
    ({"ranks": [0, 1]}, "comparison is not asked"),
    ({"yes_no": [True, None]}, "lacks 'yes_no', which is required"),
  ):
    reply = ann.post("/judgements", json={"assignment": assignment, "seconds": 1, **answer})
    assert reply.status_code == 400 and message in reply.json()["error"]
  answer = {"assignment": assignment, "yes_no": [True, False], "seconds": 1, "questions": asked.version}
  assert ann.post("/judgements", json=answer).status_code == 200
  (judgement,) = read_store(store)[2]
  assert judgement.questions == asked.version and sorted(judgement.yes_no) == [False, True]


def test_a_reason_of_ones_own_is_refused_where_it_is_not_asked(connect, store):
  ann = connect("ann")
  with opened(store) as inside:
    set_questions(inside, Questions(skip=Skip(("no",), other=False)), 0.0)
  assert 'id="reason"' not in ann.get("/").text
  assert judge(ann, None, ranks=None, skipped="lunch").status_code == 400
  assert judge(ann, None, ranks=None, skipped="no").status_code == 200


def test_every_kind_of_answer_is_kept_by_response(connect, store):
  with opened(store) as inside:
    kinds = ["comparison", "rating", "yes_no", "spans"]
    mapping = {"ask": kinds, "rating": {"aspects": ["kind"]}, "comparison": {"both_bad": True}}
    set_questions(inside, parse_questions(mapping, "here"), 0.0)
  ann = connect("ann")
  assignment = ann.post("/next", json={}).json()["assignment"]
  place = assignment["responses"].index("second")

  def at(value, other):
    return [value, other] if place == 0 else [other, value]

  said = {"ranks": [0, 0], "all_bad": True, "yes_no": at(True, False), "aspects": {"kind": at(7, None)},
          "spans": at([[0, 3, "false"]], [])}  # fmt: skip
  state = ann.post("/judgements", json={"assignment": assignment["id"], "seconds": 1, **said}).json()
  (judgement,) = read_store(store)[2]
  assert judgement.all_bad and judgement.yes_no == (False, True) and judgement.aspects == {"kind": (None, 7)}
  assert judgement.spans == ((), ((0, 3, "false"),))
  draft = ann.post("/undo", json={"judgement": state["last"]}).json()["assignment"]["draft"]
  assert {name: draft[name] for name in said} == said
  wrong = {"aspects": {"kind": [1]}}, {"aspects": {"kind": "ab"}}, {"spans": [[[0, 99, "false"]], []]}
  for change in wrong:
    again = ann.post("/next", json={}).json()["assignment"]["id"]
    reply = ann.post("/judgements", json={"assignment": again, "seconds": 1, **said, **change})
    assert reply.status_code == 400, change


def test_an_earlier_judgement_is_corrected_over_http(connect, store):
  ann, bob = connect("ann"), connect("bob")
  judge(ann, "first")
  judge(ann, "first")
  found = ann.post("/mine", json={"search": "item 0", "skip": 0}).json()["found"]
  assert [row["prompt"] for row in found] == ["item 0"]
  assert bob.post("/mine", json={"search": "", "skip": 0}).json()["found"] == []
  assert bob.post("/correct", json={"judgement": found[0]["id"]}).status_code == 409
  state = ann.post("/correct", json={"judgement": found[0]["id"]}).json()
  assert state["assignment"]["correction"] and state["assignment"]["prompt"] == "item 0"
  given_up = ann.post("/give-up", json={"assignment": state["assignment"]["id"]}).json()
  assert given_up["assignment"]["prompt"] == "item 2" and not given_up["assignment"]["correction"]
  state = ann.post("/correct", json={"judgement": found[0]["id"]}).json()
  assert bob.post("/give-up", json={"assignment": state["assignment"]["id"]}).status_code == 409
  judge(ann, "second")
  said = read_store(store)[2]
  assert [judgement.ranks for judgement in said] == [(0, 1), (0, 1), (1, 0)] and said[2].supersedes == said[0].id


def test_a_lead_invites_revokes_and_restores(connect, store):
  lead, ann = connect("lead"), connect("ann")
  judge(ann, "first")
  assert lead.post("/lead/revoke", json={"annotator": "ann", "discounted": False}).status_code == 200
  assert ann.post("/next", json={}).status_code == 401
  assert invite(store, ["ann"], ORIGIN, renew=True) == [("ann", None)]  # no restart of the server lets them in again
  again = lead.post("/lead/invite", json={"annotator": "ann", "expert": False, "renew": True})
  assert again.json() == {"link": None}
  (person,) = overview(lead)["annotators"]
  assert person["revoked"] and person["judged"] == 1
  link = lead.post("/lead/restore", json={"annotator": "ann"}).json()["link"]
  assert ann.post("/login", json={"token": token_of(link)}).status_code == 204
  zoe = lead.post("/lead/invite", json={"annotator": "zoe", "expert": True, "renew": False}).json()["link"]
  assert zoe.startswith(f"{ORIGIN}/#token=")
  known = lead.post("/lead/invite", json={"annotator": "zoe", "expert": True, "renew": False})
  assert known.json() == {"link": None}
  assert [person.expert for person in read_store(store)[0]] == [False, True]
  with pytest.raises(DataError, match="'ann' is in the store as an annotator who is no expert"):
    invite(store, ["ann"], ORIGIN, expert=True)
