"""The quickstart up to and with `ppo`: PPO against the reward model, without the evaluation.

rlhf-jax run --config configs/ppo.py --workdir runs/quickstart
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The recipe; `arg` is not used."""
  del arg
  return quickstart.get_config("ppo")
