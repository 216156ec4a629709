"""How does the accuracy of a reward model grow with model and data, and where does it hold?

  rlhf-jax sweep experiments/reward_generalisation/sweep.py --workdir runs/reward_generalisation
  rlhf-jax sweep experiments/reward_generalisation/sweep.py:fast --workdir /tmp/fast --engine inline

For each seed a cell for each size of model, with its own language model and reward models from growing parts of the
same comparisons; a cell with other policies; one with comparisons of five groups of labellers; one with all accuracies.
The argument "fast" makes two tiny sizes, two amounts of data and two groups of labellers, which teach nothing.

Time: 52 minutes of two CPU cores, and two and a half of one core for "fast".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart
from rlhf_jax.configs.reward_from_feedback import accuracy

DIFFICULTY = "medium"
ROOM = dict(max_prompt_tokens=36, max_new_tokens=36)  # tokens of the longest prompts, and of the longest answers
LENGTH = 64  # tokens of the longest prompt and answer together
POLICY = "medium"  # size of the policy, whose model and stages are those of the quickstart
BASE = ("world", "vocabulary", "pretrain", "sft", "preferences")
POLICIES = ("pretrain", "sft", "ppo_early", "ppo_late", "best_sft")
REWARD_RATE = 0.5  # of a reward model, by which the quickstart's learning rate is multiplied
CROWD = "all"  # name of all labellers together, those of the quickstart


@dataclasses.dataclass(frozen=True)
class Scale:
  """The size of the study."""

  seeds: int
  """Number of seeds."""
  sizes: dict[str, tuple[int, int]]
  """Layers and width of each size of model, the largest first; the policy's is among them."""
  rates: dict[str, float]
  """What the learning rates of pretraining and SFT of a size are multiplied by, beside the rule of `rate`."""
  counts: tuple[int, ...]
  """Numbers of comparisons."""
  habits: tuple[str, ...]
  """Groups of labellers: each is three people of one kind."""
  of_habit: int
  """Number of comparisons that each group judges."""
  prompts: int
  """Number of held-out prompts, with four answers to each."""
  steps: tuple[int, int]
  """Steps of PPO, few and many."""
  best_of: tuple[int, int]
  """Prompts and responses to each of the best-of-n policy."""


FULL = Scale(
  seeds=3,
  sizes={"large": (4, 192), "medium": (3, 128), "small": (2, 64), "tiny": (1, 32)},
  rates={"tiny": 3.0},
  counts=(80, 160, 320, 640, 1280, 2560),
  habits=("expert", "ordinary", "trusting", "length_biased", "style_biased"),
  of_habit=320,
  prompts=400,
  steps=(8, 64),
  best_of=(800, 16),
)
FAST = Scale(
  seeds=2,
  sizes={"medium": (1, 32), "tiny": (1, 16)},
  rates={},
  counts=(16, 32),
  habits=("expert", "length_biased"),
  of_habit=24,
  prompts=32,
  steps=(1, 2),
  best_of=(32, 2),
)


# Settings of a stage of the small study, by the module that carries it out.
FAST_SETTINGS = {
  "world": dict(num_documents=2000, num_demonstrations=1200, num_prompts=96, num_eval_prompts=48),
  "tokenizer": dict(vocab_size=400),
  "pretrain": dict(num_steps=80, eval_rows=8),
  "sft": dict(num_epochs=2, eval_fraction=0.25),
  "reward_model": dict(num_epochs=1, normalize_count=16),
  "ppo": dict(environment=dict(batch_size=16)),
  "reward_accuracy": dict(num_contrasts=4),
}


def chain(size: str) -> tuple[str, str]:
  """The stages of pretraining and of SFT of a size."""
  return ("pretrain", "sft") if size == POLICY else (f"{size}_pretrain", f"{size}_sft")


def reward_model(size: str, count: int) -> str:
  """The stage of the reward model of a size that learns from `count` comparisons."""
  return f"{size}_{count}"


def without(habit: str) -> str:
  """The stage of the reward model that learns from all groups of labellers but one."""
  return f"without_{habit}"


def epochs(count: int) -> int:
  """Passes over `count` comparisons: two, and up to eight over few, which make too few steps otherwise."""
  return max(2, min(8, 1280 // count))


def rate(width: int, of_policy: float) -> float:
  """The learning rate of a model, from the rate of the quickstart's of width 128: narrow models bear a larger one."""
  return of_policy * 128 / width


def get_config(scale: Scale) -> ConfigDict:
  """All stages of a seed; a cell has some of them."""
  config = quickstart.get_config()
  config.world.difficulty = DIFFICULTY
  policy = config.model.to_dict() | _shape(*scale.sizes[POLICY])
  config.model = policy
  config.models = ConfigDict()
  base = {name: config[name].copy_and_resolve_references() for name in ("pretrain", "sft", "reward_model")}
  for size, (layers, width) in scale.sizes.items():
    pretrain, sft = chain(size)
    names = (pretrain, sft, *(reward_model(size, count) for count in scale.counts))
    for name, settings in zip((pretrain, sft), (base["pretrain"], base["sft"]), strict=True):
      config[name] = _with_rate(settings, width, scale.rates.get(size, 1.0))
    config[sft].init = pretrain
    for count in scale.counts:
      config[reward_model(size, count)] = _reward_model(base["reward_model"], sft, width, count, ("preferences",))
    if size != POLICY:
      config.models.update({name: _shape(layers, width) for name in names})
  config.preferences.update(num_prompts=config.world.num_prompts, responses=1, num_written=1)
  config.preferences.sampling.update(ROOM)
  _add_policies(config, scale)
  _add_labellers(config, scale, base["reward_model"])
  _add_accuracies(config, scale)
  for name in ("reward_model", "ppo", "evaluation"):
    del config[name]
  return config


def _shape(layers: int, width: int) -> dict[str, int]:
  return dict(num_layers=layers, d_model=width, d_ff=3 * width)


def _with_rate(settings: ConfigDict, width: int, factor: float) -> ConfigDict:
  found = settings.copy_and_resolve_references()
  found.optimizer.learning_rate = factor * rate(width, found.optimizer.learning_rate)
  return found


def _reward_model(settings: ConfigDict, init: str, width: int, count: int, labels: Sequence[str]) -> ConfigDict:
  """A reward model from `count` of the comparisons of each of the stages `labels`."""
  found = _with_rate(settings, width, REWARD_RATE).to_dict()
  sources = {name: dict(path=f"{{run}}/{name}/comparisons.jsonl") for name in labels}
  found |= dict(init=init, comparisons=dict(sources=sources, cap=count), eval_fraction=0.0, length=LENGTH)
  found |= dict(num_epochs=epochs(count * len(labels)), evaluate_every=0)
  found["sampling"] |= ROOM
  return ConfigDict(found)


def _add_policies(config: ConfigDict, scale: Scale) -> None:
  """PPO with few and with many steps, and SFT on the best of n, all by the reward model of the policy's own size."""
  judge = reward_model(POLICY, scale.counts[-1])
  config.ppo.value_init = config.ppo.environment.reward.checkpoint = judge
  config.ppo.environment.sampling.update(ROOM)
  for name, steps in zip(("ppo_early", "ppo_late"), scale.steps, strict=True):
    config[name] = config.ppo.copy_and_resolve_references()
    config[name].num_steps = steps
  prompts, responses = scale.best_of
  config.best_of_n = dict(
    algorithm="rlhf_jax.stages.best_of_n",
    policy="sft",
    prompts="{run}/world/prompts.jsonl",
    num_prompts=prompts,
    responses=responses,
    batch_size=32,
    sampling=config.ppo.environment.sampling.to_dict(),
    reward=config.ppo.environment.reward.to_dict(),
  )
  config.best_sft = config.sft.copy_and_resolve_references()
  config.best_sft.update(init="sft", demonstrations="{run}/best_of_n/demonstrations.jsonl")
  config.best_sft.optimizer = quickstart.optimizer(3e-4)


def _add_labellers(config: ConfigDict, scale: Scale, settings: ConfigDict) -> None:
  """Comparisons of each group of labellers, on a draw of prompts of its own, and the reward model of each fold."""
  for habit in scale.habits:
    labels = config.preferences.copy_and_resolve_references().to_dict()
    labels |= dict(labellers={habit: 3}, num_prompts=scale.of_habit)
    labels["prompts"] = dict(sources={habit: dict(path="{run}/world/prompts.jsonl")}, cap=scale.of_habit)
    config[f"labels_{habit}"] = ConfigDict(labels)
  for habit in scale.habits:
    own = tuple(f"labels_{other}" for other in scale.habits if other != habit)
    config[without(habit)] = _reward_model(settings, "sft", config.model.d_model, scale.of_habit, own)


def _add_accuracies(config: ConfigDict, scale: Scale) -> None:
  """The accuracies on answers of each policy to held-out prompts, and those of the folds of labellers."""
  every = {f"{size} {count}": (reward_model(size, count),) for size in scale.sizes for count in scale.counts}
  largest = {label: stages for label, stages in every.items() if label.endswith(f" {scale.counts[-1]}")}
  folds = {habit: (without(habit),) for habit in scale.habits}
  parts = {name: (name, every if name == "sft" else largest, {CROWD: quickstart.LABELLERS}) for name in POLICIES}
  parts["labellers"] = ("sft", folds, {habit: {habit: 3} for habit in scale.habits})
  for name, (policy, groups, labellers) in parts.items():
    settings = accuracy(config, groups).copy_and_resolve_references().to_dict()
    settings |= dict(policy=policy, num_prompts=scale.prompts, batch_size=min(100, scale.prompts), labellers=labellers)
    settings |= dict(gold=quickstart.gold(config, "gold_parts"), num_contrasts=100 if name == "sft" else 0)
    settings |= dict(comparisons="{run}/preferences/comparisons.jsonl" if name != "labellers" else "")
    settings |= {} if name == "sft" else dict(contrasts="")
    settings["sampling"] |= ROOM
    config[f"accuracy_{name}"] = ConfigDict(settings)


def sweep(add: Callable[..., None], arg: str = "") -> None:
  """The cells of the study; arg: "fast" for the small one."""
  scale = FAST if quickstart.choose("sweep", arg, ("fast",)) else FULL
  models = {size: (*chain(size), *(reward_model(size, count) for count in scale.counts)) for size in scale.sizes}
  labels = (*(f"labels_{habit}" for habit in scale.habits), *map(without, scale.habits), "accuracy_labellers")
  policies = ("ppo_early", "ppo_late", "best_of_n", "best_sft")
  judge = reward_model(POLICY, scale.counts[-1])
  everything = (*(name for names in models.values() for name in names), *policies)
  parts = {
    **models,
    "policies": (judge, *policies),
    "labellers": labels,
    "accuracy": (*everything, *(f"accuracy_{name}" for name in POLICIES)),
  }
  for seed in range(scale.seeds):
    for part, stages in parts.items():
      config = get_config(scale)
      config.seed = seed
      config.stages = (*BASE, *(name for name in stages if name not in BASE))
      for name in config.stages if scale is FAST else ():
        config[name].update(FAST_SETTINGS.get(config[name].algorithm.rpartition(".")[2], {}))
      add(config, part=part)
