"""How does REINFORCE++ compare with PPO, from the same SFT model and reward model?

  rlhf-jax run --config reinforce_plus_plus --workdir runs/quickstart
  rlhf-jax run --config reinforce_plus_plus:group --workdir runs/quickstart

REINFORCE++ (Hu et al. 2025, arXiv 2501.03262) needs no critic and normalises advantages over the whole batch. The
argument is the baseline: none (the default), one response to each prompt; or group, four of them, less their mean. In
the run directory of the quickstart only REINFORCE++ and its evaluation are new.

Time: 3 minutes on two busy CPU cores after the quickstart.

Result: one seed: a mean gold reward (-2 to 2) of 1.12 [1.04, 1.20], where SFT has 0.64. With groups 1.04
[0.96, 1.12] and 0.60.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart

GROUPS = {"none": dict(batch_size=64, samples_per_prompt=1), "group": dict(batch_size=16, samples_per_prompt=4)}
KL_IN_LOSS = 0.04  # with groups the KL is a term of the loss, beside advantages of variance 1


def get_config(arg: str = "") -> ConfigDict:
  """The recipe with the baseline `arg`: none (the default) or group."""
  quickstart.choose("reinforce_plus_plus", arg, GROUPS)
  baseline = arg or "none"
  name = f"reinforce_plus_plus_{arg}" if arg else "reinforce_plus_plus"
  config = quickstart.get_config()
  config[name] = dict(
    algorithm="rlhf_jax.algorithms.reinforce_plus_plus",
    init="sft",
    num_steps=config.ppo.num_steps,
    environment=quickstart.environment(config, **GROUPS[baseline]),
    baseline=baseline,
    kl_coef=KL_IN_LOSS if baseline == "group" else config.ppo.kl_coef,
    clip=(0.2, 0.2),
    epochs=2,
    minibatches=2,
    optimizer=quickstart.optimizer(5e-4, warmup=0.0, eps=1e-5, weight_decay=0.0),
    checkpoint_every=20,
  )
  return quickstart.instead_of_ppo(config, name)
