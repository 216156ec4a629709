"""Stage: gold reward against number of labels, for several ways to spend labels; writes `results.json` and a picture.

Reads the `evaluation.json` of an evaluation of all the policies.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlhf_jax import data
from rlhf_jax.evaluation.results import write_results
from rlhf_jax.ranges import NonNegativeInt
from rlhf_jax.stage import Stage, StageOfAnyShape
from rlhf_jax.writing import write_figure

MEASURES = ("gold", "helpful", "honest", "harmless", "win_rate", "kl")

ON_LEADER = True  # it computes nothing on the devices: one process of a job carries it out


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the stage."""

  algorithm: str
  """Module that carries out the stage."""
  evaluation: str
  """File `evaluation.json` of an evaluation stage."""
  ways: dict[str, dict[StageOfAnyShape, NonNegativeInt]]
  """Ways to spend labels: {name of the way: {policy: number of labels it has cost}}."""


def run(config: Config, stage: Stage) -> None:
  """Writes the table and the picture. Raises DataError for a policy without a gold reward in the evaluation."""
  path = stage.path(config.evaluation)
  models = data.read_json(path)["models"]
  result: dict[str, list[dict[str, Any]]] = {}
  for way, policies in config.ways.items():
    if missing := [name for name in policies if "gold" not in models.get(name, {})]:
      raise data.DataError(f"{path}: has no gold reward of {missing[0]!r}, which {stage.name}.ways.{way} names")
    points = sorted(policies.items(), key=lambda point: point[1])
    result[way] = [
      {"model": name, "labels": labels, **{key: _rounded(models[name][key]) for key in MEASURES if key in models[name]}}
      for name, labels in points
    ]
  write_results(stage, "results.json", result)
  plot(result, stage.directory / "results.png")


def _rounded(interval: dict[str, float]) -> dict[str, float]:
  return {name: round(float(interval[name]), 4) for name in ("mean", "low", "high")}


def plot(result: dict[str, list[dict[str, Any]]], path: Path) -> None:
  """Gold reward against number of labels: for each way a line with its 95 % intervals."""
  with matplotlib.rc_context({"font.size": 9}):
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for number, (way, points) in enumerate(result.items()):
      labels = np.array([point["labels"] for point in points])
      mean, low, high = (np.array([point["gold"][key] for point in points]) for key in ("mean", "low", "high"))
      color = f"C{number}"
      axes.plot(labels, mean, marker="o", color=color, label=way)
      axes.fill_between(labels, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set_xlabel("labels")
    axes.set_ylabel("gold reward")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    write_figure(path, figure)
