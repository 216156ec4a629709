"""The quickstart up to and with `reward_model`: the reward model, on the labellers' rankings.

rlhf-jax run --config configs/reward_model.py --workdir runs/quickstart
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The recipe; `arg` is not used."""
  del arg
  return quickstart.get_config("reward_model")
