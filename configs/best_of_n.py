"""Rejection-sampling fine-tuning instead of PPO: the best of N responses by the reward model, then SFT on them.

  rlhf-jax run --config configs/best_of_n.py --workdir runs/quickstart
  rlhf-jax run --config configs/best_of_n.py:16 --workdir runs/best_of_16

ARG is N, 8 by default: best-of-8 is at most log 8 - 7/8 = 1.2 nats away from the policy that is sampled.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The recipe with N = `arg` ("" is 8)."""
  config = quickstart.get_config()
  config.best_of_n = dict(
    algorithm="rlhf_jax.stages.best_of_n",
    policy="sft",
    prompts="{run}/world/prompts.jsonl",
    num_prompts=4000,
    responses=int(arg or 8),
    batch_size=32,
    sampling=quickstart.SAMPLING,
    reward=config.ppo.environment.reward,
  )
  config.rejection_sft = config.sft.copy_and_resolve_references()
  config.rejection_sft.update(init="sft", demonstrations="{run}/best_of_n/demonstrations.jsonl", num_epochs=2)
  config.rejection_sft.optimizer = quickstart.optimizer(3e-4)
  return quickstart.instead_of_ppo(config, "best_of_n", "rejection_sft")
