"""One program for a set of runs that differ in their seed or in floats of the config.

Code that learns calls `jit` in place of `jax.jit`, and needs to know nothing else of this package. The population
itself is `rlhf_jax.population.program.Population`.
"""

from rlhf_jax.population.member import jit, shared, speaks, stopping, varied

__all__ = ["jit", "shared", "speaks", "stopping", "varied"]
