"""Does SFT of a Llama-3.1-8B shape fit 64 chips of TPU v5e?

  rlhf-jax compile --config pods/sft_8b_v5e --topology v5e:8x8 --out report
  rlhf-jax run --config pods/sft_8b_v5e --workdir runs/pod

The first command needs no TPU. The second one runs on all hosts of the slice (docs/pods.md), in the directory of a run
that has the stages before it.

Time: 2 minutes on two busy CPU cores to compile.

Result: it fits: 4.7 of 15.7 GiB at most, in update. The update asks for 0.96 times the bytes of the FSDP minimum (1.29
as compiled). Predicted: 1.4 s a step, 1,509 tokens trained a second and chip, a utilisation of 37%. sft_8b_v5e.json
beside this file is the whole report.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart
from rlhf_jax.configs.pods import shapes


def get_config(arg: str = "") -> ConfigDict:
  """The recipe, which takes no argument."""
  quickstart.choose("pods/sft_8b_v5e", arg)
  config = shapes.pod("sft", "8b", fsdp=64)
  config.sft.update(batch_size=64, length=2048, optimizer=quickstart.optimizer(1e-5))
  return config
