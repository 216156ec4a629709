"""Does PPO of a Llama-3.1-70B shape fit 512 chips of TPU v5p?

  rlhf-jax compile --config pods/ppo_70b_v5p --topology v5p:8x8x8 --out report
  rlhf-jax run --config pods/ppo_70b_v5p --workdir runs/pod

The first command needs no TPU. The second one runs on all hosts of the slice (docs/pods.md), in the directory of a run
that has the stages before it.

Time: 18 minutes on two busy CPU cores to compile.

Result: it fits: 57.1 of 95.7 GiB at most, in lay_out. The update asks for 0.99 times the bytes of the FSDP minimum
(5.24 as compiled). Predicted: 28.0 s a step, 146 tokens trained a second and chip, a utilisation of 47%.
ppo_70b_v5p.json beside this file is the whole report.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart
from rlhf_jax.configs.pods import shapes


def get_config(arg: str = "") -> ConfigDict:
  """The recipe, which takes no argument."""
  quickstart.choose("pods/ppo_70b_v5p", arg)
  return shapes.ppo("70b", 2048, fsdp=128, tensor=4)
