"""The figures of experiments/quickstart, from evaluations made by hand."""

import pytest
from tiny_chain import ROOT

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
