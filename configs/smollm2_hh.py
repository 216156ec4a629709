"""A published model, SmolLM2-135M-Instruct, aligned with adapters on Anthropic's HH preference pairs.

  rlhf-jax run --config configs/smollm2_hh.py:PAIRS --workdir runs/smollm2_hh

PAIRS is a file of rows {"chosen": dialogue, "rejected": dialogue}, .jsonl or .jsonl.gz. SFT on the chosen answers, a
reward model on the pairs, PPO on their prompts: all with LoRA, so that every model of the run stands on one base. The
model is taken from the Hugging Face hub; --config.model.path names a directory or a .gguf file instead.

All of the pairs want an accelerator. With PAIRS,few for the path a few dozen short pairs take minutes on a CPU, which
proves the way through and no more: experiments/smollm2_hh has the commands and what came out.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart

STAGES = ("base", "sft", "reward_model", "ppo", "evaluation")
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
LORA = dict(rank=16, alpha=32.0, targets=("query", "key", "value", "attention_out", "gate", "up", "mlp_out"))


def get_config(arg: str) -> ConfigDict:
  """The recipe for the pairs of the file `arg`, or of "FILE,few" for a few steps."""
  pairs, _, size = arg.partition(",")
  if not pairs or size not in ("", "few"):
    raise ValueError("configs/smollm2_hh.py needs the path of the pairs: --config configs/smollm2_hh.py:PAIRS[,few]")
  config = quickstart.get_config()
  for name in ("world", "vocabulary", "pretrain", "preferences"):
    del config[name]
  config.stages = STAGES
  config.tokenizer = "{model}"
  config.model = dict(path=MODEL, dtype="float32")
  config.transport.update(logits_chunk=64, remat="full")
  config.base = dict(algorithm="rlhf_jax.stages.import_model")
  sampling = dict(max_prompt_tokens=384, max_new_tokens=128, temperature=0.7)

  config.sft.init = "base"
  config.sft.demonstrations = pairs
  config.sft.update(num_epochs=1, batch_size=16, length=512)
  config.reward_model.comparisons = pairs
  config.reward_model.normalize_prompts = pairs
  config.reward_model.update(num_epochs=1, batch_size=16, length=512, normalize_count=128, eval_fraction=0.2)
  config.ppo.environment.prompts = pairs
  config.ppo.environment.monitor.function = ""
  config.ppo.update(num_steps=100, kl_coef=0.05)
  for name, learning_rate in (("sft", 2e-4), ("reward_model", 1e-4), ("ppo", 5e-5)):
    config[name].lora = LORA
    config[name].optimizer.update(learning_rate=learning_rate, weight_decay=0.0)
  config.evaluation.update(models=("base", "sft", "ppo"), reference="sft", prompts=pairs, held_out_prompts="")
  config.evaluation.update(num_prompts=256, batch_size=64, num_samples=32)
  config.evaluation.gold.function = ""
  for section in (config.reward_model, config.ppo.environment, config.evaluation):
    section.sampling.update(sampling)
  return few(config) if size else config


def few(config: ConfigDict) -> ConfigDict:
  """Short rows and small batches, for a file of a few dozen short pairs: minutes on a CPU."""
  config.stages = STAGES[:-1]
  config.transport.update(logits_chunk=32, remat="none")
  for name in ("sft", "reward_model"):
    config[name].update(eval_fraction=0.25, batch_size=4, length=128)
  config.reward_model.normalize_count = 8
  for section in (config.reward_model, config.ppo.environment):
    section.sampling.update(max_prompt_tokens=64, max_new_tokens=16)
  config.ppo.environment.batch_size = 8
  config.ppo.update(num_steps=4, epochs=1, checkpoint_every=1)
  return config
