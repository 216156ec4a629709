"""How does direct preference optimisation compare with PPO on the same comparisons?

  rlhf-jax run --config dpo --workdir runs/quickstart
  rlhf-jax run --config dpo:simpo --workdir runs/quickstart

The argument is the loss: dpo (the default), ipo, kto, orpo or simpo. The reward model is trained too: the evaluation
needs it for the proxy reward. In the run directory of the quickstart only the new policy and its evaluation are new.

Time: 4 minutes on two busy CPU cores after the quickstart.

Result: one seed: a mean gold reward (-2 to 2) of 1.0 to 1.1 with each of the five losses, where SFT has 0.6 to 0.7.
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
  """The recipe with the loss `arg`: dpo (the default), ipo, kto, orpo or simpo."""
  name = quickstart.choose("dpo", arg, LOSSES) or "dpo"
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
