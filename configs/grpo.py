"""GRPO instead of PPO, from the same SFT and reward model: eight responses to each prompt, no critic; ARG is a variant.

  rlhf-jax run --config configs/grpo.py --workdir runs/quickstart
  rlhf-jax run --config configs/grpo.py:dr_grpo --workdir runs/quickstart

Variants: grpo, dr_grpo (no standard deviation, constant-length normalisation), dapo (token mean, clip-higher), gspo
(sequence-level ratio). Each keeps the KL term and its coefficient, so that they differ in what they are named for.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart

VARIANTS = {
  "grpo": dict(),
  "dr_grpo": dict(normalize_std=False, weights="constant"),
  "dapo": dict(weights="token", clip=(0.2, 0.28)),
  "gspo": dict(ratio="sequence", clip=(0.03, 0.04)),
}


def get_config(arg: str = "") -> ConfigDict:
  """The recipe of the variant `arg` ("" is grpo)."""
  name = arg or "grpo"
  if name not in VARIANTS:
    raise ValueError(f"no variant {name!r}: one of {', '.join(VARIANTS)}")
  config = quickstart.get_config()
  config[name] = dict(
    algorithm="rlhf_jax.algorithms.grpo",
    init="sft",
    num_steps=config.ppo.num_steps,
    environment=quickstart.environment(config, batch_size=8, samples_per_prompt=8),
    normalize_std=True,
    weights="sequence",
    clip=(0.2, 0.2),
    ratio="token",
    kl_coef=0.04,
    kl_kind="k3",
    epochs=2,
    minibatches=2,
    optimizer=quickstart.optimizer(5e-4, warmup=0.0, eps=1e-5, weight_decay=0.0),
    checkpoint_every=20,
  )
  config[name].update(VARIANTS[name])
  return quickstart.instead_of_ppo(config, name)
