"""Where recipes are found: by name in the package, from any directory, or by the path of a file."""

from __future__ import annotations

import ast
import importlib.util
import sys
import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from rlhf_jax.settings import ConfigError, import_module, nearest

PACKAGE = "rlhf_jax.configs"
_LABELS = ("Time:", "Result:")


class Recipe(NamedTuple):
  """A recipe's docstring in its parts; "" for a part that it lacks."""

  question: str
  time: str
  result: str
  text: str  # the whole docstring


def recipe_names() -> list[str]:
  """The names of the package's recipes, its modules with a function get_config(): "ppo", "pods/ppo_8b_v5e"."""
  return sorted(_recipes())


def read_recipe(name: str) -> Recipe:
  """The docstring of the recipe NAME or FILE.py; the module is not imported. Raises ConfigError without such a recipe.

  The first paragraph is the question; "Time:" and "Result:" start lines, and their texts end at the next empty line.
  """
  text = (ast.get_docstring(ast.parse(_path(name).read_text()), clean=False) or "").strip()
  found: dict[str, list[str]] = {"": []}
  label = ""
  for line in text.splitlines():
    label = next((mark for mark in _LABELS if line.startswith(mark)), label if line.strip() else "end")
    found.setdefault(label, []).append(line.removeprefix(label).strip())
  question, time, result = (" ".join(found.get(mark, [])).strip() for mark in ("", *_LABELS))
  return Recipe(question, time, result, text)


def listing(width: int) -> str:
  """Every recipe with its question, run time and expected result, in lines of at most `width` characters."""
  names = recipe_names()
  column = max(map(len, names)) + 2
  lines = []
  for name in names:
    recipe = read_recipe(name)
    labelled = zip(("", "Time: ", "Result: "), (recipe.question, recipe.time, recipe.result), strict=True)
    for label, text in labelled:
      first, indent = f"{'' if label else name:<{column}}{label}", " " * (column + len(label))
      lines += textwrap.wrap(text, width, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
    lines.append("")
  lines.append("rlhf-jax configs RECIPE                      shows it and its settings")
  lines.append("rlhf-jax run --config RECIPE --workdir DIR   runs it")
  return "\n".join(lines)


def load_recipe(given: str) -> ConfigDict:
  """The result of get_config(ARG) of "NAME[:ARG]" or "FILE.py[:ARG]".

  Raises:
    ConfigError: there is no such recipe, its file has a mistake (named with its line), or it refuses ARG.
  """
  name, *arg = given.split(":", 1)
  path = _path(name)
  provide_configs()
  where = name if name.endswith(".py") else path.name
  try:
    module = import_module(name if name.endswith(".py") else f"{PACKAGE}.{name.replace('/', '.')}")
    if not callable(getattr(module, "get_config", None)):
      raise ConfigError(f"--config {name} has no function get_config()")
    config = module.get_config(*arg)
  except ConfigError:
    raise
  except SyntaxError as error:
    raise ConfigError(f"{error.filename}:{error.lineno}: {error.msg}") from error
  except Exception as error:
    if isinstance(error, ValueError) and not name.endswith(".py"):  # the package's recipes say what they accept
      raise ConfigError(f"--config {given}: {error}") from error
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f":{frame.lineno}" for frame in frames if Path(frame.filename).name == path.name]
    message = f"{where}{lines[-1] if lines else ''}: {type(error).__name__}: {error}{_hint(error)}"
    raise ConfigError(message + (_accepted(path, arg[0]) if arg else "")) from error
  if not isinstance(config, ConfigDict):
    raise ConfigError(f"get_config() of {name} must return a ConfigDict, not {config!r}")
  return config


def provide_configs() -> None:
  """Makes `from configs import quickstart` mean this package's recipes where no folder `configs` can be imported."""
  if "configs" not in sys.modules and importlib.util.find_spec("configs") is None and importlib.util.find_spec(PACKAGE):
    sys.modules["configs"] = importlib.import_module(PACKAGE)


def _sources() -> Iterator[tuple[str, Path, ast.Module]]:
  spec = importlib.util.find_spec(PACKAGE)
  if spec is None:
    raise ConfigError(f"the recipes ({PACKAGE}) are not installed; in a checkout, `pip install -e .` makes them known")
  for directory in spec.submodule_search_locations or ():
    for path in Path(directory).rglob("*.py"):
      yield path.relative_to(directory).with_suffix("").as_posix(), path, ast.parse(path.read_text())


def _recipes() -> dict[str, Path]:
  return {name: path for name, path, tree in _sources() if _has_get_config(tree)}


def _has_get_config(tree: ast.Module) -> bool:
  return any(isinstance(node, ast.FunctionDef) and node.name == "get_config" for node in tree.body)


def _path(name: str) -> Path:
  """The file of a recipe, from its name or path."""
  if name.endswith(".py"):
    path = Path(name).expanduser()
    if path.is_file():
      return path
    known = f"; the recipe of that name is `--config {path.stem}`" if path.stem in recipe_names() else ""
    raise ConfigError(f"no file {path} (relative paths start at the current directory){known}")
  recipes = _recipes()
  if name not in recipes:
    raise ConfigError(f"{name!r} is neither a recipe nor the path of a .py file.{nearest(name, recipes)}")
  return recipes[name]


def _hint(error: Exception) -> str:
  """How to import a recipe where another folder is called configs."""
  if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "configs":
    return f" (the recipes are in {PACKAGE} too: another folder called configs is on Python's path)"
  return ""


def _accepted(path: Path, arg: str) -> str:
  """A clause for messages: the docstring of get_config(), which describes the argument."""
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, ast.FunctionDef) and node.name == "get_config":
      text = " ".join((ast.get_docstring(node) or "").split())
      return f". get_config({arg!r}) was called; it takes: {text}" if text else f". get_config({arg!r}) was called"
  return ""
