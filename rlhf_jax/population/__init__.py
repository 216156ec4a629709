"""What makes seeds and floats of the config one program: code outside needs `jit` in place of `jax.jit`."""

from rlhf_jax.population.program import Population, jit, shared, speaks, stopping, varied
from rlhf_jax.population.varying import Varying

__all__ = ["Population", "Varying", "jit", "shared", "speaks", "stopping", "varied"]
