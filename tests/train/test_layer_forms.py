"""A checkpoint's arrays in the other form of the layers: the numbers and the paths of `stack_layers`."""

import dataclasses

import jax
import numpy as np
import pytest

from rlhf_jax.models import DecoderConfig, add_lora, language_model, stack_layers, unstack_layers
from rlhf_jax.train import Optimizer, checkpoint
from rlhf_jax.train.chunks import paths
from rlhf_jax.train.layer_forms import in_form
from rlhf_jax.train.optimizer import make_optimizer
from rlhf_jax.train.parameters import load_params
from rlhf_jax.train.update import detach, init_state


@dataclasses.dataclass
class Stored:
  """An array, and what was read of it."""

  array: np.ndarray
  read: list = dataclasses.field(default_factory=list)

  @property
  def shape(self):
    return self.array.shape

  @property
  def dtype(self):
    return str(self.array.dtype)

  def block(self, index):
    self.read.append(index)
    return self.array if index is None else self.array[index]


SETTINGS = Optimizer(1e-2, 0.0, "constant", 0.9, 0.99, 1e-8, False, 0.1, 1.0)
UNROLLED = {"policy": language_model(DecoderConfig(13, 11, 16, 2, 2, 24, 8)).init(jax.random.key(0))}  # 10 after 9


def stored(tree):
  return {path: Stored(np.asarray(x)) for path, x in paths(tree)}


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("written", [False, True])
def test_either_form_is_read_as_either(written, stacked):
  expected = dict(paths(stack_layers(UNROLLED) if stacked else UNROLLED))
  found = in_form(stored(stack_layers(UNROLLED) if written else UNROLLED), stacked=stacked)
  assert set(found) == set(expected)
  for path, x in expected.items():
    assert (found[path].shape, found[path].dtype) == (x.shape, str(x.dtype))
    np.testing.assert_array_equal(found[path].block(None), x, err_msg=path)
    index = tuple(slice(0, 1 + size // 2) for size in x.shape)
    np.testing.assert_array_equal(found[path].block(index), np.asarray(x)[index], err_msg=path)


def test_a_part_of_a_stack_reads_no_other_layer():
  files = stored({f"layers_{i}": {"norm": {"scale": np.full(3, i)}} for i in range(4)})
  block = in_form(files, stacked=True)["layers/norm/scale"].block((slice(1, 3), slice(0, 2)))
  np.testing.assert_array_equal(block, [[1, 1], [2, 2]])
  assert [len(files[f"layers_{i}/norm/scale"].read) for i in range(4)] == [0, 1, 1, 0]


def test_a_missing_layer_is_named():
  files = stored({f"layers_{i}": {"scale": np.zeros(3)} for i in (0, 2)})
  with pytest.raises(ValueError, match=r"layers/scale: layers \[0, 2\] are not whole"):
    in_form(files, stacked=True)


@pytest.mark.parametrize("adapters", [False, True])
def test_training_goes_on_in_the_other_form(tmp_path, adapters):
  """Parameters, and the moments of the optimiser, whose paths end alike."""
  optimizer = make_optimizer(SETTINGS, 10)

  def state(tree):
    params = add_lora(jax.random.key(1), tree["policy"], rank=2, alpha=4.0) if adapters else tree["policy"]
    found = detach(init_state({"policy": params}, optimizer))[0]
    return found.replace(opt_state=jax.tree.map(lambda x: x + 1, found.opt_state))

  for number, (here, there) in enumerate([(UNROLLED, stack_layers(UNROLLED)), (stack_layers(UNROLLED), UNROLLED)]):
    with checkpoint.open_checkpoints(tmp_path / str(number)) as checkpoints:
      checkpoint.save(checkpoints, state(here), {})
      checkpoints.wait()
      restored = checkpoint.restore(checkpoints, state(there), {}).state
    jax.tree.map(np.testing.assert_array_equal, restored, state(there))


@pytest.mark.parametrize("change", [stack_layers, unstack_layers])
def test_parameters_are_loaded_in_the_form_asked_for(tmp_path, change):
  with checkpoint.open_checkpoints(tmp_path) as checkpoints:
    checkpoint.save(checkpoints, init_state(change(UNROLLED), make_optimizer(SETTINGS, 1)), {})
  unrolled, stacked = (load_params(tmp_path, {}, stacked=form) for form in (False, True))
  jax.tree.map(np.testing.assert_array_equal, unrolled, UNROLLED)
  jax.tree.map(np.testing.assert_array_equal, stacked, stack_layers(UNROLLED))
  again = load_params(tmp_path, {}, stacked=True)
  assert all(x is y for x, y in zip(jax.tree.leaves(stacked), jax.tree.leaves(again), strict=True)), "shared in memory"
  assert jax.tree.structure(load_params(tmp_path, {})) == jax.tree.structure(change(UNROLLED))
