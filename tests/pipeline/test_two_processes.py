"""A run of two processes on this machine equals that of one process with two devices; what ends one ends the other."""

import filecmp
import json
import shutil
import signal
import time

import every_stage
import numpy as np
import pytest
from two_processes import ended, finish, run_by_one, run_by_two

from rlhf_jax.feedback.exchange import read_records

LEARNING = "--config.stages=('world','vocabulary','pretrain','sft')"
SAME = (
  "pretrain/metrics.jsonl", "sft/metrics.jsonl", "preferences/comparisons.jsonl", "reward_model/metrics.jsonl",
  "ppo/metrics.jsonl", "ppo/samples.jsonl", "evaluation/samples.jsonl", "evaluation/samples.md",
)  # fmt: skip
# Files of a stage that say when and on what it ran, not what it found.
OF_A_RUN = ("done.json", "started.json", "speed.jsonl", "log.txt")


def result(workdir, stage="sft"):
  return json.loads((workdir / stage / "done.json").read_text())


def test_one_run_of_two_processes(tiny, tmp_path):
  stages = "--config.stages=('world','vocabulary','pretrain')"
  processes = run_by_two(tiny, tmp_path / "run", stages, "--config.pretrain.num_steps=2")
  (status, leader), (other_status, other) = ended(processes)
  assert status == other_status == 0, (leader, other)
  assert "[3/3] pretrain: done in" in leader and "The report is" in leader and "pretrain" not in other
  assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
    "command.txt", "config.json", "content_hashes.json", "environment.json", "pretrain", "report.html", "vocabulary",
    "world",
  ]  # fmt: skip
  assert json.loads((tmp_path / "run" / "environment.json").read_text())["num_processes"] == 2
  assert len((tmp_path / "run" / "pretrain" / "metrics.jsonl").read_text().splitlines()) == 2
  files = sorted(path.name for path in (tmp_path / "run" / "pretrain" / "checkpoints" / "2" / "params").iterdir())
  assert files[0] == "0.safetensors"


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
  """The whole chain, made by one process with two devices."""
  workdir = tmp_path_factory.mktemp("one")
  finish(run_by_one(tiny, workdir, "--config.ppo.watch.samples_every=2"))
  return workdir


@pytest.mark.slow
def test_the_whole_chain_has_the_same_files(tiny, whole, tmp_path):
  finish(run_by_two(tiny, tmp_path / "two", "--config.ppo.watch.samples_every=2"))
  for file in SAME:
    assert filecmp.cmp(whole / file, tmp_path / "two" / file, shallow=False), file
  assert all(result(whole, s)["checkpoint"] == result(tmp_path / "two", s)["checkpoint"] for s in ("sft", "ppo"))


@pytest.mark.slow
def test_every_other_stage_has_the_same_files(whole, tmp_path):
  """LoRA, a shared trunk, each way of learning, judging, rewriting and asking, after the whole chain."""
  config = every_stage.write_config(tmp_path, whole)
  one, two = tmp_path / "one", tmp_path / "two"
  finish(run_by_one(config, one))
  finish(run_by_two(config, two))
  files = sorted(path.relative_to(one) for path in one.glob("*/*") if path.name not in OF_A_RUN and path.is_file())
  assert len({file.parts[0] for file in files}) == len(list(two.glob("*/done.json"))) == 29
  for file in files:
    if file.name == "feedback.db":
      assert read_records(one / file) == read_records(two / file)
    elif file.suffix == ".json":
      here, there = (json.loads((root / file).read_text()) for root in (one, two))
      assert {**here, "environment": 0} == {**there, "environment": 0}, file
    else:
      assert filecmp.cmp(one / file, two / file, shallow=False), file
  for stage in {file.parts[0] for file in files}:
    assert result(one, stage).get("checkpoint") == result(two, stage).get("checkpoint"), stage


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_is_killed_and_the_other_ends_and_the_rerun_is_the_same(tiny, whole, tmp_path, victim):
  workdir = tmp_path / "two"
  shutil.copytree(
    whole, workdir, ignore=shutil.ignore_patterns("sft", "preferences", "reward_model", "ppo", "evaluation")
  )
  settings = [LEARNING, "--config.sft.checkpoint_every=2"]
  processes = run_by_two(tiny, workdir, *settings)
  metrics = workdir / "sft" / "metrics.jsonl"
  while not metrics.exists() or metrics.read_bytes().count(b"\n") < 3:
    assert processes[0].poll() is None, ended(processes)
    time.sleep(0.01)
  processes[victim].send_signal(signal.SIGKILL)
  begun = time.monotonic()
  ((status, text),) = ended([processes[1 - victim]], timeout=60)
  assert time.monotonic() - begun < 60 and status == 2
  assert f"process {victim} of 2 has ended, and told nothing" in text, text
  shutil.copytree(workdir, tmp_path / "fewer")
  finish(run_by_two(tiny, workdir, *settings))
  assert filecmp.cmp(metrics, whole / "sft" / "metrics.jsonl", shallow=False)
  assert result(workdir)["checkpoint"] == result(whole)["checkpoint"]
  finish(run_by_one(tiny, tmp_path / "fewer", *settings, devices=1))  # another number of processes: to rounding
  rows = [
    [json.loads(line) for line in (root / "sft" / "metrics.jsonl").open()] for root in (whole, tmp_path / "fewer")
  ]
  for there, here in zip(*rows, strict=True):
    np.testing.assert_allclose(list(there.values()), list(here.values()), rtol=1e-4)


@pytest.mark.slow
def test_a_signal_to_one_stops_both_after_the_same_step(tiny, whole, tmp_path):
  workdir = tmp_path / "two"
  shutil.copytree(
    whole, workdir, ignore=shutil.ignore_patterns("sft", "preferences", "reward_model", "ppo", "evaluation")
  )
  processes = run_by_two(tiny, workdir, LEARNING)
  metrics = workdir / "sft" / "metrics.jsonl"
  while not metrics.exists() or metrics.read_bytes().count(b"\n") < 2:
    assert processes[0].poll() is None, ended(processes)
    time.sleep(0.01)
  processes[1].send_signal(signal.SIGTERM)
  found = ended(processes)
  assert [status for status, _ in found] == [128 + signal.SIGTERM] * 2, found
  assert "the same command continues there" in found[0][1]
  finish(run_by_two(tiny, workdir, LEARNING))
  assert filecmp.cmp(metrics, whole / "sft" / "metrics.jsonl", shallow=False)
