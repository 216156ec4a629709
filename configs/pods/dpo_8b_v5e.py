"""Does DPO of a Llama-3.1-8B shape fit 64 chips of TPU v5e?

  rlhf-jax compile --config pods/dpo_8b_v5e --topology v5e:8x8 --out report
  rlhf-jax run --config pods/dpo_8b_v5e --workdir runs/pod

The first command needs no TPU. The second one runs on all hosts of the slice (docs/pods.md), in the directory of a run
that has the stages before it.

Time: 3 minutes on two busy CPU cores to compile.

Result: it fits: 4.7 of 15.7 GiB at most, in update. The update asks for 0.96 times the bytes of the FSDP minimum (1.29
as compiled). Predicted: 1.3 s a step, 1,622 tokens trained a second and chip, a utilisation of 40%. dpo_8b_v5e.json
beside this file is the whole report.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import dpo, quickstart
from rlhf_jax.configs.pods import shapes


def get_config(arg: str = "") -> ConfigDict:
  """The recipe, which takes no argument."""
  quickstart.choose("pods/dpo_8b_v5e", arg)
  config = shapes.pod("dpo", "8b", fsdp=64)
  config.dpo = dpo.get_config().dpo
  config.dpo.update(batch_size=64, length=1024, optimizer=quickstart.optimizer(1e-6))
  return config
