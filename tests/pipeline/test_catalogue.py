"""Recipes are found by name, and listed by what their docstrings say."""

import re

import pytest

from rlhf_jax.pipeline.catalogue import listing, load_recipe, read_recipe, recipe_names
from rlhf_jax.settings import ConfigError

TEXT = '''"""What does a longer warm-up change?

  rlhf-jax run --config warmup --workdir runs/warmup

The learning rate rises over half of the steps.

Time: 12 minutes
  on two cores.
Result: the loss ends at 2.1 [2.0, 2.2]
over four seeds.

More of it in the experiments.
"""

def get_config(arg=""):
  """Nothing."""
'''


def test_a_docstring_is_read_in_its_parts(tmp_path):
  (tmp_path / "warmup.py").write_text(TEXT)
  found = read_recipe(str(tmp_path / "warmup.py"))
  assert found.question == "What does a longer warm-up change?"
  assert found.time == "12 minutes on two cores."
  assert found.result == "the loss ends at 2.1 [2.0, 2.2] over four seeds."
  assert found.text.splitlines()[2] == "  rlhf-jax run --config warmup --workdir runs/warmup"


@pytest.mark.parametrize("text", ["", '"""One line."""\n'])
def test_a_docstring_may_lack_its_parts(tmp_path, text):
  (tmp_path / "own.py").write_text(text)
  found = read_recipe(str(tmp_path / "own.py"))
  assert (found.question, found.time, found.result) == ("One line." if text else "", "", "")


def test_every_recipe_is_listed_in_lines_that_fit():
  names = recipe_names()
  assert {"quickstart", "ppo", "dpo", "grpo"} <= set(names) and "__init__" not in names
  assert [name for name in names if not all(read_recipe(name))] == [], "each has a question, a time and a result"
  for width in (80, 120):
    lines = listing(width).splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines if line[:1] not in ("", " ")][: len(names)] == names


def test_a_name_of_nothing_is_refused():
  with pytest.raises(
    ConfigError, match="'quickstrat' is neither a recipe nor the path of a .py file. Did you mean 'qui"
  ):
    load_recipe("quickstrat")


@pytest.mark.parametrize(
  "given, message", [("dpo:dop", "Did you mean 'dpo'?"), ("quickstart:pp", "Did you mean 'ppo'?")]
)
def test_a_recipe_that_refuses_its_argument_says_what_it_takes(given, message):
  with pytest.raises(ConfigError, match=f"^--config {given}: .*{re.escape(message)} Known: "):
    load_recipe(given)
