"""How well does the pretrained model answer once it is fine-tuned on demonstrations?

  rlhf-jax run --config sft --workdir runs/quickstart

The quickstart up to its stage `sft`: supervised fine-tuning on demonstrations of the world.

Time: 80 seconds on two idle CPU cores, 3 minutes on two busy ones.

Result: one seed: a loss of 0.44 nats per token on held-out demonstrations. The quickstart's evaluation measures the
model: over seeds 0, 1 and 2 a mean gold reward (-2 to 2) of 0.7.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The recipe, which takes no argument."""
  quickstart.choose("sft", arg)
  return quickstart.get_config("sft")
