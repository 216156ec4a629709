"""What happens when PPO has no KL penalty?

  rlhf-jax run --config kl_ablation --workdir runs/quickstart

PPO with the penalty and PPO without it start from the same SFT model and reward model. In the run directory of the
quickstart only the second PPO, of 100 steps, and its evaluation are new. The report shows proxy and gold reward of both
against the KL to the reference.

Time: about 4 minutes on one CPU core after the quickstart, 8 on a busy one.

Result: one seed: without the penalty the proxy reward ends higher, at 0.74 [0.71, 0.77] instead of 0.62 [0.58, 0.66],
and the gold reward (-2 to 2) lower, at 0.90 [0.82, 0.99] instead of 1.15 [1.07, 1.22]: over-optimisation, by answers
that keep their form and lose the right value. experiments/kl_ablation has the details.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The quickstart and `ppo_no_kl`; the recipe takes no argument."""
  quickstart.choose("kl_ablation", arg)
  config = quickstart.get_config()
  environment = quickstart.environment(config, batch_size=64, samples_per_prompt=1)
  config.ppo_no_kl = dict(config.ppo, environment=environment, kl_coef=0.0, num_steps=100)
  config.ablation = quickstart.evaluation(config, "ppo", "ppo_no_kl")
  config.stages = (*config.stages, "ppo_no_kl", "ablation")
  return config
