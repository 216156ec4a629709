"""RLOO instead of PPO, from the same SFT and reward model: four responses to each prompt, no critic.

  rlhf-jax run --config configs/rloo.py --workdir runs/quickstart

As in the paper, one update per rollout: --config.rloo.epochs=1 --config.rloo.minibatches=1.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The recipe; `arg` is not used."""
  del arg
  config = quickstart.get_config()
  config.rloo = dict(
    algorithm="rlhf_jax.algorithms.rloo",
    init="sft",
    num_steps=config.ppo.num_steps,
    environment=quickstart.environment(config, batch_size=16, samples_per_prompt=4),
    kl_coef=config.ppo.kl_coef,
    clip=0.5,
    epochs=2,
    minibatches=2,
    optimizer=quickstart.optimizer(5e-4, warmup=0.0, eps=1e-5, weight_decay=0.0),
    checkpoint_every=20,
  )
  return quickstart.instead_of_ppo(config, "rloo")
