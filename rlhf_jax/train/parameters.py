"""The parameters of a checkpoint, for what starts from a stage: loaded once, with the base of adapters, verified."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rlhf_jax.data.files import read_json
from rlhf_jax.models import split_lora
from rlhf_jax.stage import Stage
from rlhf_jax.train import shared_arrays, stored_arrays
from rlhf_jax.train.checkpoint_errors import CheckpointError, DamagedError
from rlhf_jax.train.chunks import Described, paths
from rlhf_jax.train.layer_forms import Part, Shape, in_form
from rlhf_jax.train.processes import together
from rlhf_jax.train.progress import console
from rlhf_jax.train.stored_arrays import stored_steps
from rlhf_jax.types import Params

# From a tree of shapes to a like tree of shardings.
Shard = Callable[[Any], Any]


def load_params(
  directory: Path,
  expected: dict[str, Any],
  step: int | None = None,
  shard: Shard | None = None,
  stacked: bool | None = None,
) -> Params:
  """The parameters of a checkpoint in `directory`, whose identity must agree with `expected`.

  step: the checkpoint's step. None takes the step that the stage's done.json names; of a stage that is not done, the
  newest that verifies. Adapters come with their base. Arrays of the checkpoint that are in memory are shared, not read
  again. shard: the function from a tree of shapes to shardings; None puts all parameters on the first device.
  stacked: the form of the layers; None for that of the checkpoint.

  Raises:
    CheckpointError: there is no such checkpoint, the identity differs, an array does not verify, or the base is not the
      base that the adapters were trained on.
  """
  directory = Path(directory).resolve()  # so that one checkpoint has one name in `shared_arrays`
  steps = stored_steps(directory)
  done = _done_record(directory.parent)
  named = done.get("step") if step is None else step
  if named is not None and named not in steps and (steps or done):
    known = f"it has {', '.join(map(str, steps))}" if steps else "it has none"
    raise CheckpointError(
      f"{directory} has no checkpoint of step {named}; {known}" + (_advice(done) if step is None else "")
    )
  if not steps:
    raise CheckpointError(f"{directory} has no checkpoint: run the stage that makes it first")
  tried = [named] if named is not None else steps[-1:] if done else steps[::-1]
  for number in tried:
    where = directory / str(number)
    digest = done.get("checkpoint") if step is None else None
    try:
      return _load_params(where, expected, shard, stacked, digest)
    except DamagedError as error:
      if number == tried[-1]:
        raise DamagedError(f"{error}{_advice(done)}") from error
      console.print(f"{error}; the checkpoint before it is read", markup=False)
  raise AssertionError("tried is not empty")


def stored_model(directory: Path) -> dict[str, Any]:
  """The model of a stage's checkpoints, as `DecoderConfig.describe` gave it; {} where there are no checkpoints.

  Raises:
    CheckpointError: the newest one is damaged.
  """
  steps = stored_steps(Path(directory).resolve())
  if not steps:
    return {}
  return together("model", lambda: stored_arrays.read_record(directory / str(steps[-1])))["identity"].get("model", {})


def _load_params(
  where: Path, expected: dict[str, Any], shard: Shard | None, stacked: bool | None, digest: str | None
) -> Params:
  def load() -> tuple[dict[str, Any], Params]:
    record = stored_arrays.read_record(where)
    if digest not in (None, record["digest"]):
      raise DamagedError(f"{where} is damaged: it is not the checkpoint that done.json records")
    check_identity({name: record["identity"].get(name) for name in expected}, expected, where)
    return record, _load(where, record["params"], shard, stacked)

  record, params = together("parameters", load)
  for part, base in record["identity"].get("base", {}).items():
    tree = params[part] if part else params
    tree |= _load_base(base, where, expected, shard, stacked)
  return params


def _done_record(stage: Path) -> dict[str, Any]:
  """The done.json of a stage's directory; {} where the stage is not done."""
  path = stage / "done.json"
  return read_json(path) if path.exists() else {}


def _advice(done: dict[str, Any]) -> str:
  if not done:
    return ". Delete the stage's directory and run again: it starts anew"
  return ". Run again, with the same --workdir: the stage is trained on from its newest checkpoint that is whole"


def _load(where: Path, described: Described, shard: Shard | None, stacked: bool | None) -> Params:
  """The arrays of one checkpoint, verified."""
  one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  wanted = stored_shapes(described, stacked)
  shapes = _nested({path: jax.ShapeDtypeStruct(part.shape, part.dtype) for path, part in wanted.items()})
  shardings = dict(paths(shard(shapes) if shard else jax.tree.map(lambda _: one, shapes)))
  found = shared_arrays.alive(where, described, shardings)
  if len(found) < len(wanted):
    stored = in_form(stored_arrays.open_tree(where, "params", described), stacked)
    found = {path: found[path] if path in found else put_stored(stored.pop(path), shardings[path]) for path in wanted}
    shared_arrays.remember(where, described, found)
  return _nested(found)


def stored_shapes(described: Described, stacked: bool | None) -> dict[str, Part]:
  """The shapes and dtypes of a tree's arrays, with layers in the form asked for.

  Raises:
    CheckpointError: there are no such layers.
  """
  try:
    return in_form({path: Shape(tuple(shape), dtype) for path, (shape, dtype, _) in described.items()}, stacked)
  except ValueError as error:
    raise CheckpointError(f"the layers of a checkpoint cannot be stacked: {error}") from error


def put_stored(stored: Part, sharding: jax.sharding.Sharding) -> jax.Array:
  """The array on its devices; a process reads the parts of its own devices."""
  if sharding.is_fully_addressable:
    return jax.device_put(stored.block(None), sharding)
  return jax.make_array_from_callback(stored.shape, sharding, stored.block)


def _load_base(base: dict, where: Path, expected: dict, shard: Shard | None, stacked: bool | None) -> Params:
  """The frozen part of a model with adapters. base: its entry in the identity of the adapters' checkpoint."""
  path = (where.parents[1] / base["checkpoint"]).resolve()
  expected = {key: expected[key] for key in expected if key != "stage"}
  params = load_params(path.parent, expected, int(path.name), shard, stacked)
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


def check_identity(found: dict, expected: dict, where: Path) -> None:
  """Raises CheckpointError where the identity of a checkpoint is not the one expected, with what differs."""
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
