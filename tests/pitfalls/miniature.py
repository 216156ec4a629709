"""What the tests of this folder are made of: a model of one layer, rollouts by hand, settings of a tiny run."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.algorithms import ppo
from rlhf_jax.stage import Transport
from rlhf_jax.train import Environment, Function, Optimizer, Reward, Sampling
from rlhf_jax.types import Experience, Mean, Rollout

SHAPE = dict(num_layers=1, d_model=16, num_heads=2, num_kv_heads=1, d_ff=16)
PAD, EOS = 0, 1
TRANSPORT = Transport("jit", 1, 1)
ADAM = Optimizer(1e-2, 0.0, "constant", 0.9, 0.999, 1e-5, False, 0.0, 1.0)
DEMONSTRATIONS = (
  ("Where does Tom live?", "Tom lives in Oakford."),
  ("Count.", "1 2 3"),
  ("Who?", "Max."),
  ("Where does Max live, and who asks?", "Max lives in Oakford, and Tom asks."),
)


def sharper(params):
  """Parameters far enough from initialisation that a wrong position or a wrong temperature is plain to see.

  The layers count for more, and the last word for less, which would else be said again and again.
  """
  decoder = jax.tree.map(lambda x: 3 * x, params["decoder"])
  words = jax.tree.map(lambda x: 0.1 * x, params["decoder"]["embedding"])
  return {**params, "decoder": {**decoder, "embedding": words}}


def rollout_by_hand(lengths, *, prompt=1, width=None, logp=-1.0) -> Rollout:
  """Responses of `lengths` tokens behind `prompt` tokens, padded to `width`."""
  width = width or prompt + max(lengths) + 1
  index, ends = np.arange(width), prompt + np.asarray(lengths)[:, None]
  mask = (index >= prompt) & (index < ends)  # [B, T]
  tokens = np.where(index < ends, 2 + index % 3, PAD)
  return Rollout(tokens, mask, np.where(mask, np.float32(logp), np.float32(0)), np.ones(len(lengths), bool))


def rewards_of(rollout: Rollout, logp_ref, scores, *, kl_coef):
  """The rewards PPO learns from, f32[B, T]: its advantages where the discount and all values are 0."""
  return np.asarray(experience_of(rollout, logp_ref, scores, kl_coef=kl_coef, discount=0.0)[0].advantages)


def experience_of(
  rollout: Rollout, logp_ref, scores, *, values=None, kl_coef=0.0, **changes
) -> tuple[Experience, dict]:
  """PPO's experience and metrics, with values of 0 unless they are given."""
  values = np.zeros(rollout.mask.shape, np.float32) if values is None else values
  return _compiled(rollout, logp_ref, values, scores, np.float32(kl_coef), ppo_config(**changes))


_compiled = jax.jit(ppo.make_experience, static_argnames="config")


class Sizes(NamedTuple):
  batch_size: int
  samples_per_prompt: int
  sampling: Sampling = Sampling(max_new_tokens=6, temperature=0.5)


# All that a Config asks of its environment before it runs; unlike the real one it can be hashed.
EPISODES = Sizes(batch_size=8, samples_per_prompt=2)


def environment(**changes) -> Environment:
  """Two prompts in turn, two responses to each; every reward is 0.5 but for `changes`."""
  settings = dict(
    prompts="{run}/prompts.jsonl",
    batch_size=8,
    samples_per_prompt=2,
    sampling=Sampling(max_prompt_tokens=24, max_new_tokens=6, temperature=0.5),
    reward=Reward("", 0.0, "miniature:constant", 1.0, {"value": 0.5}),
    missing_eos_score=None,
    monitor=Function(""),
  )
  return Environment(**(settings | changes))


def ppo_config(**changes) -> ppo.Config:
  """PPO with nothing whitened and no penalty, but for `changes`."""
  settings = dict(
    algorithm="rlhf_jax.algorithms.ppo",
    init="init",
    num_steps=2,
    environment=EPISODES,
    kl_coef=0.0,
    kl_target=0.0,
    kl_horizon=100.0,
    discount=1.0,
    lam=0.95,
    clip=0.2,
    value_clip=0.2,
    value_coef=0.1,
    entropy_coef=0.0,
    epochs=2,
    minibatches=2,
    whiten_rewards=False,
    whiten_advantages=False,
    shared_trunk=True,
    value_init="",
    optimizer=ADAM,
    checkpoint_every=100,
  )
  return ppo.Config(**(settings | changes))


def measure_only(loss_fn, optimizer, transport):
  """In place of `make_update`: what learning rate 0 does, without gradients, which take longest to compile."""
  compiled = jax.jit(loss_fn)

  def update(state, batch, weights):
    loss, metrics = compiled(state.params, batch, weights)
    return state, {"loss": Mean(loss, jnp.ones(())), **{name: metric.sum() for name, metric in metrics.items()}}

  return update


def constant(prompts, responses, value):
  """A reward function, as a user would write one."""
  return [value for _ in responses]
