"""What the KL penalty is for: PPO with it and PPO without it, from the same SFT and reward model.

  rlhf-jax run --config configs/kl_ablation.py --workdir runs/quickstart

In the run directory of the quickstart only the second PPO and its evaluation are new. The report shows proxy and gold
reward of both against the KL to the reference.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The quickstart and `ppo_no_kl`; `arg` is not used."""
  del arg
  config = quickstart.get_config()
  environment = quickstart.environment(config, batch_size=64, samples_per_prompt=1)
  config.ppo_no_kl = dict(config.ppo, environment=environment, kl_coef=0.0, num_steps=100)
  config.ablation = quickstart.evaluation(config, "ppo", "ppo_no_kl")
  config.stages = (*config.stages, "ppo_no_kl", "ablation")
  return config
