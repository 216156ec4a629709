"""What the lead sees: progress, speed and agreement of an annotation project, and its items with all that was said."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import sqlite3
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from rlhf_jax.data import DataError, prompt_text, prompt_value
from rlhf_jax.feedback.disputes import vote
from rlhf_jax.feedback.events import read_events
from rlhf_jax.feedback.project import current_questions, revoked
from rlhf_jax.feedback.record_rows import from_row, to_row
from rlhf_jax.feedback.records import UNDONE, Annotator, Item, Judgement, current, models_of
from rlhf_jax.feedback.store import KEPT, AnyRecord
from rlhf_jax.feedback.store_rows import verified
from rlhf_jax.feedback.store_settings import read_settings
from rlhf_jax.settings import nearest

STATES = ("all", "open", "disputed", "settled", "done", "gold", "skipped")
PAUSE = 900.0  # seconds between two judgements beyond which an annotator counts as away
COUNT = 20  # items of a page


def overview(store: sqlite3.Connection, now: float) -> dict[str, Any]:
  """Numbers of a project: of its items and judgements, and of each annotator. now: seconds since 1970.

  Agreement is the share of equal votes (`disputes.vote`) over every two annotators of an item, beside Krippendorff's
  nominal alpha of the votes; None where no two judged the same item. `rlhf-jax agreement` has intervals and more.
  """
  annotators, judgements = _all(store, Annotator), _all(store, Judgement)
  standing = [judgement for judgement in current(judgements) if judgement.skipped != UNDONE]
  said = [judgement for judgement in standing if judgement.skipped is None]
  states = _states(store)
  gold = {item.id: item.gold_ranks for item in _all(store, Item) if item.gold_ranks is not None}
  gone = revoked(store)
  votes = _votes(said)
  pairs = _equal_votes(votes)
  asked = current_questions(store)
  people = []
  for person in annotators:
    mine = [judgement for judgement in standing if judgement.annotator == person.id]
    kept = [judgement for judgement in mine if judgement.skipped is None]
    times = sorted(_seconds(judgement.created) for judgement in mine)
    people.append({
      "id": person.id, "kind": person.kind, "expert": person.expert, "revoked": person.id in gone,
      "discounted": gone.get(person.id, False), "judged": len(kept), "skipped": len(mine) - len(kept),
      "corrected": sum(j.annotator == person.id and j.supersedes is not None for j in judgements),
      "final": sum(judgement.final for judgement in kept),
      "median_seconds": _median(judgement.seconds for judgement in kept if judgement.seconds),
      "per_hour": _per_hour(times),
      "last": max((judgement.created for judgement in mine), default=None),
      "agreement": _share(equal for names, equal in pairs if person.id in names),
      "gold": _share(_as_gold(judgement, gold[judgement.item]) for judgement in kept if judgement.item in gold),
    })  # fmt: skip
  hours = [person["per_hour"] for person in people if person["per_hour"] is not None]
  return {
    "settings": dataclasses.asdict(read_settings(store)),
    "questions": {**dataclasses.asdict(asked), "version": asked.version},
    "items": {**dict.fromkeys(STATES[1:], 0), **Counter(states.values()), "all": len(states)},
    "judgements": {
      "judged": len(said), "skipped": len(standing) - len(said), "final": sum(judgement.final for judgement in said),
      "today": sum(_seconds(judgement.created) > now - 24 * 3600 for judgement in said),
      "median_seconds": _median(judgement.seconds for judgement in said if judgement.seconds),
      "per_hour": sum(hours) if hours else None,
      "agreement": _share(equal for _, equal in pairs),
      "alpha": _nominal_alpha(votes),
      "gold": _share(_as_gold(judgement, gold[judgement.item]) for judgement in said if judgement.item in gold),
    },
    "annotators": people,
    "days": sorted(Counter(judgement.created[:10] for judgement in said).items()),
    "events": [dataclasses.asdict(event) for event in read_events(store)][-50:],
  }  # fmt: skip


def browse(
  store: sqlite3.Connection,
  *,
  search: str = "",
  annotator: str = "",
  state: str = "all",
  flag: str = "",
  skip: int = 0,
) -> list[dict[str, Any]]:
  """Up to COUNT items with all their judgements, superseded ones included, in the order of the store.

  search: text in upper or lower case that the prompt, a response, a critique or a rewrite must hold. annotator, flag:
  of a current judgement that there must be; "" for any. state: a name of STATES; a skipped item has a current skip.
  skip: number of items found that are left out, of pages before.

  Raises:
    DataError: an unknown state.
  """
  if state not in STATES:
    raise DataError(f"'state' is {state!r}.{nearest(state, STATES)}")
  states = _states(store)
  of_item: dict[str, list[Judgement]] = defaultdict(list)
  for judgement in _all(store, Judgement):
    of_item[judgement.item].append(judgement)
  found = []
  for item in _all(store, Item):
    said = of_item[item.id]
    standing = [judgement for judgement in current(said) if judgement.skipped != UNDONE]
    skipped = any(judgement.skipped is not None for judgement in standing)
    if state not in ("all", states[item.id]) and not (state == "skipped" and skipped):
      continue
    if annotator and not any(judgement.annotator == annotator for judgement in standing):
      continue
    if flag and not any(flag in flags for judgement in standing for flags in judgement.flags or ()):
      continue
    if search and not any(search.lower() in text.lower() for text in _texts(item, standing)):
      continue
    found.append((item, said, {judgement.id for judgement in standing}))
    if len(found) == max(skip, 0) + COUNT:
      break
  return [
    {
      "id": item.id,
      "prompt": prompt_value(item.prompt),
      "responses": [{"text": r.text, "models": list(models_of(r.source))} for r in item.responses],
      "gold_ranks": item.gold_ranks,
      "state": states[item.id],
      "judgements": [{**to_row(judgement), "current": judgement.id in standing} for judgement in said],
    }
    for item, said, standing in found[max(skip, 0) :]
  ]


def _all(store: sqlite3.Connection, kind: type[AnyRecord]) -> list[AnyRecord]:
  rows = store.execute(f"SELECT id, row FROM {KEPT[kind]} ORDER BY number").fetchall()
  places = [(f"{KEPT[kind]} {name}", row) for name, row in rows]
  return [from_row(kind, verified(row, where), where) for where, row in places]


def _states(store: sqlite3.Connection) -> dict[str, str]:
  """Item -> "gold", "open", "disputed" (an expert must settle it), "settled" (an expert did) or "done"."""
  rows = store.execute("SELECT id, remaining, disputed FROM items LEFT JOIN queue ON queue.item = items.id")
  states = {
    name: "gold" if remaining is None else "disputed" if disputed else "open" if remaining > 0 else "done"
    for name, remaining, disputed in rows
  }
  settled = store.execute(
    "SELECT item FROM judgements AS j WHERE json_extract(row, '$.final') AND NOT EXISTS"
    " (SELECT 1 FROM judgements WHERE supersedes = j.id)"
    " AND annotator NOT IN (SELECT annotator FROM revoked WHERE discounted = 1)"
  )
  return states | {item: "settled" for (item,) in settled}


def _texts(item: Item, judgements: Sequence[Judgement]) -> Iterable[str]:
  words = [*(judgement.critiques or () for judgement in judgements), *(j.rewrites or () for j in judgements)]
  return itertools.chain([prompt_text(item.prompt)], (response.text for response in item.responses), *words)


def _votes(judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
  """For each item {annotator: vote}, without final judgements, whose authors have seen those of others."""
  votes: dict[str, dict[str, Any]] = defaultdict(dict)
  for judgement in judgements:
    if (said := vote(judgement)) is not None and not judgement.final:
      votes[judgement.item][judgement.annotator] = said
  return list(votes.values())


def _equal_votes(votes: Sequence[dict[str, Any]]) -> list[tuple[frozenset[str], bool]]:
  """(two annotators, whether their votes are equal) for every two votes on one item."""
  return [
    (frozenset((one, other)), mine == theirs)
    for by_person in votes
    for (one, mine), (other, theirs) in itertools.combinations(by_person.items(), 2)
  ]


def _nominal_alpha(votes: Sequence[dict[str, Any]]) -> float | None:
  """Krippendorff's alpha of the votes, nominal; None where there is nothing to compare, or one vote alone."""
  units = [Counter(by_person.values()) for by_person in votes if len(by_person) > 1]
  total = sum(units, Counter[Any]())
  num = total.total()
  unequal = sum((unit.total() ** 2 - sum(count**2 for count in unit.values())) / (unit.total() - 1) for unit in units)
  by_chance = (num**2 - sum(count**2 for count in total.values())) / max(num - 1, 1)
  return 1 - unequal / by_chance if by_chance else None


def _as_gold(judgement: Judgement, gold: tuple[int, ...] | None) -> bool:
  """Whether the judgement's best responses are those of the gold ranking."""
  best = tuple(i for i, rank in enumerate(gold or ()) if rank == min(r for r in gold or () if r >= 0))
  said = vote(judgement)
  return said is not None and said[0] == "best" and said[1][0] == best


def _per_hour(times: Sequence[float]) -> float | None:
  """Judgements an hour while at work: the time between judgements, without pauses of more than PAUSE seconds."""
  gaps = [gap for one, other in itertools.pairwise(times) if (gap := other - one) <= PAUSE]
  return 3600 * len(gaps) / sum(gaps) if sum(gaps) > 0 else None


def _seconds(created: str) -> float:
  return datetime.datetime.fromisoformat(created).timestamp()


def _median(values: Iterable[float]) -> float | None:
  found = list(values)
  return statistics.median(found) if found else None


def _share(values: Iterable[bool]) -> float | None:
  found = list(values)
  return sum(found) / len(found) if found else None
