"""One program for a set of runs that differ in their seed or in floats of the config.

Code that learns calls `jit` in place of `jax.jit`, and needs to know nothing else of this package.
"""

from rlhf_jax.population.program import Population, jit, shared, speaks, stopping, varied
from rlhf_jax.population.varying import Varying

__all__ = ["Population", "Varying", "jit", "shared", "speaks", "stopping", "varied"]
