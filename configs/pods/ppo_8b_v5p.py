"""Does PPO of a Llama-3.1-8B shape fit 64 chips of TPU v5p?

  rlhf-jax compile --config pods/ppo_8b_v5p --topology v5p:4x4x4 --out report
  rlhf-jax run --config pods/ppo_8b_v5p --workdir runs/pod

The first command needs no TPU. The second one runs on all hosts of the slice (docs/pods.md), in the directory of a run
that has the stages before it.

Time: 13 minutes on two busy CPU cores to compile.

Result: it fits: 19.7 of 95.7 GiB at most, in lay_out. The update asks for 0.97 times the bytes of the FSDP minimum
(1.89 as compiled). Predicted: 8.4 s a step, 971 tokens trained a second and chip, a utilisation of 35%. ppo_8b_v5p.json
beside this file is the whole report.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart
from rlhf_jax.configs.pods import shapes


def get_config(arg: str = "") -> ConfigDict:
  """The recipe, which takes no argument."""
  quickstart.choose("pods/ppo_8b_v5p", arg)
  return shapes.ppo("8b", 512, fsdp=64)
