"""Eight simulated devices, set before jax is imported; a finished run of the whole chain, which many tests read."""

import collections
import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock
from jaxtyping import install_import_hook

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("RLHF_JAX_CACHE", "off")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
# A program that one test has compiled, no other test, worker or process compiles again; workers inherit the place.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  PROGRAMS = tempfile.TemporaryDirectory(prefix="rlhf_jax_programs_")
  os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# In all tests the objectives and reductions check their annotations: shapes and dtypes of what they take and return.
install_import_hook(["rlhf_jax.objectives", "rlhf_jax.reduce"], "beartype.beartype")


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
  """A directory that the workers of one run of the tests have in common."""
  base = tmp_path_factory.getbasetemp()
  return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture
def compilations():
  """Name of a function, as "jit(update)" -> how often XLA was asked for it since the test began."""
  import jax

  counted = collections.Counter()

  def count(event, seconds, fun_name="", **_):
    if event == "/jax/core/compile/backend_compile_duration":
      counted[fun_name] += 1

  jax.monitoring.register_event_duration_secs_listener(count)
  yield counted
  jax.monitoring.unregister_event_duration_listener(count)


@contextlib.contextmanager
def compiled_quickly():
  """To optimise a program that runs once or twice takes longer than to run it."""
  import jax

  before = jax.config.read("jax_disable_most_optimizations")
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def unoptimised():
  """For modules whose programs run once or twice: `pytestmark = pytest.mark.usefixtures("unoptimised")`."""
  with compiled_quickly():
    yield


@pytest.fixture(scope="session")
def tiny(shared):
  """The config file of the tiny chain."""
  from tiny_chain import write_config

  directory = shared / "config"
  with FileLock(shared / "config.lock"):
    if not directory.exists():
      directory.mkdir()
      write_config(directory)
  return directory / "tiny.py"


@pytest.fixture(scope="session")
def chain(tiny, shared):
  """The run directory of the finished chain; tests read it and do not write to it."""
  from tiny_chain import run

  directory = shared / "runs" / "chain"
  with FileLock(shared / "chain.lock"), compiled_quickly():
    assert run(tiny, directory) == 0  # the worker that comes second finds every stage done
  return directory


@pytest.fixture(scope="module")
def browser():
  """A browser that a test drives; without one the test is skipped."""
  sync_api = pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not installed")
  program = next(filter(None, map(shutil.which, BROWSERS)), None)
  if program is None:
    pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)} is on the path")
  root = [] if os.geteuid() else ["--no-sandbox"]  # Chromium has no sandbox for root
  with sync_api.sync_playwright() as driver:
    try:
      opened = driver.chromium.launch(executable_path=program, args=root)
    except sync_api.Error as error:
      pytest.skip(f"{program} does not start here: {str(error).splitlines()[0]}")
    yield opened
    opened.close()
