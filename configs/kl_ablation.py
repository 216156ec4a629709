"""What the KL penalty is for: PPO with it and PPO without it, from the same SFT and reward model.

  rlhf-jax run --config configs/kl_ablation.py --workdir runs/quickstart

In the run directory of the quickstart only the second PPO and its evaluation are new. The report shows proxy and gold
reward of both against the KL to the reference.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The quickstart and `ppo_no_kl`; `arg` is not used."""
  del arg
  config = quickstart.get_config()
  config.ppo_no_kl = config.ppo.copy_and_resolve_references()
  config.ppo_no_kl.kl_coef = 0.0
  config.ppo_no_kl.num_steps = 100
  config.ablation = config.evaluation.copy_and_resolve_references()
  config.ablation.models = ("pretrain", "sft", "ppo", "ppo_no_kl")
  config.stages = (*config.stages, "ppo_no_kl", "ablation")
  return config
