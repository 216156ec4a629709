"""Judgements of any kind: from files of records to the arrays that a reward model learns from."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rlhf_jax import data
from rlhf_jax.feedback.exchange import read_records
from rlhf_jax.feedback.records import NOTHING_TO_ADD, OPINIONS, SETTLED, Item, Judgement, answers, current
from rlhf_jax.positions import positions_of
from rlhf_jax.reduce import ordered_pairs, tied_pairs
from rlhf_jax.train.comparisons import split_by_prompt
from rlhf_jax.train.progress import report_notes, report_skips
from rlhf_jax.types import Max, Mean

LEARNT = (*OPINIONS, "critiques")  # kinds of judgement that a reward model learns from
PRIOR_RATINGS = 5.0  # number of ratings that the scale of all annotators counts for in the scale of each


class JudgementSet(NamedTuple):
  """N judgements as rows of arrays, with the prompt of each.

  rows: tokens i32[N, K, T] and mask bool[N, K, T] of prompt and response; ranks i32[N, K], 0 the best, -1 where
  nothing was ranked; ratings f32[N, K] in standard deviations, NaN where nothing was rated; margin f32[N] in logits;
  weight f32[N], above 0; where "yes_no" is learnt, yes_no f32[N, K]: 1 for yes, 0 for no, NaN without an answer.
  """

  prompts: list[data.Prompt]
  rows: dict[str, np.ndarray]


def load_judgements(
  paths: Sequence[Path],
  tokenizer: data.Tokenizer,
  length: int,
  *,
  kinds: Sequence[str],
  weights: Mapping[str, float],
  margins: Sequence[float],
  per_annotator: bool,
  ties: bool = False,
  hours: float = 0.0,
) -> JudgementSet:
  """The judgements that answer the items of the files and hold one of `kinds` (`LEARNT`).

  One judgement is one row: all that it says of K responses stays together. The row's weight is that of its
  annotator in `weights`, 1 for an annotator without an entry; the judgements of an annotator of weight 0 are skipped
  and reported, and so are those of an item that a final judgement answers. The row's margin is margins[strength - 1], 0
  without a strength. Ratings are calibrated (`calibrated_ratings`). Critiques are answers of yes and no
  (`with_verdicts`). ties: whether ranks that are all tied are learnt from. hours: the time of judging that is learnt
  from, 0 for all (`within_hours`).

  Raises:
    data.DataError: a file cannot be read, its judgements took less than `hours`, or nothing is left to learn from.
  """
  where = ", ".join(str(path) for path in paths)
  _, items, judgements = read_records(*paths)
  by_id = {item.id: item for item in items}
  standing = current(judgements)
  if "critiques" in kinds:
    standing = with_verdicts(standing)
    kinds = [kind for kind in OPINIONS if kind in {*kinds, "yes_no"}]
  in_time = {judgement.id for judgement in within_hours(standing, hours, where)} if hours else None
  answering = {judgement.id for judgement in answers(judgements)}
  chosen: list[Judgement] = []
  skips: collections.Counter[str] = collections.Counter()
  for judgement in standing:
    reason = _unusable(judgement, kinds, weights, ties) if judgement.id in answering else SETTLED
    if in_time is not None and judgement.id not in in_time:
      reason = f"after the first {hours:g} hours of judging"
    if reason:
      skips[reason] += 1
    else:
      chosen.append(judgement)
  report_skips(where, skips, len(standing))
  groups = [_group(by_id[judgement.item], judgement, kinds) for judgement in chosen]
  notes: collections.Counter[str] = collections.Counter()
  rows, kept, skips = data.comparison_rows(tokenizer, groups, length, notes=notes)
  rows["at"] = positions_of(rows["mask"])
  report_skips(where, skips, len(groups))
  report_notes(where, notes, sum(len(group.responses) for group in groups))
  if not kept:
    raise data.DataError(f"{where}: none of {len(standing)} judgements holds {' or '.join(kinds)} and fits in {length}")
  chosen = [chosen[i] for i in kept]
  shape = rows["ranks"].shape
  given = {kind: [getattr(judgement, kind) or () if kind in kinds else () for judgement in chosen] for kind in OPINIONS}
  rows["ranks"] = _padded(given["ranks"], shape, -1, np.int32)
  ratings = _padded(given["ratings"], shape, np.nan, np.float64)
  rows["ratings"] = calibrated_ratings(ratings, [j.annotator for j in chosen], per_annotator=per_annotator)
  if "yes_no" in kinds:
    rows["yes_no"] = _padded(given["yes_no"], shape, np.nan, np.float32)
  strengths = [judgement.strength for judgement in chosen]
  rows["margin"] = np.array([margins[s - 1] if s else 0.0 for s in strengths], np.float32)
  rows["weight"] = np.array([weights.get(judgement.annotator, 1.0) for judgement in chosen], np.float32)
  return JudgementSet([by_id[judgement.item].prompt for judgement in chosen], rows)


def with_verdicts(judgements: Sequence[Judgement]) -> list[Judgement]:
  """The judgements, those with critiques as answers of yes or no too: no for a response with a critique, else yes.

  An annotator who was asked for critiques and had none has skipped the item for the reason `NOTHING_TO_ADD`: it is a
  yes to every response. Answers that were given stand.
  """
  found = []
  for judgement in judgements:
    if judgement.critiques is not None and judgement.yes_no is None and judgement.skipped in (None, NOTHING_TO_ADD):
      verdicts = tuple(not critique for critique in judgement.critiques)
      judgement = dataclasses.replace(judgement, yes_no=verdicts, skipped=None)
    found.append(judgement)
  return found


def within_hours(judgements: Sequence[Judgement], hours: float, where: str = "judgements") -> list[Judgement]:
  """The judgements that are done within `hours` of judging, all annotators together, in the order of their time.

  Raises:
    data.DataError: all of them took less time, so that there is no telling what `hours` would give.
  """
  ordered = sorted(judgements, key=lambda judgement: judgement.created)
  ends = np.cumsum([judgement.seconds for judgement in ordered])
  if not len(ends) or ends[-1] < 3600 * hours:
    taken = ends[-1] / 3600 if len(ends) else 0.0
    raise data.DataError(f"{where}: {len(ends)} judgements took {taken:.2f} hours, and hours={hours:g} are asked for")
  return ordered[: int(np.searchsorted(ends, 3600 * hours, side="right"))]


def split_judgements(
  judged: JudgementSet, eval_fraction: float, seed: int, where: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """The rows to train on and those held out, which share no prompt. Raises data.DataError as `split_by_prompt`."""
  train, held_out = split_by_prompt(judged.prompts, eval_fraction, seed, where)
  return data.take(judged.rows, train), data.take(judged.rows, held_out)


def row_weights(rows: Mapping[str, np.ndarray], *, ties: bool = False) -> dict[str, np.ndarray]:
  """Weights f32[N] of the losses of each kind: the rows' own, 0 where a row has no pair, rating or answer.

  Pairs are those with an order and, with `ties`, those that are tied.
  """
  pairs = ordered_pairs(rows["ranks"]) | (tied_pairs(rows["ranks"]) & ties)
  weights = {"ranks": pairs.any(axis=(1, 2)) * rows["weight"]}
  for kind in {"ratings", "yes_no"} & rows.keys():
    weights[kind] = (~np.isnan(rows[kind])).any(axis=1) * rows["weight"]
  return weights


def reported(
  metrics: Mapping[str, Mean | Max], weights: Mapping[str, np.ndarray], ranks: np.ndarray
) -> dict[str, Mean | Max]:
  """The metrics without those that no row counts for, such as the accuracy where there are only ratings or ties.

  weights: f32[N] for each kind, as `row_weights`; ranks: i32[N, K] of the same rows.
  """
  counted = {f"{kind}/loss": weight.any() for kind, weight in weights.items()}
  counted |= dict.fromkeys(("accuracy", "margin"), ordered_pairs(ranks).any())
  return {name: metric for name, metric in metrics.items() if counted.get(name, True)}


def calibrated_ratings(ratings: np.ndarray, annotators: Sequence[str], *, per_annotator: bool) -> np.ndarray:
  """(rating - mean) / standard deviation; ratings f64[N, K] -> f32[N, K], NaN where there is no rating.

  Mean and standard deviation are of all ratings. With `per_annotator` they are of the annotator's own ratings, so that
  ratings of an annotator who is lenient, or uses only the middle of the scale, compare with the rest: mean and
  variance of the annotator's ratings are averaged with those of all ratings, which count as `PRIOR_RATINGS` ratings.
  """
  rated = ~np.isnan(ratings)
  if not rated.any():
    return ratings.astype(np.float32)
  mean, variance = ratings[rated].mean(), ratings[rated].var()
  result = np.full(ratings.shape, np.nan)
  names = np.array(annotators if per_annotator else [""] * len(ratings))
  for name in np.unique(names):
    mine = rated & (names == name)[:, None]
    own = ratings[mine]
    share = len(own) / (len(own) + PRIOR_RATINGS) if per_annotator else 0.0
    centre = mean + share * (own.mean() - mean) if len(own) else mean
    spread = np.sqrt(variance + share * (own.var() - variance)) if len(own) else np.sqrt(variance)
    result[mine] = (own - centre) / max(spread, 1e-6)
  return result.astype(np.float32)


def read_weights(path: Path) -> dict[str, float]:
  """{annotator: weight} of a file of rows {"annotator", "weight"}.

  Raises:
    data.DataError: the file cannot be read, a row lacks "annotator" or "weight", or a weight is below 0.
  """
  weights = {}
  for line, row in data.read_rows(path):
    name, weight = row.get("annotator"), row.get("weight")
    number = weight if isinstance(weight, int | float) and not isinstance(weight, bool) else -1
    if not isinstance(name, str) or not 0 <= number < float("inf"):
      raise data.DataError(f"{path}:{line}: a row must have an 'annotator' (text) and a 'weight' (a number >= 0)")
    weights[name] = float(number)
  return weights


def _unusable(judgement: Judgement, kinds: Sequence[str], weights: Mapping[str, float], ties: bool) -> str | None:
  if judgement.skipped is not None:
    return "skipped by the annotator"
  num_ranks = len({rank for rank in judgement.ranks or () if rank >= 0})
  ranked = "ranks" in kinds and num_ranks >= (1 if ties else 2)
  told = any(value is not None for kind in kinds if kind != "ranks" for value in getattr(judgement, kind) or ())
  if not ranked and not told:
    return f"no order and no rating to learn {' or '.join(kinds)} from"
  return "the annotator weighs 0" if weights.get(judgement.annotator, 1.0) == 0 else None


def _group(item: Item, judgement: Judgement, kinds: Sequence[str]) -> data.Comparison:
  """The item's responses as a comparison in which a response without a rank, a rating and an answer is absent."""
  present = np.zeros(len(item.responses), bool)
  if "ranks" in kinds and judgement.ranks is not None:
    present |= np.array(judgement.ranks) >= 0
  for kind in {*kinds} - {"ranks"}:
    if (given := getattr(judgement, kind)) is not None:
      present |= np.array([value is not None for value in given])
  texts = tuple(response.text for response in item.responses)
  return data.Comparison(item.prompt, texts, tuple(0 if here else -1 for here in present), judgement.annotator)


def _padded(rows: Sequence[Sequence], shape: tuple[int, int], fill: float, dtype: type) -> np.ndarray:
  result: np.ndarray = np.full(shape, fill, dtype)
  for i, row in enumerate(rows):
    for k, value in enumerate(row):
      result[i, k] = fill if value is None else value
  return result
