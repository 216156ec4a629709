"""Search over trials: the best is found, a killed search goes on, a hopeless trial is stopped early."""

import csv
import json

import pytest

from rlhf_jax.cli import main
from rlhf_jax.settings import ConfigError
from rlhf_jax.sweep import attempts, search
from rlhf_jax.sweep.drive import drive
from rlhf_jax.sweep.engines import Inline

optuna = pytest.importorskip("optuna")
BODY = """
  pass

objective = ("second/score", "max")

def search(trial):
  sizes = {"second.size": trial.suggest_int("size", 1, 8), "first.size": trial.suggest_int("first", 1, 2)}
  return changed(base(), sizes)
"""
LADDER = """
  pass

objective = ("second/score", "max")

def search(trial):
  size = trial.suggest_int("size", 1, 100)
  return changed(base(), {"second.size": size, "second.num_steps": 40, "second.init": "", "stages": ("second",)})
""".replace("  pass\n", "")


@pytest.fixture
def searched(write_sweep, tmp_path):
  path = write_sweep("pass")
  path.write_text(path.read_text() + BODY.replace("  pass\n", ""))
  return ["sweep", str(path), "--workdir", str(tmp_path / "out"), "--engine", "inline", "--workers", "4"]


@pytest.mark.parametrize("sampler", ["random", "sobol", "halton", "tpe"])
def test_trials_are_cells_and_the_best_is_named(searched, tmp_path, capsys, sampler):
  assert main([*searched, "--trials", "4", "--sampler", sampler]) == 0
  rows = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
  best = max(float(row["second/score"]) for row in rows)
  assert f"second/score = {best:.6g} (max)" in capsys.readouterr().out
  assert {row["state"] for row in rows} == {"done"} and all(1 <= int(row["size"]) <= 8 for row in rows)


def test_a_search_goes_on_with_the_trials_that_were_running(searched, tmp_path, monkeypatch):
  monkeypatch.setattr(search, "drive", lambda *rest: (_ for _ in ()).throw(KeyboardInterrupt))
  assert main([*searched, "--trials", "4"]) == 130
  monkeypatch.setattr(search, "drive", drive)
  assert main([*searched, "--trials", "6"]) == 0
  study = optuna.load_study(
    study_name="search",
    storage=optuna.storages.JournalStorage(
      optuna.storages.journal.JournalFileBackend(str(tmp_path / "out" / "search.journal"))
    ),
  )
  assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6


def test_a_hopeless_trial_is_stopped(tmp_path):
  study = optuna.create_study(direction="maximize", pruner=optuna.pruners.SuccessiveHalvingPruner(1, 2, 0))
  stopped = []
  engine = Inline(tmp_path)
  engine.stop = stopped.append
  trials = {name: study.ask() for name in ("good", "bad")}
  watch = search._Watch(tmp_path, "ppo/score", dict(trials), engine)
  for name, value in (("good", 5.0), ("bad", 1.0)):
    (tmp_path / name / "ppo").mkdir(parents=True)
    (tmp_path / name / "config.json").write_text(json.dumps({"stages": ["ppo"], "ppo": {}}))
    rows = "".join(json.dumps({"step": step, "score": value}) + "\n" for step in range(1, 9))
    (tmp_path / name / "ppo" / "metrics.jsonl").write_text(rows)
    watch(name)
  assert stopped == ["bad"]
  assert "stopped after step 8" in (tmp_path / "bad" / attempts.FILE).read_text()


STEPS = """
import time

def run(config, stage):
  stage.directory.mkdir(exist_ok=True)
  with open(stage.directory / "metrics.jsonl", "w") as file:
    for step in range(1, config.num_steps + 1):
      file.write(json.dumps({"step": step, "score": config.size}) + "\\n")
      file.flush()
      time.sleep(0.1)
"""


def test_hopeless_trials_are_stopped_while_their_processes_run(write_sweep, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(search, "LOOK_SECONDS", 0.1)
  path = write_sweep("pass")
  path.write_text(path.read_text() + LADDER)
  with open(tmp_path / "mine.py", "a") as file:
    file.write(STEPS)
  arguments = ["sweep", str(path), "--workdir", str(tmp_path / "out"), "--workers", "2", "--trials", "6", "--prune"]
  assert main([*arguments, "--sampler", "random"]) == 0
  rows = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
  best = max(rows, key=lambda row: int(row["size"]))
  assert best["state"] == "done" and f'with {{"size": {best["size"]}}}' in capsys.readouterr().out
  pruned = [row for row in rows if row["state"] == "pruned"]
  assert pruned and all(row["error"].startswith("stopped after step") for row in pruned)
  files = [tmp_path / "out" / "cells" / row["run"] / "second" / "metrics.jsonl" for row in pruned]
  assert min(path.read_text().count("\n") for path in files) < 40


def test_mistakes_are_named(searched, tmp_path):
  path = tmp_path / "sweep.py"
  path.write_text(path.read_text().replace('"max")', '"best")'))
  with pytest.raises(ConfigError, match="objective must be"):
    search._open(path, tmp_path / "out", "random")
