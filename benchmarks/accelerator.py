"""A GPU or TPU with a Llama of 1.2 billion parameters in bfloat16: training, decoding and PPO, as shares of its limits.

  python benchmarks/accelerator.py --out benchmarks/results/accelerator.json
  python benchmarks/accelerator.py --trl-ppo trl-1.12 --part ppo      # TRL 1.12 as for benchmarks/peers.py
  python benchmarks/accelerator.py --small                            # a tiny model on any machine, to try the script

The shape is that of Llama 3.2 1B: 16 layers of width 2,048, vocabulary 128,256, tied embeddings. Parts:

  sft     model FLOPs utilisation of an update, all of whose tokens count: 6 P operations a token, with P parameters and
          without those of attention's scores, over seconds and the peak. The peak is measured: a product of two
          bfloat16 matrices of 8,192 x 8,192. Goal: 50 %.
  decode  share of the bandwidth roofline in a decoding step at batch 8, 32, 64, 128 and 256: the bytes that a step must
          read, the weights once and the keys and values of the tokens so far, over seconds and the bandwidth. The
          bandwidth is measured: an array is rewritten in place. A step is the difference between responses of many
          tokens and of one. Public figures for a model of 70B parameters in JAX are 85 % at 8, 58 % at 32, 37 % at 64.
  ppo     an iteration of PPO with four models beside TRL 1.12, with the share of generation. Goal: a quarter of TRL's
          seconds. TRL needs torch with CUDA.

Contenders take turns; times are medians of --rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measure import alternate, copy_bandwidth, machine, peers, random_tokens

from rlhf_jax.algorithms import sft
from rlhf_jax.models import DecoderConfig
from rlhf_jax.reduce import token_weights
from rlhf_jax.sampling import generate
from rlhf_jax.stage import Transport
from rlhf_jax.train import Optimizer, init_state, make_functions, place
from rlhf_jax.train.mesh import make_mesh
from rlhf_jax.train.sampler import lay_out
from rlhf_jax.train.workspace import select_model
from rlhf_jax.types import Batch, Prompts

LLAMA = DecoderConfig(
  128_256, 16, 2048, 32, 8, 8192, 4096, rope_theta=500_000.0, norm_eps=1e-5, dtype="bfloat16", tied=True
)
TINY = DecoderConfig(512, 2, 64, 4, 2, 128, 256, dtype="bfloat16", tied=True)
ADAM = Optimizer(1e-5, 0.0, "constant", 0.9, 0.95, 1e-8, False, 0.1, 1.0)
GOALS = {"sft_mfu": 0.5, "decode_share": {8: 0.85, 32: 0.58, 64: 0.37}, "ppo": 4.0}


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of the parts."""

  model: DecoderConfig
  """Shape of the model."""
  matrix: int
  """Rows and columns of the matrices whose product gives the peak."""
  megabytes: int
  """Size of the array whose rewriting gives the bandwidth."""
  rows: tuple[int, ...]
  """Numbers of rows in a batch of SFT that are tried, of which the fastest per token counts."""
  length: int
  """Number of tokens in a row of SFT, and of a prompt."""
  new: int
  """Number of tokens in a response."""
  decoded: tuple[int, ...]
  """Numbers of responses decoded at once."""
  episodes: tuple[int, int, int]
  """Numbers of tokens of a prompt and of a response, and of episodes, in an iteration of PPO."""


FULL = Sizes(LLAMA, 8192, 2048, (4, 8, 16), 2048, 128, (8, 32, 64, 128, 256), (128, 128, 64))
SMALL = Sizes(TINY, 256, 8, (2,), 32, 8, (2, 4), (32, 32, 4))


def attention() -> str:
  """The attention of the platform: fused where there is one."""
  return {"gpu": "cudnn", "tpu": "splash"}.get(jax.default_backend(), "xla")


def matmul_peak(size: int) -> float:
  """Operations per second of a product of two bfloat16 matrices, the best of ten times ten in a row."""
  a = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
  ten = jax.jit(lambda x: jax.lax.fori_loop(0, 10, lambda _, x: (a @ x) / size, x))
  ten(a).block_until_ready()
  seconds = []
  for _ in range(10):
    start = time.perf_counter()
    ten(a).block_until_ready()
    seconds.append(time.perf_counter() - start)
  return 10 * 2 * size**3 / min(seconds)


def train(sizes: Sizes, rounds: int) -> dict[str, Any]:
  """Model FLOPs utilisation of SFT's update, by rows of a batch; a batch that does not fit is told."""
  transport = Transport("jit", 1, 1, remat="dots", attention=attention())
  model = select_model(sizes.model, transport)
  peak, found = matmul_peak(sizes.matrix), {}
  for rows in sizes.rows:
    try:
      found[rows] = _train_once(model, transport, sizes, rows, rounds, peak)
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      found[rows] = {"error": "does not fit into the memory"}
  reached = max((row["mfu"] for row in found.values() if "mfu" in row), default=None)
  return {"peak_tflops": round(peak / 1e12, 2), "rows": found, "mfu": reached, "goal": GOALS["sft_mfu"]}


def _train_once(model, transport: Transport, sizes: Sizes, rows: int, rounds: int, peak: float) -> dict[str, Any]:
  optimizer, update, _ = make_functions(sft.make_loss(model.apply), ADAM, 1000, transport)
  held = [place(init_state(jax.jit(model.init)(jax.random.key(0)), optimizer), transport)]
  parameters = sum(x.size for x in jax.tree.leaves(held[0].params))
  tokens = random_tokens((rows, sizes.length), sizes.model.vocab_size)
  mask = np.ones(tokens.shape, bool)
  mask[:, 0] = False  # nothing predicts the first token
  batch, weights = jax.device_put((Batch(tokens, mask), token_weights(mask)))

  def step():
    state, metrics = update(held.pop(), batch, weights)
    held.append(state)
    return metrics["loss"]

  seconds = alternate({"update": step}, rounds)["update"]["median_s"]
  mfu = 6 * parameters * tokens.size / seconds / peak
  return {"parameters": parameters, "seconds": seconds, "tokens_per_s": round(tokens.size / seconds), "mfu": mfu}


def decode(sizes: Sizes, rounds: int) -> dict[str, Any]:
  """Milliseconds of a decoding step and the share of the bandwidth that its reads reach, by batch."""
  transport = Transport("jit", 1, 1, attention=attention())
  model, config = select_model(sizes.model, transport), sizes.model
  params = lay_out(model, jax.jit(model.init)(jax.random.key(0)), make_mesh(transport))
  weights = sum(x.nbytes for x in jax.tree.leaves(params))
  weights -= 0 if config.tied else 2 * config.vocab_size * config.d_model  # of an untied embedding a row a token
  bandwidth, prompt = copy_bandwidth(sizes.megabytes), min(sizes.length, 128)
  found: dict[str, Any] = {"bandwidth_gb_per_s": round(bandwidth / 1e9, 1), "weights_mb": round(weights / 1e6, 1)}
  for batch in sizes.decoded:
    tokens = jnp.asarray(random_tokens((batch, prompt), config.vocab_size))
    prompts = Prompts(tokens, jnp.full((batch,), prompt))
    sample = jax.jit(functools.partial(generate, model, max_new_tokens=sizes.new, eos_id=-1, pad_id=0))
    once = jnp.ones((batch,), jnp.int32)
    timed = alternate(
      {
        "many": functools.partial(sample, params, prompts, jax.random.key(0)),
        "one": functools.partial(sample, params, prompts, jax.random.key(0), limits=once),
      },
      rounds,
    )
    step = (timed["many"]["median_s"] - timed["one"]["median_s"]) / (sizes.new - 1)
    cache = 2 * 2 * config.num_layers * batch * (prompt + sizes.new / 2) * config.num_kv_heads * config.head_dim
    found[f"batch {batch}"] = {
      "step_ms": round(1000 * step, 4), "cache_mb": round(cache / 1e6, 2),
      "share_of_bandwidth": round((weights + cache) / step / bandwidth, 3),
      "goal": GOALS["decode_share"].get(batch),
    }  # fmt: skip
  return found


def ppo(sizes: Sizes, rounds: int, trl_ppo: Path | None, platform: str) -> dict[str, Any]:
  """Seconds of an iteration of PPO beside TRL 1.12, and the share of them that each spends on generation."""
  os.environ["CONTENDER_SIZES"] = ",".join(map(str, sizes.episodes))  # before `contenders.work` is imported
  import peers as driver  # this process holds no device, which the contenders need for themselves
  from contenders import work
  from contenders.comparisons import COMPARISONS, OURS, TRL_PPO

  found: dict[str, Any] = {}
  with tempfile.TemporaryDirectory() as directory:
    shared = Path(directory)
    driver.prepare(shared, llama_settings(sizes.model, work.SHAPE), platform)
    for name in (OURS, TRL_PPO):
      contender = COMPARISONS["ppo"].contenders[name]
      why = refusal(contender, trl_ppo, platform) if name == TRL_PPO else ""
      found[name] = {"skipped": why} if why else _iterations(contender, shared, rounds, trl_ppo, platform)
  ours, theirs = (found[name].get("seconds") for name in (OURS, TRL_PPO))
  return {"tokens": sizes.episodes, **found, "ratio": theirs / ours if ours and theirs else None, "goal": GOALS["ppo"]}


def _iterations(contender, shared: Path, rounds: int, trl_ppo: Path | None, platform: str) -> dict[str, Any]:
  from contenders.processes import Failed, Live

  live = Live(contender, shared, len(os.sched_getaffinity(0)), trl_ppo, {"JAX_PLATFORMS": platform})
  try:
    first = live.result()
    live.take(1)
    taken = [live.take(1) for _ in range(rounds)]
  except Failed as error:
    return {"error": str(error)}
  finally:
    live.close()
  shares = [result["facts"]["generation"][0] / result["wall"] for result in taken]
  return {
    "first_s": round(first["since_start"], 1),
    "seconds": round(statistics.median(result["wall"] for result in taken), 4),
    "share_of_generation": round(statistics.median(shares), 3),
  }


def refusal(contender, trl_ppo: Path | None, platform: str) -> str:
  """Why TRL's PPO is not compared with on this platform; "" where it is."""
  from contenders.comparisons import missing

  if absent := missing(contender):
    return f"not installed: {', '.join(absent)}"
  if not trl_ppo:
    return "--trl-ppo names no folder with TRL 1.12"
  if platform == "cpu":
    return ""
  import torch

  return "" if torch.cuda.is_available() else "torch has no accelerator here"


def llama_settings(config: DecoderConfig, like: Mapping[str, Any]) -> dict[str, Any]:
  """The shape as settings of transformers' LlamaConfig; like: settings, whose special tokens are kept."""
  return {
    **like, "vocab_size": config.vocab_size, "hidden_size": config.d_model, "intermediate_size": config.d_ff,
    "num_hidden_layers": config.num_layers, "num_attention_heads": config.num_heads,
    "num_key_value_heads": config.num_kv_heads, "max_position_embeddings": config.max_length,
    "tie_word_embeddings": config.tied, "rms_norm_eps": config.norm_eps, "rope_theta": config.rope_theta,
    "dtype": config.dtype,
  }  # fmt: skip


INSIDE = {"machine": lambda *_: {**machine(), **peers()}, "sft": train, "decode": decode}
PARTS = ("sft", "decode", "ppo")


def run_inside(part: str, small: bool, rounds: int) -> dict[str, Any]:
  """A part of `INSIDE` in a process of its own, which gives the device back at its end."""
  command = [sys.executable, __file__, "--inside", part, "--rounds", str(rounds), *(["--small"] if small else [])]
  done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
  if done.returncode:
    raise SystemExit(f"{part} failed")
  return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
  """Runs the parts that the command line asks for."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be repeated")
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--small", action="store_true", help="a tiny model, on whatever JAX finds")
  parser.add_argument("--out", type=Path, help="a JSON file, in which the parts that were run are replaced")
  parser.add_argument("--trl-ppo", type=Path, help="folder of TRL 1.12")
  parser.add_argument("--inside", choices=INSIDE, help=argparse.SUPPRESS)
  settings = parser.parse_args()
  sizes = SMALL if settings.small else FULL
  if settings.inside:
    print(json.dumps(INSIDE[settings.inside](sizes, settings.rounds)))
    return
  current = run_inside("machine", settings.small, settings.rounds)
  if current["platform"] == "cpu" and not settings.small:
    raise SystemExit(
      f"JAX {current['versions']['jax']} finds no GPU or TPU here, and 1.2 billion parameters are too many for a CPU: "
      "install jax[cuda12] or jax[tpu] on a machine with one, or try the script with --small"
    )
  found = json.loads(settings.out.read_text()) if settings.out and settings.out.exists() else {}
  for part in settings.part or PARTS:
    if part == "ppo":
      folder = settings.trl_ppo.resolve() if settings.trl_ppo else None
      result = ppo(sizes, settings.rounds, folder, current["platform"])
    else:
      result = run_inside(part, settings.small, settings.rounds)
    found[part] = {"command": " ".join(["python", *sys.argv]), "machine": current, **result}
    print(part, json.dumps(result, indent=1), flush=True)
    if settings.out:
      settings.out.parent.mkdir(parents=True, exist_ok=True)
      settings.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
  main()
