"""Checkpoints: exact, verified, refused where they do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlhf_jax.train import checkpoint
from rlhf_jax.train.update import init_state

IDENTITY = {"model": {"d_model": 4}, "tokenizer": "abc", "stage": "f1"}
OPTIMIZER = optax.adam(1e-3)


def make_state(scale=1.0):
  params = {"decoder": {"kernel": scale * jnp.arange(12.0).reshape(3, 4)}, "head": {"bias": jnp.float32(scale)}}
  state = init_state(params, OPTIMIZER, {"kl_coef": jnp.float32(0.1)})
  return state.replace(step=jnp.asarray(7, jnp.int32))


@pytest.fixture
def directory(tmp_path):
  with checkpoint.open_checkpoints(tmp_path / "checkpoints") as checkpoints:
    checkpoint.save(checkpoints, make_state(), IDENTITY)
  return tmp_path / "checkpoints"


def test_restore_is_bitwise(directory):
  with checkpoint.open_checkpoints(directory) as checkpoints:
    state = checkpoint.restore(checkpoints, make_state(0.0), IDENTITY)
  jax.tree.map(np.testing.assert_array_equal, state, make_state())


def test_params_alone_need_no_template(directory):
  params = checkpoint.load_params(directory, {"tokenizer": "abc"})
  jax.tree.map(np.testing.assert_array_equal, params, make_state().params)


def test_nothing_yet_is_none(tmp_path):
  with checkpoint.open_checkpoints(tmp_path / "empty") as checkpoints:
    assert checkpoint.restore(checkpoints, make_state(), IDENTITY) is None
  with pytest.raises(checkpoint.CheckpointError, match="has no checkpoint"):
    checkpoint.load_params(tmp_path / "empty", {})
  with pytest.raises(checkpoint.CheckpointError, match="has no checkpoint"):
    checkpoint.load_params(tmp_path / "absent", {})


@pytest.mark.parametrize(
  "change, message",
  [
    ({"tokenizer": "xyz"}, "another tokenizer: 'abc' there, 'xyz' here"),
    ({"model": {"d_model": 8}}, "another model: d_model=4 there, 8 here"),
    ({"stage": "f2"}, "made with another config"),
  ],
)
def test_another_identity_is_refused(directory, change, message):
  with checkpoint.open_checkpoints(directory) as checkpoints:
    with pytest.raises(checkpoint.CheckpointError, match=message):
      checkpoint.restore(checkpoints, make_state(), {**IDENTITY, **change})
  if "stage" not in change:
    with pytest.raises(checkpoint.CheckpointError, match=message):
      checkpoint.load_params(directory, change)


def test_another_structure_is_refused(directory):
  other = make_state().replace(extra={"moving_mean": jnp.float32(0)})
  with checkpoint.open_checkpoints(directory) as checkpoints:
    with pytest.raises(checkpoint.CheckpointError, match="extra/kl_coef is .* there and None here"):
      checkpoint.restore(checkpoints, other, IDENTITY)


def test_damage_is_refused(directory):
  victims = [p for p in (directory / "7" / "params").rglob("*") if p.is_file() and p.parent.name == "d"]
  assert victims
  for path in victims:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
  with pytest.raises(checkpoint.CheckpointError, match="damaged|checksum"):
    checkpoint.load_params(directory, {})


def test_a_record_that_disagrees_with_the_arrays_is_refused(directory):
  record = directory / "7" / "record" / "metadata"
  text = record.read_text()
  original = make_state().params["decoder"]["kernel"]
  crc = str(checkpoint._checksum(original))
  assert crc in text
  record.write_text(text.replace(crc, "1"))
  with pytest.raises(checkpoint.CheckpointError, match="decoder/kernel does not have the checksum"):
    checkpoint.load_params(directory, {})
