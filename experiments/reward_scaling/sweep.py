"""How does the accuracy of a reward model grow with model and data, in worlds of three difficulties?

  rlhf-jax sweep experiments/reward_scaling/sweep.py --workdir runs/reward_scaling

Time: 16 minutes on one CPU core.
"""

from rlhf_jax.configs import reward_scaling


def sweep(add):
  for difficulty in ("easy", "medium", "hard"):
    for size in ("small", "full"):
      arg = f"{difficulty}_small" if size == "small" else difficulty
      add(reward_scaling.get_config(arg), difficulty=difficulty, size=size)
