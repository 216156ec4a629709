"""A config of the stages that the quickstart has not, each at a size that runs in seconds after the tiny chain."""

import json
from pathlib import Path

from tiny_chain import SAMPLING, SIZES, recipe, shortness, stages_after

SFT = dict(num_epochs=1, batch_size=8, length=64, eval_fraction=0.2)
LORA = dict(rank=2, alpha=4.0, targets=("query", "value", "up"))
CONFIG = """
from ml_collections import ConfigDict


def get_config(arg=""):
  return ConfigDict({mapping!r})
"""


def write_config(directory: Path, chain: Path) -> Path:
  """A config file in `directory` of the other stages, which start from the models and texts of the finished chain."""
  episodes = shortness(directory, batch_size=4, samples_per_prompt=2)
  learning = dict(num_steps=2, checkpoint_every=2, environment=episodes)
  minibatches = dict(learning, environment=shortness(directory, batch_size=8, samples_per_prompt=2))
  # The gold reward of what so small a model says is mostly the same: here it is what differs.
  (directory / "gold.py").write_text("def score(prompts, responses, **world): return [-len(r) for r in responses]\n")
  steps = [{"prompt": f"Q {k}?", "completions": ["a", "b"], "labels": [True, k % 2 == 0]} for k in range(24)]
  (directory / "steps.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in steps))
  gold = dict(function=f"{directory}/gold.py:score")
  quickstart = recipe("quickstart")
  quickstart["adapted"], quickstart["one_trunk"] = dict(quickstart["sft"]), dict(quickstart["ppo"])
  refinement = recipe("refinement")
  refinement["refinement"]["template"] = refinement["refinement_demonstrations"]["template"] = (
    "{prompt} {response} {critique}"
  )
  rewriting = dict(batch_size=16, length=64, sampling=dict(SAMPLING, max_prompt_tokens=52), reward=episodes["reward"])
  judging = dict(num_items=16, sampling=SAMPLING)
  judged = dict(length=64, normalize_count=64, eval_fraction=0.3, sampling=SAMPLING)
  asked = dict(batch_size=8, tasks=dict(problems=dict(max_new_tokens=8)), models=(f"{chain}/sft", "verifiable"))
  problems = dict(num_documents=200, num_demonstrations=12, num_prompts=96, num_eval_prompts=48)
  checked = dict(batch_size=2, samples_per_prompt=8, sampling=SAMPLING, missing_eos_score=None)
  texts = dict(algorithm="rlhf_jax.stages.perplexity", models=(f"{chain}/sft",), length=32, stride=16, batch_size=8)
  texts["texts"] = {"corpus": f"{chain}/world/corpus.txt"}
  scored = dict(algorithm="rlhf_jax.stages.comparison_accuracy", models=(f"{chain}/reward_model",), batch_size=16)
  scored |= dict(comparisons={"labels": f"{chain}/preferences/comparisons.jsonl"}, train="", eval_fraction=0.3)
  parts = [
    (quickstart, {"adapted": dict(SIZES["sft"], lora=LORA), "one_trunk": dict(SIZES["ppo"], shared_trunk=True)}),
    (recipe("reinforce", "value"), {"reinforce_value": learning}),
    (recipe("reinforce_plus_plus", "group"), {"reinforce_plus_plus_group": minibatches}),
    (recipe("rloo"), {"rloo": minibatches}),
    (recipe("grpo"), {"grpo": minibatches}),
    (recipe("online_dpo"), {"online_dpo": learning}),
    (
      recipe("distillation"),
      {"distillation": dict(num_steps=2, batch_size=8, length=64, sampling=SAMPLING, checkpoint_every=2)},
    ),
    (
      recipe("process_reward", f"{directory}/steps.jsonl"),
      {"process_reward": dict(length=64, batch_size=8, eval_fraction=0.3, num_epochs=1)},
    ),
    (recipe("dpo"), {"dpo": dict(length=64, batch_size=16, eval_fraction=0.2, num_epochs=1)}),
    (recipe("kto"), {"unpaired_kto": dict(length=64, batch_size=16, eval_fraction=0.2, num_epochs=1)}),
    (
      recipe("best_of_n"),
      {
        "best_of_n": dict(num_prompts=20, responses=3, batch_size=16, reward=episodes["reward"], sampling=SAMPLING),
        "rejection_sft": SFT,
      },
    ),
    (
      refinement,
      {
        "refinement_demonstrations": dict(num=40),
        "refiner": SFT,
        "critiques": dict(num_items=24, batch_size=16, sampling=SAMPLING),
        "refinement": rewriting,
      },
    ),
    (
      recipe("reward_from_feedback", "all"),
      {
        "some_pairs": dict(judging, batch_size=32),
        "some_rankings": dict(judging, batch_size=16),
        "some_ratings": dict(judging, batch_size=16),
        "annotators_all": {},
        "reward_all": judged,
        "accuracy_all": dict(num_prompts=12, batch_size=32, responses=2, sampling=SAMPLING, gold=gold),
      },
    ),
    (
      recipe("verifiable"),
      {
        "problems_world": problems,
        "problems": {},
        "verifiable": dict(learning, init=f"{chain}/sft", environment=checked),
        "verifiable_accuracy": asked,
      },
    ),
    ({**quickstart, "perplexity": texts, "scored": scored}, {"perplexity": {}, "scored": {}}),
  ]
  mapping: dict = {}
  for config, changes in parts:
    found = stages_after(config, chain, changes)
    mapping = {**mapping, **found, "stages": [*mapping.get("stages", ()), *found["stages"]]}
  path = directory / "every_stage.py"
  path.write_text(CONFIG.format(mapping=mapping))
  return path
