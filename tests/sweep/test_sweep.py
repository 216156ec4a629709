"""A sweep from its file to its table: sharing, failures and retries, kills, two sweeps at once, seeds of a run."""

import collections
import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from rlhf_jax.cli import main
from rlhf_jax.settings import ConfigError
from rlhf_jax.sweep import attempts, command
from rlhf_jax.sweep.cells import read_cells
from rlhf_jax.sweep.drive import drive
from rlhf_jax.sweep.engines import Inline, Local
from rlhf_jax.sweep.units import plan_units, read_unit, write_units


def starts(root):
  """How often each stage began, over all run directories."""
  return collections.Counter(line for path in root.rglob("starts.txt") for line in path.read_text().split())


def table(root):
  return list(csv.DictReader((root / "table.csv").open()))


def test_shared_stages_run_once_and_the_table_has_a_row_for_each_cell(write_sweep, grid, tmp_path, capsys):
  arguments = ["sweep", str(write_sweep(grid)), "--workdir", str(tmp_path / "out"), "--engine", "inline"]
  assert main([*arguments, "--dry-run"]) == 0
  assert "4 cells, 2 sets of shared stages" in capsys.readouterr().out and not (tmp_path / "out").exists()
  assert main(arguments) == 0
  assert starts(tmp_path / "out") == {"first": 2, "second": 4}
  rows = table(tmp_path / "out")
  assert [(row["first.size"], row["second.size"], row["second/score"], row["state"]) for row in rows] == [
    ("1", "10", "11.0", "done"), ("1", "20", "21.0", "done"), ("2", "10", "12.0", "done"), ("2", "20", "22.0", "done"),
  ]  # fmt: skip
  assert {"table.parquet", "table.json", "groups.csv"} <= {path.name for path in (tmp_path / "out").iterdir()}
  assert main(arguments) == 0
  assert starts(tmp_path / "out") == {"first": 2, "second": 4}
  runs = [str(path) for path in sorted((tmp_path / "out" / "cells").iterdir())]
  assert main(["compare", *runs[:2], "--out", str(tmp_path / "two"), "--metric", "second/score"]) == 0
  assert len(table(tmp_path / "two")) == 2


def test_every_cell_is_checked_before_the_first_starts(write_sweep, tmp_path):
  path = write_sweep("add(changed(base(), {'first.size': 2}))\nadd(changed(base(), {'second.size': 'x'}))")
  with pytest.raises(ConfigError, match="second.size=x.*second.size"):
    command.prepare(read_cells(path), tmp_path / "out")


def test_a_file_may_take_an_argument(write_sweep, tmp_path, capsys):
  path = write_sweep("for size in (1, 2):\n  one = base(); one.second.size = size; add(one)")
  with pytest.raises(ConfigError, match=r"sweep\(add\) takes no argument, and 'fast' was given"):
    read_cells(path, "fast")
  path.write_text(path.read_text().replace("sweep(add):", "sweep(add, arg='12'):").replace("(1, 2)", "map(int, arg)"))
  assert [cell.values for cell in read_cells(path)] == [{"second.size": 1}, {"second.size": 2}]
  assert main(["sweep", f"{path}:345", "--workdir", str(tmp_path / "out"), "--dry-run"]) == 0
  assert "second.size=5" in capsys.readouterr().out.replace("size=5", "second.size=5")


def test_a_cell_that_fails_is_tried_again_and_named_and_the_others_finish(write_sweep, grid, tmp_path, capsys):
  path = write_sweep(textwrap.dedent(grid) + "broken = base(); broken.second.trap = '/'\nadd(broken)\n")
  arguments = ["sweep", str(path), "--workdir", str(tmp_path / "out"), "--engine", "inline", "--retries", "1"]
  assert main(arguments) == 2
  told = capsys.readouterr().err
  assert "the trap is there" in told and "log.txt" in told and told.count("\n") >= 1
  assert starts(tmp_path / "out")["second"] == 6
  assert [row["state"] for row in table(tmp_path / "out")] == ["done"] * 4 + ["failed"]


def test_what_needs_a_failed_stage_is_not_run(write_sweep, tmp_path):
  path = write_sweep("for size in (1, 2):\n  one = base(); one.second.size = size; one.first.trap = '/'\n  add(one)")
  cells = read_cells(path)
  units, _ = command.prepare(cells, tmp_path / "out")
  write_units(units, tmp_path / "out")
  states = drive(units, tmp_path / "out", Inline(tmp_path / "out"), 0)
  assert [state.status for state in states.values()] == ["failed", "blocked", "blocked"]


def test_a_killed_cell_counts_as_a_failure_and_is_run_again(write_sweep, tmp_path):
  root = tmp_path / "out"
  units, _ = command.prepare(read_cells(write_sweep("one = base(); one.second.seconds = 30.0; add(one)")), root)
  write_units(units, root)
  process = subprocess.Popen([sys.executable, "-m", "rlhf_jax.sweep.work", str(root / units[0].name)])
  wait_for(lambda: starts(root)["second"] == 1)
  assert attempts.state(units[0], root, 0).status == "running"
  process.kill()
  process.wait()
  assert attempts.state(units[0], root, 0) == attempts.State("failed", attempts.KILLED)
  assert attempts.state(units[0], root, 1).status == "waiting"
  assert attempts.state(units[0], root, 0, since=time.time()).status == "waiting"
  assert read_unit(root / units[0].name)[0] == units[0]


def wait_for(condition):
  end = time.monotonic() + 300
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.1)


def test_a_run_whose_process_cannot_begin_is_tried_again_and_given_up(write_sweep, tmp_path):
  root = tmp_path / "out"
  units, _ = command.prepare(read_cells(write_sweep("add(base())")), root)
  write_units(units, root)
  (root / units[0].name / "unit.json").unlink()
  engine = Local(root, 1)
  started = []
  start = engine.start
  engine.start = lambda chosen: (started.extend(chosen), start(chosen))
  (state,) = drive(units, root, engine, 1).values()
  assert (state.status, len(started)) == ("failed", 2) and "before it could record" in state.error


def test_a_full_disk_loses_nothing(write_sweep, tmp_path):
  root = tmp_path / "out"
  root.mkdir()
  if (
    os.geteuid()
    or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", root], capture_output=True).returncode
  ):
    pytest.skip("this user may not mount a small file system")
  body = "for size in range(3):\n  one = base(); one.second.size = size; one.second.seconds = 1.0\n  add(one)"
  try:
    arguments = ["sweep", str(write_sweep(body)), "--workdir", str(root), "--workers", "1", "--retries", "0"]
    sweep = subprocess.Popen([sys.executable, "-m", "rlhf_jax.cli", *arguments], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: starts(root)["second"] >= 2)
    with contextlib.suppress(OSError), open(root / "ballast", "wb", buffering=0) as file:
      while file.write(bytes(4096)):
        pass
    told = sweep.communicate()[1]
    assert sweep.returncode and "No space left on device" in told, told
    (root / "ballast").unlink()
    assert main([*arguments, "--engine", "inline"]) == 0  # as well, and without a process for each run
    assert [row["state"] for row in table(root)] == ["done"] * 3
    assert starts(root)["first"] == 1 and starts(root)["second"] <= 5
  finally:
    subprocess.run(["umount", root], check=True)


def test_two_sweeps_that_start_at_once_share_the_cells(write_sweep, pair, tmp_path):
  """Two processes, as two people start them; see also the threads below."""
  path = write_sweep(pair)
  arguments = ["sweep", str(path), "--workdir", str(tmp_path / "out"), "--workers", "2"]
  both = [subprocess.Popen([sys.executable, "-m", "rlhf_jax.cli", *arguments]) for _ in range(2)]
  assert [sweep.wait() for sweep in both] == [0, 0]
  assert starts(tmp_path / "out") == {"first": 1, "second": 2}
  assert [row["state"] for row in table(tmp_path / "out")] == ["done"] * 2


def test_the_command_lines_are_a_script_that_does_it_all(write_sweep, pair, tmp_path):
  arguments = ["sweep", str(write_sweep(pair)), "--workdir", str(tmp_path / "out"), "--engine", "commands"]
  assert main(arguments) == 0
  subprocess.run(["sh", "-e", tmp_path / "out" / "commands.txt"], check=True, cwd="/")
  assert main(arguments) == 0
  assert starts(tmp_path / "out") == {"first": 1, "second": 2}
  assert [row["state"] for row in table(tmp_path / "out")] == ["done"] * 2
  assert "sweep.work" not in (tmp_path / "out" / "commands.txt").read_text()


def test_two_sweeps_share_the_cells(write_sweep, tmp_path):
  root = tmp_path / "out"
  path = write_sweep(
    "for size in range(3):\n  one = base(); one.second.size = size; one.second.seconds = 1.0\n  add(one)"
  )
  units, _ = command.prepare(read_cells(path), root)
  write_units(units, root)
  other = threading.Thread(target=drive, args=(units, root, Local(root, 1), 0))
  other.start()
  states = drive(units, root, Local(root, 1), 0)
  other.join()
  assert {state.status for state in states.values()} == {"done"}
  assert starts(root) == {"first": 1, "second": 3}


def test_a_signal_stops_a_sweep_and_the_same_command_continues(write_sweep, tmp_path):
  path = write_sweep(
    "for size in (1, 2):\n  one = base(); one.second.size = size; one.second.seconds = 2.0\n  add(one)"
  )
  arguments = [sys.executable, "-m", "rlhf_jax.cli", "sweep", str(path), "--workdir", str(tmp_path / "out")]
  process = subprocess.Popen([*arguments, "--workers", "1"], cwd=os.getcwd())
  wait_for(lambda: starts(tmp_path / "out")["second"] == 1)
  process.send_signal(signal.SIGTERM)
  assert process.wait() == 128 + signal.SIGTERM
  assert main([*arguments[3:], "--engine", "inline"]) == 0
  assert [row["state"] for row in table(tmp_path / "out")] == ["done", "done"]


def test_units_name_what_they_need(write_sweep, grid, tmp_path):
  units = plan_units(read_cells(write_sweep(grid)), tmp_path)
  assert [unit.stages for unit in units] == [("first",)] * 2 + [("second",)] * 4
  assert [unit.after for unit in units[2:]] == [(units[0].name,)] * 2 + [(units[1].name,)] * 2
  write_units(units, tmp_path)
  link = tmp_path / units[2].name / "first"
  assert link.is_symlink() and not os.path.isabs(os.readlink(link))
  assert json.loads((tmp_path / units[2].name / "unit.json").read_text())["working_directory"] == os.getcwd()
