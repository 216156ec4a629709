"""How right and how sure is a reward model at low and at high scores, before and after PPO?

  rlhf-jax run --config reward_values --workdir runs/quickstart

Eight answers of SFT and eight of PPO to each of 400 held-out prompts, scored by the quickstart's reward model,
which PPO has optimised. The stage `reward_values` has the accuracy and the calibration on pairs of answers, and the
answers with their scores; the stage `held_out_labels` has the calibration on the labels that the reward model was not
trained on, and the temperature that they ask for. In the run directory of the quickstart only these two stages are new.

Time: about half a minute on two idle CPU cores after the quickstart.

Result: see experiments/reward_values.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def answers(
  config: ConfigDict, policies: Sequence[str], reward_models: Sequence[str], num_prompts: int, responses: int
) -> ConfigDict:
  """A stage that samples `policies` on the same held-out prompts, and has `reward_models` and people judge them."""
  return ConfigDict(
    dict(
      algorithm="rlhf_jax.stages.answers",
      policies=tuple(policies),
      reference="sft",
      prompts="{run}/world/eval_prompts.jsonl",
      num_prompts=num_prompts,
      responses=responses,
      batch_size=256 // responses,
      sampling=quickstart.SAMPLING,
      gold=quickstart.gold(config, "gold_parts"),
      min_gap=0.5,
      reward_models=tuple(reward_models),
      labellers=quickstart.LABELLERS,
      comparisons="{run}/preferences/comparisons.jsonl",
    )
  )


def get_config(arg: str = "") -> ConfigDict:
  """The quickstart up to PPO, and the two stages; the recipe takes no argument."""
  quickstart.choose("reward_values", arg)
  config = quickstart.get_config("ppo")
  config.held_out_labels = dict(
    algorithm="rlhf_jax.stages.comparison_accuracy",
    models=("reward_model",),
    comparisons=dict(labels="{run}/preferences/comparisons.jsonl"),
    eval_fraction=config.reward_model.eval_fraction,
    batch_size=256,
  )
  config.reward_values = answers(config, ("sft", "ppo"), ("reward_model",), num_prompts=400, responses=8)
  config.stages = (*config.stages, "held_out_labels", "reward_values")
  return config
