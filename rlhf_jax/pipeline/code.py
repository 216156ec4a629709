"""The code that a stage runs, by the SHA-256 of its modules: found by reading their imports, without importing them.

What is imported under a name that is made up at run time (`importlib.import_module(name)`) is not found.
"""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import rlhf_jax
from rlhf_jax.pipeline.inputs import ContentHashes
from rlhf_jax.pipeline.plan import Step

_PACKAGE = Path(rlhf_jax.__file__).parent
_LIBRARIES = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))


class Code(NamedTuple):
  """Modules and their SHA-256."""

  own: dict[str, str]
  """The user's files, as paths: relative ones start at the current directory."""
  package: dict[str, str]
  """The files of this package, as paths inside it."""


def read_code(step: Step, hashes: ContentHashes) -> Code:
  """The modules of a stage's algorithm and functions, and what they import of the user's files and of this package.

  Libraries are left out, but for a library that the config itself names a function of.
  """
  names = [step.given["algorithm"]]
  names += [found.text.rpartition(":")[0] for found in step.references if found.mark == "function" and found.text]
  named = {name.partition(".")[0] for name in names if not name.endswith(".py")}
  waiting = dict.fromkeys(names)  # names that are to be looked up; a dict keeps their order
  asked: set[str] = set()
  seen: set[Path] = set()
  own: dict[str, str] = {}
  package: dict[str, str] = {}
  while waiting:
    name, _ = waiting.popitem()
    asked.add(name)
    for path, module, kind in [_user_file(name)] if name.endswith(".py") else _find(name):
      is_library = kind == "library" or (kind == "installed" and module.partition(".")[0] not in named)
      if is_library or path in seen:
        continue
      seen.add(path)
      if kind == "package":
        package[path.relative_to(_PACKAGE).as_posix()] = hashes.of(path)
      else:
        own[_shown(path)] = hashes.of(path)
      imported = imported_names(path, path.stat().st_mtime_ns, module)
      waiting.update(dict.fromkeys(other for other in imported if other not in asked))
  return Code(dict(sorted(own.items())), dict(sorted(package.items())))


class _Module(NamedTuple):
  """A file that is executed where a name is imported."""

  path: Path
  module: str
  """Dotted name; "" for a file of the user's that is named by its path."""
  kind: Literal["own", "package", "library", "installed"]
  """Place: the user's, this package's, Python's own, or that of installed packages."""


_FIXED: dict[str, tuple[_Module, ...]] = {}  # name -> modules, none of them the user's, which may change meanwhile


def _find(name: str) -> tuple[_Module, ...]:
  """The modules that are executed where the module `name` is imported: its packages too."""
  if name not in _FIXED:
    found = tuple(_Module(path, module, _kind(path)) for path, module in _search(name))
    if not found or any(module.kind == "own" for module in found):
      return found
    _FIXED[name] = found
  return _FIXED[name]


def _search(name: str) -> Iterator[tuple[Path, str]]:
  places = None
  parts = name.split(".")
  for number in range(1, len(parts) + 1):
    whole = ".".join(parts[:number])
    module = sys.modules.get(whole)
    if module is not None:
      file, places = getattr(module, "__file__", None), getattr(module, "__path__", None)
    else:
      spec = importlib.machinery.PathFinder.find_spec(whole, places)
      if spec is None:
        return
      file, places = spec.origin, spec.submodule_search_locations
    if file and file.endswith(".py"):
      yield Path(file).absolute(), whole
    if places is None:  # no package: what follows are names in the module
      return
    places = list(places)


def _user_file(name: str) -> _Module:
  path = Path(name).expanduser().absolute()
  return _Module(path, "", "package" if path.is_relative_to(_PACKAGE) else "own")


@functools.lru_cache(maxsize=4096)
def imported_names(path: Path, modified: int, module: str) -> tuple[str, ...]:
  """The dotted names that a file may import; `from a import b` gives a.b, which may be a module. modified: for the
  cache."""
  try:
    tree = ast.parse(path.read_bytes())
  except SyntaxError:  # imported in a `try`, if at all
    return ()
  package = module if path.name == "__init__.py" else module.rpartition(".")[0]
  found: list[str] = []
  for node in _statements(tree.body):
    if isinstance(node, ast.Import):
      found += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
      base = ".".join([*above, *([node.module] if node.module else [])])
      found += [f"{base}.{alias.name}" for alias in node.names if base]
  return tuple(dict.fromkeys(found))


def _statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
  """All statements, nested ones too, without their expressions, which are nine tenths of a tree and import nothing."""
  for node in body:
    yield node
    for field in ("body", "orelse", "handlers", "finalbody", "cases"):
      yield from _statements(getattr(node, field, ()))


def _kind(path: Path) -> Literal["own", "package", "library", "installed"]:
  if path.is_relative_to(_PACKAGE):
    return "package"
  if {"site-packages", "dist-packages"} & set(path.parts):
    return "installed"
  return "library" if any(path.is_relative_to(directory) for directory in _LIBRARIES) else "own"


def _shown(path: Path) -> str:
  return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
