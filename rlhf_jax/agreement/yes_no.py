"""Agreement on yes-or-no questions: Cohen's and Fleiss' kappa and Krippendorff's nominal alpha of the answers.

Each response of an item is a unit. Unlike comparisons, answers of yes and no can be compared on single responses.
"""

from __future__ import annotations

import numpy as np

from rlhf_jax.agreement.coefficients import Estimate, cohen_kappa, fleiss_kappa, krippendorff_alpha, undefined
from rlhf_jax.agreement.tables import Table


def yes_no_agreement(table: Table) -> dict[str, Estimate]:
  """The coefficients by name; {} where nobody answered a yes-or-no question.

  Cohen's kappa is the mean over every two annotators, weighted by the units that both answered. Fleiss' kappa is
  computed on the units with the number of annotators that is most frequent.
  """
  if not np.isfinite(table.yes_no).any():
    return {}
  by_item = np.full((len(table.annotators), len(table.items), table.yes_no.shape[1]), np.nan)
  by_item[table.annotator, table.item] = table.yes_no
  values = by_item.reshape(len(table.annotators), -1)  # [A, M K]
  counts = np.stack([(values == answer).sum(0) for answer in (0, 1)], axis=1)  # [M K, 2]
  raters = counts.sum(1)
  several = raters[raters >= 2]
  usual = np.bincount(several).argmax() if len(several) else 2
  return {
    "raw agreement of two annotators (yes or no)": _raw(counts),
    "Cohen's kappa of two annotators (yes or no)": _mean_cohen(values),
    "Fleiss' kappa (yes or no)": fleiss_kappa(counts[raters == usual]),
    "Krippendorff's alpha, nominal (yes or no)": krippendorff_alpha(values, "nominal"),
  }


def _raw(counts: np.ndarray) -> Estimate:
  """The share of equal answers over every two annotators of a unit."""
  pairs = (counts.sum(1) * (counts.sum(1) - 1)).sum() / 2
  if not pairs:
    return undefined("no unit has two raters")
  return Estimate(float((counts * (counts - 1)).sum() / 2 / pairs), num=int(pairs))


def _mean_cohen(values: np.ndarray) -> Estimate:
  found = []
  for i, mine in enumerate(values):
    for theirs in values[i + 1 :]:
      both = ~np.isnan(mine) & ~np.isnan(theirs)
      counts = np.zeros((2, 2))
      np.add.at(counts, (mine[both].astype(int), theirs[both].astype(int)), 1)
      found.append(cohen_kappa(counts))
  defined = [estimate for estimate in found if estimate.value is not None]
  if not defined:
    reasons = {estimate.undefined for estimate in found} or {"no unit has two raters"}
    return undefined("; ".join(sorted(reasons)))
  weights = [estimate.num for estimate in defined]
  return Estimate(float(np.average([estimate.value for estimate in defined], weights=weights)), num=sum(weights))
