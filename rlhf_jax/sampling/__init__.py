"""Sampling from a language model."""

from rlhf_jax.sampling.buckets import pad_prompts, pad_to_powers, power_of_two, trim
from rlhf_jax.sampling.filters import sample_supported, sample_tokens, truncate
from rlhf_jax.sampling.generate import generate
from rlhf_jax.sampling.stops import before_stop, stop_table

__all__ = [
  "before_stop",
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
