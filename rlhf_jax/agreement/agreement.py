"""Agreement of annotators with experts and with each other, corrected for chance, and disagreement by item.

Comparisons are counted on pairs of responses (see `tables.Pairs`), each in both orientations, so that no coefficient
depends on which response of an item is stored first. An estimate that cannot be computed says why.
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
from rlhf_jax.agreement.consensus import count_labels, leading_outcome
from rlhf_jax.agreement.tables import Pairs, Table


@dataclasses.dataclass(frozen=True)
class Pairwise:
  """Agreement of two annotators on the pairs that both judged."""

  first: int
  """Index of one annotator in `Table.annotators`."""
  second: int
  """Index of the second annotator, above `first`."""
  raw: Estimate
  """Share of equal answers (better, worse, tie), with an interval clustered by item."""
  kappa: Estimate
  """Cohen's kappa, without an interval: its formula takes the pairs of a ranking as independent."""
  spearman: Estimate
  """Spearman's rho, the mean over `num` items."""
  kendall: Estimate
  """Kendall's tau-b, the mean over `num` items."""


def pairwise(table: Table, pairs: Pairs) -> list[Pairwise]:
  """The agreement of every two annotators who judged a pair of responses in common."""
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
  """Fleiss' kappa and Krippendorff's alpha of all annotators, by name.

  Fleiss' kappa is computed on the pairs with the number of raters that is most frequent. Alpha is computed on all pairs
  ("nominal"), and on the ratings or, where nobody rated, on the ranks ("ordinal" and "interval"; ranks are no interval
  scale, so that the last number needs care).
  """
  _, counts = _answers(pairs)
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
  """(share of each annotator, share of all who are no experts, name of the reference): pairs ordered as the reference.

  The reference is the gold ranking of an item ("gold items"). Without gold items it is the majority of the experts on
  the pair, without the annotator's own judgement ("experts"); without either it is "nobody". Pairs that the reference
  ties are left out, and an annotator's tie counts half. Intervals are clustered by item.
  """
  truth, source, absent = pairs.gold, "gold items", "judged no gold item"
  if np.isnan(truth).all():
    truth, source, absent = _experts(table, pairs), "experts", "judged nothing that an expert judged"
  if np.isnan(truth).all():
    nothing = undefined("no gold items, and no expert judged an item that others judged")
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
  """Each annotator's share of equal answers, over all pairs and all other annotators of a pair, clustered by item."""
  labels, counts = _answers(pairs)
  others = counts[pairs.unit].sum(1) - 1
  same = counts[pairs.unit, labels] - 1
  each = []
  for person in range(len(table.annotators)):
    mine = (pairs.annotator == person) & (others > 0)
    share = same[mine] / others[mine]
    each.append(clustered_wilson(share, pairs.item[mine]) if mine.any() else undefined("nobody else judged the items"))
  return each


def item_disagreement(table: Table, pairs: Pairs) -> np.ndarray:
  """f64[M]: the share of unequal answers over every two annotators and every pair of responses of an item.

  NaN for an item with fewer than two annotators.
  """
  _, counts = _answers(pairs)
  raters = counts.sum(1)
  possible, equal = raters * (raters - 1) / 2, (counts * (counts - 1) / 2).sum(1)
  _, where = np.unique(pairs.unit, return_index=True)
  items = pairs.item[where]
  total = np.bincount(items, possible, len(table.items))
  agreed = np.bincount(items, equal, len(table.items))
  return np.where(total > 0, 1 - agreed / np.maximum(total, 1), np.nan)


def _answers(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
  """Answers to the pairs, i64[P]: 0 worse, 1 tie, 2 better; and their counts by unit, i64[U, 3]."""
  return np.round(2 * pairs.outcome).astype(np.int64), count_labels(pairs).astype(np.int64)


def _experts(table: Table, pairs: Pairs) -> np.ndarray:
  """The label that most experts gave to each pair, without the annotator of the pair: f64[P], NaN without experts.

  A tie where no label leads.
  """
  labels, _ = _answers(pairs)
  mine = table.expert[pairs.annotator].astype(np.float64)
  votes = count_labels(pairs, mine)[pairs.unit]  # [P, 3]
  votes[np.arange(len(labels)), labels] -= mine
  return np.where(votes.sum(1) > 0, leading_outcome(votes), np.nan)


def _nominal_alpha(table: Table, pairs: Pairs, shared: np.ndarray) -> Estimate:
  """Nominal alpha with every pair in both orientations, on a dense f64[A, 2 U] as the library needs it."""
  column = np.full(pairs.num_units, -1)
  column[shared] = np.arange(len(shared))
  used = column[pairs.unit] >= 0
  values = np.full((len(table.annotators), 2 * len(shared)), np.nan)
  rows, columns = pairs.annotator[used], column[pairs.unit[used]]
  values[rows, columns] = pairs.outcome[used]
  values[rows, columns + len(shared)] = 1 - pairs.outcome[used]
  return krippendorff_alpha(values, "nominal")._replace(num=len(shared))


def _by_unit(table: Table, values: np.ndarray) -> np.ndarray:
  """Values f64[N, K] of the judgements as f64[A, M * K], a row for each annotator, NaN where there is none."""
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
  """Counts f64[3, 3] of pairs of answers (0, 1/2, 1), over both orientations and halved, so that a pair counts once."""
  rows, columns = (np.round(2 * z).astype(np.int64) for z in (x, y))
  counts = scipy.sparse.coo_array((np.ones(len(x)), (rows, columns)), shape=(3, 3)).toarray()
  return 0.5 * (counts + counts[::-1, ::-1])


def _by_person(table: Table, pairs: Pairs) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """(units, outcomes, items) of each annotator, in the order of the units."""
  result = []
  for rows in _rows_of(pairs.annotator, len(table.annotators)):
    rows = rows[np.argsort(pairs.unit[rows], kind="stable")]
    result.append((pairs.unit[rows], pairs.outcome[rows], pairs.item[rows]))
  return result


def _rows_of(owner: np.ndarray, num: int) -> list[np.ndarray]:
  return np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner, minlength=num))[:-1])
