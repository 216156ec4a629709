"""The figures of experiments/quickstart, from evaluations made by hand."""

import json

import pytest
from tiny_chain import ROOT

from rlhf_jax.cli import main
from rlhf_jax.settings import import_module

analyse = import_module(str(ROOT / "experiments" / "quickstart" / "analyse.py"))


def evaluation(gold, wrong):
  interval = {"mean": gold, "low": gold - 1, "high": gold + 1, "num": 4}
  kinds = {
    "wrong": {"accuracy": {"mean": wrong}, "style": {"mean": 0.5}, "cells": {"new": {"accuracy": {"mean": 0.25}}}}
  }
  return {
    "models": {"sft": {"gold": interval, "win_rate": {"mean": 0.5}}},
    "baselines": {"refusal": {"gold": {"mean": -0.75}, "text": "No."}},
    "cells": {"new": {"prompts": 4, "models": {"sft": {"gold": interval}}, "copied": {"mean": 0.125}}},
    "reward_model": {"judge": {"accuracy": {"mean": 0.875}, "min_gap": 0.5, "kinds": kinds}},
  }


def test_figures_are_means_over_runs_with_their_range():
  figures = analyse.over_runs([evaluation(1.0, 0.8), evaluation(2.0, 0.9)])
  assert figures["policies"]["sft"]["gold"] == dict(mean=1.5, low=1.0, high=2.0)
  assert figures["policies"]["refusal"] == {"gold": dict(mean=-0.75, low=-0.75, high=-0.75)}
  assert figures["cells"]["new"]["copied"]["mean"] == 0.125
  assert figures["kinds"]["wrong"]["accuracy"]["mean"] == pytest.approx(0.85)
  assert figures["kinds"]["wrong"]["new"]["mean"] == 0.25
  assert analyse.means(figures)["policies"]["sft"] == {"gold": 1.5, "win_rate": 0.5}
  assert analyse.table(figures["policies"]).splitlines() == [
    "| | gold | win_rate |",
    "|---|---|---|",
    "| sft | 1.50 (1.00 to 2.00) | 50 % (50 to 50) |",
    "| refusal | -0.75 (-0.75 to -0.75) |  |",
  ]
  assert "| wrong | 85 % (80 to 90) | 50 % (50 to 50) | 25 % (25 to 25) |" in analyse.table(figures["kinds"])


def test_other_algorithms_of_a_run_have_a_row_each(tmp_path):
  interval = {"mean": 1.0, "low": 0.5, "high": 1.5}
  model = {key: interval for key in ("gold", "win_rate", "proxy", "kl")}
  for stage, models in (("dpo", {"sft": model, "dpo": model}), ("refined", {"sft": model})):
    (tmp_path / f"{stage}_evaluation").mkdir()
    (tmp_path / f"{stage}_evaluation" / "evaluation.json").write_text(json.dumps({"models": models}))
  found = analyse.other_algorithms(tmp_path)
  assert list(found) == ["dpo"]
  assert found["dpo"]["reference"] == found["dpo"]["gold"] == interval
  assert "| dpo | 1.00 (0.50 to 1.50) | 1.00 (0.50 to 1.50) | 100 % (50 to 150) |" in analyse.table(found)


@pytest.mark.parametrize(("file", "metric"), [("stages.csv", "evaluation/*/*"), ("algorithms.csv", "final/*")])
def test_the_tables_of_the_record_are_those_of_the_command(file, metric, tmp_path, capsys):
  folder = ROOT / "experiments" / "quickstart"
  assert main(["compare", str(folder / file), "--out", str(tmp_path), "--metric", metric]) == 0
  rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
  assert len(rows) > 10 and "\n".join(rows) in (folder / "README.md").read_text()
