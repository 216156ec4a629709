"""Every public function says its types and what it does; nothing is waved through in one blanket."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rlhf_jax"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "configs" not in path.parts)


def public_functions(tree):
  """(name, function) of the public functions of a module and the public methods of its public classes."""
  for node in tree.body:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
      yield node.name, node
    elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
      for inner in node.body:
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
          yield f"{node.name}.{inner.name}", inner


def unannotated(function):
  """The parameters without a type, and "return" where the result has none."""
  given = function.args
  parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
  missing = [p.arg for p in parameters if p.annotation is None and p.arg not in ("self", "cls")]
  return missing + ["return"] * (function.returns is None)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_functions_are_annotated_and_described(path):
  for name, function in public_functions(ast.parse(path.read_text())):
    assert not unannotated(function), f"{path.name}:{function.lineno} {name} lacks the types of {unannotated(function)}"
    assert ast.get_docstring(function), f"{path.name}:{function.lineno} {name} has no docstring"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_an_ignored_error_is_named_and_has_its_reason(path):
  for number, line in enumerate(path.read_text().splitlines(), 1):
    if "type: ignore" in line:
      assert re.search(r"# type: ignore\[[\w, -]+\]  # \w", line), f"{path.name}:{number}: {line.strip()}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_json_files_of_a_run_are_read_and_written_whole(path):
  """By `read_json`, which names a cut file, and `write_json`, which leaves none. The hub's files are of other tools."""
  if path.parent.name != "hub":
    bare = re.findall(
      r"json\.loads?\([^\n]*\.(?:read_text|open)\(|write_text\(json\.dumps|json\.dump\(", path.read_text()
    )
    assert not bare, f"{path}: {bare}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_exports_what_it_defines(path):
  """A name has one home: only a package's `__init__` hands on names of other modules."""
  tree = ast.parse(path.read_text())
  exported = {
    name
    for node in tree.body
    if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    for name in ast.literal_eval(node.value)
  }
  defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
  for node in tree.body:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    defined |= {target.id for target in targets if isinstance(target, ast.Name)}
  if path.name != "__init__.py":
    assert exported <= defined, f"{path.name} exports {sorted(exported - defined)}, which other modules define"
