"""Means of answers over prompts: of each model and baseline, in each cluster, and in each cell of prompts."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rlhf_jax.evaluation.statistics import ratio_interval
from rlhf_jax.intervals import Interval, mean_interval, wilson_interval, win_rate

Answers = Mapping[str, Mapping[str, Any]]  # {model: {measure: f[N], "responses": N texts}}


class Origins(NamedTuple):
  """Where N prompts come from."""

  clusters: list[str]
  """Cluster of each prompt, "" for none."""
  cells: list[str]
  """Cell of each prompt, "" for none."""
  held_out: set[str]
  """Clusters that were in no training data."""

  @property
  def inside(self) -> np.ndarray:
    """Indices i64 of the prompts whose cluster is not held out."""
    return np.flatnonzero([cluster not in self.held_out for cluster in self.clusters])


def summarize(
  answers: Answers,
  baselines: Answers,
  reference: str,
  origins: Origins,
  *,
  copied: np.ndarray | None = None,
  full_gold: float = 0.0,
) -> dict[str, Any]:
  """Means of the measures of models and baselines over the training clusters, and gold rewards by cluster and cell.

  reference: model that the win rates are against. copied: bool[N], whether a similar demonstration has a response of
  the full reward; None where that is unknown. full_gold: the full reward, 0 where it is unknown. Every mean comes with
  its 95 % interval.
  """
  gold = answers[reference].get("gold")
  return {
    "reference": reference,
    "models": {name: _means(answer, gold, origins.inside) for name, answer in answers.items()},
    "baselines": {name: _baseline(answer, gold, origins.inside) for name, answer in baselines.items()},
    "clusters": _by_cluster(answers, origins),
    "cells": _by_cell(answers, baselines, copied, full_gold, origins),
  }


def has_full_reward(gold: np.ndarray, full_gold: float) -> np.ndarray:
  """bool[N], True where the gold reward f[N] is the full one, but for rounding."""
  return np.asarray(gold) > full_gold - 1e-4


def _means(answer: Mapping[str, Any], reference: np.ndarray | None, chosen: np.ndarray) -> dict[str, Any]:
  """The mean of each measure over the chosen prompts, and the win rate against the reference's gold rewards."""
  alone = ("responses", "reference_logp")
  means = {name: mean_interval(values[chosen])._asdict() for name, values in answer.items() if name not in alone}
  if "reference_logp" in answer:
    means["perplexity"] = perplexity(answer["reference_logp"][chosen], answer["length"][chosen])._asdict()
  if "finished" in answer:
    means["finished"] = wilson_interval(answer["finished"][chosen].sum(), len(chosen))._asdict()
  if "gold" in answer and reference is not None:
    means["win_rate"] = win_rate(answer["gold"][chosen], reference[chosen])._asdict()
  return means


def perplexity(logp: np.ndarray, lengths: np.ndarray) -> Interval:
  """exp(-sum(logp) / sum(lengths)) of N texts with its interval; logp: f[N] in nats, lengths: f[N] in tokens."""
  loss = ratio_interval(-np.asarray(logp, np.float64), lengths)
  mean, low, high = np.exp([loss.mean, loss.low, loss.high]).tolist()
  return Interval(mean, low, high, loss.num)


def _baseline(answer: Mapping[str, Any], reference: np.ndarray | None, chosen: np.ndarray) -> dict[str, Any]:
  """The means, and as "text" the answer of a baseline that always answers alike."""
  texts = set(answer["responses"])
  return _means(answer, reference, chosen) | ({"text": texts.pop()} if len(texts) == 1 else {})


def _by_cluster(answers: Answers, origins: Origins) -> dict[str, Any]:
  """{cluster: {"held_out", "models": {model: mean gold reward}}}."""
  clusters = np.array(origins.clusters)
  return {
    cluster: {"held_out": cluster in origins.held_out, "models": _gold_means(answers, clusters == cluster)}
    for cluster in dict.fromkeys(origins.clusters)
    if cluster
  }


def _by_cell(
  answers: Answers,
  baselines: Answers,
  copied: np.ndarray | None,
  full_gold: float,
  origins: Origins,
) -> dict[str, Any]:
  """Gold reward of each cell of prompts, in all and by cluster.

  {cell: {"prompts": number, "models": {name: {"gold", "full"}}, "baselines": the same, "copied", "clusters": {cluster:
  {"prompts": number, "models": {name: mean gold reward}}}}}. "full" is the share of answers with the reward
  `full_gold`, left out for 0. "copied" stands in each cluster too.
  """
  cells, clusters = np.array(origins.cells), np.array(origins.clusters)
  result: dict[str, Any] = {}
  for cell in (cell for cell in dict.fromkeys(origins.cells) if cell):
    inside = cells == cell
    entry: dict[str, Any] = {"prompts": int(inside.sum())}
    for group, found in (("models", answers), ("baselines", baselines)):
      entry[group] = {name: {"gold": mean} for name, mean in _gold_means(found, inside).items()}
      for name in entry[group] if full_gold else ():
        earned = has_full_reward(found[name]["gold"][inside], full_gold)
        entry[group][name]["full"] = wilson_interval(earned.sum(), len(earned))._asdict()
    entry |= _copied(copied, inside)
    entry["clusters"] = {}
    for cluster in dict.fromkeys(clusters[inside].tolist()):
      mine = inside & (clusters == cluster)
      means = {"prompts": int(mine.sum()), "models": _gold_means({**answers, **baselines}, mine)}
      entry["clusters"] |= {cluster: means | _copied(copied, mine)} if cluster else {}
    result[cell] = entry
  return result


def _copied(copied: np.ndarray | None, chosen: np.ndarray) -> dict[str, Any]:
  """{"copied": share of the chosen prompts that a similar demonstration answers}, or nothing where that is unknown."""
  return {} if copied is None else {"copied": wilson_interval(copied[chosen].sum(), int(chosen.sum()))._asdict()}


def _gold_means(answers: Answers, chosen: np.ndarray) -> dict[str, Any]:
  return {name: mean_interval(answer["gold"][chosen])._asdict() for name, answer in answers.items() if "gold" in answer}
