"""What does instruction tuning on more clusters of tasks, and on rationales, do for a small base model?

  rlhf-jax run --config instruction_tuning --workdir runs/instruction_tuning
  rlhf-jax run --config instruction_tuning:rationales --workdir runs/instruction_tuning
  python experiments/instruction_tuning/analyse.py runs/instruction_tuning --out experiments/instruction_tuning

One base model is tuned on few and many clusters of tasks, with and without rationales. The argument names one part,
`clusters` (with examples and masking) or `rationales`; without it both run, in the same run directory if wanted.

Time: 20 minutes on one CPU core.

Result: one seed, 95 % intervals: accuracy on held-out clusters is 3 points [-20, 27] higher after tuning on 12 clusters
than on 1, too little to be sure; the steps before the answer add 27 points [19, 35] on new problems of one step and
nothing on those of two. experiments/instruction_tuning has the details.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart

# Every cluster is held out once. Relatives are held out together, as in FLAN (Wei et al. 2021, section 2.2).
FOLDS = (
  ("comparison", "verification"),
  ("arithmetic", "reasoning"),
  ("facts", "unanswerable"),
  ("copying", "rewriting"),
  ("classification", "sentiment"),
  ("opposites", "listing"),
  ("stories", "harmful"),
)
# The clusters that each fold's models are tuned on, in a random order: a model of n clusters has the first n.
ORDERS = (
  "copying stories classification reasoning listing sentiment rewriting "
  "facts harmful unanswerable opposites arithmetic",
  "opposites classification facts rewriting verification unanswerable stories "
  "harmful copying comparison listing sentiment",
  "arithmetic reasoning listing copying opposites comparison rewriting "
  "classification harmful stories verification sentiment",
  "unanswerable comparison reasoning arithmetic verification classification stories "
  "opposites harmful sentiment listing facts",
  "opposites facts copying arithmetic unanswerable comparison stories harmful rewriting verification listing reasoning",
  "sentiment arithmetic verification rewriting harmful stories classification "
  "facts reasoning comparison unanswerable copying",
  "classification comparison sentiment copying unanswerable rewriting opposites "
  "verification reasoning listing arithmetic facts",
)
NUM_CLUSTERS = (1, 4, 12)
NUM_DEMONSTRATIONS = 2000  # demonstrations of each model, seen once
SHOTS = (0, 1, 3)
NUM_PROBLEMS = {125: 16, 250: 8, 500: 4, 1000: 2}  # demonstrations -> passes over them
REPLICATES = 2  # models of each kind in the part on rationales, with other problems


def get_config(arg: str = "") -> ConfigDict:
  """The recipe, or its part `arg`: clusters or rationales."""
  quickstart.choose("instruction_tuning", arg, ("clusters", "rationales"))
  config = quickstart.get_config("sft")
  config.model.max_length = 192  # room for three examples before a question
  config.world.update(num_demonstrations=28000, num_eval_prompts=2100, held_out=())
  config.world.demonstrators = dict(ideal=1.0)
  config.pretrain.num_steps = 1600
  config.sft.num_epochs = 1
  template = config.sft
  del config.sft
  config.questions = dict(
    algorithm="rlhf_jax.stages.world_questions",
    **quickstart.world(config),
    num_choices=4,
    parts={
      **{f"held_out_{fold}": part(clusters) for fold, clusters in enumerate(FOLDS, 1)},
      **{f"seen_{fold}": part(tuple(order.split())) for fold, order in enumerate(ORDERS, 1)},
      "one_step": part(("reasoning",), ("plus", "minus")),
      "two_steps": part(("reasoning",), ("plus minus", "minus plus")),
    },
  )
  config.stages = ("world", "vocabulary", "pretrain", "questions")
  if arg != "rationales":
    _clusters(config, template)
  if arg != "clusters":
    _rationales(config, template)
  return config


def part(clusters: tuple[str, ...], kinds: tuple[str, ...] = ()) -> dict:
  """The settings of questions on prompts that no model was tuned on."""
  return dict(prompts="{run}/world/eval_prompts.jsonl", clusters=clusters, kinds=kinds)


def _clusters(config: ConfigDict, template: ConfigDict) -> None:
  """Adds for each fold models of 1, 4 and 12 clusters, a model tuned with examples, and one with the loss on all."""
  zero_shot, shots, masking = {}, {}, {}
  for fold, names in enumerate(ORDERS, 1):
    order = tuple(names.split())
    models = [
      tuned(config, template, f"clusters_{number}_{fold}", order[:number], NUM_DEMONSTRATIONS)
      for number in NUM_CLUSTERS
    ]
    zero_shot.update(tasks(config, fold, ("pretrain", *models)))
    examples = f"examples_{fold}"
    tuned(config, template, examples, order, NUM_DEMONSTRATIONS, shots=tuple(range(max(SHOTS) + 1)))
    config[examples].update(length=192, batch_size=3)
    shots.update(tasks(config, fold, ("pretrain", models[-1], examples), seen=False))
    everything = f"everything_{fold}"
    path = f"{{run}}/{models[-1]}_data/demonstrations.jsonl"
    config[everything] = ConfigDict({key: value for key, value in template.items() if key != "demonstrations"})
    config[everything].demonstrations = dict(sources=dict(world=dict(path=path)), loss="everything")
    config.stages += (everything,)
    masking.update(tasks(config, fold, (everything,)))
  config.zero_shot = few_shot(zero_shot, text_models=("pretrain",), shots=(0,))
  config.shots = few_shot(shots, text_models=("pretrain",), shots=SHOTS, num_questions=60)
  config.masking = few_shot(masking, text_models=(), shots=(0,))
  config.stages += ("zero_shot", "shots", "masking")


def _rationales(config: ConfigDict, template: ConfigDict) -> None:
  """Adds models tuned on word problems: with the steps or the answer alone, from few and many demonstrations."""
  models = []
  for number, epochs in NUM_PROBLEMS.items():
    for replicate in range(REPLICATES):
      for name, rationale in (("steps", True), ("answer", False)):
        label = f"{name}_{number}_{replicate + 1}"
        settings = dict(start=replicate * number, rationale=rationale)
        models.append(tuned(config, template, label, ("reasoning",), number, **settings))
        config[label].num_epochs = epochs
  score = dict(function="rlhf_jax.verify:number")
  found = {
    name: dict(
      file=f"{{run}}/questions/{name}.jsonl",
      method="generate",
      score=dict(score, arguments=dict(answers=f"{{run}}/questions/{name}.jsonl", marker="")),
      max_new_tokens=40,
      models=tuple(models),
    )
    for name in ("one_step", "two_steps")
  }
  config.rationales = few_shot(found, text_models=(), shots=(0,), num_questions=120)
  config.stages += ("rationales",)


def tuned(config: ConfigDict, template: ConfigDict, name: str, clusters, num: int, **selection) -> str:
  """Adds the stages that select demonstrations and tune the base model on them; returns the model's name."""
  config[f"{name}_data"] = dict(
    algorithm="rlhf_jax.stages.select_demonstrations",
    demonstrations="{run}/world/demonstrations.jsonl",
    clusters=clusters,
    num_demonstrations=num,
    **{"rationale": True, **selection},
  )
  config[name] = ConfigDict(template)
  config[name].demonstrations = f"{{run}}/{name}_data/demonstrations.jsonl"
  config.stages += (f"{name}_data", name)
  return name


def tasks(config: ConfigDict, fold: int, models: tuple[str, ...], *, seen: bool = True) -> dict:
  """A fold's tasks on held-out and seen clusters: choices ranked by likelihood, and the helpfulness of answers."""
  found = {}
  for name in ("held_out", "seen") if seen else ("held_out",):
    file = f"{{run}}/questions/{name}_{fold}.jsonl"
    found[f"{name}_{fold}"] = dict(file=file, method="likelihood", models=models)
    found[f"{name}_answers_{fold}"] = dict(
      file=file,
      method="generate",
      score=quickstart.gold(config, "helpfulness"),
      max_new_tokens=40,
      models=models,
    )
  return found


def few_shot(tasks: dict, *, text_models: tuple[str, ...], shots: tuple[int, ...], num_questions=80) -> ConfigDict:
  """The few-shot evaluation of every model that a task names."""
  models = dict.fromkeys(model for task in tasks.values() for model in task["models"])
  return ConfigDict(
    dict(
      algorithm="rlhf_jax.stages.few_shot",
      models=tuple(models),
      text_models=text_models,
      tasks=tasks,
      shots=shots,
      num_questions=num_questions,
      batch_size=64,
    )
  )
