"""Reward models from other kinds of feedback than the quickstart's rankings; ARG is the kind.

  rlhf-jax run --config configs/reward_from_feedback.py:ratings --workdir runs/quickstart
  rlhf-jax run --config configs/reward_from_feedback.py:all --workdir runs/quickstart

Kinds: pairs (with a margin for stated strength), rankings (of four, all pairs), plackett_luce (the same rankings, the
other loss), ratings (of four, each from 1 to 7), all (a third of each, one reward model). Every item goes to two
labellers, from whose agreement the annotators' weights come. In the run directory of the quickstart only the judging,
the weights, the reward model and its accuracy are new. Judgements of people instead: see configs/online.py.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart

PAGES = {
  "pairs": dict(responses=2, kinds=("ranks",)),
  "rankings": dict(responses=4, kinds=("ranks",)),
  "ratings": dict(responses=4, kinds=("ratings",)),
  "single_ratings": dict(responses=1, kinds=("ratings",)),
}
KINDS = {
  "pairs": ("pairs",),
  "rankings": ("rankings",),
  "plackett_luce": ("rankings",),
  "ratings": ("ratings",),
  "all": ("pairs", "rankings", "ratings"),
}


def judgements(config: ConfigDict, page: str, num: int, judges: int, **changes) -> ConfigDict:
  """A stage that buys `num` judgements, `judges` of each item."""
  settings = dict(
    algorithm="rlhf_jax.stages.judgements",
    policy="sft",
    prompts="{run}/world/prompts.jsonl",
    num_items=num // judges,
    judges=judges,
    batch_size=64,
    sampling=quickstart.SAMPLING,
    critic=dict(function="", arguments=ConfigDict()),
    gold=quickstart.gold(config, "gold_reward"),
    gold_share=0.0,
    labellers=quickstart.LABELLERS,
    **PAGES[page],
  )
  return ConfigDict({**settings, **changes})


def annotators(*stages: str, set_aside: bool = True, reliability: bool = True) -> ConfigDict:
  """A stage that weighs the annotators of the judgements of `stages`."""
  return ConfigDict(
    dict(
      algorithm="rlhf_jax.stages.annotators",
      feedback=files(*stages),
      set_aside=set_aside,
      reliability=reliability,
    )
  )


def reward(config: ConfigDict, *stages: str, weights: str = "", **changes) -> ConfigDict:
  """A stage that learns from the judgements of `stages`, with the annotators' weights of the stage `weights`."""
  settings = dict(
    algorithm="rlhf_jax.algorithms.reward_from_feedback",
    init="sft",
    feedback=files(*stages),
    kinds=("ranks", "ratings"),
    annotators=f"{{run}}/{weights}/annotators.jsonl" if weights else "",
    ranking="pairs",
    margins=(0.0, 0.5, 1.0),
    rating_scale=2.0,
    per_annotator=True,
    eval_fraction=0.1,
    num_epochs=2,
    batch_size=8,
    length=config.reward_model.length,
    optimizer=quickstart.optimizer(1e-3),
    normalize_prompts="{run}/world/prompts.jsonl",
    normalize_count=256,
    sampling=quickstart.SAMPLING,
    evaluate_every=100,
    checkpoint_every=200,
  )
  return ConfigDict({**settings, **changes})


def accuracy(config: ConfigDict, groups: dict[str, tuple[str, ...]]) -> ConfigDict:
  """The reward models against the gold order; the first group is the one the others are compared with."""
  return ConfigDict(
    dict(
      algorithm="rlhf_jax.stages.reward_accuracy",
      policy="sft",
      prompts="{run}/world/eval_prompts.jsonl",
      num_prompts=400,
      responses=4,
      batch_size=100,
      sampling=quickstart.SAMPLING,
      gold=quickstart.gold(config, "gold_reward"),
      min_gap=0.5,
      groups=groups,
      reference=next(iter(groups)),
    )
  )


def after_sft(config: ConfigDict, *stages: str) -> ConfigDict:
  """The quickstart up to SFT, then `stages`."""
  config.stages = (*quickstart.STAGES[: quickstart.STAGES.index("preferences")], *stages)
  for name in quickstart.STAGES:
    if name not in config.stages:
      del config[name]
  return config


def files(*stages: str) -> tuple[str, ...]:
  """The records that these stages have written."""
  return tuple(f"{{run}}/{stage}/feedback.db" for stage in stages)


def get_config(arg: str = "") -> ConfigDict:
  """The recipe of the kind `arg` ("" is all)."""
  name = arg or "all"
  if name not in KINDS:
    raise ValueError(f"no kind of feedback {name!r}: one of {', '.join(KINDS)}")
  config = quickstart.get_config()
  sources = []
  for page in KINDS[name]:
    sources.append(f"judgements_{page}" if len(KINDS[name]) == 1 else f"some_{page}")
    config[sources[-1]] = judgements(config, page, num=1200 // len(KINDS[name]), judges=2)
  config[f"annotators_{name}"] = annotators(*sources)
  loss = dict(ranking="plackett_luce", margins=(0.0, 0.0, 0.0)) if name == "plackett_luce" else {}
  config[f"reward_{name}"] = reward(config, *sources, weights=f"annotators_{name}", **loss)
  config[f"accuracy_{name}"] = accuracy(config, {name: (f"reward_{name}",)})
  new = (*sources, f"annotators_{name}", f"reward_{name}", f"accuracy_{name}")
  return after_sft(config, *new)
