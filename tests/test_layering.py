"""Imports point down only: the architecture, read from the source."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A package may import from packages of a lower level, and from itself; the floor of equals does not know each other.
LEVELS = (
  {"foreign_files", "packing", "ranges", "writing"},
  {"positions", "reduce", "settings", "intervals", "streams"},
  {"types", "stage", "calls"},
  {"objectives", "models", "data"},
  {"sampling", "world", "feedback", "verify"},
  {"agreement"},
  {"train"},
  {"evaluation"},
  {"algorithms", "stages"},
  {"report"},
  {"pipeline"},
  {"tools", "sweep"},
  {"cli"},
)
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
FILES = sorted((ROOT / "rlhf_jax").rglob("*.py"))


def imports(path):
  """The dotted names a file imports, `from a import b` as a and a.b; relative imports do not occur."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      yield node.module
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules_read(path, names):
  """The modules of `names` a file imports; `from package import module` is the module, not the package too."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names if alias.name in names)
    elif isinstance(node, ast.ImportFrom) and node.module in names:
      for alias in node.names:
        inner = f"{node.module}.{alias.name}"
        yield inner if inner in names else node.module


def part(name):
  """rlhf_jax.train.loop -> train."""
  return name.split(".")[1]


def own(path):
  return path.relative_to(ROOT / "rlhf_jax").with_suffix("").parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
  here = own(path)
  if here == "__init__":
    return
  for name in imports(path):
    if name.startswith("rlhf_jax.") and part(name) in LEVEL and part(name) != here:
      assert LEVEL[part(name)] < LEVEL[here], f"{path.name} ({here}) imports {name}"


def test_every_part_has_a_level():
  assert {own(path) for path in FILES} - {"__init__"} == set(LEVEL)


def test_algorithms_do_not_import_each_other():
  for path in (ROOT / "rlhf_jax" / "algorithms").glob("*.py"):
    assert not [name for name in imports(path) if name.startswith("rlhf_jax.algorithms")], path


def test_only_models_know_linen():
  users = {own(path) for path in FILES if any(name.startswith("flax.linen") for name in imports(path))}
  assert users == {"models"}


def test_objectives_know_jax_and_reductions_only():
  for path in (ROOT / "rlhf_jax" / "objectives").glob("*.py"):
    for name in imports(path):
      top = name.split(".")[0]
      assert top in {"jax", "jaxtyping", "numpy", "collections", "typing", "__future__", "math"} or name.startswith(
        ("rlhf_jax.packing", "rlhf_jax.positions", "rlhf_jax.reduce", "rlhf_jax.objectives")
      ), (path, name)


def test_data_world_and_feedback_do_not_know_jax():
  for package in ("data", "world", "feedback"):
    for path in (ROOT / "rlhf_jax" / package).glob("*.py"):
      assert not [name for name in imports(path) if name.split(".")[0] in ("jax", "flax")], path


def test_recipes_import_only_ml_collections_and_each_other():
  """And the standard library."""
  for path in (ROOT / "configs").rglob("*.py"):
    for name in imports(path):
      top = name.split(".")[0]
      assert top in {"ml_collections", *sys.stdlib_module_names} or name.startswith("rlhf_jax.configs"), (path, name)


def test_no_modules_import_each_other_in_a_circle():
  names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
  reads = {name: set(modules_read(path, names)) - {name} for name, path in names.items()}
  while free := {name for name in reads if not reads[name] & reads.keys()}:
    reads = {name: others for name, others in reads.items() if name not in free}
  assert not reads, f"a circle among {sorted(reads)}"


def test_ppo_imports_nothing_of_feedback():
  script = (
    "import sys, rlhf_jax.algorithms.ppo; "
    "print(*(name for name in sys.modules if name.startswith(('rlhf_jax.feedback', 'rlhf_jax.agreement'))))"
  )
  assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split() == []


def test_a_run_that_is_done_already_does_not_wait_for_plots_and_solvers():
  script = (
    "import sys, rlhf_jax.pipeline.run, rlhf_jax.pipeline.check, rlhf_jax.algorithms.ppo, rlhf_jax.stages.evaluate; "
    "print(*({'matplotlib', 'scipy.optimize'} & {*sys.modules}))"
  )
  assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split() == []


def test_algorithm_files_fit_their_budget():
  for path in (ROOT / "rlhf_jax" / "algorithms").glob("*.py"):
    assert len(path.read_text().splitlines()) <= 250, path


def test_every_package_is_in_the_wheel():
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())
  packages = {".".join(path.relative_to(ROOT).parent.parts) for path in FILES if path.name == "__init__.py"}
  assert set(project["tool"]["setuptools"]["packages"]) == packages | {"rlhf_jax.configs", "rlhf_jax.configs.pods"}


def test_every_dependency_is_imported_and_every_import_is_a_dependency():
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  optional = [
    name
    for group in ("gguf", "int8", "math", "sentiment", "eval", "wandb", "mlflow", "slurm", "search")
    for name in project["optional-dependencies"][group]
  ]
  modules = {
    "orbax-checkpoint": "orbax",
    "tensorflow-datasets": "tensorflow_datasets",
    "absl-py": "absl",
    "lm-eval": "lm_eval",
    "math-verify": "math_verify",
    "markdown-it-py": "markdown_it",
    "mdit-py-plugins": "mdit_py_plugins",
  }
  declared = {re.match(r"[\w.-]+", text)[0] for text in [*project["dependencies"], *optional]}
  declared = {modules.get(name, name) for name in declared}
  imported = {name.split(".")[0] for path in FILES for name in imports(path)}
  # libtpu comes with jax[tpu], in the version that this JAX pins.
  assert imported - sys.stdlib_module_names - {"rlhf_jax", "__future__", "libtpu"} == declared
