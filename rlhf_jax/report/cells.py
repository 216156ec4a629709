"""The part of the report on cells of prompts: what models and baselines earn on prompts old and new."""

from collections.abc import Sequence
from typing import Any

from rlhf_jax.report.read_run import Cell, Run
from rlhf_jax.report.sections import measure_cell
from rlhf_jax.report.words import CELLS, visible


def cells(run: Run) -> dict[str, Any] | None:
  """A table of models and baselines by cell, with gold reward and share of ideal answers, and one by cluster."""
  if not run.cells:
    return None
  columns = [(CELLS.get(name, visible(name)), cell.num) for name, cell in run.cells.items()]
  full = any("full" in measures for cell in run.cells.values() for measures in cell.models.values())
  measures = ("gold", "full") if full else ("gold",)

  def row(name: str) -> tuple[str, list[tuple[str, str]]]:
    found = [cell.models.get(name, {}) for cell in run.cells.values()]
    return name, [measure_cell(measure, each.get(measure)) for each in found for measure in measures]

  models = list(dict.fromkeys(name for cell in run.cells.values() for name in cell.models))
  return {
    "columns": columns,
    "headings": ["gold reward", "ideal answers"][: len(measures)],
    "models": [row(name) for name in models if name not in run.baselines],
    "baselines": [row(name) for name in models if name in run.baselines],
    "copied": [measure_cell("copied", cell.copied) if cell.copied else None for cell in run.cells.values()],
    "names": models,
    "clusters": [
      (cluster, CELLS.get(name, visible(name)), _by_cluster(cell, cluster, models))
      for cluster in dict.fromkeys(cluster for cell in run.cells.values() for cluster in cell.clusters)
      for name, cell in run.cells.items()
      if cell.clusters.get(cluster)
    ],
  }


def _by_cluster(cell: Cell, cluster: str, models: Sequence[str]) -> list[tuple[str, str]]:
  """Gold reward of each model, and the share of prompts that a similar demonstration answers."""
  found = [measure_cell("gold", cell.clusters[cluster].get(model)) for model in models]
  return [*found, measure_cell("copied", cell.copied_clusters.get(cluster))]
