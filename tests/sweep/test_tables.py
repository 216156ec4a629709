"""Grouped tables: interquartile means, paired differences, warnings, and the files."""

import json

import numpy as np
import pyarrow.parquet
import pytest

from rlhf_jax.report.read_run import Series
from rlhf_jax.settings import ConfigError
from rlhf_jax.sweep.measures import Measured
from rlhf_jax.sweep.table_files import read_table, write_tables
from rlhf_jax.sweep.tables import Row, choose_metrics, groups_of, markdown, warnings_of

SCORES = {0.1: [0.0, 1.0, 2.0, 3.0, 4.0, 50.0], 0.2: [1.0, 2.0, 3.0, 4.0, 5.0, 51.0]}


def rows_of(scores):
  return [
    Row(f"{kl}{seed}", f"kl={kl},seed={seed}", "done", {"ppo.kl": kl, "seeds.ppo": seed}, measured(score))
    for kl, own in scores.items()
    for seed, score in enumerate(own)
  ]


def measured(score):
  return Measured({"ppo/score": score}, {"ppo/score": Series(np.arange(3.0), np.full(3, score))})


def test_seeds_are_grouped_and_differences_are_paired():
  first, second = groups_of(rows_of(SCORES), ["ppo/score"])
  estimate = second.estimates["ppo/score"]
  assert first.label == "kl=0.1" and first.estimates["ppo/score"].difference is None
  assert estimate.mean == pytest.approx(11.0)
  assert estimate.middle.mean == pytest.approx(3.5)  # of 2, 3, 4 and 5: one value is cut at each end
  # The seeds spread by 50, and each gains exactly 1: only pairs can show it.
  assert tuple(estimate.difference) == pytest.approx((1.0, 1.0, 1.0, 6))


def test_a_seed_that_one_setting_lacks_is_in_no_pair():
  rows = rows_of({0.1: [0.0, 1.0, 2.0], 0.2: [5.0, 7.0]})
  assert groups_of(rows, ["ppo/score"])[1].estimates["ppo/score"].difference.num == 2


def test_few_seeds_and_unclear_differences_are_named():
  rows = rows_of({0.1: [0.0, 1.0], 0.2: [1.0, 0.0]})
  found = warnings_of(groups_of(rows, ["ppo/score"]), ["ppo/score"])
  assert "2 seeds" in found[0] and "do not tell apart from kl=0.1: kl=0.2" in found[1]
  assert warnings_of(groups_of(rows_of(SCORES), ["ppo/score"]), ["ppo/score"]) == []
  rows[0] = rows[0]._replace(state="failed")
  assert any("1 run is not done" in note for note in warnings_of(groups_of(rows, []), []))


def test_files_and_markdown(tmp_path):
  rows = rows_of(SCORES)
  groups = groups_of(rows, ["ppo/score"])
  write_tables(tmp_path, rows, ["ppo/score"], groups)
  assert (tmp_path / "table.csv").read_text().splitlines()[1] == '0.10,"kl=0.1,seed=0",done,,0.1,0,0.0'
  assert pyarrow.parquet.read_table(tmp_path / "table.parquet")["ppo/score"].to_pylist() == sum(SCORES.values(), [])
  assert json.loads((tmp_path / "table.json").read_text())["groups"][1]["metrics"]["ppo/score"]["difference"] == 1.0
  assert (tmp_path / "groups.csv").read_text().startswith("ppo.kl,runs,ppo/score:mean")
  lines = markdown(groups, ["ppo/score"], {"ppo/score": "score"}).splitlines()
  assert lines[0] == "| kl | runs | score | difference |" and lines[3].endswith("| +1 [+1, +1] |")


def test_an_unknown_metric_is_named_with_those_that_are_close():
  with pytest.raises(ValueError, match="no run has the metric 'ppo/scor'; there are ppo/score"):
    choose_metrics(rows_of(SCORES), ["ppo/scor"])


def test_a_table_is_read_again(tmp_path):
  rows = [row._replace(measured=row.measured._replace(curves={})) for row in rows_of(SCORES)]
  rows[0] = rows[0]._replace(values={"ppo.kl": None, "seeds.ppo": 0}, error="it broke")
  write_tables(tmp_path, rows, [], [])
  assert read_table(tmp_path / "table.csv") == rows
  (tmp_path / "table.csv").write_text("a,b\n1,2\n")
  with pytest.raises(ConfigError, match="no table.csv of a sweep"):
    read_table(tmp_path / "table.csv")


def test_patterns_choose_metrics_and_those_of_one_setting_are_a_matrix():
  finals = {"evaluation/sft/gold": 1.0, "evaluation/ppo/gold": 2.0, "evaluation/ppo/kl": 3.0, "final/gold": 2.0}
  rows = [Row("", "run", "done", {"seed": 0}, Measured(finals, {}))]
  metrics = choose_metrics(rows, ["evaluation/*"])
  assert metrics == ["evaluation/sft/gold", "evaluation/ppo/gold", "evaluation/ppo/kl"]
  assert markdown(groups_of(rows, metrics), metrics).splitlines() == [
    "| all, 1 run | gold | kl |", "|---|---|---|", "| evaluation/sft | 1 |  |", "| evaluation/ppo | 2 | 3 |",
  ]  # fmt: skip
  assert choose_metrics(rows) == ["final/gold"]
