"""Tokens per second of the host pipeline and of the model that it feeds, their ratio, and memory as the data grow.

  python benchmarks/data_pipeline.py ALPACA --out benchmarks/results/data_pipeline.json

ALPACA is a file of {instruction, input, output} rows, which are repeated to 10,000 and 100,000. A pass over each number
of rows reads them, phrases each in one of three templates, tokenises and packs them into rows of 512 tokens, in a
separate process whose peak memory is measured. The model has 8.4M parameters (d_model 256, 4 layers, vocabulary 8,192)
and takes updates with AdamW on 8 such rows. Pipeline and model use the cores that this process may use.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rlhf_jax import data
from rlhf_jax.data.mixture import Mixture
from rlhf_jax.data.stream import Stream

LENGTH, BATCH, VOCABULARY = 512, 8, 8192
TEMPLATES = (
  ("{instruction}\n{input}", "{output}"),
  ("Instruction: {instruction}\nInput: {input}", "{output}"),
  ("{input}\n\n{instruction}", "{output}"),
)


def measure_pipeline(path: str, tokenizer: str) -> dict:
  """One pass over a file, from opening it to its last batch."""
  loaded = data.load_tokenizer(tokenizer)
  start = time.perf_counter()
  mixture = Mixture({"alpaca": data.Source(path, templates=TEMPLATES)})
  stream = Stream(mixture, loaded, length=LENGTH, batch_size=BATCH, seed=0)
  position, tokens, slots = stream.start, 0, 0
  rows = stream.shares[0].rows
  while position[1] < rows:
    batch, position = stream.batch_at(position)
    tokens += int((batch["segments"] > 0).sum())
    slots += batch["segments"].size
  seconds = time.perf_counter() - start
  memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  return dict(
    rows=rows, tokens=tokens, seconds=round(seconds, 2), tokens_per_second=round(tokens / seconds),
    fill=round(tokens / slots, 4), peak_megabytes=round(memory),
  )  # fmt: skip


def measure_model(steps: int) -> dict:
  """Updates of the model on full rows, without the first update, which compiles."""
  import jax
  import numpy as np
  import optax

  from rlhf_jax.algorithms.sft import make_loss
  from rlhf_jax.models import DecoderConfig, language_model
  from rlhf_jax.reduce import token_weights
  from rlhf_jax.stage import Transport
  from rlhf_jax.train import init_state, make_update
  from rlhf_jax.types import Batch

  model = language_model(DecoderConfig(VOCABULARY, 4, 256, 4, 4, 1024, LENGTH, tied=False))
  params = jax.jit(model.init)(jax.random.key(0))
  optimizer = optax.adamw(1e-3)
  update = make_update(make_loss(model.apply), optimizer, Transport("jit", 1, 1))
  tokens = np.random.default_rng(0).integers(3, VOCABULARY, size=(BATCH, LENGTH)).astype(np.int32)
  mask = np.ones(tokens.shape, bool)
  mask[:, 0] = False
  batch = Batch(tokens, mask, np.ones_like(tokens))
  state, _ = update(init_state(params, optimizer), batch, token_weights(batch.mask))
  jax.block_until_ready(state)
  start = time.perf_counter()
  for _ in range(steps):
    state, _ = update(state, batch, token_weights(batch.mask))
  jax.block_until_ready(state)
  seconds = time.perf_counter() - start
  parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
  return dict(parameters=parameters, steps=steps, tokens_per_second=round(steps * tokens.size / seconds))


def in_process(*arguments: str) -> dict:
  """The JSON that this file prints when it is run with `arguments`."""
  result = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True)
  print(result.stdout.splitlines()[-1], file=sys.stderr)
  return json.loads(result.stdout.splitlines()[-1])


def compare(alpaca: str, counts: list[int], steps: int) -> dict:
  """All measurements, with the ratio of the pipeline's speed to the model's."""
  rows = [row for _, row in data.read_rows(alpaca)]
  with tempfile.TemporaryDirectory() as folder:
    texts = [text for row in rows for text in (row["instruction"], row["input"], row["output"])]
    tokenizer = f"{folder}/tokenizer.json"
    data.train_tokenizer(texts, VOCABULARY).save(tokenizer)
    passes = []
    for count in counts:
      path = Path(folder) / f"{count}.jsonl"
      with path.open("w") as file:
        file.writelines(json.dumps(rows[i % len(rows)]) + "\n" for i in range(count))
      passes.append(in_process("--pass", str(path), tokenizer))
  model = in_process("--model", str(steps))
  ratio = passes[-1]["tokens_per_second"] / model["tokens_per_second"]
  from measure import machine

  return dict(pipeline=passes, model=model, ratio=round(ratio, 1), machine=machine())


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("alpaca", nargs="?")
  parser.add_argument("--out", type=Path)
  parser.add_argument(
    "--rows", type=int, nargs="+", default=[10_000, 100_000], help="numbers of rows that the file is repeated to"
  )
  parser.add_argument("--steps", type=int, default=10, help="updates of the model")
  parser.add_argument("--pass", nargs=2, dest="one_pass", help=argparse.SUPPRESS)
  parser.add_argument("--model", type=int, help=argparse.SUPPRESS)
  settings = parser.parse_args()
  if not (settings.one_pass or settings.model) and not Path(settings.alpaca or "").is_file():
    parser.error(f"no file {settings.alpaca or 'ALPACA'}: name one of {{instruction, input, output}} rows, such as "
                 "alpaca_en_demo.json.gz")  # fmt: skip
  if settings.one_pass or settings.model:
    print(json.dumps(measure_pipeline(*settings.one_pass) if settings.one_pass else measure_model(settings.model)))
    return
  found = compare(settings.alpaca, settings.rows, settings.steps)
  print(json.dumps(found, indent=2))
  if settings.out:
    settings.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
  main()
