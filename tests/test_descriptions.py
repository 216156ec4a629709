"""Every setting is described where it is defined, and `describe` reads the descriptions."""

import dataclasses
import importlib
import re
import types
import typing
from pathlib import Path

import pytest

from rlhf_jax.ranges import Range
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


ANY_NUMBER = {  # fields without a range -> why any number will do
  "Loss.margin": "a margin below 0 asks for less than an even score",
  "Environment.missing_eos_score": "a score",
  "best_of_n_curve.Config.missing_eos_score": "a score",
  "Reward.checkpoint_weight": "a factor below 0 turns a reward round",
  "Reward.function_weight": "a factor below 0 turns a reward round",
  "FunctionPart.weight": "a factor below 0 turns a reward round",
  "evaluate.Config.full_gold": "a score",
}


def numbers_without_range(hint):
  """The int and float types in a type that no range bounds."""
  if typing.get_origin(hint) is typing.Annotated:
    if any(isinstance(mark, Range) for mark in hint.__metadata__):
      return
    hint = typing.get_args(hint)[0]
  if hint in (int, float):
    yield hint
  for inner in typing.get_args(hint):
    yield from numbers_without_range(inner)


def test_every_number_has_a_range():
  found = set()
  for cls in settings():
    owner = f"{cls.__module__.rpartition('.')[2]}.Config" if cls.__name__ == "Config" else cls.__name__
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
      found |= {f"{owner}.{name}" for _ in numbers_without_range(hint)}
  assert found == set(ANY_NUMBER)


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
