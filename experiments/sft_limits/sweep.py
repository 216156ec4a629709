"""What can supervised fine-tuning not learn, and what does feedback add for the same labels?

  rlhf-jax sweep experiments/sft_limits/sweep.py --workdir runs/sft_limits

Three groups of demonstrators differ in how often they write an ideal answer: never, as those of the quickstart, always.
From the SFT model of each group 2,048 further labels buy demonstrations of the same group (more_sft), or ratings of
the model's own samples, which PPO learns from (rated). In the middle group comparisons are bought as well, for SFT on
the best answer of each (chosen_sft), for DPO, and for a reward model with PPO. The argument "fast" makes it tiny.

Time: 32 minutes on two CPU cores, planned: 15 cells, of which those of a seed share their pretraining.
"""

from pathlib import Path

from rlhf_jax.configs import dpo, online, quickstart

SEEDS = 5
MIDDLE = "some"
GROUPS = {
  "none": {**quickstart.DEMONSTRATORS, "ideal": 0.0},
  MIDDLE: quickstart.DEMONSTRATORS,
  "all": {"ideal": 1.0},
}
MODELS = ("sft", "more_sft", "rated")
COMPARED = ("chosen_sft", "dpo", "ppo")  # models of the middle group that learn from comparisons
FOLDER = Path(__file__).parent

SHORT = dict(max_prompt_tokens=40, max_new_tokens=8)
TINY = {
  "model": dict(num_layers=1, d_model=32, num_heads=2, num_kv_heads=2, d_ff=48, max_length=128),
  "world": dict(num_documents=200, num_demonstrations=60, num_prompts=48, num_eval_prompts=24),
  "vocabulary": dict(vocab_size=400),
  "pretrain": dict(num_steps=4, length=32, eval_rows=8, evaluate_every=0),
  "sft": dict(num_epochs=1, batch_size=8, length=128, eval_fraction=0.0),
  "preferences": dict(num_prompts=24, batch_size=24, sampling=SHORT),
  "reward_model": dict(num_epochs=1, length=64, normalize_count=16, eval_fraction=0.0, sampling=SHORT),
  "ppo": dict(num_steps=2, environment=dict(batch_size=16, sampling=SHORT)),
  "evaluation": dict(batch_size=24, sampling=SHORT),
}


def demonstrations(config, prompts, num, habits):
  """A stage in which demonstrators with these habits answer `num` of the prompts."""
  settings = dict(prompts=prompts, num=num, habits=habits)
  return dict(algorithm="rlhf_jax.stages.demonstrations", **quickstart.world(config), **settings)


def get_config(group, seed, fast):
  """The config of a group of demonstrators."""
  config = quickstart.get_config()
  config.seed = seed
  config.ppo.watch.samples_every = 0
  if fast:
    config.update(TINY)
  labels = config.ppo.num_steps * config.ppo.environment.batch_size
  prompts, asked, habits = "{run}/world/prompts.jsonl", "{run}/world/demonstrations.jsonl", GROUPS[group]
  config.demonstrations = demonstrations(config, asked, config.world.num_demonstrations, habits)
  config.more = demonstrations(config, prompts, labels, habits)
  config.sft.demonstrations = "{run}/demonstrations/demonstrations.jsonl"
  tuned = dict(config.sft.copy_and_resolve_references(), init="sft", optimizer=quickstart.optimizer(3e-4))
  config.more_sft = dict(tuned, demonstrations="{run}/more/demonstrations.jsonl")
  rating = dict(
    checkpoint="", checkpoint_weight=0.0, function="rlhf_jax.world:simulated_rating", function_weight=1.0,
    arguments=dict(**quickstart.world(config), labellers=quickstart.LABELLERS),
  )  # fmt: skip
  config.rated = online.ppo(config, rating, value_init="")
  config.rated.environment.sampling = config.ppo.environment.sampling
  config.rated.environment.batch_size = config.ppo.environment.batch_size
  models, after = MODELS, ()
  if group == MIDDLE:
    models += COMPARED
    after = ("answers",)
    pairs = "{run}/preferences/comparisons.jsonl"
    config.chosen = dict(algorithm=str(FOLDER / "chosen.py"), comparisons=pairs)
    config.chosen_sft = dict(tuned, demonstrations="{run}/chosen/demonstrations.jsonl")
    config.dpo = dict(dpo.get_config().dpo, length=config.reward_model.length, eval_fraction=0.0)
    config.answers = dict(
      algorithm=str(FOLDER / "answers.py"), **quickstart.world(config), prompts="{run}/world/eval_prompts.jsonl",
      num_prompts=320, models=models, reward_model="reward_model", comparisons=pairs, batch_size=128,
    )  # fmt: skip
  evaluated = config.world.num_eval_prompts
  changes = dict(
    models=models, held_out_prompts="", num_prompts=evaluated, reward_model="", responses=1, labellers={},
    num_samples=evaluated, contrasts="", comparisons="", baselines={}, demonstrations="",
  )  # fmt: skip
  for key, value in changes.items():  # update() would keep the labellers and baselines that there are
    config.evaluation[key] = value
  learnt = ("preferences", "reward_model", "ppo", "dpo", "chosen", "chosen_sft") if group == MIDDLE else ()
  before = ("world", "vocabulary", "pretrain", "demonstrations", "sft", "more", "more_sft", "rated")
  config.stages = (*before, *learnt, "evaluation", *after)
  for name in quickstart.STAGES:
    if name not in config.stages:
      del config[name]
  return config


def sweep(add, arg=""):
  fast = arg == "fast"
  for seed in range(1 if fast else SEEDS):
    for group in ("none", MIDDLE) if fast else GROUPS:
      add(get_config(group, seed, fast), group=group)
