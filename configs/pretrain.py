"""The quickstart up to and with `pretrain`: the language model, by next-token prediction on the world's text.

rlhf-jax run --config configs/pretrain.py --workdir runs/quickstart
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The recipe; `arg` is not used."""
  del arg
  return quickstart.get_config("pretrain")
