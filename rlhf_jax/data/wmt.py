"""Translations that professionals read for WMT 2023, Chinese to English (Freitag et al. 2023), a JSON row a segment.

A row has a segment of a document, its translations by several systems, and the penalty points that each rater's MQM
errors add up to: major 5, minor 1, minor punctuation 0.1, non-translation 25.
"""

from typing import Any, NamedTuple

import numpy as np

from rlhf_jax.data.files import DataError, PathLike, read_rows


class Segment(NamedTuple):
  """One segment in the translations of S systems, each read by the same R raters."""

  document: str
  """Document that the segment stands in."""
  name: str
  """Document and number of the segment."""
  source: str
  """Chinese text."""
  translations: dict[str, str]
  """{system: English text}, S of them."""
  raters: tuple[str, ...]
  """Names of R raters."""
  penalties: np.ndarray
  """Penalty points of each rater for each system, at least 0, fewer are better: f64[R, S]."""


def read_wmt(path: PathLike) -> list[Segment]:
  """The segments of a file, which may be compressed by gzip.

  Raises:
    DataError: naming file and line: it cannot be read, or a row is malformed.
  """
  segments = []
  for line, row in read_rows(path):
    try:
      segments.append(_segment(row))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
      reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
      raise DataError(f"{path}:{line}: {reason}") from error
  return segments


def _segment(row: dict[str, Any]) -> Segment:
  document, texts = str(row["document"]), row["translations"]
  points = []
  for rater, penalties in row["penalties"].items():
    if penalties.keys() != texts.keys():
      raise ValueError(f"{rater} has penalties of {len(penalties)} systems, but there are {len(texts)} translations")
    points.append([float(penalties[system]) for system in texts])
    if not (np.array(points[-1]) >= 0).all():
      raise ValueError(f"a penalty of {rater} is not a number of at least 0")
  name = f"{document}/{row['segment']}"
  return Segment(document, name, row["source"], texts, tuple(row["penalties"]), np.array(points))
