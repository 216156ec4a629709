"""How well a reward model orders answers: against gold rewards, labels, and pairs that differ in a known way.

Beside each accuracy stand the style baseline's on the same pairs (`rlhf_jax.evaluation.style_baseline`), and the
ceiling: the expected share of labels that agree with the gold order over pairs of different gold reward
(`rlhf_jax.world.ceiling`). Pairs of equal gold reward have no right order, and count in no accuracy here.
"""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlhf_jax import data
from rlhf_jax.data.files import Row
from rlhf_jax.data.row_formats import RowFormats
from rlhf_jax.data.row_values import schema_error
from rlhf_jax.evaluation.calibration import answer_calibration, distinct_texts
from rlhf_jax.evaluation.statistics import clustered_share, pair_accuracy, ranking_accuracy, ratio_interval
from rlhf_jax.intervals import Interval
from rlhf_jax.stage import Stage
from rlhf_jax.train import report_skips
from rlhf_jax.train.row_sources import AnyRows, path_of, read_given
from rlhf_jax.world import Labeller, Traits, ceiling, choice_probability, rank, traits_of


class Contrast(NamedTuple):
  """A pair of responses of which one is right, and which differ in one way."""

  prompt: str
  """Text of the prompt."""
  chosen: str
  """Right response."""
  rejected: str
  """Wrong response."""
  kind: str
  """Kind of difference."""
  cluster: str
  """Cluster of the prompt, "" for none."""
  cell: str
  """Cell of the prompt (see `rlhf_jax.stages.evaluate`), "" for none."""


class Sides(NamedTuple):
  """Scores of the two responses of N contrasts, each f[N]."""

  chosen: np.ndarray
  """Scores of the right responses."""
  rejected: np.ndarray
  """Scores of the wrong responses."""

  def right(self) -> np.ndarray:
    """f64[N]: 1 where the right response has the higher score, 0.5 where both are equal, else 0."""
    return (self.chosen > self.rejected) + 0.5 * (self.chosen == self.rejected)


def read_contrasts(given: AnyRows, stage: Stage, tokenizer: data.Tokenizer, length: int) -> list[Contrast]:
  """The contrasts of rows {"prompt", "chosen", "rejected", "kind", optional "cluster" and "cell"}.

  A contrast with a response of more than `length` tokens, prompt included, is skipped and reported.

  Raises:
    DataError: a row is no such contrast, or there is none; the message names file and line.
  """
  contrasts = read_given(given, stage, CONTRASTS)
  pairs = [data.Comparison(contrast.prompt, (contrast.chosen, contrast.rejected), (0, 1)) for contrast in contrasts]
  _, kept, skips = data.comparison_rows(tokenizer, pairs, length)
  report_skips(path_of(given), skips, len(contrasts))
  if not kept:
    raise data.DataError(f"{path_of(given)}: holds no contrast of at most {length} tokens")
  return [contrasts[index] for index in kept]


def _contrast(row: Row, where: str) -> Iterator[Contrast]:
  texts = [row.get(name) for name in ("prompt", "chosen", "rejected", "kind")]
  if not all(isinstance(text, str) and text for text in texts):
    raise schema_error(f'{where}: need texts "prompt", "chosen", "rejected" and "kind"; found {", ".join(row)}')
  yield Contrast(**{name: str(row.get(name) or "") for name in Contrast._fields})


CONTRASTS = RowFormats({(): _contrast}, lambda contrast: None)


def spread_by_kind(contrasts: Sequence[Contrast], num: int) -> list[Contrast]:
  """At most `num` contrasts of each kind, at even distances in the given order, which is kept."""
  kept: list[int] = []
  for kind in {contrast.kind for contrast in contrasts}:
    mine = [index for index, contrast in enumerate(contrasts) if contrast.kind == kind]
    kept += mine if len(mine) <= num else [mine[place * len(mine) // num] for place in range(num)]
  return [contrasts[index] for index in sorted(kept)]


def score_sides(contrasts: Sequence[Contrast], score: Callable[[Sequence[str], Sequence[str]], np.ndarray]) -> Sides:
  """The scores of both responses of the contrasts. score: (prompts, responses) -> f[N]."""
  return Sides(*np.split(score(*_texts(contrasts)), 2))


def accuracy_by_kind(
  contrasts: Sequence[Contrast], model: Sides, style: Sides | None = None, labels: np.ndarray | None = None
) -> dict[str, Any]:
  """Accuracy on the contrasts of each kind, in all and by cluster and by cell, as mappings for a result file.

  "In all" leaves out the cell "held_out" of clusters that no comparison was about, unless there is nothing else.
  {kind: {"accuracy", "style", "gap", "ceiling", "clusters": {cluster: the same measures}, "cells": {cell: ...}}}.
  "accuracy" and "style" are the shares of contrasts on which the reward model and the style baseline give the right
  response the higher score, equal scores as one half. "gap" is their difference. "ceiling" is the expected share of
  labels that choose the right response. Intervals are over prompts. labels: f[N], probability that a label is right, or
  None; style: None for no baseline; both are then left out.
  """

  def measures(chosen: np.ndarray) -> dict[str, Any]:
    prompts = [contrasts[index].prompt for index in chosen]
    shares = {"accuracy": model.right()}
    shares |= {"style": style.right()} if style else {}
    found = {name: share_by_prompt(right[chosen], prompts)._asdict() for name, right in shares.items()}
    if style:
      found["gap"] = mean_by_prompt((shares["accuracy"] - shares["style"])[chosen], prompts)._asdict()
    if labels is not None:
      found["ceiling"] = exactly(float(labels[chosen].mean()), len(chosen))._asdict()
    return found

  result: dict[str, Any] = {}
  for kind in dict.fromkeys(contrast.kind for contrast in contrasts):
    mine = np.array([index for index, contrast in enumerate(contrasts) if contrast.kind == kind])
    inside = mine[[contrasts[index].cell != "held_out" for index in mine]]
    result[kind] = measures(inside if inside.size else mine)
    for name, group in (("clusters", "cluster"), ("cells", "cell")):
      values = np.array([getattr(contrasts[index], group) for index in mine])
      result[kind][name] = {
        str(value): measures(mine[values == value]) for value in dict.fromkeys(values.tolist()) if value
      }
  return result


def label_shares(
  contrasts: Sequence[Contrast],
  labellers: Sequence[Labeller],
  gold: Callable[[Sequence[str], Sequence[str]], Mapping[str, np.ndarray]],
) -> np.ndarray:
  """Probability f64[N] that a label, by a labeller drawn at random, prefers the right response of a contrast.

  gold: (prompts, responses) -> measures, as `rlhf_jax.world.gold_parts` returns them.
  """
  prompts, responses = _texts(contrasts)
  traits = traits_of(gold(prompts, responses), responses)
  first, second = (Traits(*halves) for halves in zip(*(np.split(trait, 2) for trait in traits), strict=True))
  return np.mean([choice_probability(labeller, first, second) for labeller in labellers], axis=0)


def _texts(contrasts: Sequence[Contrast]) -> tuple[list[str], list[str]]:
  """2 N prompts and responses: the right responses of all N contrasts, then the wrong ones."""
  prompts = [contrast.prompt for contrast in contrasts]
  return prompts * 2, [contrast.chosen for contrast in contrasts] + [contrast.rejected for contrast in contrasts]


def judge_reward_model(
  groups: Sequence[Mapping[str, Any]],
  min_gap: float,
  labellers: Sequence[Labeller],
  seed: int,
  scale: float | None = None,
) -> dict[str, Any]:
  """Accuracy of the reward model's order of K answers against the gold order and against noisy labels.

  groups: K answers to each of the same N prompts, as K mappings with "responses" (N texts), "proxy" f[N], "gold" f[N]
  and, if known, "apparent" f[N] and the style baseline's score "style" f[N]. A labeller drawn at random orders the
  different answers to each prompt. Pairs of equal gold reward have no right order and count nowhere: "label_accuracy"
  is the reward model's accuracy on these labels, "label_ceiling" what the gold reward itself can expect. Without
  labellers both are left out. scale: factor from scores to logits of preference (`rlhf_jax.train.score_scale`), with
  which "calibration" is that of `rlhf_jax.evaluation.calibration.answer_calibration`; None leaves it out.
  """
  scores = {
    name: np.stack([group[name] for group in groups], axis=1) for name in ("proxy", "style") if name in groups[0]
  }  # [N, K]
  gold = np.stack([group["gold"] for group in groups], axis=1)
  accuracies = {
    name: {
      "clear_accuracy": pair_accuracy(given, gold, min_gap=min_gap)._asdict(),
      "accuracy": pair_accuracy(given, gold)._asdict(),
    }
    for name, given in scores.items()
  }
  if labellers:
    ranks, pages = _labels(groups, gold, labellers, seed)
    for name, given in scores.items():
      accuracies[name]["label_accuracy"] = ranking_accuracy(given, ranks, gold)._asdict()
    highest = exactly(ceiling(labellers, pages), accuracies["proxy"]["label_accuracy"]["num"])
    accuracies["proxy"]["label_ceiling"] = highest._asdict()
  style = {"style": accuracies["style"]} if "style" in accuracies else {}
  calibrated = {} if scale is None else {"calibration": _calibration(groups, scores["proxy"], gold, labellers, scale)}
  return {**accuracies["proxy"], **style, **calibrated, "min_gap": min_gap}


def _calibration(
  groups: Sequence[Mapping[str, Any]],
  scores: np.ndarray,
  gold: np.ndarray,
  labellers: Sequence[Labeller],
  scale: float,
) -> dict[str, Any]:
  """The calibration of scores f[N, K] of the answers of `judge_reward_model`."""
  answers = [*zip(*(group["responses"] for group in groups), strict=True)]
  apparent = np.stack([group.get("apparent", group["gold"]) for group in groups], axis=1)
  traits = answer_traits({"total": gold, "apparent": apparent}, answers)
  labels = {"labels": label_probabilities(labellers, traits)} if labellers else {}
  return answer_calibration(scores, gold, labels, distinct_texts(answers), scale)


def answer_traits(gold: Mapping[str, np.ndarray], answers: Sequence[Sequence[str]]) -> Traits:
  """The traits f64[N, K] of K answers to each of N prompts; gold as `traits_of` takes it, f[N, K] each."""
  flat = traits_of({name: values.ravel() for name, values in gold.items()}, [text for row in answers for text in row])
  return Traits(*(trait.reshape(len(answers), -1) for trait in flat))


def label_probabilities(labellers: Sequence[Labeller], page: Traits) -> np.ndarray:
  """Probability f64[N, K, K] that a labeller drawn at random puts answer i before answer j of the K on a page.

  page: traits [N, K] of the answers of N pages.
  """
  first, second = (Traits(*(np.expand_dims(trait, axis) for trait in page)) for axis in (-1, -2))
  shown = page.total.shape[-1]
  return np.mean([choice_probability(one, first, second, num_shown=shown) for one in labellers], axis=0)


def expected_label_accuracy(scores: np.ndarray, gold: np.ndarray, labels: np.ndarray) -> Interval:
  """Expected share of labels that agree with the scores, over the pairs of different gold reward.

  scores, gold: f[N, K]. labels: f64[N, K, K], `label_probabilities` of the same answers. Equal scores count half. With
  the gold reward as scores it is the ceiling (`rlhf_jax.world.ceiling`). The interval is over prompts.
  """
  counted = np.triu(gold[:, :, None] != gold[:, None, :])
  above = (scores[:, :, None] > scores[:, None, :]) + 0.5 * (scores[:, :, None] == scores[:, None, :])
  agree = above * labels + (1 - above) * (1 - labels)  # [N, K, K]
  return clustered_share(np.where(counted, agree, 0.0).sum((1, 2)), counted.sum((1, 2)))


def _labels(
  groups: Sequence[Mapping[str, Any]], gold: np.ndarray, labellers: Sequence[Labeller], seed: int
) -> tuple[np.ndarray, list[Traits]]:
  """Ranks i[N, K] of the answers by a labeller for each prompt, -1 for a text that stands before, and the pages."""
  apparent = np.stack([group.get("apparent", group["gold"]) for group in groups], axis=1)
  ranks = np.full(gold.shape, -1)
  rng = np.random.default_rng(seed)
  judged = collections.Counter[int]()
  pages = []
  for row, texts in enumerate(zip(*(group["responses"] for group in groups), strict=True)):
    # No labeller compares a text with itself: an answer that occurs twice is judged once.
    distinct = [k for k, text in enumerate(texts) if text not in texts[:k]]
    person = int(rng.integers(len(labellers)))
    seen = {"total": gold[row, distinct], "apparent": apparent[row, distinct]}
    pages.append(traits_of(seen, [texts[k] for k in distinct]))
    ranks[row, distinct] = rank(labellers[person], pages[-1], rng, judged[person])
    judged[person] += 1
  return ranks, pages


def share_by_prompt(right: np.ndarray, prompts: Sequence[str]) -> Interval:
  """Mean of right f[N], each between 0 and 1, as a share with an interval over the different prompts."""
  return clustered_share(*_sums(right, prompts))


def mean_by_prompt(values: np.ndarray, prompts: Sequence[str]) -> Interval:
  """Mean of values f[N] with an interval over the different prompts."""
  return ratio_interval(*_sums(values, prompts))._replace(num=len(values))


def exactly(value: float, num: int) -> Interval:
  """An expectation over `num` observations that is computed, not sampled: an interval without width."""
  return Interval(value, value, value, num)


def _sums(values: np.ndarray, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
  """(sums, numbers) of the values of each prompt, f64[G]."""
  _, group = np.unique(np.asarray(prompts), return_inverse=True)
  return np.bincount(group, values), np.bincount(group).astype(np.float64)
