"""Sampling from a language model."""

from rlhf_jax.sampling.generate import generate

__all__ = ["generate"]
