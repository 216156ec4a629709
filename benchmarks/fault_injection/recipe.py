"""A chain of seconds with every kind of stage whose faults are injected: `--config recipe.py:STAGE`.

The config has the stage and those that it needs. Data and code of the user are in the current directory: `user/` and
`functions.py`, and for each algorithm that learns a file of its name, a copy of the package's by `learner.py`.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import dpo, grpo, quickstart, reinforce
from rlhf_jax.configs.reward_from_feedback import judgements

# Kind of stage -> the stages it reads from.
UPSTREAM = {
  "world": (),
  "vocabulary": ("world",),
  "pretrain": ("vocabulary",),
  "sft": ("pretrain",),
  "preferences": ("sft",),
  "reward_model": ("sft", "preferences"),
  "dpo": ("sft",),
  "ppo": ("sft", "reward_model"),
  "reinforce": ("sft",),
  "grpo": ("sft",),
  "best_of_n": ("sft",),
  "judgements": ("sft",),
  "evaluation": ("sft", "reward_model"),
  "few_shot": ("sft",),
  "import_model": (),
}
LEARNERS = ("pretrain", "sft", "reward_model", "dpo", "ppo", "reinforce", "grpo")
MODEL = dict(num_layers=1, d_model=32, num_heads=2, num_kv_heads=2, d_ff=48, max_length=64)
SAMPLING = dict(max_prompt_tokens=40, max_new_tokens=8, temperature=1.0)
GOLD = dict(function="functions.py:gold")  # beside the arguments that the recipe of the quickstart gives
RL = dict(num_steps=4, checkpoint_every=2)


def needed(stage: str) -> tuple[str, ...]:
  """The stages that `stage` depends on, in the order of a run, and itself."""
  found = {stage}
  while more := {other for name in found for other in UPSTREAM[name]} - found:
    found |= more
  return tuple(name for name in UPSTREAM if name in found)


def get_config(arg: str) -> ConfigDict:
  """The config of the stage `arg`, one of UPSTREAM."""
  if arg == "import_model":
    return _imported()
  whole = quickstart.get_config()
  whole.model = MODEL
  whole.world.update(num_documents=200, num_demonstrations=120, num_prompts=64, num_eval_prompts=16)
  whole.vocabulary.update(vocab_size=400, texts=("{run}/world/corpus.txt", "user/demonstrations.jsonl"))
  whole.pretrain.update(
    text="user/corpus.txt", num_steps=6, length=32, eval_rows=8, evaluate_every=3, checkpoint_every=2
  )
  whole.sft.update(
    demonstrations="user/demonstrations.jsonl", num_epochs=1, batch_size=16, length=64, eval_fraction=0.2,
    checkpoint_every=2,
  )  # fmt: skip
  whole.preferences.update(
    prompts="user/prompts.jsonl", written="user/answers.jsonl", num_prompts=32, batch_size=8, gold=GOLD
  )
  whole.reward_model.update(
    normalize_prompts="user/prompts.jsonl", length=64, normalize_count=16, eval_fraction=0.2, num_epochs=1,
    checkpoint_every=2,
  )  # fmt: skip
  whole.dpo = dpo.get_config().dpo
  whole.dpo.update(
    comparisons="user/comparisons.jsonl", length=64, eval_fraction=0.2, num_epochs=1, batch_size=8, checkpoint_every=2
  )
  whole.ppo.update(environment=_environment("reward_model"), **RL)
  whole.reinforce = reinforce.get_config().reinforce
  whole.reinforce.update(environment=_environment(), **RL)
  whole.grpo = grpo.get_config().grpo
  whole.grpo.update(environment=_environment(), **RL)
  whole.best_of_n = dict(
    algorithm="rlhf_jax.stages.best_of_n", policy="sft", prompts="user/prompts.jsonl", num_prompts=24, responses=2,
    batch_size=8, sampling=SAMPLING, reward=_environment()["reward"],
  )  # fmt: skip
  whole.judgements = judgements(whole, "pairs", num=12, judges=2)
  whole.judgements.update(prompts="user/prompts.jsonl", written="user/answers.jsonl", batch_size=8, gold=GOLD)
  whole.evaluation = quickstart.evaluation(whole)
  whole.evaluation.update(
    prompts="user/eval_prompts.jsonl", held_out_prompts="", num_prompts=16, batch_size=16, responses=2, num_samples=4,
    contrasts="user/contrasts.jsonl", num_contrasts=16, demonstrations="user/demonstrations.jsonl", gold=GOLD,
  )  # fmt: skip
  whole.few_shot = dict(
    algorithm="rlhf_jax.stages.few_shot", models=("sft",), text_models=(), shots=(0,), num_questions=8, batch_size=8,
    tasks=dict(
      choice=dict(file="user/questions.jsonl", method="likelihood"),
      free=dict(
        file="user/questions.jsonl", method="generate", score=dict(function="functions.py:reward"), max_new_tokens=6
      ),
    ),
  )  # fmt: skip
  for name in ("preferences", "reward_model", "judgements", "evaluation"):
    whole[name].sampling.update(SAMPLING)
  for name in LEARNERS:
    whole[name].algorithm = f"{name}.py"
  whole.stages = needed(arg)
  return whole


def _environment(checkpoint: str = "") -> dict:
  """The environment of RL; its reward is a function of the user, and a reward model where `checkpoint` names one."""
  reward = dict(
    checkpoint=checkpoint, checkpoint_weight=1.0, function="functions.py:reward", function_weight=1.0,
    arguments=ConfigDict(),
  )  # fmt: skip
  return dict(
    prompts="user/prompts.jsonl", batch_size=8, samples_per_prompt=2 - bool(checkpoint), sampling=SAMPLING,
    reward=reward, missing_eos_score=None, monitor=dict(function="", arguments=ConfigDict()),
  )  # fmt: skip


def _imported() -> ConfigDict:
  """The config of a run that only imports a published model."""
  whole = quickstart.get_config()
  config = ConfigDict(dict(seed=0, transport=whole.transport, tokenizer="{model}", model=dict(path="user/published")))
  config.import_model = dict(algorithm="rlhf_jax.stages.import_model")
  config.stages = ("import_model",)
  return config
