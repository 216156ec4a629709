"""Tunix' trainers with their defaults: `python -m contenders.tunix_trainers WORK MODE`.

MODE is sft, dpo, grpo or ppo. Tunix 0.1.7 works with JAX and reads the same weights.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import tunix
from transformers import PreTrainedTokenizerFast
from tunix.models.llama3 import model as llama
from tunix.models.llama3 import params as llama_params

from contenders import work
from contenders.gate import Gate, idle

STEPS = 10**6


class Llama(llama.Llama3):
  """Tunix 0.1.7 passes segment_ids where it scores, which its Llama does not take."""

  def __call__(self, *arguments, segment_ids=None, **settings):
    return super().__call__(*arguments, **settings)


def read_model(directory: Path, mesh):
  """The shared model with its weights."""
  shape = work.read_shape(directory)
  config = llama.ModelConfig(
    num_layers=shape["num_hidden_layers"], vocab_size=shape["vocab_size"], embed_dim=shape["hidden_size"],
    hidden_dim=shape["intermediate_size"], num_heads=shape["num_attention_heads"],
    head_dim=shape["hidden_size"] // shape["num_attention_heads"], num_kv_heads=shape["num_key_value_heads"],
    rope_theta=int(shape["rope_theta"]), norm_eps=shape["rms_norm_eps"],
  )  # fmt: skip
  model = llama_params.create_model_from_safe_tensors(str(directory / "model"), config, mesh)
  model.__class__ = Llama
  return model


def read_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
  """The tokenizer; Tunix puts <bos> in front of a prompt itself."""
  return PreTrainedTokenizerFast(
    tokenizer_file=str(directory / "tokenizer.json"), pad_token="<pad>", eos_token="<eos>", bos_token="<bos>",
    padding_side="left",
  )  # fmt: skip


def one_device():
  """A mesh of one device."""
  return jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))


def finish() -> float:
  """Returns when all arrays are there and no thread works; the time at which that was."""
  jax.block_until_ready(jax.live_arrays())
  return idle()


def batches(make, gate: Gate, facts):
  """The same batch for ever; where the next one is asked for, the step before is done or on its way."""
  for index in range(STEPS):
    if index:
      gate.step(**facts(index - 1))
    yield make(index)


def main(directory: Path, mode: str) -> None:
  """Trains until the gate is shut."""
  logging.disable(logging.WARNING)
  mesh = one_device()
  with mesh:
    if mode in ("sft", "dpo"):
      _supervised(directory, mode, mesh)
    else:
      _rl(directory, mode, mesh)


def _supervised(directory: Path, mode: str, mesh) -> None:
  losses: list[Any] = []

  class Told:
    """Keeps the losses."""

    def _buffer_metrics(self, metrics_buffer, loss, *arguments, **settings):
      losses.append(loss)
      return super()._buffer_metrics(metrics_buffer, loss, *arguments, **settings)

  rows = work.rows(directory)[: work.BATCH]
  ids = {kind: np.array([row[f"{kind}_ids"] for row in rows], np.int32) for kind in ("prompt", "chosen", "rejected")}
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(work.LEARNING_RATE))
  settings = dict(eval_every_n_steps=STEPS, max_steps=STEPS, max_inflight_computations=1)
  if mode == "sft":
    from tunix.sft import peft_trainer, utils

    def inputs(x):
      real = x.input_tokens >= 0  # all rows are full
      return dict(
        input_tokens=x.input_tokens, input_mask=x.input_mask, positions=utils.build_positions_from_mask(real),
        attention_mask=utils.make_causal_attn_mask(real),
      )  # fmt: skip

    kind = type("Trainer", (Told, tunix.PeftTrainer), {})
    trainer = kind(read_model(directory, mesh), optimizer, tunix.TrainingConfig(**settings))
    trainer = trainer.with_gen_model_input_fn(inputs)
    tokens = np.concatenate([ids["prompt"], ids["chosen"]], axis=1)
    mask = np.arange(tokens.shape[1])[None] >= np.full((len(tokens), 1), work.PROMPT)
    batch = peft_trainer.TrainingInput(input_tokens=tokens, input_mask=mask)
  else:
    from tunix.sft.dpo import dpo_trainer

    kind = type("Trainer", (Told, tunix.DPOTrainer), {})
    config = tunix.DPOTrainingConfig(beta=work.BETA, **settings)
    models = (read_model(directory, mesh) for _ in range(2))
    trainer = kind(*models, optimizer, config, tokenizer=read_tokenizer(directory))
    masks = {f"{name}_mask": np.ones_like(found) for name, found in ids.items()}
    batch = dpo_trainer.TrainingInput(**{f"{name}_ids": found for name, found in ids.items()}, **masks)
  tokens_of_step = work.BATCH * work.RESPONSE * (1 if mode == "sft" else 2)

  def facts(index: int) -> dict[str, Any]:
    return {"loss": lambda: losses[index], "tokens": tokens_of_step}

  trainer.train(batches(lambda index: batch, Gate(finish), facts))


def _rl(directory: Path, mode: str, mesh) -> None:
  from tunix.rl import rl_cluster, utils
  from tunix.rl.rollout import base_rollout

  def adam():
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(work.RL_LEARNING_RATE))

  ppo, role = mode == "ppo", rl_cluster.Role
  roles = [role.ACTOR, role.REFERENCE, role.ROLLOUT, *([role.CRITIC, role.REWARD] if ppo else [])]
  config = rl_cluster.ClusterConfig(
    role_to_mesh=dict.fromkeys(roles, mesh),
    rollout_engine="vanilla",
    training_config=rl_cluster.RLTrainingConfig(
      actor_optimizer=adam(),
      critic_optimizer=adam() if ppo else None,
      eval_every_n_steps=STEPS,
      max_steps=STEPS,
      max_inflight_computations=1,
    ),
    rollout_config=base_rollout.RolloutConfig(
      max_tokens_to_generate=work.RESPONSE, max_prompt_length=work.PROMPT,
      kv_cache_size=work.PROMPT + work.RESPONSE + 8, temperature=1.0, top_p=1.0,
    ),
  )  # fmt: skip
  critics = {}
  if ppo:
    critics = {name: utils.create_critic_model(read_model(directory, mesh)) for name in ("critic", "reward")}
  tokenizer = read_tokenizer(directory)
  cluster = rl_cluster.RLCluster(
    actor=read_model(directory, mesh), reference=read_model(directory, mesh), tokenizer=tokenizer,
    cluster_config=config, **critics,
  )  # fmt: skip
  if ppo:
    learner = tunix.PPOLearner(cluster, tunix.PPOConfig(num_iterations=work.EPOCHS, beta=work.KL_COEF))
  else:
    settings = tunix.GRPOConfig(num_generations=work.GROUP, num_iterations=1, beta=work.KL_COEF)
    learner = tunix.GRPOLearner(cluster, settings, reward_fns=work.distinct_characters)
  # Tunix puts <bos> in front of a prompt itself.
  texts = [tokenizer.decode(row["prompt_ids"][1:]) for row in work.rows(directory)]
  count = work.BATCH if ppo else work.BATCH // work.GROUP

  def prompts(index):
    return {"prompts": np.array([texts[(index * count + row) % len(texts)] for row in range(count)])}

  learner.train(batches(prompts, Gate(finish), lambda index: {"tokens": work.BATCH * work.RESPONSE}))


if __name__ == "__main__":
  main(Path(sys.argv[1]), sys.argv[2])
