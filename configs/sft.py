"""The quickstart up to and with `sft`: supervised fine-tuning on the world's demonstrations.

rlhf-jax run --config configs/sft.py --workdir runs/quickstart
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The recipe; `arg` is not used."""
  del arg
  return quickstart.get_config("sft")
