"""REINFORCE instead of PPO, from the same SFT and reward model; the baseline is leave-one-out, or ARG.

  rlhf-jax run --config configs/reinforce.py --workdir runs/reinforce
  rlhf-jax run --config configs/reinforce.py:moving_mean --workdir runs/moving_mean

Baselines: none, moving_mean, leave_one_out, value.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The recipe with baseline `arg` ("" is leave_one_out)."""
  config = quickstart.get_config()
  environment = config.ppo.environment.copy_and_resolve_references()
  environment.batch_size = config.ppo.environment.batch_size // 4
  environment.samples_per_prompt = 4
  config.reinforce = dict(
    algorithm="rlhf_jax.algorithms.reinforce",
    init="sft",
    num_steps=config.ppo.num_steps,
    environment=environment,
    baseline=arg or "leave_one_out",
    moving_decay=0.9,
    kl_coef=config.ppo.kl_coef,
    value_coef=0.1,
    entropy_coef=0.0,
    optimizer=quickstart.optimizer(1e-3, warmup=0.0, eps=1e-5, weight_decay=0.0),
    checkpoint_every=20,
  )
  del config["ppo"]
  config.stages = tuple("reinforce" if stage == "ppo" else stage for stage in config.stages)
  config.evaluation.models = ("pretrain", "sft", "reinforce")
  return config
