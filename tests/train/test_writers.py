"""Writers: the same metrics go to each, libraries are asked for before anything runs, and a resumed stage goes on."""

import errno
import importlib
import os
import struct
import sys
import threading
import types

import pytest
from tensorboardX.proto import event_pb2

from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.train import writers
from rlhf_jax.train.log import StageLog
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.train.writers import MlflowWriter, TensorBoardWriter, WandbWriter, check_writers


def make_stage(root, *writers):
  return Stage("toy", root, 3, "", Model(1, 2, 1, 1, 2, 4), Transport("jit", 1, 1), "print", writers)


def events(directory):
  """(tag, step, scalar or text) of the values in a directory of TensorBoard events."""
  for event in records(directory):
    for value in event.summary.value:
      yield value.tag, event.step, value.tensor.string_val[0] if value.tensor.string_val else value.simple_value


def records(directory):
  for path in directory.iterdir():
    data = path.read_bytes()
    while data:
      (size,) = struct.unpack("<Q", data[:8])  # then a checksum, the record, and its checksum
      yield event_pb2.Event.FromString(data[12 : 12 + size])
      data = data[16 + size :]


def test_tensorboard_has_scalars_texts_and_speed(tmp_path):
  log = StageLog(make_stage(tmp_path, "tensorboard"), 0)
  log.write(1, {"loss": 2.0})
  log.write_speed(1, {"seconds": 0.5})
  log.text(1, "samples", "Hello")
  log.close()
  assert list(events(tmp_path / "toy" / "tensorboard")) == [
    ("loss", 1, 2.0),
    ("speed/seconds", 1, 0.5),
    ("samples/text_summary", 1, b"Hello"),
  ]


def test_tensorboard_has_one_event_for_a_step(tmp_path):
  """An event for each metric took a millisecond of every step."""
  log = StageLog(make_stage(tmp_path, "tensorboard"), 0)
  for step in (1, 2):
    log.write(step, {"loss": 2.0 * step, "reward/a b": float("nan"), **{f"m{i}": 1.0 for i in range(30)}})
  log.close()
  found = [event for event in records(tmp_path / "toy" / "tensorboard") if event.summary.value]
  assert [(event.step, len(event.summary.value)) for event in found] == [(1, 32), (2, 32)]
  assert [value.tag for value in found[0].summary.value][:2] == ["loss", "reward/a_b"]


def test_an_error_of_the_disk_is_that_of_the_call_that_met_it(tmp_path, monkeypatch):
  """No thread ends with a traceback, and nobody waits for it."""
  monkeypatch.setattr(writers, "_FLUSH_SECONDS", -1.0)
  writer = TensorBoardWriter(make_stage(tmp_path), 0)
  before = threading.active_count()

  def full(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  for step in range(1, 40):
    with pytest.raises(OSError, match="No space left on device: '.*tensorboard'"):
      writer.write(step, {"loss": 2.0})
  assert threading.active_count() == before
  monkeypatch.undo()
  writer.close()


def test_a_viewer_hides_the_steps_that_are_taken_again(tmp_path):
  TensorBoardWriter(make_stage(tmp_path), 4).close()
  (path,) = (tmp_path / "toy" / "tensorboard").iterdir()
  data, found = path.read_bytes(), []
  while data:
    (size,) = struct.unpack("<Q", data[:8])
    found.append(event_pb2.Event.FromString(data[12 : 12 + size]))
    data = data[16 + size :]
  assert found[0].file_version == "brain.Event:2"
  assert (found[1].step, found[1].session_log.status) == (5, event_pb2.SessionLog.START)


def test_without_writers_there_are_the_files_of_rows_alone(tmp_path):
  log = StageLog(make_stage(tmp_path), 0)
  log.write(1, {"loss": 2.0})
  log.write_speed(1, {"seconds": 0.5})
  log.text(1, "samples", "Hello")
  log.close()
  assert sorted(path.name for path in (tmp_path / "toy").iterdir()) == ["metrics.jsonl", "speed.jsonl"]
  assert read_metrics(tmp_path / "toy" / "metrics.jsonl") == [{"step": 1, "loss": 2.0}]


class FakeRun:
  """Remembers what it is called with."""

  def __init__(self, **settings):
    self.settings, self.logged, self.axes, self.finished = settings, [], [], False

  def define_metric(self, name, step_metric):
    self.axes.append((name, step_metric))

  def log(self, values):
    self.logged.append(values)

  def finish(self):
    self.finished = True


def test_wandb_gets_each_step_on_an_axis_of_its_own_and_a_resumed_stage_has_the_same_run(tmp_path, monkeypatch):
  runs = []
  library = types.ModuleType("wandb")
  library.init = lambda **settings: runs.append(FakeRun(**settings)) or runs[-1]
  library.Html = lambda text: text
  monkeypatch.setitem(sys.modules, "wandb", library)
  monkeypatch.delenv("WANDB_PROJECT", raising=False)
  for start in (0, 4):
    writer = WandbWriter(make_stage(tmp_path), start)
    writer.write(5, {"loss": 1.0})
    writer.text(5, "samples", "a < b")
    writer.close()
  first, second = runs
  assert first.settings == second.settings
  assert first.settings["project"] == "rlhf_jax" and first.settings["resume"] == "allow"
  assert first.axes == [("*", "step")] and first.finished
  assert first.logged == [{"step": 5, "loss": 1.0}, {"step": 5, "samples": "<pre>a &lt; b</pre>"}]


def test_wandb_offline(tmp_path, monkeypatch):
  pytest.importorskip("wandb")
  monkeypatch.setenv("WANDB_MODE", "offline")
  log = StageLog(make_stage(tmp_path, "wandb"), 0)
  log.write(1, {"loss": 2.0})
  log.text(1, "samples", "Hello")
  log.close()
  assert list((tmp_path / "toy" / "wandb").glob("offline-run-*/*.wandb"))


def test_mlflow_offline(tmp_path, monkeypatch):
  mlflow = pytest.importorskip("mlflow")
  pytest.importorskip("sqlalchemy")
  monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
  for step in (1, 2):
    writer = MlflowWriter(make_stage(tmp_path), step - 1)
    writer.write(step, {"reward/proxy": float(step)})
    writer.text(step, "samples", f"Hello {step}")
    writer.close()
  client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
  experiment = client.get_experiment_by_name(f"rlhf_jax/{tmp_path.name}")
  (run,) = client.search_runs([experiment.experiment_id])
  history = client.get_metric_history(run.info.run_id, "reward/proxy")
  assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 2.0)]
  assert run.info.status == "FINISHED"
  assert [file.path for file in client.list_artifacts(run.info.run_id, "samples")] == ["samples/1.md", "samples/2.md"]


def test_a_mistake_in_the_config_is_named(monkeypatch):
  assert check_writers(["tensorboard"]) == ("tensorboard",) and check_writers(()) == ()
  with pytest.raises(ConfigError, match="'tensorbord'.*Did you mean 'tensorboard'"):
    check_writers(("tensorbord",))
  with pytest.raises(ConfigError, match="must be a tuple of names"):
    check_writers("tensorboard")
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(ConfigError, match=r"needs the library wandb: pip install 'rlhf_jax\[wandb\]'"):
    check_writers(("wandb",))


def test_tensorboard_does_not_load_torch(monkeypatch):
  """tensorboardX imports it wherever it is installed, which takes seconds of every run."""
  for name in [name for name in sys.modules if name.split(".")[0] in ("tensorboardX", "torch")]:
    monkeypatch.delitem(sys.modules, name)
  seen = []
  finder = types.SimpleNamespace(find_spec=lambda name, path=None, target=None: seen.append(name))
  monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
  with writers._without("torch"):
    importlib.import_module("tensorboardX.event_file_writer")
    with pytest.raises(ImportError):
      importlib.import_module("torch")
  assert "tensorboardX.writer" in seen and "torch" not in seen and "torch" not in sys.modules
