"""The whole chain on the embedded world: language model, SFT, preferences, reward model, PPO, evaluation.

  rlhf-jax run --config configs/quickstart.py --workdir runs/quickstart
"""

from ml_collections import ConfigDict

STAGES = ("world", "vocabulary", "pretrain", "sft", "preferences", "reward_model", "ppo", "evaluation")
LABELLERS = dict(expert=3, ordinary=6, careless=1, length_biased=1, position_biased=1, adversarial=0)


def optimizer(learning_rate: float, **changes) -> ConfigDict:
  """AdamW as all stages use it, but for `changes`."""
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


def get_config(arg: str = "") -> ConfigDict:
  """The recipe; `arg` names the last stage ("sft" ends after SFT), "" runs all of them."""
  config = ConfigDict()
  config.seed = 0
  config.stages = STAGES[: STAGES.index(arg) + 1] if arg else STAGES
  config.tokenizer = "{run}/vocabulary/tokenizer.json"
  config.model = dict(num_layers=3, d_model=128, num_heads=4, num_kv_heads=4, d_ff=384, max_length=128)
  config.transport = dict(kind="jit", fsdp=1, microbatches=1)

  config.world = dict(
    algorithm="rlhf_jax.algorithms.world",
    seed=0,
    num_documents=30000,
    num_demonstrations=12000,
    num_prompts=4000,
    num_eval_prompts=400,
    demonstrator_flaw=0.85,
    held_out=("comparison", "verification"),
  )
  gold = dict(seed=config.world.get_ref("seed"))
  sampling = dict(max_prompt_tokens=28, max_new_tokens=28, temperature=0.7)

  config.vocabulary = dict(
    algorithm="rlhf_jax.algorithms.tokenizer",
    texts=("{run}/world/corpus.txt", "{run}/world/demonstrations.jsonl"),
    vocab_size=1024,
  )
  config.pretrain = dict(
    algorithm="rlhf_jax.algorithms.pretrain",
    text="{run}/world/corpus.txt",
    eval_text="",
    eval_rows=64,
    num_steps=1000,
    batch_size=8,
    length=64,
    z_loss=0.0,
    optimizer=optimizer(2e-3),
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
    algorithm="rlhf_jax.algorithms.preferences",
    policy="sft",
    prompts="{run}/world/prompts.jsonl",
    num_prompts=2200,
    responses=4,
    batch_size=64,
    sampling=sampling,
    gold=dict(function="rlhf_jax.world:gold_reward", arguments=gold),
    labellers=LABELLERS,
  )
  config.reward_model = dict(
    algorithm="rlhf_jax.algorithms.reward_model",
    init="sft",
    comparisons="{run}/preferences/comparisons.jsonl",
    eval_fraction=0.1,
    num_epochs=2,
    batch_size=8,
    length=44,
    optimizer=optimizer(1e-3),
    normalize_prompts="{run}/world/prompts.jsonl",
    normalize_count=256,
    sampling=sampling,
    evaluate_every=100,
    checkpoint_every=200,
  )
  config.ppo = dict(
    algorithm="rlhf_jax.algorithms.ppo",
    init="sft",
    num_steps=40,
    environment=dict(
      prompts="{run}/world/prompts.jsonl",
      batch_size=64,
      samples_per_prompt=1,
      sampling=sampling,
      reward=dict(
        checkpoint="reward_model", checkpoint_weight=1.0, function="", function_weight=0.0, arguments=ConfigDict()
      ),
      missing_eos_score=-1.0,
      monitor=dict(function="rlhf_jax.world:gold_reward", arguments=gold),
    ),
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
  )
  config.evaluation = dict(
    algorithm="rlhf_jax.evaluation.evaluate",
    models=("pretrain", "sft", "ppo"),
    reference="sft",
    prompts="{run}/world/eval_prompts.jsonl",
    held_out_prompts="{run}/world/held_out_prompts.jsonl",
    num_prompts=400,
    batch_size=256,
    sampling=sampling,
    reward_model="reward_model",
    gold=dict(function="rlhf_jax.world:gold_parts", arguments=gold),
    responses=4,
    min_gap=0.5,
    labellers=LABELLERS,
    num_samples=40,
  )
  return config
