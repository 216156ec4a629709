"""Recipes: `get_config(arg)` of each module is an experiment. `rlhf-jax configs` lists them."""
