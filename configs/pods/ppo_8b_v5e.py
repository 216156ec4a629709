"""Does PPO of a Llama-3.1-8B shape fit 256 chips of TPU v5e?

  rlhf-jax compile --config pods/ppo_8b_v5e --topology v5e:16x16 --out report
  rlhf-jax run --config pods/ppo_8b_v5e --workdir runs/pod

The first command needs no TPU. The second one runs on all hosts of the slice (docs/pods.md), in the directory of a run
that has the stages before it.

Time: 9 minutes on two busy CPU cores to compile.

Result: it fits: 6.3 of 15.7 GiB at most, in update. The update asks for 0.97 times the bytes of the FSDP minimum (13.37
as compiled). Predicted: 8.2 s a step, 499 tokens trained a second and chip, a utilisation of 41%. ppo_8b_v5e.json
beside this file is the whole report.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart
from rlhf_jax.configs.pods import shapes


def get_config(arg: str = "") -> ConfigDict:
  """The recipe, which takes no argument."""
  quickstart.choose("pods/ppo_8b_v5e", arg)
  return shapes.ppo("8b", 1024, fsdp=32, tensor=8)
