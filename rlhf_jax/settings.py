"""Configs as typed dataclasses, and the modules and functions that they name; every mistake is named."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import itertools
import math
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

from rlhf_jax.ranges import Range


class Dataclass(Protocol):
  """An instance of any dataclass."""

  __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


T = TypeVar("T", bound=Dataclass)
FunctionName = Annotated[str, "function"]  # "package.module:name" or "path/to/file.py:name"; "" for none


class ConfigError(ValueError):
  """A mistake in a config: the message names the key, the value that was found and those that are accepted."""


def nearest(name: str, known: typing.Iterable[str]) -> str:
  """' Did you mean X?' for the closest known name, or the list of known names where none is close."""
  known = sorted(known)
  if not known:
    return ""
  close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
  return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known)}."


def parse(cls: type[T], mapping: Mapping[str, Any], where: str) -> T:
  """Builds the dataclass `cls` from `mapping`, nested dataclasses included.

  Every field without a default must be present, every key must be a field, every value must have the field's type (an
  int passes for a float) and lie in the range of its type (`rlhf_jax.ranges`). `where` is the mapping's place in the
  config, for the messages.

  Raises:
    ConfigError: naming the key.
  """
  fields = {field.name: field for field in dataclasses.fields(cls)}
  hints = typing.get_type_hints(cls, include_extras=True)
  for key in mapping:
    if key not in fields:
      raise ConfigError(f"config.{where} has no key {key!r}.{nearest(key, fields)}")
  values = {}
  for name, field in fields.items():
    if name in mapping:
      values[name] = _convert(hints[name], mapping[name], f"{where}.{name}")
    elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
      raise ConfigError(f"config.{where} lacks the key {name!r}.")
  try:
    return cls(**values)
  except ValueError as error:  # a dataclass may check its own values in __post_init__
    raise ConfigError(f"config.{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
  if isinstance(hint, type) and dataclasses.is_dataclass(hint):
    if not isinstance(value, Mapping):
      raise ConfigError(f"config.{where} must be a mapping, not {value!r}.")
    return parse(hint, value, where)
  origin = typing.get_origin(hint)
  if origin is Annotated:
    converted = _convert(typing.get_args(hint)[0], value, where)
    for mark in hint.__metadata__:
      if isinstance(mark, Range) and converted not in mark:
        raise ConfigError(f"config.{where} is {value!r}, and must be {mark}.")
    return converted
  if origin is types.UnionType or origin is typing.Union:
    if value is None and type(None) in typing.get_args(hint):
      return None
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    return _convert(fitting_option(options, value), value, where)
  if origin is tuple:
    if not isinstance(value, (tuple, list)):
      raise ConfigError(f"config.{where} must be a tuple, not {value!r}.")
    kinds = typing.get_args(hint)
    if kinds[-1] is ...:
      kinds = kinds[:1] * len(value)
    if len(value) != len(kinds):
      raise ConfigError(f"config.{where} must be a tuple of {len(kinds)}, not {value!r}.")
    return tuple(_convert(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))
  if origin is typing.Literal:
    if value not in typing.get_args(hint):
      raise ConfigError(f"config.{where} is {value!r}.{nearest(str(value), map(str, typing.get_args(hint)))}")
    return value
  if origin is dict:
    if not isinstance(value, Mapping):
      raise ConfigError(f"config.{where} must be a mapping, not {value!r}.")
    return {key: _convert(typing.get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
  if hint is Any:
    return value
  if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
    if not abs(value) < math.inf:
      raise ConfigError(f"config.{where} is {value!r}, and must be finite.")
    return float(value)
  if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
    raise ConfigError(f"config.{where} must be {hint.__name__}, not {value!r}.")
  return value


def fitting_option(options: Sequence[Any], value: Any) -> Any:
  """The option of a union that a value of a config has the form of; of several dataclasses, the first of which it has
  every key that must be given."""
  fitting = [option for option in options if _form(value) is _option_form(option)] or list(options)
  whole = [option for option in fitting if dataclasses.is_dataclass(option) and _required(option) <= {*value}]
  return (whole or fitting)[0]


def _required(kind: Any) -> set[str]:
  missing = dataclasses.MISSING
  return {
    field.name
    for field in dataclasses.fields(kind)
    if field.default is missing and field.default_factory is missing
  }  # fmt: skip


def describe(cls: type) -> dict[str, str]:
  """Field -> its description, of a dataclass and its bases; "" where there is none.

  A description is the string literal that follows the field in the source of the class.
  """
  found = {}
  for owner in reversed(cls.__mro__):
    if owner is object or not dataclasses.is_dataclass(owner):
      continue
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    for statement, following in itertools.pairwise([*body, ast.Pass()]):
      if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        literal = following.value if isinstance(following, ast.Expr) else None
        text = literal.value if isinstance(literal, ast.Constant) and isinstance(literal.value, str) else ""
        found[statement.target.id] = " ".join(text.split())
  return {field.name: found.get(field.name, "") for field in dataclasses.fields(cls)}


def _form(value: Any) -> type:
  """The form by which the options of a union are told apart: a mapping, a tuple, or neither."""
  return Mapping if isinstance(value, Mapping) else tuple if isinstance(value, (list, tuple)) else object


def _option_form(hint: Any) -> type:
  origin = typing.get_origin(hint)
  return Mapping if dataclasses.is_dataclass(hint) or origin is dict else tuple if origin is tuple else object


def values(value: Any, where: str, hint: Any = Any) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
  """(place, value, marks of its type) of every single value and every dataclass in a parsed dataclass.

  `where` is the value's place in the config, without "config.". Of the keys of a dict only marked ones are values.
  """
  marks: tuple[Any, ...] = ()
  while typing.get_origin(hint) in (Annotated, types.UnionType, typing.Union):
    if typing.get_origin(hint) is Annotated:
      marks += hint.__metadata__
      hint = typing.get_args(hint)[0]
    else:
      options = [option for option in typing.get_args(hint) if option is not type(None)]
      hint = next((option for option in options if _form(value) is _option_form(option)), Any)
  of_items = typing.get_args(hint) or (Any, Any)
  if dataclasses.is_dataclass(value):
    yield where, value, marks
    hints = typing.get_type_hints(type(value), include_extras=True)
    for name, kind in hints.items():
      yield from values(getattr(value, name), f"{where}.{name}", kind)
  elif isinstance(value, Mapping):
    for key, item in value.items():
      if typing.get_origin(of_items[0]) is Annotated:
        yield from values(key, f"{where}.{key}", of_items[0])
      yield from values(item, f"{where}.{key}", of_items[-1])
  elif isinstance(value, (list, tuple)):
    for i, item in enumerate(value):
      yield from values(item, f"{where}[{i}]", of_items[0])
  else:
    yield where, value, marks


def texts(value: Any, where: str) -> Iterator[tuple[str, str, str]]:
  """(place, text, mark) of every text among the `values`: `FunctionName` has the mark "function", `str` none."""
  for place, text, marks in values(value, where):
    if isinstance(text, str):
      yield place, text, marks[0] if marks else ""


def import_function(name: str) -> Callable:
  """The object "package.module:name" or "path/to/file.py:name".

  Raises:
    ConfigError: the module has no such function, or there is no such module.
  """
  module_name, _, attribute = name.rpartition(":")
  if not module_name:
    raise ConfigError(f"{name!r} must be 'package.module:function' or 'path/to/file.py:function'")
  module = import_module(module_name)
  if not callable(getattr(module, attribute, None)):
    functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    raise ConfigError(f"{module_name} has no function {attribute!r}.{nearest(attribute, functions)}")
  return getattr(module, attribute)


def import_module(name: str) -> types.ModuleType:
  """A module by its dotted name or by the path of its file. Raises ConfigError where there is none."""
  if name.endswith(".py"):
    path = Path(name).expanduser()
    if not path.is_file():
      raise ConfigError(f"no file {path} (relative paths start at the current directory)")
    # Dataclasses look their annotations up in sys.modules; the path as a name can shadow no other module.
    spec = importlib.util.spec_from_file_location(str(path.absolute()), path)
    assert spec is not None and spec.loader is not None  # as for any file that ends in .py
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as error:
    raise ConfigError(f"cannot import {name!r}: {error}") from error
