"""How does the preference for a policy grow and fall along PPO, and does a retrained reward model keep up? Four seeds.

  rlhf-jax sweep experiments/policy_improvement/sweep.py --workdir runs/policy_improvement
  rlhf-jax sweep experiments/policy_improvement/sweep.py:fast --workdir /tmp/fast

The world is that of seed 0 in each cell. The cells of experiments/reward_values are among them, and share the stages up
to the reward model. With the argument `fast` one cell of tiny sizes, which shows that all runs.
"""

from rlhf_jax.configs import policy_improvement, quickstart, reward_values

SEEDS = 4
FAST = dict(each=1, sampled=(1, 2, 3))  # arguments of policy_improvement.course
SAMPLING = dict(max_prompt_tokens=40, max_new_tokens=6, temperature=1.0)


def tiny():
  """The recipe at sizes that run in seconds, with three steps of PPO."""
  config = policy_improvement.build(every=1, **FAST)
  config.model.update(num_layers=1, d_model=32, num_heads=2, num_kv_heads=2, d_ff=48, max_length=64)
  config.world.update(num_documents=200, num_demonstrations=80, num_prompts=48, num_eval_prompts=16)
  config.vocabulary.vocab_size = 400
  config.pretrain.update(num_steps=4, length=32, eval_rows=8, evaluate_every=4, checkpoint_every=4)
  config.sft.update(num_epochs=1, batch_size=8, length=64)
  for name in config.stages:
    section = config[name]
    kind = section.algorithm.rpartition(".")[2]
    if kind == "preferences":
      section.update(num_prompts=24, batch_size=8, sampling=SAMPLING)
    elif kind == "reward_model":
      section.update(num_epochs=1, length=64, normalize_count=16, eval_fraction=0.0, sampling=SAMPLING)
    elif kind == "ppo":
      section.update(minibatches=1, epochs=1)
      section.environment.update(batch_size=8, sampling=SAMPLING, missing_eos_score=None)
  config.course.update(num_prompts=8, responses=2, batch_size=8, sampling=SAMPLING)
  return config


def sweep(add, arg=""):
  if quickstart.choose("policy_improvement", arg, ("fast",)):
    add(tiny())
    return
  for seed in range(SEEDS):
    for recipe in (policy_improvement, reward_values):
      config = recipe.get_config()
      config.seed = seed
      add(config, study=recipe.__name__.rpartition(".")[2])
