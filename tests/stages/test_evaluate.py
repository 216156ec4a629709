"""The evaluation stage's settings, and the texts of its baselines on the tiny chain."""

import pytest

from rlhf_jax.stages.evaluate import Config
from rlhf_jax.train import Function, Sampling


def test_the_reference_of_win_rates_is_one_of_the_models():
  sampling = Sampling(max_prompt_tokens=8, max_new_tokens=8, temperature=1.0)
  settings = dict(algorithm="", models=("ppo",), prompts="", held_out_prompts="", num_prompts=1, batch_size=1)
  settings |= dict(sampling=sampling, reward_model="", responses=1, min_gap=0.5, labellers={}, num_samples=1)
  with pytest.raises(ValueError, match="reference='sft' is none of the models ppo"):
    Config(**settings, reference="sft", gold=Function("rlhf_jax.world:gold_parts"))
  assert Config(**settings, reference="sft", gold=Function("")).reference == "sft"
