"""Sampling from a language model."""

from rlhf_jax.sampling.buckets import LEAST_WIDTH, common_prefix, pad_prompts, pad_to_powers, power_of_two, trim
from rlhf_jax.sampling.filters import sample_supported, sample_tokens, truncate
from rlhf_jax.sampling.generate import generate
from rlhf_jax.sampling.stops import before_stop, stop_table

__all__ = [
  "LEAST_WIDTH",
  "before_stop",
  "common_prefix",
  "generate",
  "pad_prompts",
  "pad_to_powers",
  "power_of_two",
  "sample_supported",
  "sample_tokens",
  "stop_table",
  "trim",
  "truncate",
]
