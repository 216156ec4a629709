"""The cells of a sweep's file: names, swept values, and what is refused."""

import pytest

from rlhf_jax.settings import ConfigError
from rlhf_jax.sweep.cells import read_cells, short_names
from rlhf_jax.sweep.grids import product, seeds, zip


def test_grids():
  assert product({"a": (1, 2)}, seeds(2, "ppo")) == [
    {"a": 1, "seeds.ppo": 0}, {"a": 1, "seeds.ppo": 1}, {"a": 2, "seeds.ppo": 0}, {"a": 2, "seeds.ppo": 1},
  ]  # fmt: skip
  assert zip({"a": (1, 2), "b": "xy"}) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
  assert seeds(2, first=3) == [{"seed": 3}, {"seed": 4}]
  with pytest.raises(ConfigError, match="as many values"):
    zip({"a": (1, 2), "b": (1,)})


def test_names_have_the_hash_and_what_differs(write_sweep, grid):
  cells = read_cells(write_sweep(grid))
  assert [cell.values for cell in cells][1] == {"first.size": 1, "second.size": 20}
  assert [cell.name.partition("-")[2] for cell in cells][1] == "first.size=1,second.size=20"
  assert len({cell.hash for cell in cells}) == 4 and all(cell.name.startswith(cell.hash) for cell in cells)
  assert cells[0].hash == read_cells(write_sweep(grid))[0].hash
  assert short_names(["ppo.lr", "sft.lr", "ppo.clip"]) == {"ppo.lr": "ppo.lr", "sft.lr": "sft.lr", "ppo.clip": "clip"}


def test_any_type_varies_and_labels_name_columns(write_sweep):
  cells = read_cells(
    write_sweep("""
      add(base(), kind="both")
      one = base(); one.stages = ("first",); one.seed = 3; del one["second"]
      add(one, kind="one")
    """)
  )
  assert [cell.values for cell in cells] == [{"kind": "both", "seed": 0}, {"kind": "one", "seed": 3}]
  cells = read_cells(write_sweep("add(base()); one = base(); one.stages = ('first',); del one['second']; add(one)"))
  assert [cell.values for cell in cells] == [{"stages": ["first", "second"]}, {"stages": ["first"]}]


def test_seeds_of_stages_are_columns_of_their_own(write_sweep):
  cells = read_cells(write_sweep("for changes in seeds(2, 'second'): add(changed(base(), changes))"))
  assert [cell.config["seeds"] for cell in cells] == [{"second": 0}, {"second": 1}]
  assert [cell.values for cell in cells] == [{"seeds.second": 0}, {"seeds.second": 1}]


@pytest.mark.parametrize(
  ("body", "message"),
  [
    ("pass", "has added no cell"),
    ("add(base()); add(base())", "cells 1 and 2 of the sweep have the same config"),
    ("add(3)", "takes a config"),
    ("add(changed(base(), {'second.sise': 1}))", "no key 'sise'.*'size'"),
    ("\n  1 / 0", r"sweep.py:\d+: ZeroDivisionError"),
  ],
)
def test_mistakes_are_one_line(write_sweep, body, message):
  with pytest.raises(ConfigError, match=message) as error:
    read_cells(write_sweep(body))
  assert "\n" not in str(error.value)
