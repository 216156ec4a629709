"""RL on answers that can be checked: sums and word problems, the last number of the response counts, no reward model.

  rlhf-jax run --config configs/verifiable.py --workdir runs/quickstart

GRPO with `rlhf_jax.verify:number` as its reward, from a model that was shown 200 answers. The same function, on
problems that nothing was trained on, says how many are solved before and after, and by the quickstart's SFT model,
which was shown 1,667. In a run directory of the quickstart only these are new. `experiments/verifiable` has what was
found.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import grpo, quickstart

CLUSTERS = ("arithmetic", "reasoning")


def get_config(arg: str = "") -> ConfigDict:
  """The recipe; `arg` is not used."""
  del arg
  config = quickstart.get_config("sft")
  # More prompts of the same world; by their hash none of those for evaluation was trained on.
  config.problems_world = ConfigDict(config.world)
  config.problems_world.update(num_documents=1000, num_demonstrations=12, num_prompts=12000, num_eval_prompts=3600)
  config.problems = dict(
    algorithm="rlhf_jax.stages.world_questions",
    seed=config.world.get_ref("seed"),
    num_choices=2,
    parts={
      name: dict(prompts=f"{{run}}/problems_world/{name}.jsonl", clusters=CLUSTERS)
      for name in ("prompts", "eval_prompts")
    },
  )
  config.few_data = dict(
    algorithm="rlhf_jax.stages.select_demonstrations",
    demonstrations=config.sft.demonstrations,
    clusters=CLUSTERS,
    num_demonstrations=200,
    rationale=True,
  )
  config.few = ConfigDict(config.sft)
  config.few.update(demonstrations="{run}/few_data/demonstrations.jsonl", num_epochs=10)
  config.verifiable = grpo.get_config().grpo
  config.verifiable.update(init="few", num_steps=48)
  config.verifiable.environment.update(prompts="{run}/problems/prompts.jsonl", batch_size=16)
  config.verifiable.environment.reward.update(checkpoint="", **number("prompts"), function_weight=1.0)
  config.verifiable.environment.sampling.temperature = 1.0
  config.verifiable_accuracy = dict(
    algorithm="rlhf_jax.stages.few_shot",
    models=("few", "verifiable", "sft"),
    text_models=(),
    tasks=dict(
      problems=dict(
        file="{run}/problems/eval_prompts.jsonl", method="generate", score=number("eval_prompts"), max_new_tokens=28
      )
    ),
    shots=(0,),
    num_questions=0,
    batch_size=128,
  )
  stages = ("few_data", "few", "problems_world", "problems", "verifiable", "verifiable_accuracy")
  config.stages = (*config.stages, *stages)
  return config


def number(part: str) -> dict:
  """1 where the last number of a response is that of the answer in a file of `problems`."""
  arguments = dict(answers=f"{{run}}/problems/{part}.jsonl", marker="")
  return dict(function="rlhf_jax.verify:number", arguments=arguments)
