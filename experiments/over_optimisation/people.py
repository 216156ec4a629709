"""Where does the gold reward peak where people are the gold, by the number of ratings that an item of the proxy has?

  rlhf-jax sweep experiments/over_optimisation/people.py:DIR --workdir runs/over_optimisation/people

DIR holds vader_ratings.tsv.gz. A small policy learns to go on with the first words of film reviews. The gold model
learns from all ratings of one half of the texts, and each proxy from 1, 2, 4 or 8 ratings of each of 2,000 texts of the
other half; REINFORCE without a KL penalty learns from the proxy. A cell for each of eight seeds, of the ratings that
are drawn, the proxies, RL and best of n: texts, policy and gold model are the same in all. `people.py:DIR,fast` has two
seeds, a tiny model and two proxies.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart

RATERS = (1, 2, 4, 8)  # ratings of an item; each proxy meets each item 8 times, and each of its ratings equally often
PASSES = 8
SAMPLING = dict(max_prompt_tokens=36, max_new_tokens=36, temperature=0.7)
PROMPTS = 128  # held-out openings that all policies go on with
SEEDS = 8


def sweep(add, arg=""):
  directory, _, size = arg.partition(",")
  if not directory:
    raise ValueError("people.py needs the directory of vader_ratings.tsv.gz: people.py:DIR")
  quickstart.choose("people.py:DIR,", size, ("fast",))
  for seed in range(2 if size else SEEDS):
    config = fast(directory) if size else get_config(directory, RATERS)
    config.seeds = {name: seed for name in config.stages if name.startswith(("ratings_", "proxy_", "best_", "rein"))}
    add(config)


def get_config(directory: str, raters: Sequence[int]) -> ConfigDict:
  """The config of a cell; directory: of vader_ratings.tsv.gz."""
  ratings = dict(ratings=f"{directory}/vader_ratings.tsv.gz", source="movies")
  base = quickstart.get_config("reward_model")
  config = ConfigDict(dict(seed=0, tokenizer=base.tokenizer, model=base.model, transport=base.transport))
  policy_texts, gold_texts = "{run}/texts/demonstrations.jsonl", "{run}/texts/judge_ratings.jsonl"
  prompts = "{run}/texts/held_out_openings.jsonl"

  def single_ratings(texts: str, num_raters: int, max_texts: int = 0) -> dict:
    found = dict(algorithm="rlhf_jax.stages.single_ratings", texts=texts, raters=num_raters, max_texts=max_texts)
    return ratings | found

  def reward_model(init: str, records: str, **changes) -> dict:
    return dict(
      algorithm="rlhf_jax.algorithms.reward_model",
      init=init,
      feedback=(records,),
      kinds=("ratings",),
      eval_fraction=0.0,
      batch_size=32,
      optimizer=quickstart.optimizer(1e-3, clip_norm=10.0),  # squared errors have larger gradients than orders
      normalize_prompts=prompts,
      normalize_count=256,
      sampling=SAMPLING,
      evaluate_every=0,
      checkpoint_every=500,
      **changes,
    )

  def language_models(prefix: str, texts: str) -> dict[str, dict]:
    learning = dict(base.pretrain, text=texts, num_steps=600, batch_size=16)
    return {
      f"{prefix}pretrain": learning,
      f"{prefix}sft": dict(base.sft, init=f"{prefix}pretrain", demonstrations=texts, batch_size=8, length=0),
    }

  stages = {
    "texts": ratings
    | dict(
      algorithm="rlhf_jax.stages.rated_openings", opening_words=5, min_words=3, judge_share=0.47, held_out_share=0.06
    ),
    "vocabulary": dict(algorithm="rlhf_jax.stages.tokenizer", texts=(policy_texts, gold_texts), vocab_size=2048),
    **language_models("", policy_texts),
    **language_models("gold_", gold_texts),
    "gold_ratings": single_ratings(gold_texts, 0),
    "gold": reward_model("gold_sft", "{run}/gold_ratings/ratings.jsonl", num_epochs=1) | dict(batch_size=64),
  }
  for num in raters:
    stages[f"ratings_{num}"] = single_ratings(policy_texts, num, max_texts=2000)
    stages[f"proxy_{num}"] = reward_model("sft", f"{{run}}/ratings_{num}/ratings.jsonl", num_epochs=PASSES // num)
  stages["best_of_n"] = dict(
    algorithm="rlhf_jax.stages.best_of_n_curve",
    policy="sft",
    prompts=prompts,
    num_prompts=PROMPTS,
    responses=64,
    batch_size=8,
    sampling=SAMPLING,
    models=tuple(f"proxy_{num}" for num in raters),
    missing_eos_score=-1.0,
    gold_checkpoint="gold",
  )
  for num in raters:
    stages[f"reinforce_proxy_{num}"] = dict(
      algorithm="rlhf_jax.algorithms.reinforce",
      init="sft",
      num_steps=64,
      environment=dict(
        prompts="{run}/texts/openings.jsonl",
        batch_size=16,
        samples_per_prompt=4,
        sampling=SAMPLING,
        reward=dict(checkpoint=f"proxy_{num}", checkpoint_weight=1.0, function="", function_weight=0.0),
        missing_eos_score=-1.0,
        monitor=dict(function=""),
        monitor_checkpoint="gold",
      ),
      baseline="leave_one_out",
      moving_decay=0.9,
      kl_coef=0.0,
      value_coef=0.1,
      entropy_coef=0.0,
      optimizer=quickstart.optimizer(1e-3, warmup=0.0, decay="constant", eps=1e-5, weight_decay=0.0),
      checkpoint_every=50,
      watch=dict(eval_prompts=prompts, num_prompts=PROMPTS, evaluate_every=4),
      loop=dict(keep=1),
    )
  for name, stage in stages.items():
    config[name] = stage
  config.stages = tuple(stages)
  return config


def fast(directory: str) -> ConfigDict:
  """A cell of two proxies at sizes that run in seconds, on as few texts as tests have."""
  config = get_config(directory, RATERS[:2])
  config.model.update(num_layers=1, d_model=16, num_heads=2, num_kv_heads=2, d_ff=32)
  config.vocabulary.vocab_size = 400
  changes = {
    "texts": dict(max_texts=40, judge_share=0.4, held_out_share=0.2),
    "pretrain": dict(num_steps=2, batch_size=4, length=32, eval_rows=2, evaluate_every=0),
    "sft": dict(num_epochs=1, batch_size=8, eval_fraction=0.0, evaluate_every=0),
    "ratings": dict(max_texts=8),
    "proxy": dict(batch_size=8, normalize_count=8),
    "gold": dict(batch_size=8, normalize_count=8),
    "best": dict(num_prompts=8, responses=4, batch_size=8),
    "reinforce": dict(num_steps=2, environment=dict(batch_size=2), watch=dict(num_prompts=8, evaluate_every=1)),
  }
  for name in config.stages:
    config[name].update(changes.get(name.removeprefix("gold_").partition("_")[0], {}))
  return config
