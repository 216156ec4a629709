"""How well does a reward model learn from noisy rankings?

  rlhf-jax run --config reward_model --workdir runs/quickstart

The quickstart up to its stage `reward_model`: simulated labellers rank two answers of the SFT model and two that people
wrote to each prompt, and the reward model learns from the rankings.

Time: 2 minutes on two idle CPU cores, 5 on two busy ones.

Result: the quickstart's evaluation measures the model: over seeds 0, 1 and 2 it prefers an ideal answer to a wrong
value in the same form on 86 to 89 % of the prompts, to the refusal of an innocent request on 97 to 99 %, and orders 76
to 79 % of the labellers' pairs, of which the gold reward itself is expected to order 86 to 87 %.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The recipe, which takes no argument."""
  quickstart.choose("reward_model", arg)
  return quickstart.get_config("reward_model")
