"""What instruction tuning does: one base model, tuned on few and many task clusters, with and without rationales.

  rlhf-jax run --config configs/instruction_tuning.py --workdir runs/instruction_tuning
  python -m rlhf_jax.evaluation.instruction_tuning runs/instruction_tuning --out experiments/instruction_tuning

`experiments/instruction_tuning` says what was found. ARG "everything" adds the loss on prompts and responses alike; in
the same run directory only that is new.
"""

from ml_collections import ConfigDict

from configs import quickstart

HELD_OUT = ("comparison", "verification")
# Replicates add the clusters in orders of their own; each of them has the smaller numbers inside the larger ones.
ORDERS = (
  "facts listing sentiment arithmetic copying opposites "
  "reasoning classification unanswerable stories rewriting harmful",
  "classification stories arithmetic unanswerable opposites harmful "
  "copying facts rewriting reasoning listing sentiment",
  "reasoning rewriting harmful facts listing classification "
  "stories opposites sentiment copying unanswerable arithmetic",
)
NUM_CLUSTERS = (2, 4, 8, 12)
NUM_DEMONSTRATIONS = 4000
NUM_THOUGHTS = 600  # 4,000 demonstrations teach both forms nearly everything: 100 and 99 % of the problems
SHOTS = (0, 1, 3)


def get_config(arg: str = "") -> ConfigDict:
  """The recipe; `arg` is "" or "everything"."""
  if arg not in ("", "everything"):
    raise ValueError(f"no variant {arg!r}: only 'everything'")
  config = quickstart.get_config("sft")
  config.model.max_length = 192  # room for three examples before a question
  config.world.update(num_demonstrations=24000, num_eval_prompts=1200, demonstrator_flaw=0.0, held_out=HELD_OUT)
  template = config.sft
  del config.sft
  stages = ["world", "vocabulary", "pretrain", "questions"]
  config.questions = dict(
    algorithm="rlhf_jax.algorithms.world_questions",
    seed=config.world.get_ref("seed"),
    num_choices=4,
    parts=dict(
      seen=dict(prompts="{run}/world/eval_prompts.jsonl"),
      held_out=dict(prompts="{run}/world/held_out_prompts.jsonl"),
      sums=dict(prompts="{run}/world/eval_prompts.jsonl", clusters=("arithmetic",)),
      problems=dict(prompts="{run}/world/eval_prompts.jsonl", clusters=("reasoning",)),
    ),
  )

  def tuned(name: str, clusters: tuple[str, ...], num: int = NUM_DEMONSTRATIONS, rationale: bool = True) -> str:
    config[f"{name}_data"] = dict(
      algorithm="rlhf_jax.algorithms.select_demonstrations",
      demonstrations="{run}/world/demonstrations.jsonl",
      clusters=clusters,
      num_demonstrations=num,
      rationale=rationale,
    )
    config[name] = ConfigDict(template)
    config[name].demonstrations = f"{{run}}/{name}_data/demonstrations.jsonl"
    stages.extend((f"{name}_data", name))
    return name

  orders = [order.split() for order in ORDERS]
  by_number = [
    tuned(f"clusters_{number}_{replicate}", tuple(order[:number]))
    for replicate, order in enumerate(orders, 1)
    for number in NUM_CLUSTERS
  ]
  thoughts = [
    tuned(f"{name}_{replicate}", ("arithmetic", "reasoning"), NUM_THOUGHTS, rationale)
    for replicate in range(1, len(orders) + 1)
    for name, rationale in (("thought", True), ("no_thought", False))
  ]
  tasks = ("held_out", "seen", "held_out_answers")
  config.zero_shot = few_shot(config, ("pretrain", *by_number), ("pretrain",), (0,), *tasks)
  config.thoughts = few_shot(config, thoughts, (), (0,), "problems", "sums")
  tuned_on_all = tuple(f"clusters_12_{replicate}" for replicate in range(1, len(orders) + 1))
  config.shots = few_shot(config, ("pretrain", *tuned_on_all), ("pretrain", *tuned_on_all), SHOTS, *tasks)
  config.stages = (*stages, "zero_shot", "thoughts", "shots")
  if arg == "everything":
    _loss_on_everything(config, template, len(orders))
  return config


def few_shot(config: ConfigDict, models, text_models, shots: tuple[int, ...], *tasks: str) -> ConfigDict:
  """The evaluation. Choices are ranked by likelihood; of sums and problems the last number of the response counts, and
  other responses get their gold reward.
  """
  sections = {}
  for name in tasks:
    file = f"{{run}}/questions/{name.removesuffix('_answers')}.jsonl"
    if name in ("seen", "held_out"):
      sections[name] = dict(file=file, method="likelihood")
      continue
    score = quickstart.gold(config, "gold_reward")
    if name in ("sums", "problems"):
      score = dict(function="rlhf_jax.verify:number", arguments=dict(answers=file, marker=""))
    sections[name] = dict(file=file, method="generate", score=score, max_new_tokens=40)
  return ConfigDict(
    dict(
      algorithm="rlhf_jax.evaluation.few_shot",
      models=tuple(models),
      text_models=tuple(text_models),
      tasks=sections,
      shots=shots,
      num_questions=0,
      batch_size=64,
    )
  )


def _loss_on_everything(config: ConfigDict, template: ConfigDict, replicates: int) -> None:
  names = []
  for replicate in range(1, replicates + 1):
    name = f"everything_{replicate}"
    path = f"{{run}}/clusters_12_{replicate}_data/demonstrations.jsonl"
    config[name] = ConfigDict({key: value for key, value in template.items() if key != "demonstrations"})
    config[name].demonstrations = dict(sources=dict(world=dict(path=path)), loss="everything")
    names.append(name)
  masked = [f"clusters_12_{replicate}" for replicate in range(1, replicates + 1)]
  config.masking = few_shot(config, (*masked, *names), (), (0,), "held_out", "seen", "problems", "sums")
  config.stages = (*config.stages, *names, "masking")
