"""Stage: single ratings of texts by people, as many of each text as are asked for; writes `ratings.jsonl`.

The texts are rows {"prompt", "response", "id"} of the stage `rated_openings`, which are found in its file of ratings by
their ids. Of the ratings of a text some are drawn at random, and each becomes a row of its own, so that a reward model
learns from whole ratings and not from means that are rounded: the squared errors of a text's ratings sum to that of
their mean, times their number, and a constant. The people who rated are not known; "person 2" is another one for each
text. A rating from -4 to 4 becomes one from 1 to 7 by adding 4, the ends cut.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Literal

import numpy as np

from rlhf_jax import data
from rlhf_jax.data.vader import read_vader
from rlhf_jax.ranges import NonNegativeInt
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import DemonstrationFile, Stage
from rlhf_jax.stages.rated_openings import record_rating
from rlhf_jax.train.progress import console

WRITES = ("ratings.jsonl",)
ON_LEADER = True  # it computes nothing on the devices: one process of a job carries it out


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  ratings: str
  """File of rated texts (see `rlhf_jax.data.vader`)."""
  source: Literal["movies", "tweets", "Amazon", "editorials"]
  """Source of the texts within the file."""
  texts: DemonstrationFile
  """File of rows {"prompt", "response", "id"} of the texts whose ratings are wanted."""
  raters: NonNegativeInt
  """Number of ratings of each text, drawn without replacement; 0 for all."""
  max_texts: NonNegativeInt = 0
  """Number of texts, taken from the start of the file; 0 for all."""


def check(config: Config, stage: Stage) -> None:
  """Raises ConfigError where the file of ratings is not there."""
  path = stage.path(config.ratings)
  if not path.is_file():
    raise ConfigError(f"config.{stage.name}.ratings: there is no file {path}")


def run(config: Config, stage: Stage) -> None:
  """Writes the rows. Raises data.DataError for a malformed file, or a text without enough ratings."""
  path = stage.path(config.ratings)
  snippets = read_vader(path)[config.source]
  rng = np.random.default_rng(stage.stage_seed)
  rows, texts = [], 0
  for line, row in itertools.islice(data.read_rows(stage.path(config.texts)), config.max_texts or None):
    known = snippets.get(row.get("id", ""), ("", np.zeros(0)))[1]
    wanted = config.raters or len(known)
    if not 0 < wanted <= len(known):
      raise data.DataError(
        f"{config.texts}:{line}: {wanted or 'some'} ratings of the text {row.get('id')!r} are wanted, and {path} has "
        f"{len(known)} in {config.source}"
      )
    texts += 1
    text = {key: row[key] for key in ("prompt", "response", "id")}
    drawn = rng.permutation(known)[:wanted]
    rows += [
      {**text, "rating": record_rating(rating), "annotator": f"person {number}"}
      for number, rating in enumerate(drawn.tolist(), 1)
    ]
  data.write_rows(stage.directory / "ratings.jsonl", rows)
  console.print(f"{len(rows)} ratings of {texts} texts", markup=False)
