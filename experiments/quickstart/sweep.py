"""How much does each stage of RLHF add, and how much each algorithm in the place of PPO? Eight seeds of each.

  rlhf-jax sweep experiments/quickstart/sweep.py --workdir runs/quickstart_sweep
  rlhf-jax compare runs/quickstart_sweep --out runs/quickstart_sweep --metric final/gold --metric final/win_rate

The algorithms of one seed share its world, pretraining, SFT, comparisons and reward model, which run once. The world is
that of seed 0 in each cell.

Time: hours on two cores: for each seed 3 minutes of shared stages, then 1 to 4 minutes for each of its 11 cells.
"""

import functools

from rlhf_jax.configs import best_of_n, dpo, grpo, quickstart, refinement, reinforce, rloo

ALGORITHMS = {
  "ppo": quickstart.get_config,
  "reinforce": reinforce.get_config,
  "rloo": rloo.get_config,
  "grpo": grpo.get_config,
  "best_of_n": best_of_n.get_config,
  "refinement": refinement.get_config,
  **{f"dpo:{loss}": functools.partial(dpo.get_config, loss) for loss in ("dpo", "ipo", "kto", "orpo", "simpo")},
}


def sweep(add):
  for algorithm, get_config in ALGORITHMS.items():
    for seed in range(8):
      config = get_config()
      config.seed = seed
      add(config, algorithm=algorithm)
