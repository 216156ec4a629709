"""Which implementation details of PPO matter on the embedded world? Each changed alone, then two together.

  rlhf-jax sweep experiments/implementation_details/sweep.py --workdir runs/implementation_details

The argument names changes that are made together as well, with "+" between them; "fast" makes the sweep tiny, and
"fast,a+b" does both. The cells of a seed share everything up to its reward model.

Time: 40 minutes on two CPU cores, planned: 48 cells of PPO and its evaluation, after four chains up to a reward model.
"""

from rlhf_jax.configs import quickstart
from rlhf_jax.sweep import changed

SEEDS = 4
NONE = "none"
# Each change takes one detail away, or adds one that the quickstart is without.
CHANGES = {
  NONE: {},
  "rewards as trained": {"reward_model.normalize_count": 0},
  "rewards whitened": {"ppo.whiten_rewards": True},
  "advantages not whitened": {"ppo.whiten_advantages": False},
  "fresh value head": {"ppo.value_init": ""},
  "no EOS trick": {"ppo.environment.missing_eos_score": None},
  # The target is the KL that the fixed coefficient reached in experiments/quickstart; a step moves it by 4 % at most.
  "adaptive KL": {"ppo.kl_target": 1.4, "ppo.kl_horizon": 320.0},
  "constant learning rate": {"ppo.optimizer.decay": "constant"},
  "eps 1e-8": {"ppo.optimizer.eps": 1e-8},
  "eps as in TensorFlow": {"ppo.optimizer.tensorflow_eps": True},
  "temperature 1": {"ppo.environment.sampling.temperature": 1.0},
  "shared trunk": {"ppo.shared_trunk": True, "ppo.value_init": ""},
}
EVALUATION = dict(
  models=("sft", "ppo"), held_out_prompts="", num_prompts=480, responses=1, labellers={}, num_samples=0, contrasts="",
  comparisons="", baselines={}, demonstrations="", full_gold=0.0,
)  # fmt: skip

FEW = (NONE, "fresh value head", "no EOS trick", "rewards as trained")  # changes of the fast sweep
SHORT = dict(max_prompt_tokens=40, max_new_tokens=8)
TINY = {
  "model": dict(num_layers=1, d_model=32, num_heads=2, num_kv_heads=2, d_ff=48, max_length=64),
  "world": dict(num_documents=200, num_demonstrations=60, num_prompts=48, num_eval_prompts=24),
  "vocabulary": dict(vocab_size=400),
  "pretrain": dict(num_steps=4, length=32, eval_rows=8, evaluate_every=0),
  "sft": dict(num_epochs=1, batch_size=8, length=64, eval_fraction=0.0),
  "preferences": dict(num_prompts=24, batch_size=24, sampling=SHORT),
  "reward_model": dict(num_epochs=1, length=64, normalize_count=16, eval_fraction=0.0, sampling=SHORT),
  "ppo": dict(num_steps=4, environment=dict(batch_size=16, sampling=SHORT)),
  "evaluation": dict(num_prompts=24, batch_size=24, sampling=SHORT),
}


def sweep(add, arg=""):
  fast = arg.split(",")[0] == "fast"
  together = arg.removeprefix("fast").removeprefix(",")
  names = [*(FEW if fast else CHANGES), *([together] if together else [])]
  for seed in range(1 if fast else SEEDS):
    config = quickstart.get_config()
    config.seed = seed
    config.ppo.watch.samples_every = 0
    for key, value in EVALUATION.items():  # update() would keep the labellers and baselines that there are
      config.evaluation[key] = value
    if fast:
      config.update(TINY)
    for name in names:
      changes = {key: value for part in name.split("+") for key, value in CHANGES[part].items()}
      add(changed(config, changes), change=name)
