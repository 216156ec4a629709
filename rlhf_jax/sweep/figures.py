"""Figures of a study: means over the seeds of a sweep with their intervals, and how tables print them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlhf_jax.intervals import mean_interval

Figure = Mapping[str, Any]  # {"mean", "low", "high", "seeds"}, as `over_seeds` returns it


def over_seeds(values: Sequence[Any]) -> Any:
  """The mean over seeds with Student's 95 % interval: {"mean", "low", "high", "seeds"}, rounded to four places.

  values: for each seed a number, or nested mappings and lists of numbers, in whose place figures are returned. None and
  NaN are left out, as is a key that a seed has not; "seeds" counts what is left. Limits of a single seed are None, and
  so is the mean of none. Raises ValueError where the lists of two seeds have different lengths.
  """
  present = [value for value in values if value is not None]
  if present and isinstance(present[0], Mapping):
    keys = dict.fromkeys(key for value in present for key in value)
    return {key: over_seeds([value.get(key) for value in present]) for key in keys}
  if present and isinstance(present[0], list):
    return [over_seeds(list(column)) for column in zip(*present, strict=True)]
  interval = mean_interval([value for value in present if np.isfinite(value)])
  numbers = {name: getattr(interval, name) for name in ("mean", "low", "high")}
  rounded = {name: round(number, 4) if np.isfinite(number) else None for name, number in numbers.items()}
  return {**rounded, "seeds": interval.num}


def figure_text(figure: Figure, digits: int = 2, factor: float = 1.0, sign: str = "", seeds: int = 0) -> str:
  """`factor` times a figure as "mean [low, high]", "mean" where it has no limits, "–" where no seed has it.

  sign: "+" writes the sign of positive numbers too. seeds: number of seeds of the study; a figure over fewer of them
  says over how many it is.
  """
  mean, low, high = (None if figure[key] is None else factor * figure[key] for key in ("mean", "low", "high"))
  if mean is None:
    return "–"
  form = f"{sign}.{digits}f"
  text = f"{mean:{form}}" if low is None else f"{mean:{form}} [{low:{form}}, {high:{form}}]"
  return text if figure["seeds"] >= seeds else f"{text} ({figure['seeds']} of {seeds} seeds)"
