"""A recipe in words: its docstring, its stages, and their settings with type, value and description."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from rlhf_jax.pipeline.catalogue import load_recipe, read_recipe
from rlhf_jax.pipeline.plan import plan
from rlhf_jax.pipeline.recipe import plain
from rlhf_jax.ranges import Range
from rlhf_jax.settings import ConfigError, describe, nearest

COLUMN = 42  # where descriptions begin; a setting that is longer has its description on the next line


def settings_text(given: str, stages: Sequence[str], everything: bool, width: int) -> str:
  """The recipe "NAME[:ARG]" or "FILE.py[:ARG]", in lines of at most `width` characters.

  With `stages` (names of stages, "model" or "transport"), their settings alone; with `everything`, those of all stages
  after the docstring; otherwise of the stage that bears the recipe's name, where there is one.

  Raises:
    ConfigError: there is no such recipe or stage, or the recipe has a mistake.
  """
  config = plain(load_recipe(given))
  steps = plan(config, Path.cwd())
  parts = {step.stage.name: (step.module, step.config) for step in steps}
  shared = {"model": steps[0].stage.model, "transport": steps[0].stage.transport}
  wanted = {**{name: parsed for name, (_, parsed) in parts.items()}, **shared}
  for name in stages:
    if name not in wanted:
      raise ConfigError(f"{given} has no stage {name!r}.{nearest(name, wanted)}")
  if stages:
    return "\n\n".join(_section(name, wanted[name], width) for name in stages)
  name = given.partition(":")[0]
  blocks = [read_recipe(name).text, _stages(parts, width)]
  if everything:
    blocks += [_section(part, value, width) for part, value in wanted.items()]
  elif Path(name).stem in parts:
    blocks.append(_section(Path(name).stem, wanted[Path(name).stem], width))
  if not everything:
    blocks.append(f"rlhf-jax configs {given} STAGE   shows the settings of a stage; --all those of every stage")
  return "\n\n".join(blocks)


def _stages(parts: Mapping[str, tuple[Any, Any]], width: int) -> str:
  """For each stage its name, and the first paragraph of its module's docstring."""
  column = max(map(len, parts)) + 4
  lines = ["Stages:"]
  for name, (module, _) in parts.items():
    summary = (inspect.getdoc(module) or "").partition("\n\n")[0].removeprefix("Stage: ")
    summary = summary[:1].upper() + summary[1:]
    lines += textwrap.wrap(
      summary or "-", width, initial_indent=f"  {name:<{column - 2}}", subsequent_indent=" " * column
    )
  return "\n".join(lines)


def _section(name: str, parsed: Any, width: int) -> str:
  return "\n".join([f"config.{name}", *_lines(parsed, 2, width)])


def _lines(parsed: Any, indent: int, width: int) -> Iterator[str]:
  """The fields of a dataclass; those of dataclasses in it are indented."""
  descriptions = describe(type(parsed))
  hints = typing.get_type_hints(type(parsed), include_extras=True)
  for field in dataclasses.fields(parsed):
    value, hint = getattr(parsed, field.name), _type_name(hints[field.name])
    inner = _inner(value)
    setting = f"{field.name}: {hint}" if inner else f"{field.name}: {hint} = {value!r}"
    yield from _entry(setting, descriptions[field.name], indent, width)
    for label, item in inner.items():
      if label:
        yield f"{'':{indent + 2}}{label}"
      yield from _lines(item, indent + (4 if label else 2), width)


def _inner(value: Any) -> dict[str, Any]:
  """The dataclasses in a setting, by their keys or places; "" for a setting that is one."""
  if dataclasses.is_dataclass(value):
    return {"": value}
  items = value if isinstance(value, Mapping) else dict(enumerate(value)) if isinstance(value, tuple) else {}
  return {str(key): item for key, item in items.items() if dataclasses.is_dataclass(item)}


def _entry(setting: str, description: str, indent: int, width: int) -> list[str]:
  """A setting on the left and its description on the right, below it where the setting is long."""
  left = textwrap.wrap(setting, width, initial_indent=" " * indent, subsequent_indent=" " * (indent + 4))
  right = textwrap.wrap(description, width - COLUMN)
  if right and len(left) == 1 and len(left[0]) <= COLUMN - 2:
    left = [f"{left[0]:<{COLUMN}}{right.pop(0)}"]
  return [*left, *(" " * COLUMN + line for line in right)]


def _type_name(hint: Any) -> str:
  """A type as a reader writes it: `float | None`, `'jit' | 'pmap'`, `int at least 1`, `stage` for a stage's name."""
  origin, inner = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    return f"{_type_name(inner[0])} {inner[1]}" if isinstance(inner[1], Range) else str(inner[1])
  if origin is Literal:
    return " | ".join(map(repr, inner))
  if origin in (types.UnionType, typing.Union):
    return " | ".join(map(_type_name, inner))
  if origin in (tuple, dict):
    return f"{origin.__name__}[{', '.join(map(_type_name, inner))}]"
  return "None" if hint is type(None) else "..." if hint is ... else getattr(hint, "__name__", str(hint))
