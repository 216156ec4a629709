"""Samplers of responses: `python -m contenders.samplers WORK LIBRARY MODE`.

LIBRARY is rlhf_jax, transformers or tunix; MODE is sampled (from the whole softmax), greedy, or truncated (top-k and
top-p). A step is a batch of prompts with all their tokens; no response ends early.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from contenders import work
from contenders.gate import Gate, threads


def main(directory: Path, library: str, mode: str) -> None:
  """Samples for ever."""
  prompts = np.array([row["prompt_ids"] for row in work.rows(directory)[: work.SAMPLED]], np.int32)
  sample = {"rlhf_jax": ours, "transformers": of_transformers, "tunix": of_tunix}[library](directory, mode, prompts)
  gate, index = Gate(), 0
  while True:
    tokens = sample(index)
    if tokens.shape != (len(prompts), work.RESPONSE):
      raise RuntimeError(f"responses have the shape {tokens.shape}")
    gate.step(tokens=tokens.size, **({"sampled": tokens.ravel().tolist()} if mode == "greedy" and not index else {}))
    index += 1


def ours(directory: Path, mode: str, prompts: np.ndarray) -> Callable[[int], np.ndarray]:
  """This project's sampler as its stages make it, with the texts of the responses."""
  import dataclasses

  import jax
  import jax.numpy as jnp

  from rlhf_jax import data
  from rlhf_jax.models.hub import load_pretrained, open_pretrained
  from rlhf_jax.stage import Transport
  from rlhf_jax.train import Sampling, make_sampler
  from rlhf_jax.train.workspace import select_model
  from rlhf_jax.types import Prompts

  transport = Transport("jit", fsdp=1, microbatches=1)
  opened = open_pretrained(directory / "model")
  model = select_model(opened.config, transport)
  params = jax.tree.map(jnp.asarray, load_pretrained(opened))
  tokenizer = dataclasses.replace(data.load_tokenizer(directory / "tokenizer.json"), end_ids=(-1,))
  settings = Sampling(
    max_prompt_tokens=work.PROMPT, max_new_tokens=work.RESPONSE, temperature=0.0 if mode == "greedy" else 1.0,
    **(work.TRUNCATED if mode == "truncated" else {}),
  )  # fmt: skip
  sample = make_sampler(model, tokenizer, settings, transport)
  asked = Prompts(jnp.asarray(prompts), jnp.full(len(prompts), work.PROMPT))

  def run(index: int) -> np.ndarray:
    rollout, _ = sample(params, asked, jax.random.key(index))
    return np.asarray(rollout.tokens)[:, work.PROMPT :]

  return run


def of_transformers(directory: Path, mode: str, prompts: np.ndarray) -> Callable[[int], np.ndarray]:
  """`generate` of transformers, with its cache, and the texts of the responses."""
  import torch
  from transformers import LlamaForCausalLM

  from contenders.trl_trainers import read_tokenizer

  torch.set_num_threads(threads())
  model = LlamaForCausalLM.from_pretrained(directory / "model", dtype=torch.float32).eval()
  model.generation_config.eos_token_id = None
  tokenizer = read_tokenizer(directory)
  ids = torch.tensor(prompts, dtype=torch.long)
  settings = dict(max_new_tokens=work.RESPONSE, pad_token_id=0, do_sample=mode != "greedy")
  if mode != "greedy":
    settings |= dict(temperature=1.0, **(work.TRUNCATED if mode == "truncated" else dict(top_k=0, top_p=1.0)))

  def run(index: int) -> np.ndarray:
    with torch.inference_mode():
      found = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[:, work.PROMPT :]
    tokenizer.batch_decode(found)
    return found.numpy()

  return run


def of_tunix(directory: Path, mode: str, prompts: np.ndarray) -> Callable[[int], np.ndarray]:
  """Tunix' sampler, which tokenises its prompts and decodes its responses."""
  from tunix.generate.sampler import CacheConfig, Sampler

  from contenders.tunix_trainers import one_device, read_model, read_tokenizer

  shape = work.read_shape(directory)
  heads = shape["num_key_value_heads"]
  cache = CacheConfig(
    work.PROMPT + work.RESPONSE, shape["num_hidden_layers"], heads, shape["hidden_size"] // shape["num_attention_heads"]
  )
  tokenizer = read_tokenizer(directory)
  made = Sampler(read_model(directory, one_device()), tokenizer, cache)
  texts = [tokenizer.decode(row[1:]) for row in prompts]  # it puts <bos> in front itself
  chosen = dict(sampled=dict(temperature=1.0, top_p=1.0), greedy=dict(temperature=0.0))
  chosen["truncated"] = dict(temperature=1.0, **work.TRUNCATED)

  def run(index: int) -> np.ndarray:
    found = made(
      texts, max_generation_steps=work.RESPONSE, max_prompt_length=work.PROMPT, eos_tokens=[-1], seed=index,
      **chosen[mode],
    )  # fmt: skip
    return np.stack([np.asarray(row) for row in found.tokens])

  return run


if __name__ == "__main__":
  main(Path(sys.argv[1]), *sys.argv[2:])
