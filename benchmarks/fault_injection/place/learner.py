"""An algorithm of the package as the user's own module, whose k-th step may have a NaN.

NAN_IN=loss and NAN_AT=k in the environment make the loss NaN in step k; NAN_IN=gradient leaves the loss as it is and
makes its gradient NaN.
"""

import importlib
import importlib.util
import os

import jax
import jax.numpy as jnp

FACTOR = 1.0  # of the weights, and so of the loss


def own(name):
  """The module `rlhf_jax.algorithms.<name>`, loaded once more as a module of its own."""
  spec = importlib.import_module(f"rlhf_jax.algorithms.{name}").__spec__
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if hasattr(module, "make_update"):
    make_update = module.make_update
    module.make_update = lambda loss_fn, *rest: with_nan(make_update(with_broken_gradient(loss_fn), *rest))
  else:
    make_functions = module.make_functions

    def make_own(loss_fn, *rest):
      optimizer, update, measure = make_functions(with_broken_gradient(loss_fn), *rest)
      return optimizer, with_nan(update), measure

    module.make_functions = make_own
  return module


def with_nan(update):
  """The same update; the weights of the chosen step make its loss or its gradient NaN."""

  def own_update(state, batch, weights):
    broken = int(state.step) + 1 == int(os.environ.get("NAN_AT", 0))
    factor = {"loss": jnp.nan, "gradient": -1.0}.get(os.environ["NAN_IN"], 1.0) if broken else 1.0
    return update(state, batch, jax.tree.map(lambda weight: weight * jnp.float32(factor * FACTOR), weights))

  return own_update


def with_broken_gradient(loss_fn):
  """The same loss; where the sum of the weights is negative, of their absolute values, and with a gradient of NaN."""

  def loss(params, batch, weights):
    broken = sum(jnp.sum(weight) for weight in jax.tree.leaves(weights)) < 0
    value, metrics = loss_fn(params, batch, jax.tree.map(jnp.abs, weights))
    parameter = jax.tree.leaves(params)[0].ravel()[0]
    root = jnp.sqrt(jnp.where(broken, 0.0 * parameter, 1.0))  # its derivative at 0 is infinite, and 0 times that is NaN
    return value + jnp.where(broken, root, root - 1.0), metrics

  return loss
