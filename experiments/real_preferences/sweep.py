"""What do reward models learn of real people's preferences? Five seeds of the recipe `real_preferences`.

  rlhf-jax sweep experiments/real_preferences/sweep.py:DIR --workdir runs/real_preferences_sweep

DIR holds the pairs, as in the recipe. A seed divides the prompts anew, and draws adapters and batches; the base model
is imported once. For an accelerator; it was not run.
"""

from rlhf_jax.configs import real_preferences
from rlhf_jax.sweep import changed, seeds


def sweep(add, directory):
  for changes in seeds(5, *real_preferences.STAGES[1:]):
    add(changed(real_preferences.get_config(directory), changes))
