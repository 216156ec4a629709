"""The examples in the docstrings run, and every public function has one."""

import doctest
import importlib
import inspect

import jax
import pytest

MODULES = ["reduce", *(f"objectives.{name}" for name in ("kl", "language", "policy", "preference", "value"))]


def jitted(function):
  """An example is then one program to compile, not one for each of its operations."""
  parameters = inspect.signature(function).parameters.values()
  return jax.jit(function, static_argnames=[p.name for p in parameters if p.kind is p.KEYWORD_ONLY])


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
  module = importlib.import_module(f"rlhf_jax.{name}")
  public = {name: vars(module)[name] for name in module.__all__}
  assert [name for name, function in public.items() if ">>>" not in function.__doc__] in ([], ["float32"])
  examples = doctest.testmod(module, extraglobs={name: jitted(function) for name, function in public.items()})
  assert examples.attempted >= len(public) - 1 and not examples.failed
