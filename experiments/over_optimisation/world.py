"""Where does the gold reward peak in the embedded world, by method, size of the reward model, comparisons and penalty?

  rlhf-jax sweep experiments/over_optimisation/world.py --workdir runs/over_optimisation/world

Five reward models: three sizes from the comparisons of 1,280 prompts, and the largest also from those of 320 and of
80. Best of n against each of them; REINFORCE and PPO without a KL penalty against the largest of most comparisons, the
smallest, and that of fewest comparisons; PPO against the first of these with two penalties. All from one SFT model,
which has the size of the largest reward model. A cell for each of eight seeds, of everything but the facts of the
world. `world.py:fast` has two seeds and one tiny reward model.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart

RewardModel = tuple[str, int]  # its size, and the number of prompts whose comparisons it learns from

SHAPES = {  # size -> in what it differs from the policy
  "1x32": dict(num_layers=1, d_model=32, d_ff=96),
  "2x64": dict(num_layers=2, d_model=64, d_ff=192),
  "3x128": {},
}
EPOCHS = {80: 8, 320: 4, 1280: 2}  # prompts with comparisons -> passes over them, 72 to 288 steps
REWARD_MODELS = (("3x128", 1280), ("2x64", 1280), ("1x32", 1280), ("3x128", 320), ("3x128", 80))
FOLLOWED = (("3x128", 1280), ("1x32", 1280), ("3x128", 80))  # those that RL learns from; with penalties from the first
PENALTIES = (0.05, 0.2)
ROOM = dict(max_prompt_tokens=36, max_new_tokens=36)  # for prompts and answers of the hard world
PROMPTS = 128  # held-out prompts that all policies answer
SEEDS = 8


def reward_name(model: RewardModel) -> str:
  """The stage of a reward model; RL against it is reinforce_NAME and ppo_NAME."""
  return f"reward_{model[0]}_{model[1]}"


def penalty_name(coef: float) -> str:
  """The stage of PPO with the KL coefficient `coef`."""
  return f"ppo_penalty_{coef}".replace(".", "_")


def sweep(add, arg=""):
  quickstart.choose("world.py", arg, ("fast",))
  for seed in range(2 if arg else SEEDS):
    config = fast() if arg else get_config(REWARD_MODELS, FOLLOWED, PENALTIES)
    config.seed = seed
    add(config)


def get_config(
  models: Sequence[RewardModel], followed: Sequence[RewardModel], penalties: Sequence[float]
) -> ConfigDict:
  """The config of a cell, with RL against the reward models `followed`, and with penalties against the first of them.

  Every critic starts from the first of all reward models, where it has the policy's size.
  """
  config = quickstart.get_config("reward_model")
  config.world.difficulty = "hard"
  sampling = dict(quickstart.SAMPLING, **ROOM)
  config.preferences.sampling = config.reward_model.sampling = ConfigDict(sampling)
  config.reward_model.update(length=64, evaluate_every=0)
  shapes = {}
  prompts = "{run}/world/eval_prompts.jsonl"
  learning = dict(
    init="sft",
    kl_coef=0.0,
    value_coef=0.1,
    entropy_coef=0.0,
    optimizer=quickstart.optimizer(5e-4, warmup=0.0, decay="constant", eps=1e-5, weight_decay=0.0),
    checkpoint_every=50,
    watch=dict(eval_prompts=prompts, num_prompts=PROMPTS, evaluate_every=4),
    loop=dict(keep=1),
  )

  def environment(model: RewardModel, **sizes: int) -> ConfigDict:
    found = quickstart.environment(config, **sizes)
    found.reward.checkpoint = reward_name(model)
    found.sampling = sampling
    return found

  def reinforce(model: RewardModel) -> dict:
    return learning | dict(
      algorithm="rlhf_jax.algorithms.reinforce",
      num_steps=64,
      environment=environment(model, batch_size=16, samples_per_prompt=4),
      baseline="leave_one_out",
      moving_decay=0.9,
      optimizer=dict(learning["optimizer"], learning_rate=1e-3),
    )

  def ppo(model: RewardModel, kl_coef: float = 0.0) -> dict:
    return learning | dict(
      algorithm="rlhf_jax.algorithms.ppo",
      num_steps=40,
      environment=environment(model, batch_size=64, samples_per_prompt=1),
      kl_coef=kl_coef,
      kl_target=0.0,
      kl_horizon=10000.0,
      discount=1.0,
      lam=0.95,
      clip=0.2,
      value_clip=0.2,
      epochs=2,
      minibatches=2,
      whiten_rewards=False,
      whiten_advantages=True,
      shared_trunk=False,
      value_init="" if SHAPES[models[0][0]] else reward_name(models[0]),
    )

  stages = {"world": config.world, "vocabulary": config.vocabulary}
  for size in dict.fromkeys(("3x128", *(size for size, _ in models))):
    pretrain, sft = chain_names(size)
    stages |= {pretrain: dict(config.pretrain), sft: dict(config.sft, init=pretrain)}
    shapes |= {pretrain: SHAPES[size], sft: SHAPES[size]}
  for num in dict.fromkeys(num for _, num in models):
    stages[f"preferences_{num}"] = dict(config.preferences, num_prompts=num)
  for size, num in models:
    name = reward_name((size, num))
    comparisons = f"{{run}}/preferences_{num}/comparisons.jsonl"
    changes = dict(init=chain_names(size)[1], comparisons=comparisons, num_epochs=EPOCHS[num])
    stages[name] = dict(config.reward_model, **changes)
    shapes[name] = SHAPES[size]
  stages["best_of_n"] = dict(
    algorithm="rlhf_jax.stages.best_of_n_curve",
    policy="sft",
    prompts=prompts,
    num_prompts=PROMPTS,
    responses=256,
    batch_size=4,
    sampling=sampling,
    models=tuple(map(reward_name, models)),
    missing_eos_score=-1.0,
    gold=quickstart.gold(config, "gold_reward"),
  )
  for model in followed:
    stages[f"reinforce_{reward_name(model)}"] = reinforce(model)
    stages[f"ppo_{reward_name(model)}"] = ppo(model)
  stages |= {penalty_name(coef): ppo(followed[0], coef) for coef in penalties}
  del config["preferences"], config["reward_model"]
  for name, stage in stages.items():
    config[name] = stage
  config.stages = tuple(stages)
  config.models = {name: shape for name, shape in shapes.items() if shape}
  return config


def chain_names(size: str) -> tuple[str, str]:
  """The stages of pretraining and SFT of a size; those of the policy's size have the plain names."""
  return (f"pretrain_{size}", f"sft_{size}") if SHAPES[size] else ("pretrain", "sft")


def fast() -> ConfigDict:
  """A cell of one reward model and one penalty, at sizes that run in seconds."""
  config = get_config((("1x32", 80),), (("1x32", 80),), PENALTIES[-1:])
  config.model.update(num_layers=1, d_model=16, num_heads=2, num_kv_heads=2, d_ff=32)
  config.models = {name: dict(d_model=8) for name in config.models}
  config.vocabulary.vocab_size = 400
  few = dict(num_steps=2, watch=dict(num_prompts=8, evaluate_every=1))
  changes = {
    "world": dict(difficulty="easy", num_documents=200, num_demonstrations=60, num_prompts=48, num_eval_prompts=24),
    "pretrain": dict(num_steps=2, batch_size=4, length=32, eval_rows=2, evaluate_every=0),
    "sft": dict(num_epochs=1, batch_size=8, eval_fraction=0.0, evaluate_every=0),
    "preferences": dict(num_prompts=24, batch_size=24),
    "reward": dict(num_epochs=1, batch_size=8, length=128, eval_fraction=0.0, normalize_count=8),
    "best": dict(num_prompts=8, responses=8, batch_size=8),
    "reinforce": few | dict(environment=dict(batch_size=2)),
    "ppo": few | dict(environment=dict(batch_size=8)),
  }
  for name in config.stages:
    config[name].update(changes.get(name.partition("_")[0], {}))
  return config
