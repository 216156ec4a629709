"""Eight simulated devices, set before jax is imported; a finished run of the whole chain, which many tests read."""

import os

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
  """Where compiled programs are kept for the stages of the tiny chain."""
  return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def compile_once(programs):
  """For modules whose tests run stages: `pytestmark = pytest.mark.usefixtures("compile_once")`."""
  from tiny_chain import programs_kept

  with programs_kept(programs):
    yield


@pytest.fixture(scope="module")
def unoptimised():
  """For modules whose programs run once or twice: to optimise them takes longer than to run them."""
  import jax

  before = jax.config.read("jax_disable_most_optimizations")
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
  """The config file of the tiny chain."""
  from tiny_chain import write_config

  return write_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="session")
def chain(tiny, programs, tmp_path_factory):
  """The run directory of the finished chain; tests read it and do not write to it."""
  from tiny_chain import programs_kept, run

  directory = tmp_path_factory.mktemp("runs") / "chain"
  with programs_kept(programs):
    assert run(tiny, directory) == 0
  return directory
