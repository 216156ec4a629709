"""Does the SFT model learn from PPO's policy as much as PPO taught that?

  rlhf-jax run --config distillation --workdir runs/quickstart
  rlhf-jax run --config distillation:supervised --workdir runs/quickstart

Distillation (GKD, Agarwal et al. 2023, arXiv 2306.13649): the student is the SFT model, the teacher PPO's policy. The
argument is the data: student (the default), responses of the student itself; or supervised, the demonstrations. In the
run directory of the quickstart only the distillation and its evaluation are new.

Time: 2 minutes on two busy CPU cores after the quickstart.

Result: one seed: a mean gold reward (-2 to 2) of 1.12 [1.04, 1.20], where the teacher has 1.10 and SFT 0.64. The
supervised kind was not measured.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart

STUDENT_SHARES = {"student": 1.0, "supervised": 0.0}


def get_config(arg: str = "") -> ConfigDict:
  """The recipe with the data `arg`: student (the default) or supervised."""
  quickstart.choose("distillation", arg, STUDENT_SHARES)
  name = f"distillation_{arg}" if arg else "distillation"
  config = quickstart.get_config("ppo")
  config[name] = dict(
    algorithm="rlhf_jax.algorithms.distillation",
    init="sft",
    teacher="ppo",
    prompts="{run}/world/prompts.jsonl",
    demonstrations="{run}/world/demonstrations.jsonl",
    student_share=STUDENT_SHARES[arg or "student"],
    beta=0.5,
    num_steps=64,
    batch_size=64 if arg != "supervised" else 16,
    sampling=quickstart.SAMPLING,
    length=128,
    optimizer=quickstart.optimizer(1e-3, warmup=0.0),
    checkpoint_every=50,
  )
  config[f"{name}_evaluation"] = quickstart.evaluation(config, "ppo", name)
  config.stages = (*config.stages, name, f"{name}_evaluation")
  return config
