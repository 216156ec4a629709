"""Every mistake in a config is refused by name, and what is accepted arrives as it was meant."""

import dataclasses
import re
from typing import Annotated, Any, Literal

import pytest

from rlhf_jax.ranges import Above, AtLeast, Between, NonNegativeInt, PositiveInt, Range, Share, ShareBelowOne
from rlhf_jax.settings import ConfigError, FunctionName, import_function, import_module, nearest, parse, texts


@dataclasses.dataclass(frozen=True)
class Inner:
  rate: float
  decay: Literal["constant", "linear"] = "linear"

  def __post_init__(self):
    if self.rate < 0:
      raise ValueError(f"rate={self.rate} must be >= 0")


@dataclasses.dataclass(frozen=True)
class Outer:
  steps: int
  name: str
  whiten: bool
  inner: Inner
  files: tuple[str, ...]
  limit: float | None
  counts: dict[str, int]
  arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
  sizes: tuple[float, ...] = (1.0,)


GOOD = dict(
  steps=3,
  name="a",
  whiten=False,
  inner=dict(rate=0.5),
  files=["x", "y"],
  limit=None,
  counts=dict(expert=2),
)


def parsed(**changes):
  return parse(Outer, {**GOOD, **changes}, "ppo")


def test_values_arrive_with_their_types():
  result = parsed(limit=2, inner=dict(rate=1, decay="constant"), arguments={"words": ["a", 1, None]}, sizes=(1, 2.5))
  assert result == Outer(
    3, "a", False, Inner(1.0, "constant"), ("x", "y"), 2.0, {"expert": 2}, {"words": ["a", 1, None]}, (1.0, 2.5)
  )
  # An int that passes for a float becomes one: 1 and 1.0 in a config must not trace two different programs.
  for value in (result.limit, result.inner.rate, *result.sizes):
    assert type(value) is float


def test_defaults_and_none():
  result = parsed()
  assert result.limit is None and result.inner.decay == "linear" and result.arguments == {} and result.sizes == (1.0,)
  assert parsed().arguments is not result.arguments


def without(key):
  return {name: value for name, value in GOOD.items() if name != key}


@pytest.mark.parametrize(
  "given, message",
  [
    ({**GOOD, "stepz": 3}, "config.ppo has no key 'stepz'. Did you mean 'steps'?"),
    (
      {**GOOD, "qqq": 3},
      "config.ppo has no key 'qqq'. Known: arguments, counts, files, inner, limit, name, sizes, steps, whiten.",
    ),
    (without("steps"), "config.ppo lacks the key 'steps'."),
    (without("inner"), "config.ppo lacks the key 'inner'."),
    ({**GOOD, "inner": {}}, "config.ppo.inner lacks the key 'rate'."),
    ({**GOOD, "inner": {"rate": 1.0, "decai": "linear"}}, "config.ppo.inner has no key 'decai'. Did you mean 'decay'?"),
    ({**GOOD, "inner": 1.0}, "config.ppo.inner must be a mapping, not 1.0."),
    ({**GOOD, "inner": {"rate": -1}}, "config.ppo.inner: rate=-1.0 must be >= 0"),
    ({**GOOD, "inner": {"rate": True}}, "config.ppo.inner.rate must be float, not True."),
    (
      {**GOOD, "inner": {"rate": 1, "decay": "lineer"}},
      "config.ppo.inner.decay is 'lineer'. Did you mean 'linear'?",
    ),
    ({**GOOD, "steps": True}, "config.ppo.steps must be int, not True."),
    ({**GOOD, "steps": 3.0}, "config.ppo.steps must be int, not 3.0."),
    ({**GOOD, "steps": "3"}, "config.ppo.steps must be int, not '3'."),
    ({**GOOD, "steps": None}, "config.ppo.steps must be int, not None."),
    ({**GOOD, "name": 3}, "config.ppo.name must be str, not 3."),
    ({**GOOD, "whiten": 0}, "config.ppo.whiten must be bool, not 0."),
    ({**GOOD, "whiten": "False"}, "config.ppo.whiten must be bool, not 'False'."),
    ({**GOOD, "limit": "none"}, "config.ppo.limit must be float, not 'none'."),
    ({**GOOD, "files": "x"}, "config.ppo.files must be a tuple, not 'x'."),
    ({**GOOD, "files": ["x", 1]}, "config.ppo.files[1] must be str, not 1."),
    ({**GOOD, "counts": ["expert"]}, "config.ppo.counts must be a mapping, not ['expert']."),
    ({**GOOD, "counts": {"expert": 1.5}}, "config.ppo.counts.expert must be int, not 1.5."),
  ],
)
def test_a_mistake_is_named(given, message):
  with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
    parse(Outer, given, "ppo")


def test_nearest():
  assert nearest("clp", ["clip", "kl_coef"]) == " Did you mean 'clip'?"
  assert nearest("zzz", ["b", "a"]) == " Known: a, b."
  assert nearest("zzz", []) == ""


@pytest.fixture
def neighbour(tmp_path, monkeypatch):
  """A module in the current directory."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / "my_reward.py").write_text("import os\nUNIT = 2\n\ndef score(prompts, responses):\n  return [1.0]\n")
  return tmp_path


@pytest.mark.parametrize("name", ["my_reward.py:score", "./my_reward.py:score", "{absolute}/my_reward.py:score"])
def test_a_function_of_a_file(neighbour, name):
  assert import_function(name.replace("{absolute}", str(neighbour)))([], []) == [1.0]


def test_a_function_of_a_package():
  assert import_function("rlhf_jax.settings:nearest") is nearest


@pytest.mark.parametrize(
  "name, message",
  [
    ("score", "'score' must be 'package.module:function' or 'path/to/file.py:function'"),
    ("my_reward.py", "'my_reward.py' must be 'package.module:function' or 'path/to/file.py:function'"),
    ("", "'' must be 'package.module:function' or 'path/to/file.py:function'"),
    ("my_rewrad.py:score", "no file my_rewrad.py (relative paths start at the current directory)"),
    ("my_reward.py:scoer", "my_reward.py has no function 'scoer'. Did you mean 'score'?"),
    ("my_reward.py:UNIT", "my_reward.py has no function 'UNIT'. Known: score."),
    ("my_reward.py:", "my_reward.py has no function ''. Known: score."),
    ("rlhf_jax.no_such:score", "cannot import 'rlhf_jax.no_such': No module named 'rlhf_jax.no_such'"),
    ("rlhf_jax.settings:neerest", "rlhf_jax.settings has no function 'neerest'. Did you mean 'nearest'?"),
  ],
)
def test_a_function_that_is_not_there(neighbour, name, message):
  with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
    import_function(name)


def test_a_module_that_lacks_what_it_imports_is_named(neighbour):
  (neighbour / "needs.py").write_text("import no_such_dependency\n")
  with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
    import_module("needs.py")


def test_a_stage_in_a_file_may_postpone_its_annotations(tmp_path):
  """dataclasses and get_type_hints look such annotations up in sys.modules, under the module's name."""
  path = tmp_path / "toy.py"
  path.write_text(
    "from __future__ import annotations\nimport dataclasses\n\n"
    "@dataclasses.dataclass(frozen=True)\nclass Part:\n  size: int\n\n"
    "@dataclasses.dataclass(frozen=True)\nclass Config:\n  part: Part\n  rate: float | None\n"
  )
  module = import_module(str(path))
  assert parse(module.Config, {"part": {"size": 3}, "rate": 1}, "toy") == module.Config(module.Part(3), 1.0)


def test_a_file_shadows_no_other_module(tmp_path):
  (tmp_path / "json.py").write_text("mine = True\n")
  assert import_module(str(tmp_path / "json.py")).mine
  assert not hasattr(import_module("json"), "mine")


def test_a_changed_file_is_read_again(tmp_path):
  path = tmp_path / "changing.py"
  path.write_text("value = 1\n")
  assert import_module(str(path)).value == 1
  path.write_text("value = 22\n")
  assert import_module(str(path)).value == 22


@dataclasses.dataclass(frozen=True)
class Either:
  data: str | Inner
  words: str | tuple[tuple[str, ...], ...] = ""


def test_the_form_of_a_value_tells_the_options_of_a_union_apart():
  assert parse(Either, dict(data="file"), "sft") == Either("file")
  assert parse(Either, dict(data=dict(rate=1), words=[["a", "b"]]), "sft") == Either(Inner(1.0), (("a", "b"),))
  with pytest.raises(ConfigError, match="config.sft.data has no key 'rates'. Did you mean 'rate'"):
    parse(Either, dict(data=dict(rates=1)), "sft")
  with pytest.raises(ConfigError, match="config.sft.data must be str, not 3"):
    parse(Either, dict(data=3), "sft")


Name = Annotated[str, "stage"]


@dataclasses.dataclass(frozen=True)
class Reader:
  function: FunctionName
  maybe: None | Name
  either: Literal["a"] | tuple[Name, ...]
  groups: dict[str, tuple[Name, ...]]
  costs: dict[Name, int]
  rest: Any = None


def test_every_text_of_a_config_has_its_place_and_its_mark():
  given = dict(function="f", maybe="m", either=["e"], groups=dict(label=["x", "y"]), costs=dict(z=3), rest=["r", 1])
  assert list(texts(parse(Reader, given, "c"), "c")) == [
    ("c.function", "f", "function"),
    ("c.maybe", "m", "stage"),
    ("c.either[0]", "e", "stage"),
    ("c.groups.label[0]", "x", "stage"),
    ("c.groups.label[1]", "y", "stage"),
    ("c.costs.z", "z", "stage"),
    ("c.rest[0]", "r", ""),
  ]
  assert [mark for _, _, mark in texts(Reader("", None, "a", {}, {}), "c")] == ["function", ""]


@dataclasses.dataclass(frozen=True)
class Ranged:
  steps: PositiveInt = 1
  share: Share = 0.5
  warmup: ShareBelowOne = 0.0
  limit: None | Annotated[float, Above(0)] = None
  pair: tuple[NonNegativeInt, Share] = (0, 0.0)
  many: tuple[PositiveInt, ...] = ()
  counts: dict[str, NonNegativeInt] = dataclasses.field(default_factory=dict)
  either: str | tuple[Annotated[int, Between(2, 4)], ...] = ""
  any: float = 0.0


@pytest.mark.parametrize(
  "key, value, message",
  [
    ("steps", 0, "config.s.steps is 0, and must be at least 1."),
    ("share", 1.5, "config.s.share is 1.5, and must be between 0 and 1."),
    ("share", -1, "config.s.share is -1, and must be between 0 and 1."),
    ("warmup", 1.0, "config.s.warmup is 1.0, and must be at least 0 and below 1."),
    ("limit", 0, "config.s.limit is 0, and must be above 0."),
    ("limit", float("nan"), "config.s.limit is nan, and must be finite."),
    ("any", float("inf"), "config.s.any is inf, and must be finite."),
    ("any", float("-inf"), "config.s.any is -inf, and must be finite."),
    ("pair", (0, 2.0), "config.s.pair[1] is 2.0, and must be between 0 and 1."),
    ("pair", (-1, 1.0), "config.s.pair[0] is -1, and must be at least 0."),
    ("pair", (1,), "config.s.pair must be a tuple of 2, not (1,)."),
    ("many", (1, 0), "config.s.many[1] is 0, and must be at least 1."),
    ("counts", {"expert": -2}, "config.s.counts.expert is -2, and must be at least 0."),
    ("either", [2, 5], "config.s.either[1] is 5, and must be between 2 and 4."),
    ("steps", 1.5, "config.s.steps must be int, not 1.5."),
    ("steps", True, "config.s.steps must be int, not True."),
  ],
)
def test_a_number_outside_its_range_is_refused(key, value, message):
  with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
    parse(Ranged, {key: value}, "s")


def test_bounds_belong_to_their_range():
  given = dict(steps=1, share=1, warmup=0.999, limit=1e-9, pair=(0, 0), many=(1, 2), counts={"expert": 0}, either="a")
  assert parse(Ranged, given, "s") == Ranged(1, 1.0, 0.999, 1e-9, (0, 0.0), (1, 2), {"expert": 0}, "a")
  assert parse(Ranged, dict(share=0.0, either=[4]), "s").either == (4,)


def test_a_range_in_words():
  ranges = (AtLeast(1), Above(0), Between(0, 1), Range(0, 1, with_high=False), Range(0, 1, with_low=False))
  assert [str(allowed) for allowed in ranges] == [
    *("at least 1", "above 0", "between 0 and 1"),
    *("at least 0 and below 1", "above 0 and at most 1"),
  ]
