"""Does the chain run from a published model with adapters, on human preferences?

  rlhf-jax run --config smollm2_hh:PAIRS --workdir runs/smollm2_hh
  rlhf-jax run --config smollm2_hh:PAIRS,few --workdir runs/few

PAIRS is a file of rows {"chosen": dialogue, "rejected": dialogue}, .jsonl or .jsonl.gz, such as Anthropic's HH pairs.
SFT on the chosen answers, a reward model on the pairs and PPO on their prompts train LoRA adapters, so that every model
of the run shares one base, SmolLM2-135M-Instruct. It is loaded from the Hugging Face hub; --config.model.path names a
directory or a .gguf file instead. All of the pairs need an accelerator; with `,few` a few dozen short pairs run on a
CPU and show only that the chain runs.

Time: 14 minutes on one busy CPU core for 24 pairs with `,few`; the whole file was not run.

Result: one seed, 24 pairs: every stage ends, with at most 4 GiB of memory; the pairs are too few to teach anything.
experiments/smollm2_hh has the details.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart

STAGES = ("base", "sft", "reward_model", "ppo", "evaluation")
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
LORA = dict(rank=16, alpha=32.0, targets=("query", "key", "value", "attention_out", "gate", "up", "mlp_out"))


def get_config(arg: str = "") -> ConfigDict:
  """The recipe for `arg`, which must be given: a file of pairs, or "FILE,few" for a few steps."""
  pairs, _, size = arg.partition(",")
  if not pairs:
    raise ValueError("the recipe smollm2_hh needs the path of the pairs: --config smollm2_hh:PAIRS or PAIRS,few")
  quickstart.choose("smollm2_hh:PAIRS,", size, ("few",))
  config = quickstart.get_config()
  for name in ("world", "vocabulary", "pretrain", "preferences"):
    del config[name]
  config.stages = STAGES
  config.tokenizer = "{model}"
  config.model = dict(path=MODEL, dtype="float32")
  config.max_length = 512  # of rows, and of prompt and response, where a length is 0
  config.transport.update(logits_chunk=64, remat="full")
  config.base = dict(algorithm="rlhf_jax.stages.import_model")
  sampling = dict(max_prompt_tokens=0, max_new_tokens=128, temperature=0.7)

  config.sft.init = "base"
  config.sft.demonstrations = pairs
  config.sft.update(num_epochs=1, batch_size=16, length=0)
  config.reward_model.comparisons = pairs
  config.reward_model.normalize_prompts = pairs
  config.reward_model.update(num_epochs=1, batch_size=16, length=0, normalize_count=128, eval_fraction=0.2)
  config.reward_model.likelihood = 0.0
  config.ppo.environment.prompts = pairs
  config.ppo.environment.monitor.function = ""
  config.ppo.update(num_steps=100, kl_coef=0.05)
  for name, learning_rate in (("sft", 2e-4), ("reward_model", 1e-4), ("ppo", 5e-5)):
    config[name].lora = LORA
    config[name].optimizer.update(learning_rate=learning_rate, weight_decay=0.0)
  config.evaluation.update(models=("base", "sft", "ppo"), reference="sft", prompts=pairs, held_out_prompts="")
  config.evaluation.update(num_prompts=256, batch_size=64, num_samples=32)
  config.evaluation.gold.function = ""
  config.evaluation.update(contrasts="", comparisons="", demonstrations="")
  for section in (config.reward_model, config.ppo.environment, config.evaluation):
    section.sampling.update(sampling)
  return few(config) if size else config


def few(config: ConfigDict) -> ConfigDict:
  """The recipe with short rows and small batches, for a few dozen short pairs on a CPU."""
  config.stages = STAGES[:-1]
  config.transport.update(logits_chunk=32, remat="none")
  config.max_length = 128
  for name in ("sft", "reward_model"):
    config[name].update(eval_fraction=0.25, batch_size=4)
  config.reward_model.normalize_count = 8
  for section in (config.reward_model, config.ppo.environment):
    section.sampling.update(max_prompt_tokens=64, max_new_tokens=16)
  config.ppo.environment.batch_size = 8
  config.ppo.update(num_steps=4, epochs=1, checkpoint_every=1)
  return config
