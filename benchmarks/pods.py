"""The predictions of `rlhf-jax compile` against published steps of MaxText on TPUs, and the constants fitted to them.

  python benchmarks/pods.py

Batch, length, rematerialisation and attention are those of MaxText's own configs (github.com/AI-Hypercomputer/maxtext:
benchmarks/maxtext_trillium_model_configs.py, src/maxtext/configs/tpu/v5p/llama2_70b.sh), the speeds those of its page
docs/reference/models/tiering.md. The two constants of `rlhf_jax.tools.compile.roofline` are fitted to two of the three
steps, and the third is predicted, each in its turn.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from rlhf_jax.tools.compile import roofline
from rlhf_jax.tools.compile.chips import CHIPS
from rlhf_jax.tools.compile.counts import Counts


class Published(NamedTuple):
  """A step of pretraining whose speed is published; FSDP over all chips, flash attention, bfloat16."""

  name: str
  chip: str
  layers: int
  width: int
  kv: int  # features of all key heads of a layer
  hidden: int
  vocabulary: int
  rows: int  # per chip
  length: int
  recomputed: tuple[str, ...]  # products of a layer that the backward pass computes anew
  speed: float  # tokens per second and chip


STEPS = (
  Published("Llama 3.1 8B, v6e-256", "v6e", 32, 4096, 1024, 14336, 128256, 4, 8192, ("up", "gate", "attention"), 7207),
  Published(
    "Llama 3.1 70B, v6e-256", "v6e", 80, 8192, 1024, 28672, 128256, 5, 8192, ("up", "gate", "out", "attention"), 960
  ),
  Published(
    "Llama 2 70B, v5p-512 (256 chips)", "v5p", 80, 8192, 1024, 28672, 32000, 4, 4096, ("up", "gate", "attention"), 692
  ),
)


def counts(step: Published) -> Counts:
  """What the step asks of one chip, as `rlhf_jax.tools.compile.counts` counts it in a jaxpr."""
  tokens = step.rows * step.length
  shapes = dict(
    query=(step.width, step.width), key=(step.width, step.kv), value=(step.width, step.kv), out=(step.width,) * 2,
    gate=(step.width, step.hidden), up=(step.width, step.hidden), down=(step.hidden, step.width),
  )  # fmt: skip
  products, outputs = [], 0.0

  def add(rows, inner, columns, repeated, bytes_of_result=2):
    nonlocal outputs
    size = 2 * (rows * inner + inner * columns) + bytes_of_result * rows * columns
    products.append((2.0 * rows * inner * columns, float(size), repeated))
    outputs += repeated * rows * columns * bytes_of_result

  def add_attention(of_forward, repeated):  # a causal kernel, which computes half of the scores: 2 products forward
    flops = of_forward * 2 * 2 * tokens * step.length / 2 * step.width
    size = 2 * tokens * (2 * step.width + 2 * step.kv)
    products.append((flops, float(size), repeated))
    return repeated * tokens * step.width * 2.0

  for name, (inner, columns) in shapes.items():
    add(tokens, inner, columns, step.layers * (1 + (name in step.recomputed)))
    add(tokens, columns, inner, step.layers)
    add(inner, tokens, columns, step.layers)
  outputs += add_attention(1, step.layers * (1 + ("attention" in step.recomputed)))
  outputs += add_attention(2.5, step.layers)
  add(tokens, step.width, step.vocabulary, 1, bytes_of_result=4)
  add(tokens, step.vocabulary, step.width, 1)
  add(step.width, tokens, step.vocabulary, 1)
  parameters = step.layers * sum(a * b for a, b in shapes.values()) + 2 * step.vocabulary * step.width
  return Counts(tuple(products), outputs, {"all-gather": 2 * 2 * parameters, "reduce-scatter": 2 * parameters})


def predicted(step: Published, compute: float, output: float) -> float:
  """Tokens per second and chip."""
  seconds = roofline.times(counts(step), CHIPS[step.chip], compute=compute, output=output).total
  return step.rows * step.length / seconds


def fit(steps) -> tuple[float, float]:
  """(COMPUTE, OUTPUT) under which two steps take the time that is published: two equations, linear in 1 / COMPUTE."""
  rows, times = [], []
  for step in steps:
    asked, chip = counts(step), CHIPS[step.chip]
    rows.append([asked.flops / chip.flops, asked.outputs / chip.bandwidth])
    times.append(step.rows * step.length / step.speed)
  inverse, output = np.linalg.solve(rows, times)
  return 1 / inverse, output


def main() -> None:
  """Prints each fit with its error on the third step, and the constants in use."""
  for pair in itertools.combinations(STEPS, 2):
    (third,) = (step for step in STEPS if step not in pair)
    compute, output = fit(pair)
    speed = predicted(third, compute, output)
    print(f"COMPUTE {compute:.3f}, OUTPUT {output:.2f}: {third.name} predicted {speed:,.0f} tokens/s/chip, published "
          f"{third.speed:,.0f}: {speed / third.speed - 1:+.1%}")  # fmt: skip
  for step in STEPS:
    speed = predicted(step, roofline.COMPUTE, roofline.OUTPUT)
    print(f"{step.name}: in use {speed:,.0f}, published {step.speed:,.0f}: {speed / step.speed - 1:+.1%}")


if __name__ == "__main__":
  main()
