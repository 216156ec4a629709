"""Who should be looked at before their judgements are used: a recommendation with its evidence, never a removal."""

import dataclasses

import numpy as np
import scipy.stats

from rlhf_jax.agreement.agreement import agreement_with_experts
from rlhf_jax.agreement.annotator_bias import Habits
from rlhf_jax.agreement.coefficients import Estimate, undefined
from rlhf_jax.agreement.tables import Pairs, Table

SET_ASIDE, WATCH, KEEP, CANNOT_SAY = "set aside", "watch", "keep", "cannot say"


@dataclasses.dataclass(frozen=True)
class Limits:
  """Where screening draws its lines; a line counts as crossed only where the whole interval lies beyond it.

  skill: of the typical (median) annotator's, both above chance on gold items and in following the others' consensus.
  gold: if given, the agreement on gold items to reach, in place of the share of the median. habit: how often the place
  or the length may decide between two responses of one quality. items: fewer judged items say nothing. level: of the
  intervals.
  """

  skill: float = 0.7
  gold: float | None = None
  habit: float = 0.6
  items: int = 20
  level: float = 0.95


DEFAULT = Limits()


@dataclasses.dataclass(frozen=True)
class Check:
  """One test of one annotator. status: "passes", "fails", "in doubt" (the estimate alone is beyond the limit) or
  "undefined". evidence: a sentence."""

  name: str
  estimate: Estimate
  limit: float | None
  status: str
  evidence: str


@dataclasses.dataclass(frozen=True)
class Verdict:
  """advice: "set aside" if any check fails, "watch" if any is in doubt, "keep", or "cannot say"
  where there are too few items or no check could be made."""

  annotator: str
  num_items: int
  advice: str
  checks: tuple[Check, ...]

  @property
  def reasons(self) -> tuple[str, ...]:
    return tuple(check.evidence for check in self.checks if check.status in ("fails", "in doubt"))


def screen(table: Table, pairs: Pairs, habits: Habits, limits: Limits = DEFAULT) -> list[Verdict]:
  """A verdict for each annotator, in the order of the table.

  gold: agreement with the expert (Wilson, clustered by item) against `limits.gold`, or against as much skill above
    chance (one half) as the given share of the median annotator's.
  skill: the weight of the others' consensus in the annotator's choices, as a share of the median annotator's. It
    falls for one who is careless and turns negative for one who prefers the worse.
  position: of two responses of one quality and length, how often the one shown a place earlier wins. The order of
    display is random, so one half is right.
  length: how often the longer one wins where the lengths differ by a typical number of words, against the median
    annotator (better answers may well be longer).

  Medians take in only annotators with enough items; they, and so this, need most annotators to be sound.
  """
  gold, _, source = agreement_with_experts(table, pairs, limits.level)
  num_items = np.array([len(set(table.item[table.annotator == person])) for person in range(len(table.annotators))])
  enough = num_items >= limits.items
  gold_items = _gold_items(table, pairs)
  known = [g.value for g, num in zip(gold, gold_items, strict=True) if g.value is not None and num >= limits.items / 2]
  gold_limit = limits.gold
  if gold_limit is None and len(known) >= 3:
    gold_limit = 0.5 + limits.skill * (float(np.median(known)) - 0.5)
  typical = _medians(habits, enough)
  verdicts = []
  for person, name in enumerate(table.annotators):
    checks = (
      _gold_check(gold[person], gold_limit, source, int(gold_items[person]), limits),
      _skill_check(habits, person, typical[0], limits),
      _habit_check("position", habits, person, 1, 0.0, "the one shown a place earlier", limits),
      _habit_check("length", habits, person, 2, typical[2], _longer(habits), limits),
    )
    verdicts.append(Verdict(name, int(num_items[person]), _advice(checks, enough[person]), checks))
  return verdicts


def _advice(checks: tuple[Check, ...], enough: bool) -> str:
  states = {check.status for check in checks}
  if not enough or states == {"undefined"}:
    return CANNOT_SAY
  return SET_ASIDE if "fails" in states else WATCH if "in doubt" in states else KEEP


def _gold_check(estimate: Estimate, limit: float | None, source: str, num_items: int, limits: Limits) -> Check:
  if estimate.value is not None and num_items < limits.items / 2:
    estimate = undefined(f"{num_items} items with an expert's order, fewer than {limits.items / 2:.0f}", estimate.num)
  elif estimate.value is not None and limit is None:
    estimate = undefined("fewer than 3 annotators to set a limit by; give one", estimate.num)
  evidence = estimate.text(percent=True)
  if estimate.value is not None:
    evidence = f"agrees with {source} on {evidence} of {estimate.num} pairs ({num_items} items)"
    evidence += f"; the limit is {limit:.0%}"
  return _check("gold", estimate, limit, None, f"gold: {evidence}")


def _skill_check(habits: Habits, person: int, typical: float, limits: Limits) -> Check:
  if np.isnan(habits.slopes[person, 0]):
    estimate = undefined("nobody else judged these items, and none is gold")
  elif not typical > 0:
    estimate = undefined("fewer than 3 annotators to compare with, or the median one follows nobody")
  else:
    estimate = _normal(habits, person, 0, 0.0, limits, lambda x: x / typical)
  evidence = estimate.text(percent=True)
  if estimate.value is not None:
    evidence = f"follows what the others and the gold order say with {evidence} of the median annotator's weight"
    evidence += f", on {estimate.num} items; the limit is {limits.skill:.0%}"
  return _check("skill", estimate, limits.skill, None, f"skill: {evidence}")


def _habit_check(
  name: str, habits: Habits, person: int, column: int, typical: float, what: str, limits: Limits
) -> Check:
  if np.isnan(habits.slopes[person, column]):
    reason = {"position": "the order of display is not recorded", "length": "all responses have one length"}[name]
    estimate = undefined(f"{reason}, or nobody else judged these items")
  elif np.isnan(typical):
    estimate = undefined("fewer than 3 annotators to compare with")
  else:
    estimate = _normal(habits, person, column, typical, limits, lambda x: float(0.5 * (1 + np.tanh(0.5 * x))))
  evidence = estimate.text(percent=True)
  if estimate.value is not None:
    evidence = f"of two responses of one quality {what} wins {evidence}, on {estimate.num} items"
    evidence += f"; the limits are {1 - limits.habit:.0%} and {limits.habit:.0%}"
  return _check(name, estimate, 1 - limits.habit, limits.habit, f"{name}: {evidence}")


def _longer(habits: Habits) -> str:
  return f"the one longer by {habits.typical_words:.0f} words, against the median annotator,"


def _check(name: str, estimate: Estimate, low: float | None, high: float | None, evidence: str) -> Check:
  """Fails where the whole interval lies below `low` or above `high`."""
  if estimate.value is None:
    return Check(name, estimate, low, "undefined", evidence)
  status = "passes"
  if (low is not None and estimate.high < low) or (high is not None and estimate.low > high):
    status = "fails"
  elif (low is not None and estimate.value < low) or (high is not None and estimate.value > high):
    status = "in doubt"
  return Check(name, estimate, low if high is None else high, status, evidence)


def _normal(habits: Habits, person: int, column: int, origin: float, limits: Limits, scale) -> Estimate:
  slope, error = habits.slopes[person, column] - origin, habits.errors[person, column]
  half = scipy.stats.norm.ppf(0.5 + 0.5 * limits.level) * error
  return Estimate(*(float(scale(x)) for x in (slope, slope - half, slope + half)), int(habits.num_items[person]))


def _medians(habits: Habits, enough: np.ndarray) -> np.ndarray:
  """f64[3], NaN where fewer than three annotators with enough items have the slope."""
  medians = np.full(3, np.nan)
  for column in range(3):
    values = habits.slopes[enough, column]
    values = values[~np.isnan(values)]
    if len(values) >= 3:
      medians[column] = np.median(values)
  return medians


def _gold_items(table: Table, pairs: Pairs) -> np.ndarray:
  """Items with an expert's order that each annotator judged: i64[A]."""
  has_gold = (table.gold >= 0).any(1)
  if not has_gold.any():
    by_expert = np.bincount(table.item, table.expert[table.annotator], len(table.items))
    mine = table.expert[table.annotator].astype(np.float64)
    counted = by_expert[table.item] - mine > 0
  else:
    counted = has_gold[table.item]
  return np.bincount(table.annotator, counted, len(table.annotators)).astype(np.int64)
