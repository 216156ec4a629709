"""rlhf_jax: train an aligned assistant from scratch in JAX, every step of it."""
