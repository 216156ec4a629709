"""Which judgements of a file are exported: by annotator, time, flags and aspects, and those of experts alone."""

from __future__ import annotations

import dataclasses
import datetime
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from rlhf_jax.data import DataError
from rlhf_jax.feedback.checks import check_time
from rlhf_jax.feedback.project import revoked
from rlhf_jax.feedback.records import SETTLED, Judgement, Records, answers, current
from rlhf_jax.feedback.store import opened
from rlhf_jax.settings import nearest


@dataclasses.dataclass(frozen=True)
class Filter:
  """Conditions that a judgement must meet; the defaults ask for nothing."""

  annotators: tuple[str, ...] = ()
  """Annotators whose judgements are taken; () takes those of all."""
  without_annotators: tuple[str, ...] = ()
  """Annotators whose judgements are left out."""
  since: str = ""
  """Earliest time, ISO 8601 (a day, or a time in UTC); "" for none."""
  until: str = ""
  """Time before which a judgement must have been given, as `since`; "" for none."""
  flags: tuple[str, ...] = ()
  """Flags of which a judgement must set one, at any response; () for any judgement."""
  without_flags: tuple[str, ...] = ()
  """Flags that leave a judgement out which sets one of them."""
  final: bool = False
  """Whether an adjudicated item keeps its final judgement alone; items that nobody settled keep theirs. Annotators and
  times come first: a final judgement that they leave out settles nothing. Flags and the aspect are then those of the
  answer."""
  aspect: str = ""
  """Aspect whose ratings take the place of those of the whole; judgements without it are left out. "" for none."""
  without_revoked: bool = False
  """Whether judgements of revoked annotators are left out, which only a store tells."""

  def __post_init__(self) -> None:
    for name in ("since", "until"):
      if value := getattr(self, name):
        try:
          object.__setattr__(self, name, _time(value))
        except ValueError as error:
          raise DataError(f"--{name} {value}: must be a day as in 2026-01-31, or a time in UTC ({error})") from error


def select(records: Records, wanted: Filter, source: str | Path) -> tuple[Records, Counter[str]]:
  """The records that meet the conditions, and for each reason to leave judgements out their number.

  A judgement that another supersedes follows it: a correction is kept, or left out, with its whole history. All items
  and annotators stay. source: file of the records, for the messages and for the revoked annotators.

  Raises:
    DataError: an annotator or aspect that the records do not have, or `without_revoked` of a file that is no store.
  """
  annotators, items, judgements = records
  _check_known("annotators", {person.id for person in annotators}, (*wanted.annotators, *wanted.without_annotators))
  if wanted.aspect:
    known = {name for judgement in judgements for name in judgement.aspects or {}}
    _check_known("aspect", known, (wanted.aspect,))
  gone = _revoked(source) if wanted.without_revoked else ()
  standing = current(judgements)
  absent = {judgement.id: _absent(judgement, wanted, gone) for judgement in standing}
  present = [judgement for judgement in standing if not absent[judgement.id]]
  overruled = {judgement.id for judgement in present} - {judgement.id for judgement in answers(present)}
  settled = overruled if wanted.final else set()
  reasons = {j.id: absent[j.id] or (SETTLED if j.id in settled else _unwanted(j, wanted)) for j in standing}
  left_out = Counter(reason for reason in reasons.values() if reason)
  if wanted.aspect:  # earlier versions may rate no such aspect: the current ones are kept without their history
    kept = [
      dataclasses.replace(j, ratings=(j.aspects or {})[wanted.aspect], aspects=None, supersedes=None)
      for j in standing
      if not reasons[j.id]
    ]
    return (annotators, items, kept), left_out
  following = {judgement.supersedes: judgement.id for judgement in judgements if judgement.supersedes is not None}

  def latest(name: str) -> str:
    while name in following:
      name = following[name]
    return name

  return (annotators, items, [judgement for judgement in judgements if not reasons[latest(judgement.id)]]), left_out


def _absent(judgement: Judgement, wanted: Filter, gone: Collection[str]) -> str:
  """The reason why annotator or time leave a judgement out; "" for none."""
  moment = _time(judgement.created)
  checks = {
    "of another annotator": wanted.annotators and judgement.annotator not in wanted.annotators,
    "of an annotator who is left out": judgement.annotator in wanted.without_annotators,
    "of a revoked annotator": judgement.annotator in gone,
    "before --since": wanted.since and moment < wanted.since,
    "not before --until": wanted.until and moment >= wanted.until,
  }
  return next((reason for reason, met in checks.items() if met), "")


def _unwanted(judgement: Judgement, wanted: Filter) -> str:
  """The reason why what a judgement says leaves it out; "" for none."""
  set_here = {flag for flags in judgement.flags or () for flag in flags}
  checks = {
    "without any of the flags": wanted.flags and not set_here & set(wanted.flags),
    "with a flag that is left out": set_here & set(wanted.without_flags),
    "without a rating of the aspect": wanted.aspect and wanted.aspect not in (judgement.aspects or {}),
  }
  return next((reason for reason, met in checks.items() if met), "")


def _revoked(source: str | Path) -> Collection[str]:
  if Path(source).suffix != ".db":
    raise DataError(f"{source}: --without-revoked needs the store, a .db: only it tells who was revoked")
  with opened(source) as store:
    return revoked(store)


def _time(value: str) -> str:
  """ISO 8601 in UTC, to the microsecond, so that texts compare as times; a day is its first moment."""
  if len(value) == 10:
    value = f"{value}T00:00:00Z"
  check_time("time", value)
  return datetime.datetime.fromisoformat(value).isoformat(timespec="microseconds")


def _check_known(name: str, known: Collection[str], given: Collection[str]) -> None:
  for value in given:
    if value not in known:
      raise DataError(f"--{name}: the records have no {value!r}.{nearest(value, known)}")
