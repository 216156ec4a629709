"""What a frozen model in int8 saves, and how far its log-probs are from those of its float32 parameters.

  rlhf-jax run --config quickstart:pretrain --workdir runs/pretrain
  python benchmarks/int8.py runs/pretrain --out benchmarks/results/int8.json

Log-probs are those of the stage "pretrain" on the first documents of its corpus, rows of 64 tokens. Memory is by the
compiler's analysis of a forward of a larger model, of which nothing is run. It needs the extra [int8].
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from measure import machine

from rlhf_jax.models import DecoderConfig, language_model, stack_layers
from rlhf_jax.objectives import token_logprobs
from rlhf_jax.pipeline.finished import FinishedModel, open_run
from rlhf_jax.train import frozen

ROWS, LENGTH = 64, 64
LARGE = DecoderConfig(8192, 12, 512, 8, 8, 1536, 16, tied=False)
CASES = [("float32", ""), ("float32", "int8"), ("bfloat16", ""), ("bfloat16", "int8")]  # model.dtype, frozen_dtype


def gaps(found: FinishedModel, documents: list[str]) -> list[dict]:
  """Bytes of the parameters, and the distance of the log-probs of tokens from those of the first case."""
  tokens, mask = np.zeros((ROWS, LENGTH), np.int32), np.zeros((ROWS, LENGTH), bool)
  for row, text in enumerate(documents[:ROWS]):
    ids = [found.tokenizer.bos_id, *found.tokenizer.encode(text)][:LENGTH]
    tokens[row, : len(ids)], mask[row, 1 : len(ids)] = ids, True
  results, first = [], None
  for dtype, frozen_dtype in CASES:
    model = language_model(dataclasses.replace(found.model.config, dtype=dtype))
    params = frozen(model, found.policy, frozen_dtype)
    logits = jax.jit(model.apply)(params, tokens)
    logp, whole = np.asarray(token_logprobs(logits, tokens, mask=mask)), np.asarray(jax.nn.log_softmax(logits))
    first = first or (logp, whole, params)
    share = size(params) / size(first[2])
    gap = np.abs(logp - first[0])[mask]
    kl = (np.exp(first[1]) * (first[1] - whole)).sum(axis=-1)
    results.append({
      "dtype": dtype, "frozen_dtype": frozen_dtype, "bytes_of_float32": share, "gap_mean": float(gap.mean()),
      "gap_max": float(gap.max()), "kl_per_token": float(kl[mask].mean()), "tokens": int(mask.sum()),
    })  # fmt: skip
  return results


def memory(dtype: str, frozen_dtype: str, scan: bool) -> dict:
  """MiB of the arguments and of what a forward of LARGE on [4, 16] tokens needs beside them."""
  model = language_model(dataclasses.replace(LARGE, dtype=dtype), scan=scan)
  params = jax.eval_shape(model.init, jax.random.key(0))
  params = jax.eval_shape(stack_layers, params) if scan else params
  params = jax.eval_shape(lambda params: frozen(model, params, frozen_dtype), params)
  tokens = jax.ShapeDtypeStruct((4, 16), jnp.int32)
  read = jax.jit(lambda params, tokens: token_logprobs(model.apply(params, tokens), tokens))
  found = read.lower(params, tokens).compile().memory_analysis()
  return {
    "dtype": dtype, "frozen_dtype": frozen_dtype, "layers": "scanned" if scan else "unrolled",
    "arguments": found.argument_size_in_bytes / 2**20, "beside": found.temp_size_in_bytes / 2**20,
  }  # fmt: skip


def size(params) -> int:
  """Bytes of a tree of arrays."""
  return sum(x.nbytes for x in jax.tree.leaves(params))


def main() -> None:
  """Writes the results as JSON."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("run", type=Path)
  parser.add_argument("--out", type=Path, required=True)
  arguments = parser.parse_args()
  documents = [text for text in (arguments.run / "world" / "corpus.txt").read_text().split("\n\n") if len(text) > 100]
  results = {
    "machine": machine(),
    "gaps": gaps(open_run(arguments.run).model("pretrain"), documents),
    "memory_mib": [memory(*case, scan) for case in CASES for scan in (False, True)],
  }
  arguments.out.write_text(json.dumps(results, indent=2) + "\n")
  print(json.dumps(results, indent=2))


if __name__ == "__main__":
  main()
