"""What counts as done: stages of a moment, whose files, code and results change between two runs."""

import json
import os
import shutil
import sys
import textwrap
from pathlib import Path

import pytest

from rlhf_jax.data import files
from rlhf_jax.pipeline import code, origins
from rlhf_jax.pipeline import run as pipeline
from rlhf_jax.pipeline.inputs import ContentHashes
from rlhf_jax.pipeline.plan import plan
from rlhf_jax.settings import ConfigError
from rlhf_jax.train.checkpoint import last_checkpoint

FILES = '''
"""Copies a file, through a function of the user's."""
import dataclasses
from rlhf_jax.settings import FunctionName, import_function
from rlhf_jax.stage import TextFile

WRITES = ("out.txt",)

@dataclasses.dataclass(frozen=True)
class Config:
  algorithm: str
  file: str
  more: TextFile = ""
  score: FunctionName = ""

def run(config, stage):
  log = stage.root / "log.txt"
  log.write_text((log.read_text() if log.exists() else "") + stage.name + " ")
  text = "".join(path.read_text() for path in sorted(stage.path(".").glob(config.file)) if path.is_file())
  if "{run}" in config.file:
    text = stage.path(config.file).read_text()
  (stage.directory / "out.txt").write_text(text + (str(import_function(config.score)()) if config.score else ""))
  if (stage.root.parent / f"{stage.name}.breaks").exists():
    exec((stage.root.parent / f"{stage.name}.breaks").read_text())
'''

TRAINS = '''
"""Counts steps, with checkpoints of one number."""
import dataclasses
from typing import Annotated
import jax.numpy as jnp
from rlhf_jax.ranges import EVALUATION, NEUTRAL, STEPS
from rlhf_jax.stage import StageName, TextFile
from rlhf_jax.train import Loop, run_steps
from rlhf_jax.types import TrainState

@dataclasses.dataclass(frozen=True)
class Optimizer:
  decay: str
  warmup: float = 0.0

@dataclasses.dataclass(frozen=True)
class Watching:
  file: Annotated[TextFile, EVALUATION] = ""
  every: Annotated[int, EVALUATION] = 0
  samples: Annotated[int, NEUTRAL] = 0

@dataclasses.dataclass(frozen=True)
class Config:
  algorithm: str
  init: StageName
  num_steps: Annotated[int, STEPS]
  optimizer: Optimizer
  checkpoint_every: Annotated[int, NEUTRAL] = 2
  file: str = "data.txt"
  watch: Watching = Watching()
  loop: Loop = Loop()

def run(config, stage):
  def step(state, index):
    if (stage.root.parent / f"{stage.name}.stops_at_{index}").exists():
      raise RuntimeError(f"stopped at {index}")
    return state.replace(params={"w": state.params["w"] + index}), {"loss": 1.0}
  state = TrainState(params={"w": jnp.zeros(2)}, opt_state=(), extra=(), step=jnp.zeros([], jnp.int32))
  every = config.checkpoint_every
  state = run_steps(
    stage, state, step, config.num_steps, identity={"stage": stage.fingerprint}, checkpoint_every=every,
    evaluate=lambda state: {"loss": 1.0}, evaluate_every=config.watch.every, loop=config.loop
  )
  (stage.directory / "weights.txt").write_text(str(state.params["w"]))
'''


@pytest.fixture
def workdir(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "JOB_ID"):
    monkeypatch.delenv(name, raising=False)
  for name, text in {"files.py": FILES, "trains.py": TRAINS, "data.txt": "data 1;"}.items():
    Path(name).write_text(text)
  return tmp_path / "run"


@pytest.fixture
def config(workdir):
  """`first` copies data.txt, `second` what first wrote, `other` nothing of either; `train` counts, `after` reads it."""
  return {
    "seed": 0,
    "stages": ["first", "second", "other"],
    "tokenizer": "",
    "model": dict(num_layers=1, d_model=2, num_heads=1, num_kv_heads=1, d_ff=2, max_length=4),
    "transport": dict(kind="jit", fsdp=1, microbatches=1),
    "first": dict(algorithm="files.py", file="data.txt"),
    "second": dict(algorithm="files.py", file="{run}/first/out.txt"),
    "other": dict(algorithm="files.py", file="other.txt"),
    "train": dict(algorithm="trains.py", init="", num_steps=4, optimizer=dict(decay="constant")),
    "after": dict(algorithm="trains.py", init="train", num_steps=2, optimizer=dict(decay="constant"), file=""),
  }


@pytest.fixture
def training(config):
  return {**config, "stages": ["train", "after"]}


def refused(config, workdir, **arguments):
  """The message that the run is refused with, which it must be before it has written anything."""
  before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
  with pytest.raises(ConfigError) as error:
    pipeline.run(config, workdir, **arguments)
  assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before
  assert "\n" not in str(error.value)
  return str(error.value)


def log(workdir):
  return (workdir / "log.txt").read_text().split()


def record(workdir, stage):
  return json.loads((workdir / stage / "done.json").read_text())


ADVICE = (
  ". Run anew from there with --redo first, which deletes it and what depends on it (second), or keep what is there "
  "with --accept-changes"
)


def test_a_changed_file_of_the_user_is_named_made_anew_or_accepted(config, workdir, capsys):
  pipeline.run(config, workdir)
  Path("data.txt").write_text("data 2;")
  assert refused(config, workdir) == "data.txt has changed since stage 'first' began" + ADVICE
  pipeline.run(config, workdir, accept_changes=True)
  assert log(workdir) == ["first", "second", "other"] and (workdir / "first" / "out.txt").read_text() == "data 1;"
  assert record(workdir, "first")["accepted"] == ["data.txt has changed since stage 'first' began"]
  pipeline.run(config, workdir)  # accepted once and for all
  Path("data.txt").write_text("data 3;")
  pipeline.run(config, workdir, redo=["first"])
  assert log(workdir) == ["first", "second", "other", "first", "second"]  # what depends on it, and nothing else
  assert (workdir / "second" / "out.txt").read_text() == "data 3;" and "accepted" not in record(workdir, "first")


def test_the_files_of_a_pattern_or_directory_and_a_part_of_a_file(config, workdir):
  Path("more").mkdir()
  for name in "ab":
    (Path("more") / f"{name}.jsonl").write_text(name)
  config["first"]["file"] = "more/*.jsonl"
  config["other"]["file"] = "./more"
  config["second"].update(file="data.txt:part", more="marked.txt")
  Path("marked.txt").write_text("a text whose field says what it is")
  pipeline.run(config, workdir)
  assert list(record(workdir, "first")["inputs"]) == ["more/a.jsonl", "more/b.jsonl"]
  assert list(record(workdir, "other")["inputs"]) == ["more/a.jsonl", "more/b.jsonl"]
  assert list(record(workdir, "second")["inputs"]) == ["data.txt", "marked.txt"]
  (Path("more") / "a.jsonl").unlink()
  (Path("more") / "c.jsonl").write_text("c")
  message = refused(config, workdir)
  assert message.startswith("more/a.jsonl is gone and more/c.jsonl is new since stage 'first' began. Run anew")


def test_a_text_that_names_a_directory_above_the_run_is_no_data_set(config, workdir):
  config["other"]["file"] = "../"
  pipeline.run({**config, "stages": ["other"]}, workdir)
  assert record(workdir, "other")["inputs"] == {}


def test_changed_code_of_the_user_is_named(config, workdir, monkeypatch):
  monkeypatch.syspath_prepend("")
  Path("my_package").mkdir()
  for name, text in {
    "my_package/__init__.py": "",
    "my_package/rewards.py": "import json\nfrom . import words\nfrom my_package.deep import depth\nscore = lambda: 1",
    "my_package/words.py": "import rlhf_jax.reduce",
    "my_package/deep.py": "depth = 1",
    "unrelated.py": "",
  }.items():
    Path(name).write_text(text)
  config["first"]["score"] = "my_package.rewards:score"
  pipeline.run(config, workdir)
  own = ["files.py", *(f"my_package/{name}.py" for name in ("__init__", "deep", "rewards", "words"))]
  assert list(record(workdir, "first")["code"]) == own
  assert list(record(workdir, "second")["code"]) == ["files.py"]
  package = ["__init__.py", "ranges.py", "reduce.py", "settings.py", "stage.py"]
  assert list(record(workdir, "first")["package"]) == package
  Path("unrelated.py").write_text("x = 1")
  pipeline.run(config, workdir)
  Path("my_package/deep.py").write_text("depth = 2")
  assert refused(config, workdir) == "my_package/deep.py has changed since stage 'first' began" + ADVICE
  Path("files.py").write_text(FILES + "\n")
  assert refused(config, workdir).startswith("files.py and my_package/deep.py have changed since stage 'first' began")
  for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
    del sys.modules[name]


def test_the_modules_of_the_package_are_those_that_a_stage_imports(tmp_path):
  from tiny_chain import recipe

  steps = {step.stage.name: step for step in plan(recipe("quickstart"), tmp_path)}
  hashes = ContentHashes(tmp_path)
  ppo = code.read_code(steps["ppo"], hashes)
  assert ppo.own == {}
  assert {"algorithms/ppo.py", "train/loop.py", "train/__init__.py", "objectives/policy.py"} <= set(ppo.package)
  assert "world/gold.py" in ppo.package  # by the function that monitors it
  assert not [name for name in ppo.package if name.startswith(("pipeline/", "algorithms/sft", "cli/"))]
  assert "algorithms/ppo.py" not in code.read_code(steps["world"], hashes).package


def changed_package(monkeypatch, file="train/loop.py"):
  """The package as if one of its files had another text."""
  real = code.read_code

  def read(step, hashes):
    found = real(step, hashes)
    return found._replace(package={name: "0" if name == file else value for name, value in found.package.items()})

  monkeypatch.setattr(origins, "read_code", read)


def test_a_changed_package_leaves_what_is_done_and_stops_what_is_half_trained(training, workdir, monkeypatch, capsys):
  pipeline.run({**training, "stages": ["train"]}, workdir)
  Path("after.stops_at_1").touch()
  training["after"]["checkpoint_every"] = 1
  with pytest.raises(RuntimeError, match="stopped at 1"):
    pipeline.run(training, workdir)
  changed_package(monkeypatch)
  Path("after.stops_at_1").unlink()
  message = refused(training, workdir)
  assert message.startswith("rlhf_jax has changed since stage 'after' began (train/loop.py). Run anew from there with")
  pipeline.run(training, workdir, accept_changes=True)
  done_then = record(workdir, "after")
  assert done_then["step"] == 2 and done_then["package"]["train/loop.py"] == "0"
  assert done_then["accepted"] == ["rlhf_jax has changed since stage 'after' began (train/loop.py)"]
  told = "rlhf_jax has changed (train/loop.py) since train began: what is done stays so"
  assert told in capsys.readouterr().out.replace("\n", " ")
  assert record(workdir, "train")["package"]["train/loop.py"] != "0"  # what it was made by


def test_a_half_trained_stage_goes_on_from_the_same_files_only(training, workdir):
  Path("train.stops_at_3").touch()
  with pytest.raises(RuntimeError):
    pipeline.run(training, workdir)
  assert not (workdir / "train" / "done.json").exists()
  began = json.loads((workdir / "train" / "started.json").read_text())
  assert list(began["inputs"]) == ["data.txt"] and "jax" in began["environment"]["versions"]
  Path("train.stops_at_3").unlink()
  Path("data.txt").write_text("data 2;")
  assert refused(training, workdir).startswith(
    "data.txt has changed since stage 'train' began. Run anew from there with"
  )
  training["train"]["num_steps"] = 3
  training["train"]["optimizer"]["decay"] = "linear"
  assert "stage 'train' in" in refused(training, workdir) and "was made with another config" in refused(
    training, workdir
  )
  training["train"].update(num_steps=4, optimizer=dict(decay="constant"))
  Path("data.txt").write_text("data 1;")  # as it was: contents count, not times
  pipeline.run(training, workdir)
  found = record(workdir, "train")
  assert found["inputs"] == began["inputs"] and (found["step"], found["checkpoint"]) == last_checkpoint(
    workdir / "train" / "checkpoints"
  )
  assert not (workdir / "train" / "started.json").exists()


def test_a_stage_that_left_nothing_begins_anew_whatever_has_changed(training, workdir):
  Path("train.stops_at_1").touch()  # before its first checkpoint
  with pytest.raises(RuntimeError):
    pipeline.run(training, workdir)
  Path("train.stops_at_1").unlink()
  Path("data.txt").write_text("data 2;")
  training["train"]["optimizer"]["decay"] = "linear"
  pipeline.run(training, workdir)
  assert record(workdir, "train")["step"] == 4


def test_files_left_without_a_record_are_not_taken_for_anything(config, workdir):
  pipeline.run(config, workdir)
  (workdir / "first" / "done.json").unlink()
  message = refused(config, workdir)
  assert "holds files of a stage that was begun, and nothing says from what: --redo first deletes it" in message
  pipeline.run(config, workdir, redo=["first"])
  assert log(workdir) == ["first", "second", "other", "first", "second"]


def test_a_file_that_a_stage_wrote_may_not_change_under_those_that_read_it(config, workdir):
  pipeline.run(config, workdir)
  (workdir / "first" / "out.txt").write_text("by hand")
  assert refused(config, workdir).startswith("first/out.txt has changed since stage 'first' ended. Run anew from there")
  pipeline.run(config, workdir, accept_changes=True)
  assert record(workdir, "second")["accepted"] == ["first/out.txt has changed since stage 'second' began"]
  pipeline.run(config, workdir)
  (workdir / "first" / "out.txt").unlink()
  assert refused(config, workdir).startswith("first/out.txt is gone since stage 'first' ended")


def test_deleting_a_directory_makes_what_depends_on_it_anew(config, workdir, capsys):
  pipeline.run(config, workdir)
  shutil.rmtree(workdir / "first")
  pipeline.run(config, workdir)
  assert log(workdir) == ["first", "second", "other", "first", "second"]
  told = "second: deleted, since a stage that it was made from is not there any more"
  assert told in capsys.readouterr().out.replace("\n", " ")


def test_a_stage_that_is_new_upstream_deletes_nothing(config, workdir):
  """What was made without it is refused as made with another config."""
  pipeline.run(config, workdir)
  config["stages"] = ["new", *config["stages"]]
  config["new"] = config["first"]
  config["second"]["file"] = "{run}/new/out.txt"
  assert "second.file: '{run}/first/out.txt' then, '{run}/new/out.txt' now" in refused(config, workdir)


def test_more_steps_go_on_where_the_schedule_allows_it(training, workdir, capsys):
  pipeline.run({**training, "stages": ["train"]}, workdir)
  training["train"].update(num_steps=6, checkpoint_every=3)
  pipeline.run({**training, "stages": ["train"]}, workdir)
  assert record(workdir, "train")["step"] == 6 and "train: goes on from 4 to 6 steps" in capsys.readouterr().out
  assert (workdir / "train" / "weights.txt").read_text() == "[15. 15.]"
  pipeline.run(training, workdir)
  training["train"]["num_steps"] = 8
  assert refused(training, workdir) == (
    "stage 'train' is to go on from 6 to 8 steps, and after read from it: make them anew with --redo after, or keep "
    "them with --accept-changes"
  )
  pipeline.run(training, workdir, redo=["after"])
  assert (record(workdir, "train")["step"], record(workdir, "after")["upstream"]["train"]["step"]) == (8, 8)
  training["train"]["num_steps"] = 10
  pipeline.run(training, workdir, accept_changes=True)
  accepted = "the result of stage 'train' has changed since stage 'after' began (step 8 then, 10 now)"
  assert record(workdir, "after")["accepted"] == [accepted]
  training["train"]["num_steps"] = 5
  assert "train.num_steps: 10 then, 5 now" in refused(training, workdir)


@pytest.mark.parametrize("optimizer", [dict(decay="linear"), dict(decay="constant", warmup=0.1)])
def test_more_steps_are_refused_where_the_schedule_depends_on_them(training, workdir, optimizer):
  training["train"]["optimizer"] = optimizer
  pipeline.run(training, workdir)
  training["train"]["num_steps"] = 6
  message = refused(training, workdir)
  assert "(train.num_steps: 4 then, 6 now, and more steps go on only where optimizer.decay is 'constant'" in message


def test_what_cannot_change_a_result_may_change(training, workdir, capsys):
  pipeline.run(training, workdir)
  capsys.readouterr()
  training["train"]["checkpoint_every"] = 1
  training["transport"] = dict(kind="pmap", fsdp=1, microbatches=2)
  pipeline.run(training, workdir)
  assert capsys.readouterr().out.count("done already") == 2


def test_evaluation_counts_only_where_it_chooses_the_result(training, workdir, capsys):
  for loop in ({"keep": 3}, {"keep_best": "eval/loss"}):
    shutil.rmtree(workdir, ignore_errors=True)
    training["train"].pop("watch", None)
    pipeline.run(training, workdir)
    Path("other.txt").write_text("held out")
    training["train"] |= {"loop": loop, "watch": {"file": "other.txt", "every": 1, "samples": 3}}
    if "keep" in loop:
      capsys.readouterr()
      for text in ("held out", "changed"):
        Path("other.txt").write_text(text)
        pipeline.run(training, workdir)
        assert capsys.readouterr().out.count("done already") == 2
    else:
      pipeline.run(training, workdir, redo=["train"])
      training["train"]["watch"] = {"file": "other.txt", "every": 2, "samples": 2}
      assert "(train.watch.every: 1 then, 2 now)" in refused(training, workdir)
      training["train"]["watch"]["every"] = 1
      pipeline.run(training, workdir)
      Path("other.txt").write_text("changed again")
      assert "other.txt has changed since stage 'train' began" in refused(training, workdir)


def damage(directory):
  """Turns a byte of every array file of a checkpoint round."""
  for path in directory.rglob("*.safetensors"):
    path.write_bytes(bytes(byte ^ 255 for byte in path.read_bytes()))


@pytest.mark.parametrize("harm", [damage, shutil.rmtree])
def test_a_finished_stage_whose_last_checkpoint_does_not_verify_trains_on(training, workdir, capsys, harm):
  pipeline.run(training, workdir)
  before = record(workdir, "train"), record(workdir, "after")
  harm(workdir / "train" / "checkpoints" / "4")
  capsys.readouterr()
  pipeline.run(training, workdir)
  out = capsys.readouterr().out.replace("\n", " ")
  assert "it trains on from the newest that is whole" in out and "after: done already" in out
  now = record(workdir, "train"), record(workdir, "after")
  assert [(r["step"], r["checkpoint"]) for r in now] == [(r["step"], r["checkpoint"]) for r in before]
  assert (workdir / "train" / "weights.txt").read_text() == "[6. 6.]"


def legacy(workdir, config):
  """Turns the records of a run into those of version 0.2, which had a fingerprint and no more."""
  for step in plan(config, workdir):
    old = {"fingerprint": step.first_fingerprint, "seconds": 1.0, "command": ""}
    (step.stage.directory / "done.json").write_text(json.dumps(old))


def test_stages_of_earlier_versions_stay_done(config, workdir, capsys):
  pipeline.run(config, workdir)
  legacy(workdir, config)
  Path("data.txt").write_text("data 2;")
  capsys.readouterr()
  pipeline.run(config, workdir)
  out = capsys.readouterr().out
  told = "first, second and other: done by an earlier version, which recorded no files to compare"
  assert out.replace("\n", " ").count(told) == 1 and out.count("done already") == 3
  config["first"]["file"] = "other.txt"
  assert "first.file: 'data.txt' then, 'other.txt' now" in refused(config, workdir)


def test_a_stage_that_an_earlier_version_has_begun_is_named(training, workdir):
  """Version 0.2 wrote config.json and checkpoints, and a record only at the end."""
  Path("train.stops_at_3").touch()
  with pytest.raises(RuntimeError):
    pipeline.run(training, workdir)
  (workdir / "train" / "started.json").unlink()
  assert refused(training, workdir) == (
    f"stage 'train' in {workdir} was begun by version 0.2 or earlier, which did not record from what: finish it with "
    "that version, or --redo train deletes it and begins anew"
  )
  Path("train.stops_at_3").unlink()
  pipeline.run(training, workdir, redo=["train"])
  assert (workdir / "train" / "weights.txt").read_text() == "[6. 6.]"


@pytest.mark.parametrize("text", ["", '{"finger', "[]", "{}"])
def test_a_record_that_was_cut_is_named_and_made_anew(config, workdir, text):
  pipeline.run(config, workdir)
  (workdir / "first" / "done.json").write_text(text)
  message = refused(config, workdir)
  assert str(workdir / "first" / "done.json") in message and "make stage 'first' anew with --redo first" in message
  pipeline.run(config, workdir, redo=["first"])
  assert log(workdir) == ["first", "second", "other", "first", "second"]


def test_redo_of_nothing_is_refused(config, workdir):
  pipeline.run(config, workdir)
  assert refused(config, workdir, redo=["frist"]).endswith("config.stages has no such stage. Did you mean 'first'?")


def test_what_cannot_be_made_anew_is_not_deleted(config, workdir):
  config["first"]["score"] = "score.py:score"
  Path("score.py").write_text("def score():\n  return 1\n")
  pipeline.run(config, workdir)
  Path("score.py").write_text("def scores():\n  return 1\n")
  assert "config.first.score: score.py has no function 'score'" in refused(config, workdir, redo=["first"])
  assert "first/config.json is not valid JSON" in cut(config, workdir, "first/config.json")


def cut(config, workdir, file):
  """The refusal of a run with another seed, one of whose files was cut short."""
  (workdir / file).write_text("{")
  message = refused({**config, "seed": 1}, workdir)
  assert message.endswith("or make stage 'first' anew with --redo first")
  return message


def test_a_job_that_is_queued_again_deletes_once(training, workdir, monkeypatch, capsys):
  monkeypatch.setenv("SLURM_JOB_ID", "5")
  pipeline.run(training, workdir)
  Path("train.stops_at_3").touch()
  for _ in range(2):
    with pytest.raises(RuntimeError):
      pipeline.run(training, workdir, redo=["train"])
  assert "train: made anew by this job before; it goes on" in capsys.readouterr().out
  assert last_checkpoint(workdir / "train" / "checkpoints")[0] == 2
  monkeypatch.setenv("SLURM_JOB_ID", "6")
  Path("train.stops_at_3").rename("train.stops_at_1")
  with pytest.raises(RuntimeError, match="stopped at 1"):
    pipeline.run(training, workdir, redo=["train"])


def breaks(name, text):
  Path(f"{name}.breaks").write_text(textwrap.dedent(text))


def test_data_that_changes_while_a_stage_reads_it_is_named(config, workdir):
  breaks("first", "open('data.txt', 'w').write('data 2;')")
  with pytest.raises(ConfigError, match="^data.txt has changed since stage 'first' began. Run anew"):
    pipeline.run(config, workdir)
  assert not (workdir / "first" / "done.json").exists()


def test_code_that_changes_before_its_stage_begins_is_named(config, workdir):
  """A stage's module was imported when the run began; what would run is not what would be recorded."""
  breaks("first", "open('files.py', 'a').write('# changed')")
  with pytest.raises(
    ConfigError, match="^files.py has changed since this run began, before stage 'second': start the sa"
  ):
    pipeline.run({**config, "stages": ["first", "second"]}, workdir)
  assert log(workdir) == ["first"]


def test_a_process_that_is_killed_as_it_marks_a_stage_done_leaves_it_done(config, workdir, capsys):
  pipeline.run(config, workdir)
  (workdir / "first" / "started.json").write_text(json.dumps({"fingerprint": "of then"}))
  capsys.readouterr()
  pipeline.run(config, workdir)
  assert "first: done already" in capsys.readouterr().out and not (workdir / "first" / "started.json").exists()


def test_sys_exit_in_a_stage_is_a_failure(config, workdir):
  breaks("second", "import sys; sys.exit(0)")
  with pytest.raises(pipeline.StageError, match=r"^stage 'second' called sys.exit\(0\) and is not done"):
    pipeline.run(config, workdir)
  assert (workdir / "first" / "done.json").exists() and not (workdir / "second" / "done.json").exists()


@pytest.mark.parametrize(
  "error, message",
  [
    ("OSError(28, 'No space left on device', '/x/y')", "stage 'first': /x/y: No space left on device: make room there"),
    ("OSError(30, 'Read-only file system')", "stage 'first': {stage}: Read-only file system: make it writable"),
    (
      "OSError(5, 'Input/output error')",
      "stage 'first': {stage}: Input/output error: repair that, and the same command",
    ),
  ],
)
def test_an_error_of_the_file_system_is_one_line(config, workdir, error, message):
  breaks("first", f"raise {error}")
  with pytest.raises(pipeline.StageError) as caught:
    pipeline.run(config, workdir)
  assert str(caught.value).startswith(message.format(stage=workdir / "first")) and "\n" not in str(caught.value)


def test_an_error_of_the_file_system_before_a_stage_is_one_line(config, workdir, monkeypatch):
  def full(path, data):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(files, "write_bytes", full)
  with pytest.raises(pipeline.StageError) as caught:
    pipeline.run(config, workdir)
  assert str(caught.value) == (
    f"the run: {workdir}: No space left on device: make room there, and the same command goes on from what is saved"
  )


def test_a_file_that_no_stage_reads_and_that_has_changed_is_named(training, workdir, capsys):
  """And the stage stays done."""
  pipeline.run(training, workdir)
  metrics = workdir / "train" / "metrics.jsonl"
  whole = metrics.read_text()
  metrics.write_text(whole.replace("1.0", "2.0", 1))
  (workdir / "train" / "weights.txt").unlink()
  capsys.readouterr()
  pipeline.run(training, workdir)
  assert (
    "train/metrics.jsonl has changed and train/weights.txt is gone since the stage ended" in capsys.readouterr().out
  )
  pipeline.run(training, workdir, accept_changes=True)
  capsys.readouterr()
  pipeline.run(training, workdir)
  told = capsys.readouterr().out
  assert "since the stage ended" not in told and told.count("done already") == 2


def test_hashes_are_worked_out_once(tmp_path, monkeypatch):
  path = tmp_path / "data.txt"
  path.write_text("a")
  old = ContentHashes(tmp_path)
  first = old.of(path)
  old.save()
  assert not (tmp_path / "content_hashes.json").exists()  # written a moment ago, it may change within the same tick
  monkeypatch.setattr("rlhf_jax.pipeline.inputs._SETTLED_SECONDS", -5.0)
  assert old.of(path) == first
  old.save()
  monkeypatch.setattr("hashlib.file_digest", None)
  assert ContentHashes(tmp_path).of(path) == first
  monkeypatch.undo()
  times = path.stat()
  path.write_text("b")
  os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as cp -p and tar do
  assert ContentHashes(tmp_path).of(path) != first
  (tmp_path / "content_hashes.json").write_text("{")
  assert ContentHashes(tmp_path).of(path) != first
