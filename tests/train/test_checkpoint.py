"""Checkpoints: exact, verified, refused where they do not fit."""

import errno
import json
import shutil
import threading
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from rlhf_jax.stage import Transport
from rlhf_jax.train import checkpoint
from rlhf_jax.train.array_files import read_entries, write_arrays
from rlhf_jax.train.parameters import load_params, stored_arrays
from rlhf_jax.train.update import init_state, place

IDENTITY = {"model": {"d_model": 4}, "tokenizer": "abc", "stage": "f1"}
OPTIMIZER = optax.adam(1e-3)
equal = np.testing.assert_array_equal


def make_state(scale=1.0, step=7):
  kernel = scale * jnp.arange(32.0).reshape(8, 4)
  params = {"decoder": {"up": {"kernel": kernel}}, "head": {"bias": jnp.asarray(scale, jnp.bfloat16)}}
  state = init_state(params, OPTIMIZER, {"kl_coef": jnp.float32(0.1)})
  return state.replace(step=jnp.asarray(step, jnp.int32))


def store(directory, *steps, **settings):
  with checkpoint.open_checkpoints(directory, **settings) as checkpoints:
    for step in steps:
      checkpoint.save(checkpoints, make_state(step, step), IDENTITY)


def restored(directory, **given):
  with checkpoint.open_checkpoints(directory) as checkpoints:
    found = checkpoint.restore(checkpoints, make_state(0.0), IDENTITY, **given)
  return found and found.state


def damage(directory, step, tree="params"):
  path = directory / str(step) / tree / "0.safetensors"
  content = bytearray(path.read_bytes())
  content[-1] ^= 0xFF
  path.write_bytes(bytes(content))


def edit_record(directory, step, change):
  path = directory / str(step) / "record" / "metadata"
  record = json.loads(path.read_text())
  record.pop("digest", None)
  change(record)
  path.write_text(json.dumps(record))


@pytest.fixture
def directory(tmp_path):
  store(tmp_path / "toy" / "checkpoints", 7)
  return tmp_path / "toy" / "checkpoints"


def test_restore_is_bitwise(directory):
  jax.tree.map(equal, restored(directory), make_state(7.0))


def test_params_alone_need_no_template(directory):
  params = load_params(directory, {"tokenizer": "abc"})
  jax.tree.map(equal, params, make_state(7.0).params)


def test_nothing_yet_is_none(tmp_path):
  assert restored(tmp_path / "empty") is None
  assert checkpoint.last_checkpoint(tmp_path / "empty") is None
  assert checkpoint.last_checkpoint(tmp_path / "absent") is None
  with pytest.raises(checkpoint.CheckpointError, match="has no checkpoint"):
    load_params(tmp_path / "empty", {})
  with pytest.raises(checkpoint.CheckpointError, match="has no checkpoint"):
    load_params(tmp_path / "absent", {})


def test_what_is_saved_may_be_donated_at_once(tmp_path):
  """The copy is taken before `save` returns, although it is written later."""
  change = jax.jit(lambda x: jax.tree.map(lambda leaf: leaf + 1, x), donate_argnums=0)
  state = make_state(3.0, 7)
  with checkpoint.open_checkpoints(tmp_path) as checkpoints:
    release = threading.Event()
    checkpoints._writer.submit(release.wait)  # the writer is busy
    checkpoint.save(checkpoints, state, IDENTITY)
    change(state)
    assert stored_arrays.stored_steps(tmp_path) == []
    release.set()
  jax.tree.map(equal, restored(tmp_path), make_state(3.0, 7))


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
      load_params(directory, change)


def test_an_output_matrix_that_is_not_read_is_left_out(tmp_path):
  """0.2.0 trained one beside the value function, with its moments; a policy's own must be there."""
  policy, value = ({"decoder": {"unembedding": {"kernel": jnp.ones(3)}, "up": jnp.full(2, x)}} for x in (1.0, 2.0))
  slim = {"decoder": {"up": value["decoder"]["up"]}}
  with checkpoint.open_checkpoints(tmp_path) as checkpoints:
    checkpoint.save(checkpoints, init_state({"policy": policy, "value": value}, OPTIMIZER), IDENTITY)
    like = init_state({"policy": policy, "value": slim}, OPTIMIZER)
    jax.tree.map(equal, checkpoint.restore(checkpoints, like, IDENTITY).state, like)
  with checkpoint.open_checkpoints(tmp_path / "slim") as checkpoints:
    checkpoint.save(checkpoints, like, IDENTITY)
    with pytest.raises(checkpoint.CheckpointError, match="value/decoder/unembedding/kernel is None there"):
      checkpoint.restore(checkpoints, init_state({"policy": policy, "value": value}, OPTIMIZER), IDENTITY)


def test_another_structure_is_refused(directory):
  other = make_state().replace(extra={"moving_mean": jnp.float32(0)})
  with checkpoint.open_checkpoints(directory) as checkpoints:
    with pytest.raises(checkpoint.CheckpointError, match="extra/kl_coef is .* there and None here"):
      checkpoint.restore(checkpoints, other, IDENTITY)


def test_damage_is_refused(directory):
  checkpoint.verify_checkpoint(directory, 7)
  damage(directory, 7)
  with pytest.raises(checkpoint.CheckpointError, match="7 is damaged: .*Delete the stage's directory"):
    load_params(directory, {})
  with pytest.raises(checkpoint.CheckpointError, match="7 is damaged"):
    checkpoint.verify_checkpoint(directory, 7)
  with pytest.raises(checkpoint.CheckpointError, match="8 is missing"):
    checkpoint.verify_checkpoint(directory, 8)


@pytest.mark.parametrize(
  "change, message",
  [
    (
      lambda record: record["params"]["decoder/up/kernel"][2].update({"0:8,0:4": "00"}),
      "kernel does not have the checksum",
    ),
    (lambda record: record["params"]["decoder/up/kernel"][2].clear(), "kernel has checksums for 0 of its 32 numbers"),
    (lambda record: record["params"].pop("decoder/up/kernel"), "decoder/up/kernel is not in its record"),
    (lambda record: record["params"].update({"head/b": [[], "float32", {"": "00"}]}), "head/b is not in its files"),
    (lambda record: record.pop("rest"), "record lacks 'rest'"),
    (lambda record: record.update({"digest": "00"}), "record does not have the checksum"),
  ],
)
def test_a_record_that_disagrees_with_the_arrays_is_refused(directory, change, message):
  edit_record(directory, 7, change)
  with pytest.raises(checkpoint.CheckpointError, match=message):
    checkpoint.verify_checkpoint(directory, 7)


def test_checkpoints_of_orbax_with_one_crc_an_array_open_and_verify(directory):
  """Those of 0.2.0."""

  def old(record):
    for entry in record["params"].values():
      entry[2] = None
    record["params"]["decoder/up/kernel"][2] = zlib.crc32(
      np.asarray(make_state(7.0).params["decoder"]["up"]["kernel"]).tobytes()
    )
    del record["notes"], record["time"]

  edit_record(directory, 7, old)
  state, where = make_state(7.0), directory / "7"
  for name, tree in (
    ("params", state.params), ("rest", {"opt_state": state.opt_state, "extra": state.extra, "step": state.step})
  ):  # fmt: skip
    shutil.rmtree(where / name)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
      checkpointer.save(where / name, args=ocp.args.StandardSave(tree))
  jax.tree.map(equal, restored(directory), state)
  edit_record(directory, 7, lambda record: record["params"]["decoder/up/kernel"].__setitem__(2, 1))
  with pytest.raises(checkpoint.CheckpointError, match="kernel does not have the checksum"):
    load_params(directory, {})


def test_the_checksums_are_of_the_parts_of_devices_and_hold_for_any_mesh(tmp_path):
  with checkpoint.open_checkpoints(tmp_path) as checkpoints:
    checkpoint.save(checkpoints, place(make_state(7.0), Transport("jit", 4, 1)), IDENTITY)
  shape, dtype, chunks = stored_arrays.read_record(tmp_path / "7")["params"]["decoder/up/kernel"]
  assert (shape, dtype) == ([8, 4], "float32") and sorted(chunks) == ["0:2,0:4", "2:4,0:4", "4:6,0:4", "6:8,0:4"]
  for fsdp in (1, 2, 8):
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
      like = place(make_state(0.0), Transport("jit", fsdp, 1))
      found = checkpoint.restore(checkpoints, like, IDENTITY).state
    jax.tree.map(equal, found, make_state(7.0))
    assert found.params["decoder"]["up"]["kernel"].sharding == like.params["decoder"]["up"]["kernel"].sharding


def test_every_part_of_an_array_must_be_there_once(tmp_path):
  with checkpoint.open_checkpoints(tmp_path) as checkpoints:
    checkpoint.save(checkpoints, place(make_state(7.0), Transport("jit", 4, 1)), IDENTITY)
  first, second = (tmp_path / "7" / "params" / f"{process}.safetensors" for process in (0, 1))
  chunks = {name: entry.read() for name, entry in read_entries(first).items()}
  part = "decoder/up/kernel[2:4,0:4]"
  assert {*chunks} == {f"decoder/up/kernel[{rows},0:4]" for rows in ("0:2", "2:4", "4:6", "6:8")} | {"head/bias"}
  write_arrays(first, {name: x for name, x in chunks.items() if name != part})
  with pytest.raises(checkpoint.CheckpointError, match=r"kernel\[2:4,0:4\] is not in its files"):
    checkpoint.verify_checkpoint(tmp_path, 7)
  write_arrays(second, {part: chunks[part]})  # as another process would have written it
  jax.tree.map(equal, restored(tmp_path), make_state(7.0))
  write_arrays(second, {part: chunks[part][:1]})
  with pytest.raises(checkpoint.CheckpointError, match=r"kernel\[2:4,0:4\] is float32.1, 4., not float32.2, 4."):
    checkpoint.verify_checkpoint(tmp_path, 7)


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(directory, capsys):
  store(directory, 8, 9, keep=9)
  damage(directory, 9, "rest")
  damage(directory, 8)
  jax.tree.map(equal, restored(directory), make_state(7.0))
  told = capsys.readouterr().out
  assert "9 is damaged" in told and "8 is damaged" in told and "goes on from" in told
  assert sorted(path.name for path in directory.iterdir()) == ["7", "8.damaged", "9.damaged"]
  store(directory, 8, keep=9)  # the way is free
  jax.tree.map(equal, restored(directory), make_state(8.0, 8))
  with pytest.raises(checkpoint.CheckpointError, match="9"):
    restored(directory, step=9)


def test_a_step_is_saved_again_where_its_checkpoint_is_damaged(directory):
  damage(directory, 7)
  store(directory, 7)
  jax.tree.map(equal, restored(directory), make_state(7.0))


def test_no_checkpoint_that_is_whole_is_a_new_start(directory, capsys):
  (directory / "7" / "record" / "metadata").write_text('{"ident')
  assert checkpoint.last_checkpoint(directory) is None
  assert restored(directory) is None
  assert "training starts anew" in capsys.readouterr().out


def test_done_names_the_checkpoint_that_is_loaded(directory):
  """Another one is never taken in its place."""
  store(directory, 8, 9, keep=9)
  step, digest = checkpoint.last_checkpoint(directory)
  assert step == 9 and digest == checkpoint.verify_checkpoint(directory, 9)
  (directory.parent / "done.json").write_text(
    json.dumps({"step": 8, "checkpoint": checkpoint.verify_checkpoint(directory, 8)})
  )
  equal(load_params(directory, {})["head"]["bias"], 8.0)
  equal(load_params(directory, {}, 9)["head"]["bias"], 9.0)
  (directory.parent / "done.json").write_text(json.dumps({"step": 8, "checkpoint": digest}))
  with pytest.raises(checkpoint.CheckpointError, match="not the checkpoint that done.json records. Run again"):
    load_params(directory, {})
  (directory.parent / "done.json").write_text(json.dumps({"step": 10, "checkpoint": digest}))
  with pytest.raises(checkpoint.CheckpointError, match="no checkpoint of step 10; it has 7, 8, 9. Run again"):
    load_params(directory, {})


def test_the_last_checkpoint_of_a_finished_stage_is_the_only_one_that_will_do(directory, capsys):
  """Of a stage that is not finished, the newest that verifies."""
  store(directory, 8)
  damage(directory, 8)
  equal(load_params(directory, {})["head"]["bias"], 7.0)
  assert "8 is damaged" in capsys.readouterr().out
  (directory.parent / "done.json").write_text(json.dumps({"fingerprint": "of 0.2.0"}))
  with pytest.raises(checkpoint.CheckpointError, match="8 is damaged: .* Run again"):
    load_params(directory, {})


def test_what_a_killed_process_was_writing_is_removed(directory):
  (directory / "8.partial" / "params").mkdir(parents=True)
  assert stored_arrays.stored_steps(directory) == [7]
  jax.tree.map(equal, restored(directory), make_state(7.0))
  assert [path.name for path in directory.iterdir()] == ["7"]


def test_the_newest_are_kept_and_one_in_so_many_minutes(tmp_path):
  store(tmp_path / "a", 1, 2, 3, 4, keep=2)
  assert stored_arrays.stored_steps(tmp_path / "a") == [3, 4]
  times = {step: 60.0 * minute for step, minute in zip((2, 4, 6, 8, 10, 12), (0, 4, 11, 15, 22, 23), strict=True)}
  assert checkpoint.kept([*times], 1, times, 10) == {2, 6, 10, 12}
  assert checkpoint.kept([*times], 1, times, 0) == {12}
  store(tmp_path / "b", 1, 2, 3, keep=1, keep_minutes=1e-9)
  assert stored_arrays.stored_steps(tmp_path / "b") == [1, 2, 3]


def test_a_full_disk_is_one_line_at_the_next_save(directory, monkeypatch):
  def full(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")

  with pytest.raises(checkpoint.CheckpointError) as raised:
    with checkpoint.open_checkpoints(directory) as checkpoints:
      with monkeypatch.context() as patch:
        patch.setattr(stored_arrays, "write", full)
        checkpoint.save(checkpoints, make_state(1.0, 8), IDENTITY)
        checkpoints._writer.submit(lambda: None).result()
      checkpoint.save(checkpoints, make_state(1.0, 9), IDENTITY)
  assert str(raised.value) == (
    f"stage toy: the checkpoint of step 8 could not be written to {directory}: the disk is full. Make room there and "
    "run again: it goes on from step 7"
  )
  assert stored_arrays.stored_steps(directory) == [7]


def test_a_failed_save_does_not_hide_the_error_that_ends_the_stage(directory, monkeypatch, capsys):
  monkeypatch.setattr(stored_arrays, "write", lambda *arguments: 1 / 0)
  with pytest.raises(KeyError):
    with checkpoint.open_checkpoints(directory) as checkpoints:
      checkpoint.save(checkpoints, make_state(1.0, 8), IDENTITY)
      raise KeyError
  assert "step 8 could not be written" in capsys.readouterr().out
