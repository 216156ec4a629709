"""Screening of annotators before their judgements are used: a recommendation with its evidence, never a removal."""

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.stats

from rlhf_jax.agreement.agreement import agreement_with_experts
from rlhf_jax.agreement.annotator_bias import Habits
from rlhf_jax.agreement.coefficients import Estimate, undefined
from rlhf_jax.agreement.tables import Pairs, Table

SET_ASIDE, WATCH, KEEP, CANNOT_SAY = "set aside", "watch", "keep", "cannot say"


@dataclasses.dataclass(frozen=True)
class Limits:
  """Limits of the checks. A check fails only where the whole confidence interval lies beyond its limit."""

  skill: float = 0.7
  """Lowest share of the median annotator's skill, both above chance on gold items and in following the consensus of the
  others."""
  gold: float | None = None
  """Lowest agreement on gold items, a share between 0 and 1; None to set the limit by `skill`."""
  habit: float = 0.6
  """Highest share, between 0.5 and 1, of comparisons of two responses of equal quality that place or length decides."""
  items: int = 20
  """Number of judged items below which no advice is given."""
  level: float = 0.95
  """Level of the confidence intervals, between 0 and 1."""


DEFAULT = Limits()


@dataclasses.dataclass(frozen=True)
class Check:
  """A check of an annotator."""

  name: str
  """Name: "gold", "skill", "position" or "length"."""
  estimate: Estimate
  """Quantity that is checked."""
  limit: float | None
  """Limit of the quantity; None where there is none."""
  status: str
  """Result: "passes", "fails", "in doubt" (only part of the interval is beyond the limit, with the estimate) or
  "undefined"."""
  evidence: str
  """Sentence with the numbers, for a person to read."""


@dataclasses.dataclass(frozen=True)
class Verdict:
  """The advice on an annotator."""

  annotator: str
  """Id of the annotator."""
  num_items: int
  """Number of items that the annotator judged."""
  advice: str
  """Advice: "set aside" if a check fails, else "watch" if one is in doubt, else "keep"; "cannot say" where there are
  too few items or no check is defined."""
  checks: tuple[Check, ...]
  """Checks that the advice rests on."""

  @property
  def reasons(self) -> tuple[str, ...]:
    """The evidence of the checks that do not pass."""
    return tuple(check.evidence for check in self.checks if check.status in ("fails", "in doubt"))


def screen(table: Table, pairs: Pairs, habits: Habits, limits: Limits = DEFAULT) -> list[Verdict]:
  """A verdict on each annotator, in the order of the table, from four checks.

  gold: the agreement with the gold ranks (Wilson's interval, clustered by item), against `limits.gold`; or else its
    excess over chance (1/2), against the share `limits.skill` of the median annotator's excess.
  skill: the weight of the others' consensus in the annotator's choices, as a share of the median annotator's. It is
    low for a careless annotator, and negative for an annotator who prefers the worse response.
  position: the share of comparisons that the response shown a place earlier wins against one of the same quality and
    length. The order of display is random, so that it is 1/2 without a habit.
  length: the share that the longer response wins against one of the same quality, where the lengths differ by a typical
    number of words, relative to the median annotator (better answers may be longer).

  Medians are over annotators with enough items. The checks presuppose that most annotators are sound.
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
      _habit_check("position", habits, person, 1, 0.0, "the response shown a place earlier", limits),
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
    estimate = undefined("fewer than 3 annotators to derive a limit from; give one", estimate.num)
  evidence = estimate.text(percent=True)
  if estimate.value is not None and limit is not None:
    evidence = f"agrees with {source} on {evidence} of {estimate.num} pairs ({num_items} items)"
    evidence += f"; the limit is {limit:.0%}"
  return _check("gold", estimate, limit, None, f"gold: {evidence}")


def _skill_check(habits: Habits, person: int, typical: float, limits: Limits) -> Check:
  if np.isnan(habits.slopes[person, 0]):
    estimate = undefined("nobody else judged these items, and none of them is gold")
  elif not typical > 0:
    estimate = undefined("fewer than 3 annotators to compare with, or the median annotator does not follow the others")
  else:
    estimate = _normal(habits, person, 0, 0.0, limits, lambda x: x / typical)
  evidence = estimate.text(percent=True)
  if estimate.value is not None:
    evidence = f"follows the others and the gold order with {evidence} of the median annotator's weight"
    evidence += f", on {estimate.num} items; the limit is {limits.skill:.0%}"
  return _check("skill", estimate, limits.skill, None, f"skill: {evidence}")


def _habit_check(
  name: str, habits: Habits, person: int, column: int, typical: float, winner: str, limits: Limits
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
    evidence = f"of two responses of equal quality, {winner} wins {evidence}, on {estimate.num} items"
    evidence += f"; the limits are {1 - limits.habit:.0%} and {limits.habit:.0%}"
  return _check(name, estimate, 1 - limits.habit, limits.habit, f"{name}: {evidence}")


def _longer(habits: Habits) -> str:
  return f"the response longer by {habits.typical_words:.0f} words (relative to the median annotator)"


def _check(name: str, estimate: Estimate, low: float | None, high: float | None, evidence: str) -> Check:
  """A check that fails where the whole interval lies below `low` or above `high`."""
  if estimate.value is None or estimate.low is None or estimate.high is None:
    return Check(name, estimate, low, "undefined", evidence)
  status = "passes"
  if (low is not None and estimate.high < low) or (high is not None and estimate.low > high):
    status = "fails"
  elif (low is not None and estimate.value < low) or (high is not None and estimate.value > high):
    status = "in doubt"
  return Check(name, estimate, low if high is None else high, status, evidence)


def _normal(
  habits: Habits, person: int, column: int, origin: float, limits: Limits, scale: Callable[[float], float]
) -> Estimate:
  """A slope less `origin`, with its normal interval, both on the scale of `scale`, an increasing function."""
  slope, error = habits.slopes[person, column] - origin, habits.errors[person, column]
  half = scipy.stats.norm.ppf(0.5 + 0.5 * limits.level) * error
  value, low, high = (float(scale(x)) for x in (slope, slope - half, slope + half))
  return Estimate(value, low, high, int(habits.num_items[person]))


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
  """Number of items with gold ranks, or else judged by another expert, that each annotator judged: i64[A]."""
  has_gold = np.any(table.gold >= 0, axis=1)
  if not has_gold.any():
    by_expert = np.bincount(table.item, table.expert[table.annotator], len(table.items))
    mine = table.expert[table.annotator].astype(np.float64)
    counted = by_expert[table.item] - mine > 0
  else:
    counted = has_gold[table.item]
  return np.bincount(table.annotator, counted, len(table.annotators)).astype(np.int64)
