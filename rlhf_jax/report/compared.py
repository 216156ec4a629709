"""The part of the report on files of comparisons, which `rlhf_jax.stages.comparison_accuracy` scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_jax.report.read_run import Run, mapping, read_interval
from rlhf_jax.report.sections import measure_cell
from rlhf_jax.report.words import visible

MEASURES = {  # measure -> its row
  "accuracy": "all",
  "mean": "mean of the sections or subsets",
  "easy": "easy: the chosen one has the fancier style",
  "normal": "normal: both have one style",
  "hard": "hard: the rejected one has the fancier style",
  "ties": "equal scores",
}


def compared(run: Run) -> list[dict[str, Any]]:
  """For each file of comparisons of each stage {"title", "note", "models", "parts"}.

  parts: groups of rows (label, cell of each model): the whole file, the sections of a benchmark, the subsets.
  """
  found = []
  for stage, result in run.comparisons.items():
    for name, given in mapping(result.get("sets")).items():
      models = {str(model): mapping(measures) for model, measures in mapping(mapping(given).get("models")).items()}
      by_section, by_subset = (
        {model: mapping(measures.get(key)) for model, measures in models.items()} for key in ("sections", "subsets")
      )
      accuracies = {
        model: {part: mapping(measures).get("accuracy") for part, measures in parts.items()}
        for model, parts in by_subset.items()
      }
      whole = [(label, measure) for measure, label in MEASURES.items()]
      parts = [_rows(models, whole), _rows(by_section), _rows(accuracies)]
      if parts[0]:
        title = f"{stage}: {visible(str(name))}"
        shown = {"models": [visible(model) for model in models], "parts": [rows for rows in parts if rows]}
        found.append({"title": title, "note": _note(mapping(given)), **shown})
  return found


def _rows(
  models: Mapping[str, Mapping[str, Any]], keys: Sequence[tuple[str, str]] = ()
) -> list[tuple[str, list[tuple[str, str]]]]:
  """A row of cells, one for each model, for each (label, key) that any of them has; by default for all keys."""
  known = keys or [(visible(str(key)), key) for key in dict.fromkeys(key for found in models.values() for key in found)]
  read = [(label, [read_interval(found.get(key)) for found in models.values()]) for label, key in known]
  return [(label, [measure_cell("accuracy", x) for x in values]) for label, values in read if any(values)]


def _note(given: Mapping[str, Any]) -> str:
  reasons = ", ".join(f"{count} {visible(str(reason))}" for reason, count in mapping(given.get("left_out")).items())
  return f"{given.get('comparisons', '–')} comparisons" + (f"; left out: {reasons}" if reasons else "")
