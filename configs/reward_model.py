"""How well does a reward model learn from noisy rankings?

  rlhf-jax run --config reward_model --workdir runs/quickstart

The quickstart up to its stage `reward_model`: simulated labellers rank four answers of the SFT model to each prompt,
and the reward model learns from the rankings.

Time: 2 minutes on two idle CPU cores, 5 on two busy ones.

Result: the quickstart's evaluation measures the model: over seeds 0, 1 and 2 it orders 90 to 93 % of the pairs whose
gold rewards differ by more than 0.5, and 67 to 68 % of the labellers' pairs, of which the gold reward itself orders
73 to 74 %.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The recipe, which takes no argument."""
  quickstart.choose("reward_model", arg)
  return quickstart.get_config("reward_model")
