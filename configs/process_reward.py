"""Does a model tell which step of an answer is wrong, from steps that are marked right or wrong?

  rlhf-jax run --config process_reward:steps.jsonl --workdir runs/quickstart

The argument is a file of rows {"prompt", "completions", "labels"}: the steps of one answer, and true or false for each.
The world has no such rows. In the run directory of the quickstart only the process reward model is new.

Time: 1 minute on one CPU core after the quickstart, for 4,000 answers of two steps.

Result: one seed, on the sums of docs/algorithms/process_reward.md: 76 % of the steps of held-out sums are on the right
side, where 62 % of all steps are right.
"""

from ml_collections import ConfigDict

from rlhf_jax.configs import quickstart


def get_config(arg: str = "") -> ConfigDict:
  """The recipe for the file `arg` of steps, which must be given."""
  if not arg:
    raise ValueError("the recipe process_reward needs the path of the steps: --config process_reward:PATH")
  config = quickstart.get_config("sft")
  config.process_reward = dict(
    algorithm="rlhf_jax.algorithms.process_reward",
    init="sft",
    steps=arg,
    eval_fraction=0.1,
    num_epochs=4,
    batch_size=32,
    length=64,
    optimizer=quickstart.optimizer(1e-3),
    evaluate_every=100,
    checkpoint_every=200,
  )
  config.stages = (*config.stages, "process_reward")
  return config
