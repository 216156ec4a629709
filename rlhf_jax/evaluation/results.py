"""Result files of stages, each with a record of the software and hardware that made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf_jax import data
from rlhf_jax.stage import Stage
from rlhf_jax.train.provenance import provenance


def write_results(stage: Stage, name: str, results: Mapping[str, Any]) -> None:
  """Writes results as JSON to the file `name` of the stage's directory, all or nothing.

  The file gets one more entry, "environment": the software and hardware (see `rlhf_jax.train.provenance`).

  Raises:
    ValueError: the results have an entry "environment" already.
  """
  if "environment" in results:
    raise ValueError(f"{stage.name}: 'environment' in {name} is reserved for the record of software and hardware")
  data.write_json(stage.directory / name, {**results, "environment": provenance()})
