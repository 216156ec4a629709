"""REINFORCE instead of PPO, from the same SFT and reward model; the baseline is leave-one-out, or ARG.

  rlhf-jax run --config configs/reinforce.py --workdir runs/quickstart
  rlhf-jax run --config configs/reinforce.py:moving_mean --workdir runs/quickstart

Baselines: none, moving_mean, leave_one_out, value.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The recipe with baseline `arg` ("" is leave_one_out)."""
  name = f"reinforce_{arg}" if arg else "reinforce"
  config = quickstart.get_config()
  config[name] = dict(
    algorithm="rlhf_jax.algorithms.reinforce",
    init="sft",
    num_steps=config.ppo.num_steps,
    environment=quickstart.environment(config, batch_size=16, samples_per_prompt=4),
    baseline=arg or "leave_one_out",
    moving_decay=0.9,
    kl_coef=config.ppo.kl_coef,
    value_coef=0.1,
    entropy_coef=0.0,
    optimizer=quickstart.optimizer(1e-3, warmup=0.0, eps=1e-5, weight_decay=0.0),
    checkpoint_every=20,
  )
  return quickstart.instead_of_ppo(config, name)
