"""Many runs whose configs differ: a file with `sweep(add)` names the cells, an engine runs them, tables compare them.

This package's own names are what such a file calls; the command is `rlhf_jax.sweep.command`.
"""

from rlhf_jax.sweep.grids import changed, product, seeds, zip

__all__ = ["changed", "product", "seeds", "zip"]
