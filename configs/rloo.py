"""How does RLOO compare with PPO, from the same SFT model and reward model?

  rlhf-jax run --config rloo --workdir runs/quickstart
  rlhf-jax run --config rloo --workdir runs/quickstart --config.rloo.epochs=1 --config.rloo.minibatches=1

RLOO samples four responses to each prompt and needs no critic. The second command takes one update for each rollout, as
in the paper (Ahmadian et al. 2024, arXiv 2402.14740). In the run directory of the quickstart only RLOO and its
evaluation are new.

Time: 2 minutes on two busy CPU cores after the quickstart.

Result: one seed: a mean gold reward (-2 to 2) of 1.14 [1.06, 1.22], where SFT has 0.64.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The recipe, which takes no argument."""
  quickstart.choose("rloo", arg)
  config = quickstart.get_config()
  config.rloo = dict(
    algorithm="rlhf_jax.algorithms.rloo",
    init="sft",
    num_steps=config.ppo.num_steps,
    environment=quickstart.environment(config, batch_size=16, samples_per_prompt=4),
    kl_coef=config.ppo.kl_coef,
    clip=0.5,
    epochs=2,
    minibatches=2,
    optimizer=quickstart.optimizer(5e-4, warmup=0.0, eps=1e-5, weight_decay=0.0),
    checkpoint_every=20,
  )
  return quickstart.instead_of_ppo(config, "rloo")
