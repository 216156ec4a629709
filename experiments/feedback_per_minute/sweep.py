"""Which kind of feedback teaches a reward model most in the same hours of judging?

  rlhf-jax sweep experiments/feedback_per_minute/sweep.py --workdir runs/feedback_per_minute
  rlhf-jax sweep experiments/feedback_per_minute/sweep.py:fast --workdir /tmp/fast

A cell for each seed. In each, the quickstart's labellers judge answers of its SFT model on pages of every kind, for a
little longer than the most hours; a reward model of each way to learn reads the judgements of the first hours. All
answers are sampled, and at a temperature of 1, so that answers to a prompt differ more often.

Time: 14 minutes of one CPU core for a seed, planned.
"""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart
from rlhf_jax.configs.reward_from_feedback import accuracy, after_sft, judgements, optimizer, reward

SEEDS = 4
HOURS = (0.5, 1, 2, 4, 8, 16)
FAST_HOURS = (0.2,)
SPARE = 20  # judgements more, as the times of few vary
# page -> (responses, kinds of judgement, more judgements than an hour has room for)
PAGES = {
  "rating": (1, ("ratings",), 330),
  "ratings": (4, ("ratings",), 170),
  "verdict": (1, ("yes_no",), 330),
  "verdicts": (4, ("yes_no",), 170),
  "pair": (2, ("ranks",), 220),
  "ranking": (4, ("ranks",), 170),
  "critique": (1, (), 330),
}
LEARN = {  # way to learn -> (page, changes of the reward model's settings)
  "rating of 1": ("rating", dict(kinds=("ratings",), optimizer=optimizer(("ratings",)))),
  "ratings of 4": ("ratings", dict(kinds=("ratings",), optimizer=optimizer(("ratings",)))),
  "yes or no, of 1": ("verdict", dict(kinds=("yes_no",))),
  "yes or no, of 4": ("verdicts", dict(kinds=("yes_no",))),
  "pair": ("pair", dict(kinds=("ranks",), margins=(0.0, 0.0, 0.0))),
  "pair with strength": ("pair", dict(kinds=("ranks",), margins=(0.0, 0.5, 1.0))),
  "ranking of 4": ("ranking", dict(kinds=("ranks",), margins=(0.0, 0.0, 0.0))),
  "critique of 1": ("critique", dict(kinds=("critiques",))),
}
SIZES = {
  "model": dict(num_layers=1, d_model=32, num_heads=2, num_kv_heads=2, d_ff=48, max_length=64),
  "world": dict(num_documents=300, num_demonstrations=200, num_prompts=64, num_eval_prompts=16),
  "vocabulary": dict(vocab_size=400),
  "pretrain": dict(num_steps=20, length=32, eval_rows=8),
  "sft": dict(num_epochs=2, batch_size=8, length=64, optimizer=dict(learning_rate=1e-2)),
  "preferences": dict(num_prompts=32, batch_size=32),
}
FAST_SAMPLING = dict(max_prompt_tokens=40, max_new_tokens=12)


def get_config(seed: int, hours: tuple[float, ...]) -> ConfigDict:
  """The run of one seed: the quickstart up to SFT, pages of every kind, reward models and their accuracy."""
  config = quickstart.get_config()
  config.seed = seed
  critic = dict(function="rlhf_jax.world:criticise", arguments=quickstart.world(config))
  for page, (responses, kinds, an_hour) in PAGES.items():
    num = round(an_hour * max(hours)) + SPARE
    shown = dict(kinds=kinds, responses=responses, written="", num_written=0)
    section = judgements(config, "pairs", num=num, judges=1, **shown)
    section.sampling = {**quickstart.SAMPLING, "temperature": 1.0}
    if page == "critique":
      section.critic = critic
    config[page] = section
  groups = {}
  for number, (way, (page, changes)) in enumerate(LEARN.items()):
    for spent in hours:
      name = reward_stage(number, spent)
      every = dict(hours=float(spent), eval_fraction=0.0, evaluate_every=0, checkpoint_every=5000, normalize_count=0)
      config[name] = reward(config, page, **{**every, **changes})
      groups[label(way, spent)] = (name,)
  config.accuracy = accuracy(config, groups)
  config.accuracy.update(contrasts="", comparisons="{run}/preferences/comparisons.jsonl")
  names = [reward_stage(number, spent) for number in range(len(LEARN)) for spent in hours]
  return after_sft(config, "preferences", *PAGES, *names, "accuracy")


def reward_stage(number: int, hours: float) -> str:
  """The stage of the reward model of the `number`-th way to learn, from some hours of judging."""
  return f"reward_{number}_{round(60 * hours)}_minutes"


def label(way: str, hours: float) -> str:
  """The group of the reward model in the results of the stage `accuracy`."""
  return f"{way}, {round(60 * hours)} minutes"


def small(config: ConfigDict) -> ConfigDict:
  """The config at sizes that run in seconds."""
  config.update(SIZES)
  config.preferences.sampling.update(FAST_SAMPLING)
  for page in PAGES:
    config[page].sampling.update(FAST_SAMPLING)
    config[page].batch_size = 64 // config[page].responses  # one program samples all pages
  for name in config.stages:
    if name.startswith("reward_"):
      config[name].sampling.update(FAST_SAMPLING)
      config[name].length = 64
  config.accuracy.sampling.update(FAST_SAMPLING)
  config.accuracy.update(num_prompts=16, batch_size=16, gold=dict(function=f"{Path(__file__).resolve()}:shortness"))
  return config


def shortness(prompts: Sequence[str], responses: Sequence[str], **world: object) -> list[float]:
  """Stands for the gold reward in the small sweep, whose model is so small that its answers all have the same."""
  return [-float(len(response)) for response in responses]


def sweep(add, arg: str = "") -> None:
  """Adds a cell for each seed; `arg` "fast" makes it one small cell."""
  if quickstart.choose("feedback_per_minute", arg, ("fast",)):
    add(small(get_config(0, FAST_HOURS)), seed=0)
    return
  for seed in range(SEEDS):
    add(get_config(seed, HOURS), seed=seed)
