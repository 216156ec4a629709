"""How right and how sure is a reward model at low and at high scores, before and after PPO? Four seeds.

  rlhf-jax sweep experiments/reward_values/sweep.py --workdir runs/reward_values
  rlhf-jax sweep experiments/reward_values/sweep.py:fast --workdir /tmp/fast

The world is that of seed 0 in each cell. With the argument `fast` two cells of tiny sizes, which show that all runs.
"""

from rlhf_jax.configs import quickstart, reward_values

SEEDS = 4
SAMPLING = dict(max_prompt_tokens=40, max_new_tokens=8, temperature=1.0)


def tiny(config):
  """The recipe at sizes that run in seconds."""
  config.model.update(num_layers=1, d_model=32, num_heads=2, num_kv_heads=2, d_ff=48, max_length=64)
  config.world.update(num_documents=200, num_demonstrations=80, num_prompts=48, num_eval_prompts=16)
  config.vocabulary.vocab_size = 400
  config.pretrain.update(num_steps=4, length=32, eval_rows=8, evaluate_every=4, checkpoint_every=4)
  config.sft.update(num_epochs=1, batch_size=8, length=64)
  config.preferences.update(num_prompts=48, batch_size=16, sampling=SAMPLING)
  config.reward_model.update(num_epochs=1, length=64, normalize_count=16, eval_fraction=0.3, sampling=SAMPLING)
  config.ppo.update(num_steps=2, minibatches=1, epochs=1, watch=dict(samples_every=0))
  config.ppo.environment.update(batch_size=16, sampling=SAMPLING, missing_eos_score=None)
  config.held_out_labels.update(eval_fraction=0.3, batch_size=32)
  config.reward_values.update(num_prompts=12, responses=3, batch_size=12, sampling=SAMPLING)
  return config


def sweep(add, arg=""):
  fast = quickstart.choose("reward_values", arg, ("fast",))
  for seed in range(2 if fast else SEEDS):
    config = reward_values.get_config()
    config.seed = seed
    add(tiny(config) if fast else config, study="reward_values")  # as in experiments/policy_improvement
