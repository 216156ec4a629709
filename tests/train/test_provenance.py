"""A result says what made it, and takes no commit for its own that is another project's."""

import json
import platform
import subprocess

import jax
import numpy as np

import rlhf_jax
from rlhf_jax.train import provenance as module
from rlhf_jax.train.provenance import provenance


def git(directory, *arguments):
  settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
  subprocess.run(["git", "-C", str(directory), *settings, *arguments], check=True, capture_output=True)


def checkout(directory):
  module._checkout.cache_clear()
  return module._checkout(directory)


def test_what_made_a_result_is_plain_data():
  found = provenance()
  assert json.loads(json.dumps(found)) == found
  versions = {"python": platform.python_version(), "jax": jax.__version__, "numpy": np.__version__}
  assert versions.items() <= found["versions"].items() and found["versions"]["rlhf_jax"] == rlhf_jax.__version__
  assert set(found["versions"]) == {"python", "rlhf_jax", "jax", "jaxlib", "flax", "optax", "numpy"}
  assert (found["platform"], found["num_devices"], found["num_processes"]) == ("cpu", 8, 1)
  assert found["device"]


def test_the_commit_is_that_of_the_checkout_with_the_code(tmp_path):
  package = tmp_path / "package"
  package.mkdir()
  (package / "__init__.py").write_text("")
  assert checkout(package) == (None, None)
  git(tmp_path, "init")
  (tmp_path / "other.txt").write_text("a project that the package is installed below\n")
  git(tmp_path, "add", "other.txt")
  git(tmp_path, "commit", "-m", "other")
  assert checkout(package) == (None, None)
  git(tmp_path, "add", ".")
  git(tmp_path, "commit", "-m", "package")
  commit, changed = checkout(package)
  assert len(commit) == 40 and changed is False
  (tmp_path / "results.txt").write_text("an untracked file is no change of the code\n")
  assert checkout(package) == (commit, False)
  (package / "__init__.py").write_text("x = 1\n")
  assert checkout(package) == (commit, True)
  module._checkout.cache_clear()
