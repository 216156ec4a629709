"""Recipes for pods of TPUs, each with the report of `rlhf-jax compile` beside it."""
