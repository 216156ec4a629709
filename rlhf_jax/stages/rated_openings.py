"""Stage: texts that people rated become openings and their continuations, for a policy and two judges that share none.

Each text is cut behind its first words: its opening is a prompt, and the rest the response to it. The texts are divided
at random into three parts, and the ratings of each text into two halves:

  policy     openings.jsonl and demonstrations.jsonl, for SFT and RL; ratings.jsonl, the means of the first halves
  judge      judge_ratings.jsonl, the means of the second halves
  held out   held_out_openings.jsonl; held_out.jsonl, the texts with the means of both halves

A record rates from 1 to 7: a mean from -4 to 4 is rounded to a whole number, to which 4 is added. counts.json has the
numbers of texts, those left out by reason, and what the ratings are worth: the correlation of the means of both halves
over all texts, which is a ceiling for models of them, and of the means of the first halves with what rounding leaves.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from rlhf_jax import data
from rlhf_jax.data.vader import read_vader
from rlhf_jax.ranges import NonNegativeInt, PositiveInt, PositiveShare
from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import Stage
from rlhf_jax.train.progress import console, report_skips

WRITES = (
  "openings.jsonl",
  "demonstrations.jsonl",
  "ratings.jsonl",
  "judge_ratings.jsonl",
  "held_out_openings.jsonl",
  "held_out.jsonl",
  "counts.json",
)
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
  opening_words: PositiveInt
  """Number of words of an opening, cut at white space."""
  min_words: PositiveInt
  """Number of words that a continuation has at least; shorter texts are left out and counted."""
  judge_share: PositiveShare
  """Share of the texts that are the judge's."""
  held_out_share: PositiveShare
  """Share of the texts that are held out; the policy's are the rest."""
  max_texts: NonNegativeInt = 0
  """Number of texts that are used, drawn at random; 0 for all."""

  def __post_init__(self) -> None:
    if self.judge_share + self.held_out_share >= 1:
      raise ValueError(
        f"judge_share={self.judge_share} and held_out_share={self.held_out_share} leave the policy no text"
      )


class RatedText(NamedTuple):
  """A text with the means of both halves of its ratings, from -4 to 4."""

  id: str
  """Name of the text in its file."""
  prompt: str
  """Opening of the text."""
  response: str
  """Continuation of the opening."""
  halves: tuple[float, float]
  """Mean rating of either half."""
  num_ratings: int
  """Number of ratings in both halves."""


def check(config: Config, stage: Stage) -> None:
  """Raises ConfigError where the file of ratings is not there."""
  path = stage.path(config.ratings)
  if not path.is_file():
    raise ConfigError(f"config.{stage.name}.ratings: there is no file {path}")


def run(config: Config, stage: Stage) -> None:
  """Writes the files and prints the counts. Raises data.DataError for a malformed file, or one with too few texts."""
  path = stage.path(config.ratings)
  rng = np.random.default_rng(stage.stage_seed)
  snippets = read_vader(path)[config.source]
  texts, skips = rated_texts(snippets, config.opening_words, config.min_words, rng)
  report_skips(f"{path}, {config.source}", skips, len(snippets))
  num = min(config.max_texts or len(texts), len(texts))
  judge, held_out = round(num * config.judge_share), round(num * config.held_out_share)
  if min(judge, held_out, num - judge - held_out) < 1:
    raise data.DataError(f"{path}: {num} usable texts of {config.source} are too few for three parts")
  drawn = [texts[i] for i in rng.permutation(len(texts))[:num]]
  parts = {
    "policy": drawn[judge + held_out :],
    "judge": drawn[:judge],
    "held out": drawn[judge : judge + held_out],
  }
  write_parts(parts, stage)
  first, second = ([text.halves[half] for text in texts] for half in (0, 1))
  counts = {
    "texts": len(snippets),
    "left out": {**skips, "not drawn": len(texts) - num},
    "parts": {name: len(part) for name, part in parts.items()},
    "ratings": {name: sum(text.num_ratings for text in part) for name, part in parts.items()},
    "correlation of the halves": round(correlation(first, second), 4),
    "correlation with rounded means": round(correlation(first, [record_rating(mean) for mean in first]), 4),
  }
  data.write_json(stage.directory / "counts.json", counts)
  console.print(f"{config.source}: " + ", ".join(f"{len(part)} texts {name}" for name, part in parts.items()))


def rated_texts(
  snippets: dict[str, tuple[str, np.ndarray]], opening_words: int, min_words: int, rng: np.random.Generator
) -> tuple[list[RatedText], Counter[str]]:
  """(texts with their ratings divided at random, {reason: how many texts were left out for it}).

  White space becomes single spaces; of equal texts the first counts. An odd rating falls to the second half.
  """
  found: dict[str, RatedText] = {}
  skips: Counter[str] = Counter()
  for name, (text, ratings) in snippets.items():
    words = text.split()
    shuffled = rng.permutation(ratings)
    half = len(ratings) // 2
    whole = " ".join(words)
    if len(words) < opening_words + min_words:
      skips[f"fewer than {opening_words + min_words} words"] += 1
    elif whole in found:
      skips["the text of an earlier one"] += 1
    else:
      prompt, response = " ".join(words[:opening_words]), " ".join(words[opening_words:])
      halves = float(shuffled[:half].mean()), float(shuffled[half:].mean())
      found[whole] = RatedText(name, prompt, response, halves, len(ratings))
  return list(found.values()), skips


def record_rating(mean: float) -> int:
  """The rating of a record, 1 to 7, for a mean from -4 to 4; means beyond 3.5 get the ratings at the ends.

  >>> [record_rating(x) for x in (-4.0, -0.4, 0.6, 3.4)]
  [1, 4, 5, 7]
  """
  return int(np.clip(np.rint(mean) + 4, 1, 7))


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
  """Pearson's correlation; 0 where one of them is constant."""
  return float(np.corrcoef(x, y)[0, 1]) if np.std(x) * np.std(y) > 0 else 0.0


def write_parts(parts: dict[str, list[RatedText]], stage: Stage) -> None:
  """Writes the files of the three parts."""

  def rows(part: str, half: int | None = None) -> list[dict[str, Any]]:
    texts = [{"prompt": text.prompt, "response": text.response, "id": text.id} for text in parts[part]]
    if half is None:
      return texts
    means = [text.halves[half] for text in parts[part]]
    annotator = ("first half", "second half")[half]
    return [
      {**row, "rating": record_rating(mean), "annotator": annotator} for row, mean in zip(texts, means, strict=True)
    ]

  openings = {part: [{"prompt": text.prompt, "id": text.id} for text in parts[part]] for part in ("policy", "held out")}
  held_out = [
    {**row, "means": text.halves, "num_ratings": text.num_ratings}
    for row, text in zip(rows("held out"), parts["held out"], strict=True)
  ]
  for name, found in (
    ("openings", openings["policy"]),
    ("demonstrations", rows("policy")),
    ("ratings", rows("policy", 0)),
    ("judge_ratings", rows("judge", 1)),
    ("held_out_openings", openings["held out"]),
    ("held_out", held_out),
  ):
    data.write_rows(stage.directory / f"{name}.jsonl", found)
