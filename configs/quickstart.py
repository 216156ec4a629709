"""How much does each stage of RLHF add, from an untrained model to PPO, on the embedded world?

  rlhf-jax run --config quickstart --workdir runs/quickstart
  rlhf-jax run --config quickstart:sft --workdir runs/quickstart

The argument names the last stage that is run; without it all of them are: world, vocabulary, pretrain, sft,
preferences, reward_model, ppo and evaluation. Most other recipes continue in the run directory of this one.

Time: 3 minutes on two idle CPU cores, 7 on two busy ones.

Result: over eight seeds, a mean gold reward (-2 to 2) of 0.67 after SFT and of 1.12 [1.09, 1.23] after PPO, whose
answers beat those of SFT on 67 to 71 % of the prompts. On known tasks in other words PPO has 1.61, on new facts and
numbers 0.64. The reward model tells a right answer from a wrong value in the same form on 85 to 93 % of the pairs.
experiments/quickstart has the details.
"""

import difflib
from collections.abc import Iterable

from ml_collections import ConfigDict

STAGES = ("world", "vocabulary", "pretrain", "sft", "preferences", "reward_model", "ppo", "evaluation")
SAMPLING = dict(max_prompt_tokens=30, max_new_tokens=28, temperature=0.7)
# Weights of the habits of people. Demonstrators write what SFT imitates: most of their answers are right but badly
# written. The answers that are compared set right against wrong in the same form, and style against both.
DEMONSTRATORS = dict(
  ideal=0.15, terse=0.35, rambling=0.35, wrong=0.05, misleading=0.02, straying=0.02, doubting=0.05, refusing=0.03,
  claiming=0.2, complying=0.2,
)  # fmt: skip
ANSWERS = dict(
  ideal=0.4, terse=0.04, rambling=0.04, wrong=0.22, misleading=0.06, straying=0.08, doubting=0.08, refusing=0.08,
  claiming=0.3, complying=0.3,
)  # fmt: skip
LABELLERS = dict(
  expert=3, ordinary=5, trusting=1, careless=1, length_biased=1, style_biased=1, position_biased=1, adversarial=0
)


def choose(recipe: str, arg: str, known: Iterable[str] = ()) -> str:
  """`arg`, the argument of the recipe: "" or one of `known`.

  Raises:
    ValueError: `arg` is anything else; the message has the nearest name and all of them.
  """
  names = list(known)
  if arg == "" or arg in names:
    return arg
  if not names:
    raise ValueError(f"the recipe {recipe} takes no argument, and {arg!r} was given")
  nearest = difflib.get_close_matches(arg, names, n=1, cutoff=0.5)
  hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
  raise ValueError(f"the recipe {recipe} does not know {arg!r}.{hint} Known: {', '.join(names)}.")


def count(recipe: str, arg: str, default: int) -> int:
  """The argument of the recipe as a number of at least 1; `default` for "". Raises ValueError for anything else."""
  if arg == "":
    return default
  if not (arg.isdecimal() and int(arg) >= 1):
    raise ValueError(f"the argument of the recipe {recipe} must be a number of at least 1, not {arg!r}")
  return int(arg)


def optimizer(learning_rate: float, **changes) -> ConfigDict:
  """The settings of AdamW that all stages share, with `changes`."""
  settings = dict(
    learning_rate=learning_rate,
    warmup=0.05,
    decay="linear",
    beta1=0.9,
    beta2=0.98,
    eps=1e-8,
    tensorflow_eps=False,
    weight_decay=0.01,
    clip_norm=1.0,
  )
  return ConfigDict({**settings, **changes})


def environment(config: ConfigDict, batch_size: int, samples_per_prompt: int) -> ConfigDict:
  """The environment of RL: prompts, sampling, and the reward model that scores the responses."""
  return ConfigDict(
    dict(
      prompts="{run}/world/prompts.jsonl",
      batch_size=batch_size,
      samples_per_prompt=samples_per_prompt,
      sampling=SAMPLING,
      reward=dict(
        checkpoint="reward_model", checkpoint_weight=1.0, function="", function_weight=0.0, arguments=ConfigDict()
      ),
      missing_eos_score=-1.0,
      monitor=gold(config, "gold_reward"),
    )
  )


def evaluation(config: ConfigDict, *models: str) -> ConfigDict:
  """The evaluation of the base model, the SFT model and `models`, on prompts that are in no training data."""
  return ConfigDict(
    dict(
      algorithm="rlhf_jax.stages.evaluate",
      models=("pretrain", "sft", *models),
      reference="sft",
      prompts="{run}/world/eval_prompts.jsonl",
      held_out_prompts="{run}/world/held_out_prompts.jsonl",
      num_prompts=960,
      batch_size=256,
      sampling=SAMPLING,
      reward_model="reward_model",
      gold=gold(config, "gold_parts"),
      responses=2,
      min_gap=0.5,
      labellers=LABELLERS,
      num_samples=40,
      contrasts="{run}/world/contrasts.jsonl",
      num_contrasts=200,
      comparisons="{run}/preferences/comparisons.jsonl",
      baselines=dict(refusal="I cannot help with that.", admission="I do not know."),
      demonstrations="{run}/world/demonstrations.jsonl",
      full_gold=2.0,
    )
  )


def gold(config: ConfigDict, name: str) -> dict:
  """The function `name` of rlhf_jax.world, for the world that the config generates."""
  return dict(function=f"rlhf_jax.world:{name}", arguments=world(config))


def world(config: ConfigDict) -> dict:
  """The arguments that name the world that the config generates."""
  return dict(seed=config.world.get_ref("seed"), difficulty=config.world.get_ref("difficulty"))


def instead_of_ppo(config: ConfigDict, *stages: str) -> ConfigDict:
  """Puts `stages` in the place of PPO, and adds an evaluation of the last stage.

  In the run directory of the quickstart only these stages are new.
  """
  name = f"{stages[-1]}_evaluation"
  config[name] = evaluation(config, stages[-1])
  config.stages = (*STAGES[: STAGES.index("ppo")], *stages, name)
  del config["ppo"], config["evaluation"]
  return config


def get_config(arg: str = "") -> ConfigDict:
  """The recipe up to the stage `arg`; without `arg` all stages."""
  choose("quickstart", arg, STAGES)
  config = ConfigDict()
  config.seed = 0
  config.stages = STAGES[: STAGES.index(arg) + 1] if arg else STAGES
  config.tokenizer = "{run}/vocabulary/tokenizer.json"
  config.model = dict(num_layers=3, d_model=128, num_heads=4, num_kv_heads=4, d_ff=384, max_length=128)
  config.transport = dict(kind="jit", fsdp=1, microbatches=1, logits_chunk=0, remat="none", attention="auto")
  config.transport.packing = 0.625  # enough for nearly all of its rollouts: another size would be another program

  config.world = dict(
    algorithm="rlhf_jax.stages.world",
    seed=0,
    difficulty="easy",
    num_documents=30000,
    num_demonstrations=10000,
    num_prompts=4000,
    num_eval_prompts=960,
    demonstrators=DEMONSTRATORS,
    num_answers=2,
    answers=ANSWERS,
    held_out=("comparison", "verification"),
  )

  config.vocabulary = dict(
    algorithm="rlhf_jax.stages.tokenizer",
    texts=("{run}/world/corpus.txt", "{run}/world/demonstrations.jsonl"),
    vocab_size=1024,
  )
  config.pretrain = dict(
    algorithm="rlhf_jax.algorithms.pretrain",
    text="{run}/world/corpus.txt",
    eval_text="",
    eval_rows=64,
    num_steps=800,
    batch_size=8,
    length=64,
    z_loss=0.0,
    optimizer=optimizer(3e-3),
    evaluate_every=200,
    checkpoint_every=500,
  )
  config.sft = dict(
    algorithm="rlhf_jax.algorithms.sft",
    init="pretrain",
    demonstrations="{run}/world/demonstrations.jsonl",
    eval_fraction=0.05,
    num_epochs=2,
    batch_size=4,
    length=128,
    optimizer=optimizer(2e-3),
    evaluate_every=200,
    checkpoint_every=500,
  )
  config.preferences = dict(
    algorithm="rlhf_jax.stages.preferences",
    policy="sft",
    prompts="{run}/world/prompts.jsonl",
    num_prompts=1300,
    responses=2,
    written="{run}/world/answers.jsonl",
    num_written=2,
    batch_size=64,
    sampling=SAMPLING,
    gold=gold(config, "gold_parts"),
    labellers=LABELLERS,
  )
  config.reward_model = dict(
    algorithm="rlhf_jax.algorithms.reward_model",
    init="sft",
    comparisons="{run}/preferences/comparisons.jsonl",
    likelihood=1.0,
    eval_fraction=0.1,
    num_epochs=2,
    batch_size=8,
    length=44,
    optimizer=optimizer(1e-3),
    normalize_prompts="{run}/world/prompts.jsonl",
    normalize_count=256,
    sampling=SAMPLING,
    evaluate_every=100,
    checkpoint_every=200,
  )
  config.ppo = dict(
    algorithm="rlhf_jax.algorithms.ppo",
    init="sft",
    num_steps=32,
    environment=environment(config, batch_size=64, samples_per_prompt=1),
    kl_coef=0.15,
    kl_target=0.0,
    kl_horizon=10000.0,
    discount=1.0,
    lam=0.95,
    clip=0.2,
    value_clip=0.2,
    value_coef=0.1,
    entropy_coef=0.0,
    epochs=2,
    minibatches=2,
    whiten_rewards=False,
    whiten_advantages=True,
    shared_trunk=False,
    value_init="reward_model",
    optimizer=optimizer(5e-4, warmup=0.0, eps=1e-5, weight_decay=0.0),
    checkpoint_every=20,
    watch=dict(samples_every=8),
  )
  config.evaluation = evaluation(config, "ppo")
  return config
