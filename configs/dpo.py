"""Direct preference optimisation instead of PPO, on the comparisons the reward model learns from; ARG is the loss.

  rlhf-jax run --config configs/dpo.py --workdir runs/quickstart
  rlhf-jax run --config configs/dpo.py:simpo --workdir runs/quickstart

Losses: dpo, ipo, kto, orpo, simpo. The reward model is trained too, for the proxy reward of the report.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart

# beta scales log-probs that are sums over a response (dpo, ipo, kto) or means over its tokens (orpo, simpo).
LOSSES = {
  "dpo": dict(beta=0.1, label_smoothing=0.0),
  "ipo": dict(beta=0.1),
  "kto": dict(beta=0.1, desirable_weight=1.0, undesirable_weight=1.0),
  "orpo": dict(beta=0.5),
  "simpo": dict(beta=2.0, margin=1.0),
}


def get_config(arg: str = "") -> ConfigDict:
  """The recipe with the loss `arg` ("" is dpo)."""
  name = arg or "dpo"
  if name not in LOSSES:
    raise ValueError(f"no loss {name!r}: one of {', '.join(LOSSES)}")
  config = quickstart.get_config()
  config[name] = dict(
    algorithm="rlhf_jax.algorithms.dpo",
    init="sft",
    comparisons="{run}/preferences/comparisons.jsonl",
    eval_fraction=0.1,
    num_epochs=2,
    batch_size=16,
    length=config.reward_model.length,
    loss=dict(name=name, **LOSSES[name]),
    optimizer=quickstart.optimizer(2e-4, warmup=0.1, weight_decay=0.0),
    evaluate_every=50,
    checkpoint_every=100,
  )
  return quickstart.instead_of_ppo(config, name)
