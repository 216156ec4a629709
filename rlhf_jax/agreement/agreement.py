"""How far annotators agree: with experts, with each other, beyond chance, and item by item.

Comparisons are counted on pairs of responses (see `tables.Pairs`), each in both orientations, so that no coefficient
depends on which response of an item is stored first. What cannot be computed says why, and is never a silent NaN.
"""

import dataclasses

import numpy as np
import scipy.sparse

from rlhf_jax.agreement.coefficients import (
  LEVEL,
  Estimate,
  clustered_wilson,
  cohen_kappa,
  fleiss_kappa,
  krippendorff_alpha,
  rank_correlations,
  undefined,
)
from rlhf_jax.agreement.tables import Pairs, Table


@dataclasses.dataclass(frozen=True)
class Pairwise:
  """Two annotators, numbers of `Table.annotators`, on the pairs that both judged."""

  first: int
  second: int
  raw: Estimate
  kappa: Estimate
  spearman: Estimate
  kendall: Estimate


def pairwise(table: Table, pairs: Pairs) -> list[Pairwise]:
  """Every two annotators who judged a pair in common.

  `raw` is the share of equal answers (better, worse, tie) with an interval clustered by item; kappa's own interval
  would take the pairs of a ranking as independent, so it is left out. The rank correlations are means over items, and
  `num` their number.
  """
  by_person = _by_person(table, pairs)
  judged = [dict(zip(table.item[rows], rows, strict=True)) for rows in _rows_of(table.annotator, len(by_person))]
  found = []
  for a, mine in enumerate(by_person):
    for b in range(a + 1, len(by_person)):
      units, at_a, at_b = np.intersect1d(mine[0], by_person[b][0], assume_unique=True, return_indices=True)
      if not len(units):
        continue
      x, y = mine[1][at_a], by_person[b][1][at_b]
      kappa = cohen_kappa(_both_ways(x, y))
      items = sorted(judged[a].keys() & judged[b].keys())
      rho, tau = rank_correlations(*(table.ranks[[rows[item] for item in items]] for rows in (judged[a], judged[b])))
      found.append(
        Pairwise(
          a, b,
          raw=clustered_wilson((x == y).astype(np.float64), mine[2][at_a]),
          kappa=kappa._replace(low=None, high=None, num=len(units)),
          spearman=_mean(rho),
          kendall=_mean(tau),
        )
      )  # fmt: skip
  return found


def group_agreement(table: Table, pairs: Pairs) -> dict[str, Estimate]:
  """Fleiss' kappa and Krippendorff's alpha of everybody.

  Fleiss' kappa is taken on the pairs with the number of raters that most pairs have; "nominal" on all pairs;
  "ordinal" and "interval" on ratings where anybody rated, else on ranks (whose distances within an item are not
  those of a scale: there, read the interval with care).
  """
  labels = np.round(2 * pairs.outcome).astype(np.int64)
  counts = np.zeros((pairs.num_units, 3), np.int64)
  np.add.at(counts, (pairs.unit, labels), 1)
  raters = counts.sum(1)
  several = raters[raters >= 2]
  usual = np.bincount(several).argmax() if len(several) else 2
  chosen = counts[raters == usual]
  both = np.concatenate([chosen, chosen[:, ::-1]])
  result = {"Fleiss' kappa": fleiss_kappa(both)._replace(num=len(chosen))}
  shared = np.flatnonzero(raters >= 2)
  result["Krippendorff's alpha, nominal"] = _nominal_alpha(table, pairs, shared)
  name, values = ("ratings", table.ratings) if np.isfinite(table.ratings).any() else ("ranks", _or_nan(table.ranks))
  scale = _by_unit(table, values)
  for level in ("ordinal", "interval"):
    result[f"Krippendorff's alpha, {level} ({name})"] = krippendorff_alpha(scale, level)
  return result


def agreement_with_experts(table: Table, pairs: Pairs, level: float = LEVEL) -> tuple[list[Estimate], Estimate, str]:
  """Each annotator's share of pairs put as the expert did, that of all who are no experts, and who the expert is.

  The expert is the gold ranking of the item; without gold items, the majority of the experts' other judgements of the
  pair. Pairs that the expert ties do not count; an annotator's tie is half right. Intervals are clustered by item.
  """
  truth, source, absent = pairs.gold, "gold items", "judged no gold item"
  if np.isnan(truth).all():
    truth, source, absent = _experts(table, pairs), "experts", "judged nothing that an expert judged"
  if np.isnan(truth).all():
    nothing = undefined("no gold items, and no expert judged what others did")
    return [nothing] * len(table.annotators), nothing, "nobody"
  used = ~np.isnan(truth) & (truth != 0.5)
  agree = np.where(used, 1 - np.abs(pairs.outcome - truth), np.nan)
  each = []
  for person in range(len(table.annotators)):
    mine = used & (pairs.annotator == person)
    each.append(clustered_wilson(agree[mine], pairs.item[mine], level) if mine.any() else undefined(absent))
  rest = used & ~table.expert[pairs.annotator]
  return each, clustered_wilson(agree[rest], pairs.item[rest], level), source


def agreement_with_others(table: Table, pairs: Pairs) -> list[Estimate]:
  """Each annotator's share of equal answers over all (pair, other annotator of it), clustered by item."""
  labels = np.round(2 * pairs.outcome).astype(np.int64)
  counts = np.zeros((pairs.num_units, 3))
  np.add.at(counts, (pairs.unit, labels), 1)
  others = counts[pairs.unit].sum(1) - 1
  same = counts[pairs.unit, labels] - 1
  each = []
  for person in range(len(table.annotators)):
    mine = (pairs.annotator == person) & (others > 0)
    share = same[mine] / others[mine]
    each.append(clustered_wilson(share, pairs.item[mine]) if mine.any() else undefined("nobody else judged the items"))
  return each


def item_disagreement(table: Table, pairs: Pairs) -> np.ndarray:
  """f64[M]: the share of unequal answers among all two annotators and pairs of an item; NaN with fewer than two."""
  labels = np.round(2 * pairs.outcome).astype(np.int64)
  counts = np.zeros((pairs.num_units, 3))
  np.add.at(counts, (pairs.unit, labels), 1)
  raters = counts.sum(1)
  possible, equal = raters * (raters - 1) / 2, (counts * (counts - 1) / 2).sum(1)
  _, where = np.unique(pairs.unit, return_index=True)
  items = pairs.item[where]
  total = np.bincount(items, possible, len(table.items))
  agreed = np.bincount(items, equal, len(table.items))
  return np.where(total > 0, 1 - agreed / np.maximum(total, 1), np.nan)


def _experts(table: Table, pairs: Pairs) -> np.ndarray:
  """The majority of the experts on each pair without the annotator's own voice: f64[P], NaN without one."""
  voice = np.where(table.expert[pairs.annotator], 2 * pairs.outcome - 1, 0.0)
  heard = table.expert[pairs.annotator].astype(np.float64)
  votes = np.bincount(pairs.unit, voice, pairs.num_units)[pairs.unit] - voice
  num = np.bincount(pairs.unit, heard, pairs.num_units)[pairs.unit] - heard
  return np.where(num > 0, 0.5 + 0.5 * np.sign(votes), np.nan)


def _nominal_alpha(table: Table, pairs: Pairs, shared: np.ndarray) -> Estimate:
  """Alpha with every pair in both orientations; sparse answers become one dense [A, 2 U] only for the library."""
  column = np.full(pairs.num_units, -1)
  column[shared] = np.arange(len(shared))
  used = column[pairs.unit] >= 0
  values = np.full((len(table.annotators), 2 * len(shared)), np.nan)
  rows, columns = pairs.annotator[used], column[pairs.unit[used]]
  values[rows, columns] = pairs.outcome[used]
  values[rows, columns + len(shared)] = 1 - pairs.outcome[used]
  return krippendorff_alpha(values, "nominal")._replace(num=len(shared))


def _by_unit(table: Table, values: np.ndarray) -> np.ndarray:
  """f64[N, K] by judgement -> f64[A, M * K] by annotator."""
  result = np.full((len(table.annotators), len(table.items), values.shape[1]), np.nan)
  result[table.annotator, table.item] = values
  return result.reshape(len(table.annotators), -1)


def _or_nan(ranks: np.ndarray) -> np.ndarray:
  return np.where(ranks >= 0, ranks, np.nan)


def _mean(values: np.ndarray) -> Estimate:
  values = values[~np.isnan(values)]
  if not len(values):
    return undefined("no common item with an order on both sides")
  return Estimate(float(values.mean()), num=len(values))


def _both_ways(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Counts [3, 3] of answers 0, 1/2, 1 in both orientations, halved so that a pair counts once."""
  rows, columns = (np.round(2 * z).astype(np.int64) for z in (x, y))
  counts = scipy.sparse.coo_array((np.ones(len(x)), (rows, columns)), shape=(3, 3)).toarray()
  return 0.5 * (counts + counts[::-1, ::-1])


def _by_person(table: Table, pairs: Pairs) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Units in order, outcomes and items of each annotator."""
  result = []
  for rows in _rows_of(pairs.annotator, len(table.annotators)):
    rows = rows[np.argsort(pairs.unit[rows], kind="stable")]
    result.append((pairs.unit[rows], pairs.outcome[rows], pairs.item[rows]))
  return result


def _rows_of(owner: np.ndarray, num: int) -> list[np.ndarray]:
  return np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner, minlength=num))[:-1])
