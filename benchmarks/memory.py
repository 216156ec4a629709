"""Memory that the gradient of a loss needs beside its arguments, by the compiler's analysis: nothing is run.

  python benchmarks/memory.py --out benchmarks/results/memory.json

The model is a decoder with the widths of Llama 3.2 1B (d_model 2,048, d_ff 8,192) and 4 of its 16 layers; V = 128,256,
T = 2,048, batch 1, float32. It has 4 heads, so that the scores of XLA's attention, [1, 4, T, T], are small beside the
logits, [1, T, V], of 1,002 MiB. With 32 heads the scores dominate, and chunks of the logits save nothing.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from measure import machine

from rlhf_jax.algorithms import ppo, sft
from rlhf_jax.models import DecoderConfig, add_lora, join_lora, split_lora
from rlhf_jax.stage import Transport
from rlhf_jax.train.workspace import select_model
from rlhf_jax.types import Batch, Experience

ROWS, LENGTH = 1, 2048
CONFIG = DecoderConfig(128_256, 4, 2048, 4, 1, 8192, LENGTH)
CASES = [  # loss, logits_chunk, remat, LoRA rank
  ("sft", 0, "none", 0),
  ("sft", 128, "none", 0),
  ("sft", 128, "full", 0),
  ("sft", 0, "none", 16),
  ("sft", 128, "none", 16),
  ("ppo", 0, "none", 0),
  ("ppo", 128, "none", 0),
]


def shape(dtype):
  """The shape of an array with an element for each token."""
  return jax.ShapeDtypeStruct((ROWS, LENGTH), dtype)


def case(loss: str, logits_chunk: int, remat: str, rank: int) -> dict:
  """Compiles the gradient of one loss; sizes in MiB."""
  model = select_model(CONFIG, Transport("jit", 1, 1, logits_chunk=logits_chunk, remat=remat))
  params = jax.eval_shape(lambda key: model.init_head(key, model.init(key)), jax.random.key(0))
  if rank:
    params = jax.eval_shape(functools.partial(add_lora, rank=rank, alpha=16.0), jax.random.key(0), params)
  floats, mask = shape(jnp.float32), shape(bool)
  if loss == "sft":
    loss_fn, batch = sft.make_loss(model.apply), Batch(shape(jnp.int32), mask)
  else:
    settings = dict(clip=0.2, value_clip=0.2, value_coef=0.1, entropy_coef=0.01, temperature=0.7)
    loss_fn = ppo.make_loss(model.apply_with_value, **settings)
    batch = Experience(shape(jnp.int32), mask, floats, floats, floats, floats)
  trained, frozen = split_lora(params)

  def gradient(trained, frozen, batch, weights):
    return jax.grad(lambda trained: loss_fn(join_lora(trained, frozen), batch, weights)[0])(trained)

  start = time.monotonic()
  found = jax.jit(gradient).lower(trained, frozen, batch, floats).compile().memory_analysis()
  return {
    "loss": loss,
    "logits_chunk": logits_chunk,
    "remat": remat,
    "lora_rank": rank,
    "temporary_mib": round(found.temp_size_in_bytes / 2**20),
    "arguments_mib": round(found.argument_size_in_bytes / 2**20),
    "gradients_mib": round(found.output_size_in_bytes / 2**20),
    "compile_seconds": round(time.monotonic() - start, 1),
  }


def main() -> None:
  """Compiles every case that the file `--out` does not have yet."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=Path, required=True)
  out = parser.parse_args().out
  rows = json.loads(out.read_text())["cases"] if out.exists() else []
  for given in CASES:
    if any(tuple(row.values())[:4] == given for row in rows):
      continue
    rows.append(case(*given))
    print(rows[-1], flush=True)
    record = {"command": f"python benchmarks/memory.py --out {out}", "machine": machine(), "cases": rows}
    out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
  main()
