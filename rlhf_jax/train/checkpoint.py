"""Checkpoints: written atomically by orbax, verified when read, refused where they do not fit.

One checkpoint holds the whole `TrainState`, its identity (model, tokenizer and stage) and a checksum of every array: a
checkpoint of another model or tokenizer, or a damaged one, is never half-loaded. The checkpoint of a model with
adapters holds the adapters alone, and its identity names the base they belong to.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from rlhf_jax.models import split_lora
from rlhf_jax.stage import Stage
from rlhf_jax.train import shared_arrays
from rlhf_jax.types import Params, TrainState

# From a tree of shapes to a like tree of shardings.
Shard = Callable[[Any], Any]


class CheckpointError(ValueError):
  """A checkpoint is absent, damaged, or of another model, tokenizer or stage; the message says what to do."""


def open_checkpoints(directory: Path, keep: int = 2) -> ocp.CheckpointManager:
  """A manager of the checkpoints in `directory` that keeps the latest `keep`."""
  options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=False)
  return ocp.CheckpointManager(Path(directory).absolute(), options=options)


def save(checkpoints: ocp.CheckpointManager, state: TrainState, identity: dict[str, Any]) -> None:
  """Writes `state` under its step; does nothing where that step has a checkpoint already."""
  step = int(state.step)
  if step in checkpoints.all_steps():
    return
  rest = {"opt_state": state.opt_state, "extra": state.extra, "step": state.step}
  record = {"identity": identity, "params": _describe(state.params), "rest": _describe(rest)}
  checkpoints.save(
    step,
    args=ocp.args.Composite(
      params=ocp.args.StandardSave(state.params),
      rest=ocp.args.StandardSave(rest),
      record=ocp.args.JsonSave(record),
    ),
  )
  checkpoints.wait_until_finished()


def restore(checkpoints: ocp.CheckpointManager, like: TrainState, identity: dict[str, Any]) -> TrainState | None:
  """The latest state, with the structure and sharding of `like`; None where there is no checkpoint yet.

  Raises:
    CheckpointError: the identity or a shape differs, or an array does not verify.
  """
  step = checkpoints.latest_step()
  if step is None:
    return None
  where = Path(checkpoints.directory) / str(step)
  record = _read_record(checkpoints, step, where)
  _check_identity(record["identity"], identity, where)
  rest = {"opt_state": like.opt_state, "extra": like.extra, "step": like.step}
  for name, tree in (("params", like.params), ("rest", rest)):
    _check_shapes(record[name], tree, where)
  loaded = _restore(checkpoints, step, where, params=_abstract(like.params), rest=_abstract(rest))
  _verify(loaded["params"], record["params"], where)
  _verify(loaded["rest"], record["rest"], where)
  return TrainState(params=loaded["params"], **loaded["rest"])


def load_params(
  directory: Path, expected: dict[str, Any], step: int | None = None, shard: Shard | None = None
) -> Params:
  """The parameters of a checkpoint in `directory`, whose identity must agree with `expected`.

  step: the checkpoint's step; None takes the latest. Adapters come with their base. Arrays of the checkpoint that are
  in memory are shared, not read again. shard: the function from a tree of shapes to shardings; None puts all parameters
  on the first device.

  Raises:
    CheckpointError: there is no such checkpoint, the identity differs, an array does not verify, or the base is not the
      base that the adapters were trained on.
  """
  directory = Path(directory).resolve()  # so that one checkpoint has one name in `shared_arrays`
  if not directory.is_dir():
    raise CheckpointError(f"{directory} has no checkpoint: run the stage that makes it first")
  with ocp.CheckpointManager(directory) as checkpoints:
    steps = sorted(checkpoints.all_steps())
    if not steps:
      raise CheckpointError(f"{directory} has no checkpoint: run the stage that makes it first")
    if step is None:
      step = steps[-1]
    elif step not in steps:
      raise CheckpointError(f"{directory} has no checkpoint of step {step}; it has {', '.join(map(str, steps))}")
    where = directory / str(step)
    record = _read_record(checkpoints, step, where)
    _check_identity({name: record["identity"].get(name) for name in expected}, expected, where)
    params = _load(checkpoints, step, where, record["params"], shard)
  for part, base in record["identity"].get("base", {}).items():
    tree = params[part] if part else params
    tree |= _load_base(base, where, expected, shard)
  return params


def _load(checkpoints, step, where, described, shard) -> Params:
  """The arrays of one checkpoint, verified."""
  one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  shapes = _nested({path: jax.ShapeDtypeStruct(tuple(shape), dtype) for path, (shape, dtype, _) in described.items()})
  shardings = shard(shapes) if shard else jax.tree.map(lambda _: one, shapes)
  found = shared_arrays.alive(where, described, dict(_paths(shardings)))
  if len(found) < len(described):
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    read = _restore(checkpoints, step, where, params=abstract)["params"]
    _verify(read, described, where)
    found = {**dict(_paths(read)), **found}
    shared_arrays.remember(where, described, found)
  return _nested(found)


def _load_base(base: dict, where: Path, expected: dict, shard: Shard | None) -> Params:
  """The frozen part of a model with adapters. base: its entry in the identity of the adapters' checkpoint."""
  path = (where.parents[1] / base["checkpoint"]).resolve()
  params = load_params(path.parent, {key: expected[key] for key in expected if key != "stage"}, int(path.name), shard)
  decoder = (params[base["part"]] if base["part"] else params)["decoder"]
  found = shared_arrays.origin(decoder).digest
  if found != base["digest"]:
    raise CheckpointError(
      f"{where} belongs to another base: its adapters were trained on {base['digest']}, but {path} is {found} now. "
      "Restore that checkpoint, or train the adapters anew"
    )
  return {"decoder": decoder, "lora_scale": jnp.asarray(base["scale"], jnp.float32)}


def base_identity(params: Params, stage: Stage) -> dict[str, Any]:
  """{"base": {name of the model: its frozen part}} for parameters with adapters; {} for parameters without.

  A base of the same run is named relative to the stage's directory, so that a run may be moved.
  """
  _, frozen = split_lora(params)
  found = {}
  for name, model in ({"": frozen} if "decoder" in frozen else frozen).items():
    checkpoint, part, digest = shared_arrays.origin(model["decoder"])
    inside = checkpoint.is_relative_to(stage.root.resolve())
    text = os.path.relpath(checkpoint, stage.directory.resolve()) if inside else str(checkpoint)
    found[name] = {"checkpoint": text, "part": part, "digest": digest, "scale": float(model["lora_scale"])}
  return {"base": found} if found else {}


def _nested(leaves: dict[str, Any]) -> dict:
  tree: dict = {}
  for path, leaf in leaves.items():
    node = tree
    *parents, last = path.split("/")
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = leaf
  return tree


def _paths(tree: Any) -> list[tuple[str, Any]]:
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _describe(tree: Any) -> dict[str, list]:
  """{path: [shape, dtype, crc32 of the bytes (None for an array that is spread over processes)]}."""
  return {path: [list(x.shape), str(x.dtype), _checksum(x)] for path, x in _paths(tree)}


def _checksum(x: jax.Array) -> int | None:
  return zlib.crc32(np.ascontiguousarray(x).tobytes()) if x.is_fully_addressable else None


def _abstract(tree: Any) -> Any:
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def _read_record(checkpoints, step, where) -> dict:
  try:
    return checkpoints.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
  except Exception as error:
    raise CheckpointError(f"{where} is not a whole checkpoint of rlhf_jax: {error}") from error


def _restore(checkpoints, step, where, **items):
  args = {name: ocp.args.StandardRestore(tree) for name, tree in items.items()}
  try:
    return checkpoints.restore(step, args=ocp.args.Composite(**args))
  except Exception as error:
    raise CheckpointError(f"{where} is damaged: {error}. Delete it to go on from the checkpoint before") from error


def _check_identity(found: dict, expected: dict, where: Path) -> None:
  if "stage" in expected and found.get("stage") != expected["stage"]:
    raise CheckpointError(f"{where} was made with another config: use another --workdir, or delete {where.parents[1]}")
  for name, value in expected.items():
    if found.get(name) == value:
      continue
    if isinstance(value, dict):
      differs = sorted(k for k in {*value, *(found.get(name) or {})} if (found.get(name) or {}).get(k) != value.get(k))
      detail = ", ".join(f"{k}={(found.get(name) or {}).get(k)!r} there, {value.get(k)!r} here" for k in differs)
    else:
      detail = f"{found.get(name)!r} there, {value!r} here"
    raise CheckpointError(f"{where} belongs to another {name}: {detail}")


def _check_shapes(described: dict, like: Any, where: Path) -> None:
  here = {path: [list(x.shape), str(x.dtype)] for path, x in _paths(like)}
  there = {path: entry[:2] for path, entry in described.items()}
  for path in sorted({*here, *there}):
    if here.get(path) != there.get(path):
      raise CheckpointError(f"{where}: {path} is {there.get(path)} there and {here.get(path)} here")


def _verify(tree: Any, described: dict, where: Path) -> None:
  for path, x in _paths(tree):
    if described[path][2] is not None and _checksum(x) != described[path][2]:
      raise CheckpointError(f"{where}: {path} does not have the checksum it was saved with. Delete {where}")
