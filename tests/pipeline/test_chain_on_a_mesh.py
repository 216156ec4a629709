"""The whole chain on eight devices that cut parameters and layers' matrices: the numbers of pure data parallelism.

Stage by stage equality is in tests/train/test_equality.py; here the stages read what those before have written, under
the mesh: checkpoints, samples, scores.
"""

import json

import jax
import numpy as np
import pytest
from tiny_chain import STAGES, run

LEARNERS = ("pretrain", "sft", "reward_model", "ppo")
MESH = ("--config.transport.fsdp=2", "--config.transport.tensor=2", "--config.transport.microbatches=2")


def metrics(directory, stage):
  return [json.loads(line) for line in (directory / stage / "metrics.jsonl").read_text().splitlines()]


def rows(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.usefixtures("unoptimised")
def test_the_chain_on_fsdp_and_tensor(tiny, chain, tmp_path):
  if jax.device_count() != 8:
    pytest.skip("needs eight devices")
  mesh = tmp_path / "mesh"
  assert run(tiny, mesh, *MESH) == 0
  for stage in STAGES:
    assert (mesh / stage / "done.json").exists(), stage
  for stage in LEARNERS:
    found, expected = metrics(mesh, stage), metrics(chain, stage)
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for name in ("loss", "grad_norm"):
      values, others = ([row[name] for row in side if name in row] for side in (found, expected))
      # Rounding differs, and Adam makes it visible: the first step to rounding, those that follow nearly so.
      np.testing.assert_allclose(values[0], others[0], rtol=1e-4, err_msg=f"{stage}/{name}")
      np.testing.assert_allclose(values, others, rtol=2e-2, atol=2e-3, err_msg=f"{stage}/{name}")
  comparisons, others = (rows(side / "preferences" / "comparisons.jsonl") for side in (mesh, chain))
  assert len(comparisons) == len(others)
  assert np.mean([a == b for a, b in zip(comparisons, others, strict=True)]) > 0.9
  evaluation, expected = (json.loads((side / "evaluation" / "evaluation.json").read_text()) for side in (mesh, chain))
  assert evaluation.keys() == expected.keys() and evaluation["models"].keys() == expected["models"].keys()
