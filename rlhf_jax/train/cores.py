"""Batches that are sampled in parts, by a thread for each core of the host.

XLA for CPUs spreads large products over cores, but the many small operations of a decoding step run on one. Threads
that run the same program, each on a part of the rows, keep all cores busy. A part has a fixed size where a batch is
large, so that large batches of all sizes share one program, whatever the number of cores.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rlhf_jax.train.mesh import put_rows, sent
from rlhf_jax.types import Params, Prompts, Rollout

PART = 32  # rows of a part of a large batch: as many as take no longer, row by row, than 256 in one program
LEAST = 8  # rows of a part of a small one: fewer are no faster in two threads than in one program


def threads(mesh: Mesh) -> int:
  """The number of cores that this process may use, if the mesh is one CPU device; 0 if its devices share the rows."""
  if mesh.size > 1 or mesh.devices.flat[0].platform != "cpu":
    return 0
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def part_size(prompts: int, copies: int) -> int:
  """The number of prompts in a part of a batch; `copies` rows begin with each prompt.

  It is that of half the batch's rows, of PART at most and LEAST at least, where at most an eighth of the batch is then
  rows that only fill a part, else that of fewer rows. It does not depend on the number of cores, on which the bits of a
  result should not depend either.

  >>> part_size(256, 1), part_size(32, 1), part_size(40, 1), part_size(16, 4), part_size(3, 64), part_size(8, 1)
  (32, 16, 20, 8, 1, 8)
  """
  rows = min(max(prompts * copies // 2, LEAST), PART)
  most = min(max(rows // copies, 1), prompts)
  return most if 8 * (-prompts % most) <= prompts else -(-prompts // -(-prompts // most))


def sample_parts(
  sampler: Callable[..., Rollout],
  mesh: Mesh,
  params: Params,
  prompts: Prompts,
  limits: np.ndarray,
  key: jax.Array,
  table: np.ndarray | None,
  prefix: int,
  *,
  size: int,
  cores: int,
  alone: bool,
) -> Rollout:
  """`sampler(params, prompts, limits, key, table, prefix)` in parts of `size` prompts, which divides their number.

  Row n draws with the key that it has in the whole batch. alone: whether the first part runs before all others, so that
  threads do not compile one program several times.
  """
  count = len(prompts.lengths) // size
  split = jax.tree.map(lambda x: np.split(np.asarray(x), count), Prompts(prompts.tokens, prompts.lengths))
  rows = zip(map(Prompts, split.tokens, split.lengths), np.split(limits, count), strict=True)
  with sent():
    keys = _keys(key, count, len(limits) // count)
    parts = [(*put_rows(mesh, part), own) for part, own in zip(rows, keys, strict=True)]

  def run(part: tuple[Any, ...]) -> Rollout:
    with sent():  # guards of transfers belong to a thread
      return jax.block_until_ready(sampler(params, *part, table, prefix))

  first = [run(parts[0])] if alone else []
  with ThreadPoolExecutor(cores) as pool:
    return _join([*first, *pool.map(run, parts[len(first) :])])


@functools.partial(jax.jit, static_argnums=(1, 2))
def _keys(key: jax.Array, count: int, rows: int) -> list[jax.Array]:
  """The keys of all rows, fold_in(key, n), in `count` parts of `rows`."""
  return list(jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count * rows)).reshape(count, rows))


@jax.jit
def _join(parts: list[Rollout]) -> Rollout:
  return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
