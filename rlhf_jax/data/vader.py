"""The texts that people rated for VADER (Hutto and Gilbert 2014): lines of source, id, ratings and text between tabs.

The ratings of a text are whole numbers from -4, most negative, to 4, by people who are not linked between texts.
"""

import json

import numpy as np

from rlhf_jax.data.files import DataError, PathLike, RowError, stream_lines

SOURCES = {  # name in the file -> name here
  "movieReviewSnippets": "movies",
  "tweets": "tweets",
  "amazonReviewSnippets": "Amazon",
  "nytEditorialSnippets": "editorials",
}
COLUMNS = ["source", "id", "ratings", "text"]


def read_vader(path: PathLike) -> dict[str, dict[str, tuple[str, np.ndarray]]]:
  """{source: {id: (text, ratings f64[n] from -4 to 4)}}, n >= 2, of a file, which may be compressed by gzip.

  Raises:
    DataError: naming file and line: it cannot be read, or a line is malformed.
  """
  found: dict[str, dict[str, tuple[str, np.ndarray]]] = {name: {} for name in SOURCES.values()}
  for number, line in stream_lines(path):
    if isinstance(line, RowError):
      raise line
    if number == 1:
      if line.split("\t") != COLUMNS:
        raise DataError(f"{path}:1: expected the columns source, id, ratings and text, separated by tabs")
      continue
    try:
      source, name, ratings, text = _snippet(line)
    except ValueError as error:
      raise DataError(f"{path}:{number}: {error}") from error
    found[source][name] = (text, ratings)
  return found


def _snippet(line: str) -> tuple[str, str, np.ndarray, str]:
  parts = line.split("\t")
  if len(parts) != len(COLUMNS):
    raise ValueError(f"found {len(parts)} columns, expected source, id, ratings and text")
  source, name, given, text = parts
  if source not in SOURCES:
    raise ValueError(f"the source {source!r} is none of {', '.join(SOURCES)}")
  ratings = json.loads(given)
  if not isinstance(ratings, list) or len(ratings) < 2 or any(r not in range(-4, 5) for r in ratings):
    raise ValueError("the ratings must be a list of two or more whole numbers from -4 to 4")
  return SOURCES[source], name, np.array(ratings, np.float64), text
