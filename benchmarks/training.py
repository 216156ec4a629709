"""Seconds of the forward and backward pass of a language model, and of torch eager with the same weights and tokens.

  python benchmarks/training.py --out benchmarks/results/training.json

Parts: `small`, a Llama of 8.4M parameters on 16 x 64 tokens; `gpt2`, GPT-2 small on 4 x 256. The loss is the mean
negative log-likelihood, with gradients of all parameters. torch runs transformers' model in float32 without
compilation, its default. Contenders take turns in one process; times are medians, and `first_s` includes compilation.
The extra `peers` has torch and transformers.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from measure import alternate, arguments, random_tokens, report, same_weights

from rlhf_jax.objectives import lm_loss


def compare(kind: str, shape: dict, batch: int, length: int, rounds: int) -> dict:
  """Times both models, and gives their losses and the norms of their gradients."""
  import torch

  theirs, model, params = same_weights(kind, **shape)
  tokens = random_tokens((batch, length), shape["vocab_size"])

  @jax.jit
  def gradients(params, tokens):
    def loss(params):
      return jnp.mean(lm_loss(model.apply(params, tokens), tokens)[:, 1:])

    return jax.value_and_grad(loss)(params)

  theirs.train()
  ids = torch.tensor(tokens, dtype=torch.long)

  def step():
    theirs.zero_grad(set_to_none=True)
    loss = theirs(ids, labels=ids, use_cache=False).loss
    loss.backward()
    return float(loss)

  results = alternate({"rlhf_jax": lambda: gradients(params, tokens), "torch": step}, rounds)
  loss, grads = gradients(params, tokens)
  norm = float(np.sqrt(sum(float(jnp.sum(jnp.square(x))) for x in jax.tree.leaves(grads))))
  torch_norm = float(torch.sqrt(sum((p.grad**2).sum() for p in theirs.parameters())))
  return {
    "parameters": sum(p.numel() for p in theirs.parameters()),
    "tokens": [batch, length],
    "threads": torch.get_num_threads(),
    "loss": [float(loss), step()],
    "gradient_norm": [norm, torch_norm],
    **results,
    "time_over_torch": round(results["rlhf_jax"]["median_s"] / results["torch"]["median_s"], 3),
  }


SMALL = dict(
  vocab_size=8192, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4,
  num_key_value_heads=4, max_position_embeddings=1024, tie_word_embeddings=False,
)  # fmt: skip
GPT2 = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, vocab_size=50257)
PARTS = {
  "small": functools.partial(compare, "Llama", SMALL, 16, 64),
  "gpt2": functools.partial(compare, "GPT2", GPT2, 4, 256),
}


if __name__ == "__main__":
  report(arguments(__doc__, PARTS), PARTS)
