"""Weights of published checkpoints, read tensor by tensor into the arrays of a mesh.

Names and layouts differ by family; the map from a leaf of our tree to its place in a file is here, and is used in both
directions. Reading never holds more than one tensor beside the arrays themselves: slices are read from the file as
the devices ask for them, and are not mapped, since mapped pages count as memory too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import ml_dtypes
import numpy as np

from rlhf_jax.models.config import DecoderConfig, UnsupportedModelError
from rlhf_jax.models.language_model import language_model
from rlhf_jax.types import Params

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}

Index = tuple[slice, ...]


class Tensors(Protocol):
  """Named arrays in files."""

  shapes: Mapping[str, tuple[int, ...]]

  def read(self, name: str, index: Index) -> np.ndarray:
    """A part of an array; whole ranges are read as they are asked for."""


class Place(NamedTuple):
  """Where a leaf stands: in the tensor `name`, the `part`-th of `parts` that share it, in a layout of `_LAYOUTS`."""

  name: str
  layout: str
  part: int = 0
  parts: int = 1


_LLAMA = {
  "embedding/embedding": "model.embed_tokens.weight",
  "final_norm/scale": "model.norm.weight",
  "unembedding/kernel": "lm_head.weight",
  "layers_{i}/attention_norm/scale": "model.layers.{i}.input_layernorm.weight",
  "layers_{i}/mlp_norm/scale": "model.layers.{i}.post_attention_layernorm.weight",
  "layers_{i}/query_norm/scale": "model.layers.{i}.self_attn.q_norm.weight",
  "layers_{i}/key_norm/scale": "model.layers.{i}.self_attn.k_norm.weight",
  "layers_{i}/query": "model.layers.{i}.self_attn.q_proj",
  "layers_{i}/key": "model.layers.{i}.self_attn.k_proj",
  "layers_{i}/value": "model.layers.{i}.self_attn.v_proj",
  "layers_{i}/attention_out": "model.layers.{i}.self_attn.o_proj",
  "layers_{i}/gate": "model.layers.{i}.mlp.gate_proj",
  "layers_{i}/up": "model.layers.{i}.mlp.up_proj",
  "layers_{i}/mlp_out": "model.layers.{i}.mlp.down_proj",
}
_GEMMA = _LLAMA | {
  "layers_{i}/attention_post_norm/scale": "model.layers.{i}.post_attention_layernorm.weight",
  "layers_{i}/mlp_norm/scale": "model.layers.{i}.pre_feedforward_layernorm.weight",
  "layers_{i}/mlp_post_norm/scale": "model.layers.{i}.post_feedforward_layernorm.weight",
}
_GPT2 = {
  "embedding/embedding": "transformer.wte.weight",
  "position_embedding/embedding": "transformer.wpe.weight",
  "final_norm": "transformer.ln_f",
  "unembedding/kernel": "lm_head.weight",
  "layers_{i}/attention_norm": "transformer.h.{i}.ln_1",
  "layers_{i}/mlp_norm": "transformer.h.{i}.ln_2",
  "layers_{i}/qkv": "transformer.h.{i}.attn.c_attn",
  "layers_{i}/attention_out": "transformer.h.{i}.attn.c_proj",
  "layers_{i}/up": "transformer.h.{i}.mlp.c_fc",
  "layers_{i}/mlp_out": "transformer.h.{i}.mlp.c_proj",
}
_GPT_NEOX = {
  "embedding/embedding": "gpt_neox.embed_in.weight",
  "final_norm": "gpt_neox.final_layer_norm",
  "unembedding/kernel": "embed_out.weight",
  "layers_{i}/attention_norm": "gpt_neox.layers.{i}.input_layernorm",
  "layers_{i}/mlp_norm": "gpt_neox.layers.{i}.post_attention_layernorm",
  "layers_{i}/qkv": "gpt_neox.layers.{i}.attention.query_key_value",
  "layers_{i}/attention_out": "gpt_neox.layers.{i}.attention.dense",
  "layers_{i}/up": "gpt_neox.layers.{i}.mlp.dense_h_to_4h",
  "layers_{i}/mlp_out": "gpt_neox.layers.{i}.mlp.dense_4h_to_h",
}
_NAMES = {"gemma2": _GEMMA, "gemma3_text": _GEMMA, "gpt2": _GPT2, "gpt_neox": _GPT_NEOX}
_UNUSED = re.compile(r"(\.attn|\.attention)\.(masked_)?bias$|rotary_emb\.inv_freq$")  # buffers of older files
_QKV = ("query", "key", "value")


def locate(config: DecoderConfig, leaf: str) -> Place:
  """The place of a leaf, named by its path such as "decoder/layers_0/query/kernel", in a file of config.family."""
  if leaf == "head/kernel":
    return Place("score.weight", "row")
  names = _NAMES.get(config.family, _LLAMA)
  leaf = leaf.removeprefix("decoder/")
  layer = re.match(r"layers_(\d+)/", leaf)
  pattern = leaf if layer is None else "layers_{i}/" + leaf[layer.end() :]
  number = layer and layer.group(1)
  if pattern in names:
    layout = "transposed" if pattern.endswith("kernel") else "same"
    return Place(names[pattern].format(i=number), layout)
  module, kind = pattern.rsplit("/", 1)
  suffix = "bias" if kind == "bias" else "weight"
  fused = module.rsplit("/", 1)[-1]
  if fused in _QKV and "layers_{i}/qkv" in names:
    name = f"{names['layers_{i}/qkv'].format(i=number)}.{suffix}"
    return Place(name, "columns" if config.family == "gpt2" else "heads", _QKV.index(fused), 3)
  layout = "transposed" if kind == "kernel" and config.family != "gpt2" else "same"  # GPT-2 keeps [in, out]
  return Place(f"{names[module].format(i=number)}.{suffix}", layout)


def read_leaf(tensors: Tensors, place: Place, shape: Sequence[int], num_heads: int, index: Index) -> np.ndarray:
  """The part `index` of a leaf of `shape`, as the file holds it."""
  if place.layout == "row":  # [d] from [1, d]
    return tensors.read(place.name, (slice(0, 1), *index))[0]
  if place.layout == "transposed":
    return tensors.read(place.name, index[::-1]).T
  if place.layout == "columns":  # [..., 3d]: all queries, all keys, all values
    start, stop, _ = index[-1].indices(shape[-1])
    offset = place.part * shape[-1]
    return tensors.read(place.name, (*index[:-1], slice(offset + start, offset + stop)))
  if place.layout == "heads":  # [3d, ...]: query, key and value of one head after the other
    whole = tensors.read(place.name, (slice(None),) * len(shape))
    per_head = whole.reshape(num_heads, place.parts, -1, *whole.shape[1:])[:, place.part]
    return per_head.reshape(shape[-1], *whole.shape[1:]).T[index]
  return tensors.read(place.name, index)


def join_leaves(leaves: Sequence[np.ndarray], layout: str, num_heads: int) -> np.ndarray:
  """The tensor of a file from the leaves that share it: the inverse of `read_leaf`."""
  first = leaves[0]
  if layout == "row":
    return first[None]
  if layout == "transposed":
    return first.T
  if layout == "columns":
    return np.concatenate(leaves, axis=-1)
  if layout == "heads":
    stacked = np.stack([leaf.T.reshape(num_heads, -1, *leaf.shape[:-1]) for leaf in leaves], axis=1)
    return stacked.reshape(-1, *first.shape[:-1])
  return first


def file_shape(layout: str, parts: int, shape: Sequence[int]) -> tuple[int, ...]:
  """The shape of a tensor that `parts` leaves of `shape` share."""
  if layout == "row":
    return (1, *shape)
  if layout == "transposed":
    return tuple(shape[::-1])
  if layout == "columns":
    return (*shape[:-1], parts * shape[-1])
  return (parts * shape[-1], *shape[:-1]) if layout == "heads" else tuple(shape)


def leaf_paths(tree: Any) -> Iterator[tuple[str, Any]]:
  """("decoder/final_norm/scale", leaf) for every leaf."""
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def load_weights(
  tensors: Tensors, config: DecoderConfig, *, where: str, shard: Callable[[Any], Any] | None = None, bias: float = 0.0
) -> Params:
  """The parameters in float32, each shard read from the files as its device asks for it.

  shard: from a tree of shapes to a like tree of shardings; by default everything lies on the first device. Where the
  files hold the head of a sequence classifier, it is read too, with `bias`.

  Raises:
    UnsupportedModelError: a tensor is missing, has another shape, or has no place in the model.
  """
  shapes = _expected(tensors, config, where)
  one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  shardings = shard(shapes) if shard else jax.tree.map(lambda _: one, shapes)

  def load(path, leaf, sharding):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if name == "head/bias":
      return jax.device_put(np.float32(bias), sharding)
    place = _present(locate(config, name), tensors)

    def part(index):
      return np.ascontiguousarray(read_leaf(tensors, place, leaf.shape, config.num_heads, index), np.float32)

    return jax.make_array_from_callback(leaf.shape, sharding, part).block_until_ready()

  return jax.tree_util.tree_map_with_path(load, shapes, shardings)


def _expected(tensors, config, where):
  """The shapes of the parameters, after a check that the files hold exactly these."""
  model = language_model(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  if "score.weight" in tensors.shapes:
    shapes = jax.eval_shape(model.init_head, jax.random.key(0), shapes)
  known = set()
  for name, leaf in leaf_paths(shapes):
    if name == "head/bias":
      continue
    place = _present(locate(config, name), tensors)
    known.add(place.name)
    if place.name not in tensors.shapes:
      raise UnsupportedModelError(f"{where} has no tensor {place.name!r}")
    found, wanted = tensors.shapes[place.name], file_shape(place.layout, place.parts, leaf.shape)
    if found != wanted:
      raise UnsupportedModelError(f"{where}: {place.name} is {found}, the config asks for {wanted}")
  embedding = _present(locate(config, "decoder/embedding/embedding"), tensors).name
  for name in sorted(set(tensors.shapes) - known):
    if _UNUSED.search(name):
      continue
    if name in ("lm_head.weight", "embed_out.weight") and _equal(tensors, name, embedding):
      continue  # a tied embedding that was written twice
    raise UnsupportedModelError(f"{where}: the tensor {name!r} has no place in a {config.family} of this config")
  return shapes


def _present(place: Place, tensors: Tensors) -> Place:
  """The first GPT-2 files name their tensors without "transformer."."""
  bare = place.name.removeprefix("transformer.")
  return place if place.name in tensors.shapes or bare not in tensors.shapes else place._replace(name=bare)


def _equal(tensors: Tensors, name: str, other: str) -> bool:
  if tensors.shapes[name] != tensors.shapes[other]:
    return False
  rows = range(0, tensors.shapes[name][0], 4096)
  cuts = ((slice(row, row + 4096), slice(None)) for row in rows)
  return all(np.array_equal(tensors.read(name, cut), tensors.read(other, cut)) for cut in cuts)


class SafeTensors:
  """The tensors of a *.safetensors file, or of the files that a *.safetensors.index.json names."""

  def __init__(self, directory: Path):
    index = directory / "model.safetensors.index.json"
    if index.is_file():
      files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    elif (directory / "model.safetensors").is_file():
      files = ["model.safetensors"]
    else:
      raise UnsupportedModelError(f"{directory} has neither model.safetensors nor {index.name}")
    self._entries = {}
    for file in files:
      for name, entry in _read_header(directory / file):
        self._entries[name] = (directory / file, *entry)
    self.shapes = {name: shape for name, (_, _, shape, _) in self._entries.items()}

  def read(self, name: str, index: Index) -> np.ndarray:
    """Reads the rows of `index` and cuts its columns out of them."""
    path, dtype, shape, start = self._entries[name]
    first, last, _ = index[0].indices(shape[0])
    row = math.prod(shape[1:])
    rows = np.fromfile(path, dtype, (last - first) * row, offset=start + first * row * np.dtype(dtype).itemsize)
    return rows.reshape(last - first, *shape[1:])[(slice(None), *index[1:])]


def _read_header(path: Path) -> Iterator[tuple[str, tuple]]:
  """name -> (dtype, shape, first byte) (https://github.com/huggingface/safetensors, "Format")."""
  try:
    size = path.stat().st_size
    with path.open("rb") as file:
      length = int.from_bytes(file.read(8), "little")
      if length > size:
        raise ValueError("the header is longer than the file")
      header = json.loads(file.read(length))
  except (OSError, ValueError) as error:
    raise UnsupportedModelError(f"{path} is not a safetensors file: {error}") from error
  header.pop("__metadata__", None)
  for name, entry in header.items():
    if entry["dtype"] not in DTYPES:
      if _UNUSED.search(name):
        continue
      raise UnsupportedModelError(f"{path}: {name} is of dtype {entry['dtype']}. Known: {', '.join(DTYPES)}.")
    start, end = (8 + length + offset for offset in entry["data_offsets"])
    dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
    if end > size or end - start != math.prod(shape) * np.dtype(dtype).itemsize:
      raise UnsupportedModelError(f"{path} is cut short or damaged at {name}: copy or download it again")
    yield name, (dtype, shape, start)
