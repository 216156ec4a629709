"""How do baselines, GAE's lambda, the clip and the number of epochs change RL, and how do algorithms compare?

  rlhf-jax sweep experiments/policy_gradients/sweep.py --workdir runs/policy_gradients/sweep
  rlhf-jax sweep experiments/policy_gradients/sweep.py:fast --workdir /tmp/fast --engine inline

A cell is the quickstart's chain up to its reward model, a stage `policy` by one algorithm, and an evaluation of it. The
cells of one seed share the chain, so that all algorithms of a seed learn from the same SFT model, the same comparisons
and the same reward model; the world is that of seed 0 in each cell. As the stage has one name, algorithms with as many
prompts in a step get the same prompts in the same order.

Algorithms have seeds 0 to 7, settings that differ from PPO's in one respect seeds 0 to 2, and "ppo, seed of PPO alone"
trains PPO seven more times on the chain of seed 0.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from rlhf_jax.configs import best_of_n, dpo, grpo, quickstart, reinforce, rloo

SEEDS, FEW = 8, 3
BASELINES = ("none", "moving_mean", "leave_one_out", "value", "optimal_token")
FACTORS = {
  "ppo, lambda 0": dict(lam=0.0),
  "ppo, lambda 0.5": dict(lam=0.5),
  "ppo, lambda 0.9": dict(lam=0.9),
  "ppo, lambda 1": dict(lam=1.0),
  "ppo, clip 0.1": dict(clip=0.1),
  "ppo, clip 0.5": dict(clip=0.5),
  "ppo, no clip": dict(clip=1e9),
  "ppo, 1 epoch": dict(epochs=1),
  "ppo, 4 epochs": dict(epochs=4),
  "ppo, 8 epochs": dict(epochs=8),
  "ppo, 8 epochs, no clip": dict(epochs=8, clip=1e9),
}
SAME_CHAIN = "ppo, seed of PPO alone"
SAMPLES = 64  # a step of RL, so that as many samples are as many steps
FAST = ("ppo", "best of 8, 256 prompts", "dpo", "ppo, lambda 0")
SMALL = {
  "model": dict(num_layers=1, d_model=32, num_heads=2, num_kv_heads=2, d_ff=48, max_length=64),
  "world": dict(num_documents=200, num_demonstrations=120, num_prompts=64, num_eval_prompts=16),
  "vocabulary": dict(vocab_size=400),
  "pretrain": dict(num_steps=4, length=32, eval_rows=8),
  "sft": dict(num_epochs=8, batch_size=8, length=64, optimizer=dict(learning_rate=1e-2)),  # else no response ends
  "preferences": dict(num_prompts=32, batch_size=16),
  "reward_model": dict(length=64, normalize_count=16, num_epochs=1),
  "evaluation": dict(num_prompts=16, batch_size=16),
}


def policies() -> dict[str, tuple[dict[str, ConfigDict], bool]]:
  """{setting: (its stages by name, the last of which is `policy`; whether it is an algorithm, with all seeds)}."""
  ppo = quickstart.get_config("ppo").ppo
  found = {"ppo": ({"policy": ppo}, True)}
  for baseline in BASELINES:
    found[f"reinforce, {baseline}"] = ({"policy": reinforce.get_config(baseline)[f"reinforce_{baseline}"]}, True)
  pairs = rloo.get_config().rloo
  pairs.environment.update(batch_size=SAMPLES // 2, samples_per_prompt=2)
  found |= {
    "rloo": ({"policy": rloo.get_config().rloo}, True),
    "rloo, 2 responses": ({"policy": pairs}, True),
    "grpo": ({"policy": grpo.get_config().grpo}, True),
    "dpo": ({"policy": dpo.get_config().dpo}, True),
  }
  for prompts in (256, 2000):  # 256 prompts are as many samples as RL has
    config = best_of_n.get_config("8")
    config.best_of_n.num_prompts = prompts
    found[f"best of 8, {prompts} prompts"] = ({"best_of_n": config.best_of_n, "policy": config.rejection_sft}, True)
  for setting, changes in FACTORS.items():
    changed = quickstart.get_config("ppo").ppo
    changed.update(changes)
    found[setting] = ({"policy": changed}, False)
  return found


def cell(stages: dict[str, ConfigDict], seed: int, fast: bool) -> ConfigDict:
  """The config of a cell: the chain of a seed, the stages of a policy, and an evaluation."""
  config = quickstart.get_config("reward_model")
  config.seed = seed
  for name, stage in stages.items():
    config[name] = stage.copy_and_resolve_references()
  config.evaluation = quickstart.evaluation(config, "policy")
  config.evaluation.update(models=("sft", "policy"), responses=1, held_out_prompts="", contrasts="")
  config.evaluation.update(comparisons="", demonstrations="")
  config.evaluation.labellers, config.evaluation.baselines = ConfigDict(), ConfigDict()
  config.stages = (*config.stages, *stages, "evaluation")
  if "environment" in config.policy:
    config.policy.watch = dict(eval_prompts="{run}/world/eval_prompts.jsonl", num_prompts=128, evaluate_every=4)
    config.policy.checkpoint_every = config.policy.num_steps
  if fast:
    shrink(config)
  return config


def shrink(config: ConfigDict) -> None:
  """Makes the chain and its policy so small that they show no more than that everything runs."""
  config.update(SMALL)
  samplers = [config[name] for name in ("preferences", "reward_model", "evaluation", "best_of_n") if name in config]
  if "environment" in config.policy:
    per_prompt = config.policy.environment.samples_per_prompt
    config.policy.environment.batch_size = 16 // per_prompt
    config.policy.num_steps = config.policy.checkpoint_every = 2
    config.policy.watch.update(num_prompts=16, evaluate_every=1)
    samplers.append(config.policy.environment)
  else:
    config.policy.update(num_epochs=1, batch_size=16, length=64)
  if "best_of_n" in config:
    config.best_of_n.update(num_prompts=16, batch_size=4)
  for section in samplers:
    section.sampling = dict(max_prompt_tokens=40, max_new_tokens=16, temperature=1.0)


def cells(fast: bool) -> Iterator[tuple[dict[str, Any], ConfigDict]]:
  """(labels, config) of each cell."""
  for setting, (stages, is_algorithm) in policies().items():
    if fast and setting not in FAST:
      continue
    for seed in range(1 if fast else SEEDS if is_algorithm else FEW):
      yield {"setting": setting}, cell(stages, seed, fast)
  stages = policies()["ppo"][0]
  for seed in range(1, 2 if fast else SEEDS):
    config = cell(stages, 0, fast)
    config.seeds = dict(policy=seed)
    yield {"setting": SAME_CHAIN, "seeds.policy": seed}, config


def sweep(add, arg=""):
  for labels, config in cells(quickstart.choose("policy_gradients", arg, ("fast",)) == "fast"):
    add(config, **labels)
