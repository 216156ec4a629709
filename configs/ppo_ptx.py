"""What does PPO forget of its pretraining text, and does a mix of that text in its loss (PPO-ptx) keep it?

  rlhf-jax run --config ppo_ptx --workdir runs/quickstart
  rlhf-jax run --config ppo_ptx:without --workdir runs/quickstart

PPO of the quickstart with the language-model loss of rows of its pretraining text, which each update adds (InstructGPT,
arXiv 2203.02155, eq. 2). The argument `without` sets the coefficient to 0: the loss of the text is then logged as
ptx/loss and not learnt from. In the run directory of the quickstart only this PPO and its evaluation are new.

Time: 3 minutes on two busy CPU cores after the quickstart.

Result: one seed: the loss of the text goes from 4.3 to 4.5 nats per token without the mix, and to 1.1 with it; the
mean gold reward (-2 to 2) is 1.10 [1.02, 1.18] without and 1.04 [0.95, 1.12] with it.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart

COEFFICIENTS = {"with": 1.0, "without": 0.0}


def get_config(arg: str = "") -> ConfigDict:
  """The recipe: with (the default) the mix, or without."""
  quickstart.choose("ppo_ptx", arg, COEFFICIENTS)
  name = f"ppo_ptx_{arg}" if arg else "ppo_ptx"
  config = quickstart.get_config()
  ptx = dict(text="{run}/world/corpus.txt", coef=COEFFICIENTS[arg or "with"], rows=1, length=64)
  config[name] = dict(config.ppo, ptx=ptx)
  return quickstart.instead_of_ppo(config, name)
