"""Wilson's score interval for a share, which the statistics of annotators and of models both use. NumPy only."""

import numpy as np


def wilson_bounds(share: float, num: float, quantile: float) -> tuple[float, float]:
  """(low, high) of a share of `num` observations: the p with |share - p| = quantile * sqrt(p (1 - p) / num).

  Both lie inside [0, 1], with share between them (Wilson 1927). num need not be whole: dependent observations have an
  effective number. quantile: a quantile of the standard normal or of Student's t, 1.96 for a 95 % interval.
  """
  square = quantile**2 / num
  centre = (share + square / 2) / (1 + square)
  half = np.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
  # Rounding must not put a share of exactly 0 or 1 outside its own interval.
  return float(min(max(centre - half, 0.0), share)), float(max(min(centre + half, 1.0), share))
