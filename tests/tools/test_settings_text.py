"""`rlhf-jax configs RECIPE STAGE`: every setting with its type, its value in the recipe, and its description."""

import re

import pytest

from rlhf_jax.cli import main
from rlhf_jax.tools.settings_text import settings_text

STAGE = '''
import dataclasses
from typing import Literal
from rlhf_jax.ranges import PositiveFloat
from rlhf_jax.settings import FunctionName
from rlhf_jax.stage import StageName

@dataclasses.dataclass(frozen=True)
class Part:
  rate: float
  """Learning rate, per step."""

@dataclasses.dataclass(frozen=True)
class Config:
  algorithm: str
  """Module that carries out the stage."""
  model: StageName
  """Stage whose model is trained, in a description that is so long that it has to go on in a second line."""
  score: FunctionName
  decay: Literal["linear", "cosine"]
  """Course of the learning rate."""
  part: Part
  """Settings of a part."""
  parts: dict[str, Part]
  pairs: tuple[Part, ...] = ()
  limit: PositiveFloat | None = None
  """Largest value; None for no limit."""

def run(config, stage): ...
'''
RECIPE = '''
"""What does the toy do?

  rlhf-jax run --config toy.py --workdir runs/toy
"""
from ml_collections import ConfigDict

def get_config(arg="linear"):
  config = ConfigDict()
  config.seed = 0
  config.stages = ("toy", "other")
  config.tokenizer = ""
  config.model = dict(num_layers=1, d_model=2, num_heads=1, num_kv_heads=1, d_ff=2, max_length=4)
  config.transport = dict(kind="jit", fsdp=1, microbatches=1)
  config.toy = dict(algorithm=__file__.replace("toy.py", "stage.py"), model="", score="json:loads", decay=arg,
                    part=dict(rate=1), parts=dict(a=dict(rate=0.5)))
  config.other = dict(config.toy)
  return config
'''


@pytest.fixture
def recipe(tmp_path):
  (tmp_path / "stage.py").write_text(STAGE)
  (tmp_path / "toy.py").write_text(RECIPE)
  return str(tmp_path / "toy.py")


def test_settings_of_a_stage(recipe, tmp_path):
  algorithm = f"  algorithm: str = {str(tmp_path / 'stage.py')!r}"
  assert settings_text(recipe + ":cosine", ["other"], False, 100).splitlines() == [
    "config.other",
    algorithm,
    "                                          Module that carries out the stage.",
    "  model: stage = ''                       Stage whose model is trained, in a description that is so",
    "                                          long that it has to go on in a second line.",
    "  score: function = 'json:loads'",
    "  decay: 'linear' | 'cosine' = 'cosine'   Course of the learning rate.",
    "  part: Part                              Settings of a part.",
    "    rate: float = 1.0                     Learning rate, per step.",
    "  parts: dict[str, Part]",
    "    a",
    "      rate: float = 0.5                   Learning rate, per step.",
    "  pairs: tuple[Part, ...] = ()",
    "  limit: float above 0 | None = None      Largest value; None for no limit.",
  ]


def test_a_recipe_shows_its_docstring_its_stages_and_the_stage_of_its_name(recipe):
  text = settings_text(recipe, [], False, 120)
  assert text.startswith("What does the toy do?\n\n  rlhf-jax run --config toy.py")
  assert re.search(r"^Stages:\n  toy  .*\n  other", text, re.M)
  assert "config.toy\n" in text and "config.other\n" not in text
  everything = settings_text(recipe, [], True, 120)
  assert all(f"\nconfig.{name}\n" in everything for name in ("toy", "other", "model", "transport"))


def test_a_mistyped_stage_is_answered(recipe, capsys):
  assert main(["configs", recipe, "othre"]) == 2
  assert capsys.readouterr().err == f"rlhf-jax: {recipe} has no stage 'othre'. Did you mean 'other'?\n"


def test_every_setting_of_the_quickstart_is_shown_and_fits(capsys, monkeypatch):
  monkeypatch.setenv("COLUMNS", "120")
  assert main(["configs", "quickstart", "--all"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line for line in lines if len(line) > 120] == []
  assert main(["configs", "quickstart", "ppo", "transport"]) == 0
  shown = capsys.readouterr().out
  assert re.search(r"^  clip: float at least 0 = 0.2\b", shown, re.M) and re.search(
    r"^    learning_rate: float at least 0 = 0.0005\b", shown, re.M
  )
  assert re.search(r"^  kind: 'jit' \| 'pmap' \| 'shard_map' = 'jit'$", shown, re.M)
