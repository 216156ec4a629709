"""What does the chain reach on human preferences, from nothing but their file?

  rlhf-jax run --config hh:PATH --workdir runs/hh

PATH is a file of rows {"chosen": dialogue, "rejected": dialogue}, .jsonl or .jsonl.gz, such as Anthropic's HH pairs. A
small model is trained from scratch: language modelling on the chosen dialogues, SFT on the chosen answers, a reward
model on the pairs, PPO on their prompts. There is no gold reward, so the report shows the proxy reward alone.

Time: 11 minutes on two busy CPU cores for the 2,354 pairs of the test split of helpful-base.

Result: one seed: the chain runs, and this little text teaches no language: the reward model orders 63 % of the held-out
pairs, where a bag of words orders 60 %. experiments/hh has the details.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart

STAGES = ("vocabulary", "pretrain", "sft", "reward_model", "ppo", "evaluation")


def get_config(arg: str = "") -> ConfigDict:
  """The recipe for the file `arg` of pairs, which must be given."""
  if not arg:
    raise ValueError("the recipe hh needs the path of the pairs: --config hh:PATH")
  config = quickstart.get_config()
  for name in ("world", "preferences"):
    del config[name]
  config.stages = STAGES
  config.model.max_length = 256
  sampling = dict(max_prompt_tokens=160, max_new_tokens=64, temperature=0.7)

  config.vocabulary.texts = (arg,)
  config.vocabulary.vocab_size = 2048
  config.pretrain.text = arg
  config.pretrain.update(num_steps=600, length=128)
  config.sft.demonstrations = arg
  config.sft.update(num_epochs=1, length=256)
  config.sft.optimizer.learning_rate = 1e-3
  config.reward_model.comparisons = arg
  config.reward_model.normalize_prompts = arg
  config.reward_model.update(num_epochs=1, length=224, normalize_count=64, eval_fraction=0.2, likelihood=0.0)
  config.reward_model.sampling.update(sampling)
  config.ppo.environment.prompts = arg
  config.ppo.environment.update(batch_size=16)
  config.ppo.environment.sampling.update(sampling)
  config.ppo.environment.monitor.function = ""
  config.ppo.num_steps = 30
  config.evaluation.prompts = arg
  config.evaluation.held_out_prompts = ""
  config.evaluation.update(num_prompts=64, batch_size=64, num_samples=16)
  config.evaluation.sampling.update(sampling)
  config.evaluation.gold.function = ""
  config.evaluation.update(contrasts="", comparisons="", demonstrations="")
  return config
