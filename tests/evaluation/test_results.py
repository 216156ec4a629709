"""Result files say what made them."""

import json
import math

import pytest

from rlhf_jax.evaluation.results import write_results
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.train.provenance import provenance


def test_results_are_written_with_the_environment(tmp_path):
  stage = Stage("x", tmp_path, 0, "", Model(1, 8, 1, 1, 8, 8), Transport("jit", 1, 1))
  write_results(stage, "results.json", {"a": {"mean": 1.0, "high": math.inf}})
  found = json.loads((tmp_path / "x" / "results.json").read_text())
  assert found == {"a": {"mean": 1.0, "high": math.inf}, "environment": provenance()}
  assert [path.name for path in (tmp_path / "x").iterdir()] == ["results.json"]
  with pytest.raises(ValueError, match="x: 'environment' in results.json is reserved"):
    write_results(stage, "results.json", {"environment": 3})
