"""How well does a reward model learn from other kinds of feedback than rankings?

  rlhf-jax run --config reward_from_feedback:ratings --workdir runs/quickstart
  rlhf-jax run --config reward_from_feedback --workdir runs/quickstart

The argument is the kind: pairs (with a margin for stated strength), rankings (of four, all pairs), plackett_luce (the
same rankings with another loss), ratings (of four answers, from 1 to 7), yes_no (of four answers, each good or not) or
all (the default: a third of pairs, rankings and ratings each, for one reward model). Two labellers judge each item, and
their agreement gives the annotators' weights. In the run directory of the quickstart only the judging, the weights, the
reward model and its accuracy are new. The recipe `online:page` takes the judgements of people instead.

Time: about 5 minutes on two busy CPU cores after the quickstart's SFT.

Result: one seed, with 1000 judgements of each kind (the recipe feedback_kinds): the reward model orders 77 % [73, 80]
of the pairs of SFT answers after pairs, 81 % [78, 84] after rankings and 83 % [80, 86] after ratings of four.
"""

from collections.abc import Collection

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart

PAGES = {
  "pairs": dict(responses=1, num_written=1, kinds=("ranks",)),
  "rankings": dict(responses=2, num_written=2, kinds=("ranks",)),
  "ratings": dict(responses=2, num_written=2, kinds=("ratings",)),
  "yes_no": dict(responses=2, num_written=2, kinds=("yes_no",)),
  "single_ratings": dict(responses=1, num_written=0, kinds=("ratings",)),
}
RATED = ("ratings", "single_ratings")
KINDS = {
  "pairs": ("pairs",),
  "rankings": ("rankings",),
  "plackett_luce": ("rankings",),
  "ratings": ("ratings",),
  "yes_no": ("yes_no",),
  "all": ("pairs", "rankings", "ratings"),
}


def optimizer(pages: Collection[str]) -> ConfigDict:
  """The settings of AdamW for a reward model on judgements of `pages`."""
  # Squared errors of ratings from 1 to 7 have gradients with norms of 8 to 20, orders of responses of 1 to 4.
  return quickstart.optimizer(1e-3, clip_norm=10.0 if {*RATED} & {*pages} else 1.0)


def judgements(config: ConfigDict, page: str, num: int, judges: int, **changes) -> ConfigDict:
  """A stage that collects `num` simulated judgements, `judges` of each item."""
  settings = dict(
    algorithm="rlhf_jax.stages.judgements",
    policy="sft",
    prompts="{run}/world/prompts.jsonl",
    written="{run}/world/answers.jsonl",
    num_items=num // judges,
    judges=judges,
    batch_size=64,
    sampling=quickstart.SAMPLING,
    critic=dict(function="", arguments=ConfigDict()),
    gold=quickstart.gold(config, "gold_parts"),
    gold_share=0.0,
    labellers=quickstart.LABELLERS,
    **PAGES[page],
  )
  return ConfigDict({**settings, **changes})


def annotators(*stages: str, set_aside: bool = True, reliability: bool = True) -> ConfigDict:
  """A stage that gives weights to the annotators, from the judgements that `stages` collected."""
  return ConfigDict(
    dict(
      algorithm="rlhf_jax.stages.annotators",
      feedback=files(*stages),
      set_aside=set_aside,
      reliability=reliability,
    )
  )


def reward(config: ConfigDict, *stages: str, weights: str = "", **changes) -> ConfigDict:
  """A reward model on the judgements that `stages` collected, with the annotators' weights from the stage `weights`."""
  settings = dict(
    algorithm="rlhf_jax.algorithms.reward_model",
    init="sft",
    feedback=files(*stages),
    kinds=("ranks", "ratings"),
    annotators=f"{{run}}/{weights}/annotators.jsonl" if weights else "",
    ranking="pairs",
    margins=(0.0, 0.5, 1.0),
    rating_scale=2.0,
    per_annotator=True,
    likelihood=config.reward_model.likelihood,
    eval_fraction=0.1,
    num_epochs=2,
    batch_size=8,
    length=config.reward_model.length,
    optimizer=optimizer(()),
    normalize_prompts="{run}/world/prompts.jsonl",
    normalize_count=256,
    sampling=quickstart.SAMPLING,
    evaluate_every=100,
    checkpoint_every=200,
  )
  return ConfigDict({**settings, **changes})


def accuracy(config: ConfigDict, groups: dict[str, tuple[str, ...]]) -> ConfigDict:
  """The accuracy of groups of reward models on the gold order, each compared with the first group."""
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
      contrasts="{run}/world/contrasts.jsonl",
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
  """The files of the records that `stages` write."""
  return tuple(f"{{run}}/{stage}/feedback.db" for stage in stages)


def get_config(arg: str = "") -> ConfigDict:
  """The recipe of the kind `arg`: pairs, rankings, plackett_luce, ratings, yes_no or all (the default)."""
  name = quickstart.choose("reward_from_feedback", arg, KINDS) or "all"
  config = quickstart.get_config()
  sources = []
  for page in KINDS[name]:
    sources.append(f"judgements_{page}" if len(KINDS[name]) == 1 else f"some_{page}")
    config[sources[-1]] = judgements(config, page, num=1200 // len(KINDS[name]), judges=2)
  config[f"annotators_{name}"] = annotators(*sources)
  loss = dict(ranking="plackett_luce", margins=(0.0, 0.0, 0.0)) if name == "plackett_luce" else {}
  loss["optimizer"] = optimizer(KINDS[name])
  if name == "yes_no":
    loss["kinds"] = ("yes_no",)
  config[f"reward_{name}"] = reward(config, *sources, weights=f"annotators_{name}", **loss)
  config[f"accuracy_{name}"] = accuracy(config, {name: (f"reward_{name}",)})
  new = (*sources, f"annotators_{name}", f"reward_{name}", f"accuracy_{name}")
  return after_sft(config, *new)
