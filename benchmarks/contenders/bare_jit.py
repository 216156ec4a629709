"""A hand-written jitted step of the same arithmetic as this project's: `python -m contenders.bare_jit WORK MODE`.

The same forward, objective and optimiser, with donated buffers and nothing else. MODE is sft, reward_model or dpo.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import load_file

from contenders import work
from contenders.gate import Gate
from rlhf_jax.models import language_model
from rlhf_jax.models.hub import load_pretrained, open_pretrained
from rlhf_jax.objectives import bradley_terry_loss, dpo_loss, lm_loss, token_logprobs


def main(directory: Path, mode: str) -> None:
  """Takes steps for ever."""
  opened = open_pretrained(directory / "model")
  model, params = language_model(opened.config), jax.tree.map(jnp.asarray, load_pretrained(opened))
  rows = work.rows(directory)[: work.BATCH]
  kinds = ("chosen",) if mode == "sft" else ("chosen", "rejected")
  tokens = np.array([row["prompt_ids"] + row[f"{kind}_ids"] for kind in kinds for row in rows], np.int32)
  at = np.broadcast_to(np.arange(work.PROMPT, tokens.shape[1], dtype=np.int32), (len(tokens), work.RESPONSE))
  mask = np.broadcast_to(np.arange(tokens.shape[1]) >= work.PROMPT, tokens.shape)
  responses = tokens[:, work.PROMPT :]
  if mode == "reward_model":
    params = model.init_head(jax.random.key(0), params)
    kernel = load_file(directory / "reward_model" / "model.safetensors")["score.weight"][0]
    params = {**params, "head": {**params["head"], "kernel": jnp.asarray(kernel)}}

  def logprobs(params, tokens):
    return jnp.sum(token_logprobs(model.apply(params, tokens, at=at), responses), axis=1)

  reference = jax.jit(logprobs)(params, tokens) if mode == "dpo" else None  # once, as the algorithm does

  def loss_of(params, tokens):
    if mode == "sft":
      return jnp.mean(lm_loss(model.apply(params, tokens, at=at), responses))
    if mode == "reward_model":
      return jnp.mean(bradley_terry_loss(*jnp.split(model.score(params, tokens, mask, at), 2)))
    return jnp.mean(dpo_loss(*jnp.split(logprobs(params, tokens), 2), *jnp.split(reference, 2), beta=work.BETA))

  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(work.LEARNING_RATE))

  def step(params, state, tokens):
    loss, gradients = jax.value_and_grad(loss_of)(params, tokens)
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, loss

  compiled, state, gate = jax.jit(step, donate_argnums=(0, 1)), optimizer.init(params), Gate()
  while True:
    params, state, loss = compiled(params, state, tokens)
    gate.step(loss=float(loss), tokens=responses.size)


if __name__ == "__main__":
  main(Path(sys.argv[1]), sys.argv[2])
