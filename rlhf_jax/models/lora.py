"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) as a transformation of parameter trees.

An adapter tree holds a pair a[in, r], b[r, out] for each adapted matrix W[in, out]; the model with adapters is the
model of the merged tree, W + scale * a @ b. A model's tree carries them beside its decoder,

  {"decoder": the base, "lora": the adapters, "lora_scale": f32[], and a "head" where it has one}

and every function of a `LanguageModel` takes such a tree: it computes x @ W + scale * (x @ a) @ b, so neither W + a @ b
nor a gradient of W is ever made. Several such trees may share the arrays of one base. `split_lora` separates trained
from frozen arrays; `fold_lora` gives the plain tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp

from rlhf_jax.models.stacked import is_stacked, stack_layers, unstack_layers
from rlhf_jax.types import Params

ATTENTION = ("query", "key", "value", "attention_out")

_FROZEN = ("decoder", "lora_scale")


def init_lora(key: jax.Array, params: Params, *, rank: int, targets: Sequence[str] = ATTENTION) -> Params:
  """Fresh adapters of the matrices named `targets` in every layer: they change nothing yet, since b is 0 (section 4.1).

  a is uniform in +-1 / sqrt(in), as PEFT draws it. The key of a matrix depends on its place alone, in either form of
  the layers (`rlhf_jax.models.stacked`), which the adapters share.

  Args:
    params: the tree of a decoder.
    rank: r, the number of columns of a.

  Raises:
    ValueError: no layer has a matrix of a name in `targets`.
  """
  unrolled = jax.eval_shape(unstack_layers, params)
  kernels = {path: leaf for path, leaf in _kernels(unrolled) if path[-2] in targets}
  missing = sorted(set(targets) - {path[-2] for path in kernels})
  if missing:
    known = sorted({path[-2] for path, _ in _kernels(unrolled)})
    raise ValueError(f"no layer has a matrix {missing[0]!r}. Known: {', '.join(known)}.")
  adapters: dict = {}
  for number, (path, kernel) in enumerate(sorted(kernels.items())):
    rows, columns = kernel.shape
    bound = rows**-0.5
    a = jax.random.uniform(jax.random.fold_in(key, number), (rows, rank), minval=-bound, maxval=bound)
    _put(adapters, path[:-1], {"a": a, "b": jnp.zeros((rank, columns))})
  return stack_layers(adapters) if is_stacked(params) else adapters


def merge_lora(params: Params, adapters: Params, *, scale: float | jax.Array) -> Params:
  """A decoder's tree with W + scale * a @ b in the place of each adapted W; other leaves are shared, not copied.

  scale is alpha / rank in the paper's terms. Gradients flow to both arguments.
  """

  def merged(dense: Params, a: jax.Array, b: jax.Array) -> Params:
    change = jnp.matmul(a, b, preferred_element_type=jnp.float32)
    return {**dense, "kernel": dense["kernel"] + (scale * change).astype(dense["kernel"].dtype)}

  return _at_pairs(merged, params, adapters)


def add_lora(key: jax.Array, params: Params, *, rank: int, alpha: float, targets: Sequence[str] = ATTENTION) -> Params:
  """A model's tree with fresh adapters of scale alpha / rank beside its decoder, whose arrays are shared, not copied.

  Raises:
    ValueError: no layer has a matrix of a name in `targets`.
  """
  adapters = init_lora(key, params["decoder"], rank=rank, targets=targets)
  return {**params, "lora": adapters, "lora_scale": jnp.asarray(alpha / rank, jnp.float32)}


def fold_lora(params: Params) -> Params:
  """A model's tree with its adapters merged into the decoder; a tree without adapters is returned as it is."""
  if "lora" not in params:
    return params
  rest = {name: part for name, part in params.items() if name not in ("lora", "lora_scale")}
  return {**rest, "decoder": merge_lora(params["decoder"], params["lora"], scale=params["lora_scale"])}


def adapted(params: Params, adapters: Params, scale: jax.Array) -> Params:
  """A tree of layers with the pair "a" and scale * "b" beside each adapted kernel."""
  return _at_pairs(lambda dense, a, b: {**dense, "a": a, "b": scale * b}, params, adapters)


def split_lora(params: Params) -> tuple[Params, Params]:
  """(trained, frozen) parts of a model's tree, or of a dict of models' trees.

  The decoder of a model with adapters is frozen; without adapters everything is trained. `join_lora` is the inverse.
  Arrays are shared, not copied.
  """
  if not isinstance(params, Mapping):
    return params, {}
  if "lora" in params:
    trained = {name: part for name, part in params.items() if name not in _FROZEN}
    return trained, {name: params[name] for name in _FROZEN}
  adapted = [name for name, part in params.items() if isinstance(part, Mapping) and "lora" in part]
  if not adapted:
    return params, {}
  parts = {name: split_lora(params[name]) for name in adapted}
  trained = {name: parts[name][0] if name in parts else part for name, part in params.items()}
  return trained, {name: frozen for name, (_, frozen) in parts.items()}


def join_lora(trained: Params, frozen: Params) -> Params:
  """The tree whose parts `split_lora` gives."""
  if "decoder" in frozen:
    return {**trained, **frozen}
  return {**trained, **{name: join_lora(trained[name], part) for name, part in frozen.items()}} if frozen else trained


def _at_pairs(change: Callable[..., Params], params: Params, adapters: Params) -> Params:
  """`params` with change(dense, a, b) in the place of each adapted dense layer {"kernel", ...}."""
  if set(adapters) == {"a", "b"}:
    return change(params, **adapters)
  return {**params, **{name: _at_pairs(change, params[name], part) for name, part in adapters.items()}}


def _kernels(params: Params) -> Iterator[tuple[tuple[str, ...], jax.ShapeDtypeStruct]]:
  """The path (key, ..., "kernel") and the shape of every matrix in a layer."""
  for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
    keys = tuple(entry.key for entry in path)
    if keys[-1] == "kernel" and any(key.startswith("layers_") for key in keys):
      yield keys, leaf


def _put(tree: dict, path: Sequence[str], value: Params) -> None:
  *parents, last = path
  for key in parents:
    tree = tree.setdefault(key, {})
  tree[last] = value
