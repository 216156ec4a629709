"""Parameters from the tensors of a published model, read tensor by tensor into the arrays of a mesh.

Reading never holds more than one tensor beside the arrays themselves: slices are read from the file as the devices
ask for them, and are not mapped, since mapped pages count as memory too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rlhf_jax.models.config import DecoderConfig, UnsupportedModelError
from rlhf_jax.models.hub.families import FAMILIES
from rlhf_jax.models.hub.family import Family
from rlhf_jax.models.hub.safetensors_file import OLD_BUFFER
from rlhf_jax.models.hub.tensor_places import Index, Place, Tensors, file_shape, leaf_paths, locate, read_leaf
from rlhf_jax.models.language_model import language_model
from rlhf_jax.types import Params

# TRL's AutoModelForCausalLMWithValueHead: a matrix [1, d] and a bias [1] on the last hidden state, as in our head.
_VALUE_HEAD, _VALUE_BIAS = "v_head.summary.weight", "v_head.summary.bias"


def load_weights(
  tensors: Tensors, config: DecoderConfig, *, where: str, shard: Callable[[Any], Any] | None = None, bias: float = 0.0
) -> Params:
  """The parameters in float32, each shard read from the files as its device asks for it.

  Args:
    where: the name of the model for messages.
    shard: a function from a tree of shapes to a like tree of shardings; by default all is on the first device.
    bias: the bias of the head, where the files hold that of a sequence classifier: it has no tensor there.

  Returns:
    {"decoder": ...}, and a "head" for a sequence classifier, and for a language model with TRL's value head. The
    decoder of a classifier with an output matrix of its own lacks it, as the file does.

  Raises:
    UnsupportedModelError: a tensor is missing, has another shape, or has no place in the model.
  """
  family = FAMILIES[config.family]
  shapes = _check_shapes(tensors, config, where)
  one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  shardings = shard(shapes) if shard else jax.tree.map(lambda _: one, shapes)

  def load(path: Any, leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.Array:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if name == "head/bias":
      stored = tensors.read(_VALUE_BIAS, (slice(0, 1),))[0] if _VALUE_BIAS in tensors.shapes else bias
      return jax.device_put(np.float32(stored), sharding)
    place = _locate(family, name, tensors)

    def part(index: Index) -> np.ndarray:
      return np.ascontiguousarray(read_leaf(tensors, place, leaf.shape, config.num_heads, index), np.float32)

    # jax's annotation of the callback admits None as an index, which it never passes.
    array = jax.make_array_from_callback(leaf.shape, sharding, part)  # type: ignore[arg-type]  # see above
    return array.block_until_ready()

  return jax.tree_util.tree_map_with_path(load, shapes, shardings)


def _check_shapes(tensors: Tensors, config: DecoderConfig, where: str) -> Params:
  """The shapes of the parameters, after a check that the files hold these and no others."""
  family = FAMILIES[config.family]
  model = language_model(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  unembedding = locate(family, "decoder/unembedding/kernel").name
  is_classifier = "score.weight" in tensors.shapes
  if is_classifier or _VALUE_HEAD in tensors.shapes:
    shapes = jax.eval_shape(model.init_head, jax.random.key(0), shapes)
  if is_classifier and tensors.shapes["score.weight"][:1] != (1,):
    labels = tensors.shapes["score.weight"][0]
    raise UnsupportedModelError(f"{where} is a classifier of {labels} labels; a reward model has one")
  if is_classifier and unembedding not in tensors.shapes:
    shapes["decoder"].pop("unembedding", None)
  known = {_VALUE_BIAS} if tensors.shapes.get(_VALUE_BIAS) == (1,) and not is_classifier else set()
  for name, leaf in leaf_paths(shapes):
    if name == "head/bias":
      continue
    place = _locate(family, name, tensors)
    known.add(place.name)
    if place.name not in tensors.shapes:
      raise UnsupportedModelError(f"{where} has no tensor {place.name!r}")
    found, wanted = tensors.shapes[place.name], file_shape(place.layout, place.parts, leaf.shape)
    if found != wanted:
      raise UnsupportedModelError(f"{where}: {place.name} is {found}, the config asks for {wanted}")
  embedding = _locate(family, "decoder/embedding/embedding", tensors).name
  for name in sorted(set(tensors.shapes) - known):
    if OLD_BUFFER.search(name):
      continue
    if name == unembedding and _equal(tensors, name, embedding):
      continue  # a tied embedding that was written twice
    advice = ": merge the adapters first, with merge_and_unload() of PEFT" if ".lora_" in name else ""
    raise UnsupportedModelError(
      f"{where}: the tensor {name!r} has no place in a {config.family} of this config{advice}"
    )
  return shapes


def _locate(family: Family, leaf: str, tensors: Tensors) -> Place:
  """The place of a parameter in these files, which may leave out the family's optional prefix of names."""
  place = locate(family, leaf)
  if leaf == "head/kernel" and place.name not in tensors.shapes:
    return place._replace(name=_VALUE_HEAD)
  bare = place.name.removeprefix(family.optional_prefix)
  return place if place.name in tensors.shapes or bare not in tensors.shapes else place._replace(name=bare)


def _equal(tensors: Tensors, name: str, other: str) -> bool:
  if tensors.shapes[name] != tensors.shapes[other]:
    return False
  rows = range(0, tensors.shapes[name][0], 4096)
  cuts = ((slice(row, row + 4096), slice(None)) for row in rows)
  return all(np.array_equal(tensors.read(name, cut), tensors.read(other, cut)) for cut in cuts)
