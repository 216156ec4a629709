"""Every setting is described where it is defined, and `describe` reads the descriptions."""

import dataclasses
import importlib
import re
import types
import typing
from pathlib import Path

import pytest

from rlhf_jax.settings import describe
from rlhf_jax.stage import ImportedModel, Model, Transport

PACKAGE = Path(__file__).parents[1] / "rlhf_jax"
STAGES = [
  f"rlhf_jax.{package}.{path.stem}"
  for package in ("algorithms", "stages")
  for path in sorted((PACKAGE / package).glob("*.py"))
  if path.stem != "__init__"
]


def dataclasses_in(hint):
  """The dataclasses that a type names, and those that their fields name."""
  if dataclasses.is_dataclass(hint):
    yield hint
    for inner in typing.get_type_hints(hint).values():
      yield from dataclasses_in(inner)
  elif typing.get_origin(hint) in (tuple, dict, list, typing.Union, types.UnionType):
    for inner in typing.get_args(hint):
      yield from dataclasses_in(inner)


def settings():
  """Every dataclass that a config is parsed into."""
  found = {Model, ImportedModel, Transport}
  for name in STAGES:
    found.update(dataclasses_in(importlib.import_module(name).Config))
  return sorted(found, key=lambda cls: (cls.__module__, cls.__qualname__))


@pytest.mark.parametrize("cls", settings(), ids=lambda cls: f"{cls.__module__}.{cls.__qualname__}")
def test_every_field_is_described(cls):
  for name, text in describe(cls).items():
    assert text, f"{cls.__module__}.{cls.__qualname__}.{name} has no description"
    assert re.match(r"[A-Z]", text) and text.endswith("."), f"{cls.__qualname__}.{name}: {text!r} is no sentence"
    first = text.split()[0].rstrip(",:;").lower()
    riddles = {"of", "who", "which", "what", "whose", "whether", "how", "one", "it", "this"}
    assert first not in riddles, f"{cls.__qualname__}.{name}: {text!r} starts with no noun"


def test_describe_reads_inherited_fields_and_says_where_a_description_is_missing(tmp_path):
  (tmp_path / "own.py").write_text(
    "import dataclasses\n"
    "@dataclasses.dataclass(frozen=True)\n"
    "class Base:\n"
    "  rate: float\n"
    '  """Learning rate,\n  per step."""\n'
    "@dataclasses.dataclass(frozen=True)\n"
    "class Config(Base):\n"
    "  plain: int\n"
    "  steps: int = 3\n"
    '  """Number of steps."""\n'
  )
  from rlhf_jax.settings import import_module

  module = import_module(str(tmp_path / "own.py"))
  expected = {"rate": "Learning rate, per step.", "plain": "", "steps": "Number of steps."}
  assert describe(module.Config) == expected
