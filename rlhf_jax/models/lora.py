"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) as a transformation of parameter trees.

An adapter tree holds, for each adapted matrix W[in, out], a pair a[in, r], b[r, out]; the model with adapters is the
model of the merged tree, W + scale * a @ b. So every function of a `LanguageModel` takes it as it is: train the
adapters by `lambda adapters, *rest: loss(merge(base, adapters, scale=scale), *rest)`, with the base as an argument.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from rlhf_jax.types import Params

ATTENTION = ("query", "key", "value", "attention_out")
MLP = ("gate", "up", "mlp_out")


def init_lora(key: jax.Array, params: Params, *, rank: int, targets: Sequence[str] = ATTENTION) -> Params:
  """Adapters of the matrices named `targets` in every layer, which change nothing yet: b is 0 (section 4.1).

  a is uniform in +-1 / sqrt(in), as PEFT draws it. The key of a matrix depends on its place alone.

  Raises:
    ValueError: a target that no layer has.
  """
  kernels = {path: leaf for path, leaf in _kernels(params) if path[-2] in targets}
  missing = sorted(set(targets) - {path[-2] for path in kernels})
  if missing:
    known = sorted({path[-2] for path, _ in _kernels(params)})
    raise ValueError(f"no layer has a matrix {missing[0]!r}. Known: {', '.join(known)}.")
  adapters: dict = {}
  for number, (path, kernel) in enumerate(sorted(kernels.items())):
    rows, columns = kernel.shape
    bound = rows**-0.5
    a = jax.random.uniform(jax.random.fold_in(key, number), (rows, rank), minval=-bound, maxval=bound)
    _put(adapters, path[:-1], {"a": a, "b": jnp.zeros((rank, columns))})
  return adapters


def merge_lora(params: Params, adapters: Params, *, scale: float) -> Params:
  """`params` with W + scale * a @ b in the place of each adapted W; all other leaves are shared, not copied.

  scale is alpha / rank in the paper's terms. Gradients flow to both arguments.
  """
  if set(adapters) == {"a", "b"}:
    change = jnp.matmul(adapters["a"], adapters["b"], preferred_element_type=jnp.float32)
    return {**params, "kernel": params["kernel"] + (scale * change).astype(params["kernel"].dtype)}
  merged = {name: merge_lora(params[name], part, scale=scale) for name, part in adapters.items()}
  return {**params, **merged}


def _kernels(params: Params):
  """((key, ..., "kernel"), matrix) of every dense matrix in a layer."""
  for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
    keys = tuple(entry.key for entry in path)
    if keys[-1] == "kernel" and any(key.startswith("layers_") for key in keys):
      yield keys, leaf


def _put(tree: dict, path: Sequence[str], value: Params) -> None:
  *parents, last = path
  for key in parents:
    tree = tree.setdefault(key, {})
  tree[last] = value
