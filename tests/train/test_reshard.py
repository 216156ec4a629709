"""A state with all arrays of the recipes for 8B, at a small width, is saved on one mesh and restored on any other."""

import functools
import itertools

import jax
import pytest
from checkpoint_jobs import read_state, write_state

from rlhf_jax.train.mesh import using_devices

pytestmark = pytest.mark.skipif(jax.device_count() != 8, reason="needs eight devices")

MESHES = {
  "one device": (1, {}),
  "fsdp 8": (8, dict(fsdp=8)),
  "fsdp 4, tensor 2": (8, dict(fsdp=4, tensor=2)),
  "data 2, fsdp 2, tensor 2": (8, dict(data=2, fsdp=2, tensor=2)),
}
QUICK = [("one device", "data 2, fsdp 2, tensor 2"), ("fsdp 4, tensor 2", "one device"), ("fsdp 8", "fsdp 4, tensor 2")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """saved(name of a mesh) -> the directory of checkpoints that were saved on it."""

  @functools.cache
  def save(name):
    directory = tmp_path_factory.mktemp("saved")
    count, sizes = MESHES[name]
    with using_devices(jax.devices()[:count]):
      write_state(directory, **sizes)
    return directory

  return save


@pytest.mark.parametrize(
  "written, read",
  [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow) for pair in itertools.permutations(MESHES, 2)],
)
def test_a_checkpoint_of_any_mesh_opens_on_any_other(saved, written, read):
  """The same numbers, each array in the place that it has there; two processes do so in test_processes.py."""
  count, sizes = MESHES[read]
  with using_devices(jax.devices()[:count]):
    read_state(saved(written), **sizes)
