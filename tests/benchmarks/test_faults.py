"""The injection of faults and the judgement of outcomes; and, slow, a sample of the faults themselves."""

import errno
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_chain import ROOT

from rlhf_jax.train.checkpoint import open_checkpoints, save
from rlhf_jax.types import TrainState

sys.path.insert(0, str(ROOT / "benchmarks"))
from fault_injection import attempts, campaign, injections, library, recipe, reference, results  # noqa: E402
from fault_injection.attempts import Attempt, Place  # noqa: E402
from fault_injection.outcomes import CRASH, IDENTICAL, MEANING, NAMED, OUTCOMES, REPAIRED, SILENT, fault_of, judge  # noqa: E402
from fault_injection.place import learner  # noqa: E402

WRITER = """
import os, sys
from fault_injection import library
if len(sys.argv) > 1: library.arm(sys.argv[1])
def put(name, text):
  with open(name, "wb", buffering=0) as file:
    written = file.write(text)
    while written < len(text): written += file.write(text[written:])
    os.fsync(file.fileno())
for number in range(3):
  try:
    put(f"inside/{number}", b"0123456789")
    os.rename(f"inside/{number}", f"inside/{number}.done")
    print(f"{number} written", flush=True)
  except OSError as error:
    print(f"{number} {error.errno}", flush=True)
put("outside", b"0123456789")
print(open("inside/0.done").read() if os.path.exists("inside/0.done") else "", flush=True)
"""


def test_a_child_that_is_killed_before_it_opens_a_file_has_said_nothing(tmp_path, monkeypatch):
  def sleeping(*_):
    return subprocess.Popen(["sleep", "60"], start_new_session=True).pid

  monkeypatch.setattr(attempts, "in_child", sleeping)
  running = attempts.Running(Place(tmp_path), "sft")
  running.send(signal.SIGTERM)
  found = running.wait()
  assert (found.status, found.stdout, found.stderr) == (-signal.SIGTERM, "", "") and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  found = library.build(tmp_path_factory.mktemp("library"))
  if found is None:
    pytest.skip("no C compiler, or no Linux")
  return found


@pytest.fixture
def write(built, tmp_path):
  """Writes three files in tmp_path/inside with a fault; returns (status, lines printed, what was counted)."""
  (tmp_path / "inside").mkdir()

  def run(**settings):
    control = library.make_control(tmp_path / "control", tmp_path / "inside", **settings)
    environment = {**os.environ, "LD_PRELOAD": str(built), "PYTHONPATH": str(ROOT / "benchmarks")}
    command = [sys.executable, "-c", WRITER, str(tmp_path / "control")]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    return ended.returncode, ended.stdout.split("\n"), control

  return run


def kind(name):
  return library.CLASSES.index(name)


def test_the_structure_in_python_is_that_in_c():
  source = library.SOURCE.read_text()
  classes = re.search(r"enum class \{ ([A-Z, ]+), CLASSES \}", source)[1].lower().split(", ")
  assert tuple(classes) == library.CLASSES
  fields = re.findall(r"^  (?:char|int) (\w+)", re.search(r"struct control \{(.*?)\n\};", source, re.DOTALL)[1], re.M)
  assert [name.rstrip("_") for name, _ in library.Control._fields_] == fields


def test_operations_inside_the_directory_are_counted(write):
  status, lines, control = write()
  assert (status, lines[:3]) == (0, ["0 written", "1 written", "2 written"]) and not control.struck
  counts = control.counts()
  assert {counts[name] for name in ("create", "write", "fsync", "rename")} == {3} and counts["open"] == 1
  assert counts["mkdir"] == counts["remove"] == 0 and counts["read"] >= 1


def test_a_full_disk_takes_half_a_write_and_stays_full(write, tmp_path):
  status, lines, control = write(class_=kind("write"), at=2, error=errno.ENOSPC, stays=1)
  assert (status, lines[:3]) == (0, ["0 written", f"1 {errno.ENOSPC}", f"2 {errno.ENOSPC}"])
  assert (tmp_path / "inside" / "1").read_bytes() == b"01234"
  assert (tmp_path / "outside").read_bytes() == b"0123456789" and control.path.endswith(b"inside/1")


@pytest.mark.parametrize("name", ["create", "write", "fsync", "rename"])
def test_an_input_output_error_comes_once(write, name):
  status, lines, control = write(class_=kind(name), at=2, error=errno.EIO)
  assert (status, lines[:3]) == (0, ["0 written", f"1 {errno.EIO}", "2 written"])
  assert control.struck


def test_reading_may_fail(write):
  assert write(class_=kind("read"), at=1, error=errno.EIO)[0] == 1


@pytest.mark.parametrize(
  ("name", "after", "left"), [("write", 0, b"01234"), ("write", 1, b"0123456789"), ("fsync", 0, b"0123456789")]
)
def test_a_process_is_killed_amid_an_operation_or_after_it(write, tmp_path, name, after, left):
  status, lines, _ = write(class_=kind(name), at=2, after=after)
  assert (status, lines) == (-signal.SIGKILL, ["0 written", ""])
  assert (tmp_path / "inside" / "1").read_bytes() == left


@pytest.mark.parametrize("after", [0, 1])
def test_a_process_is_killed_before_or_after_a_rename(write, tmp_path, after):
  assert write(class_=kind("rename"), at=1, after=after)[0] == -signal.SIGKILL
  assert (tmp_path / "inside" / "0.done").exists() == bool(after)


def test_the_plan_has_enough_of_each_kind_for_each_stage_that_it_applies_to():
  trials = campaign.plan(tuple(recipe.UPSTREAM), tuple(injections.KINDS), 20)
  cells = {(trial.stage, trial.kind) for trial in trials}
  assert len(trials) == len(set(trials)) == 20 * len(cells) >= 700
  assert {"kill", "full disk", "I/O error", "signal", "damage", "two processes"} <= {
    kind for kind in injections.KINDS if all((stage, kind) in cells for stage in recipe.UPSTREAM)
  }
  assert ("world", "changed input") not in cells and ("import_model", "NaN") not in cells
  assert {(trial.stage, trial.kind) for trial in trials[: len(cells)]} == cells  # every one before a second round


def test_a_stage_comes_after_those_it_needs():
  assert recipe.needed("ppo") == ("world", "vocabulary", "pretrain", "sft", "preferences", "reward_model", "ppo")
  for stage in recipe.UPSTREAM:
    assert recipe.get_config(stage).stages == recipe.needed(stage)


def attempt(status=0, stderr="", stdout="", seconds=1.0):
  return Attempt(status, stdout, stderr, seconds, seconds)


def test_how_a_run_may_end(tmp_path):
  def fault(status, stderr="", allowed=()):
    return fault_of(attempt(status, stderr), ("world", "ppo"), tmp_path, allowed)

  assert fault(0) == fault(-9, allowed=(-9,)) == ""
  assert fault(2, "rlhf-jax: stage ppo: the disk is full. Make room") == ""
  (tmp_path / "user").mkdir()
  (tmp_path / "user" / "x.json").touch()
  assert fault(2, f"rlhf-jax: {tmp_path}/user/x.json is cut: delete it") == ""
  assert fault(2, "rlhf-jax: user/x.json: has no rows") == fault(2, "rlhf-jax: row 3 of user/x.json.") == ""
  assert fault(2, "rlhf-jax: user/y.json: has no rows").startswith("names neither")
  assert fault(2, "rlhf-jax: something went wrong").startswith("names neither")
  assert fault(2, f"rlhf-jax: [Errno 28] No space left on device: '{tmp_path}/run/ppo/x'").startswith("says neither")
  assert fault(2) == "failed without a word"
  assert fault(2, "ppo\n" * 20).startswith("20 lines")
  assert fault(-11) == "died of signal 11" and fault(-9) == "died of signal 9"
  assert fault(None).startswith("hung")
  text = "Traceback (most recent call last):\n  File x\nKeyError: 'step'\n"
  assert fault(1, text) == fault(0, text) == "traceback: KeyError: 'step'"


def test_outcomes():
  done, stopped = attempt(), attempt(2, "rlhf-jax: ppo: damaged")
  assert judge([done], [], [""])[0] == IDENTICAL
  assert judge([stopped, done], [], ["", ""])[0] == IDENTICAL
  assert judge([done, stopped], [], ["", ""]) == (NAMED, "rlhf-jax: ppo: damaged")
  assert judge([done], ["metrics.jsonl"], [""])[0] == SILENT
  assert (
    judge([attempt(stdout="metrics.jsonl: row 3 is lost")], ["metrics.jsonl"], [""], "metrics.jsonl")[0] == REPAIRED
  )
  assert judge([attempt(stdout="metrics.jsonl")], ["metrics.jsonl", "checkpoint"], [""], "metrics.jsonl")[0] == SILENT
  assert judge([done], ["metrics.jsonl"], [""], "metrics.jsonl")[0] == SILENT  # nothing was said of the file
  assert judge([stopped, done], [], ["traceback: KeyError", ""]) == (CRASH, "traceback: KeyError")
  assert set(MEANING) == set(OUTCOMES)


def test_results_differ_in_what_counts_alone(tmp_path):
  one, two = tmp_path / "one", tmp_path / "two"
  for directory, second in ((one, 1.0), (two, 2.0)):
    (directory / "tensorboard").mkdir(parents=True)
    (directory / "tensorboard" / "events").write_text(str(second))
    (directory / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 0.5}) + "\n")
    (directory / "speed.jsonl").write_text(json.dumps({"step": 1, "seconds": second}) + "\n")
    (directory / "done.json").write_text(json.dumps({"seconds": second}))
    with sqlite3.connect(directory / "feedback.db") as store:
      store.execute("CREATE TABLE judgements (row TEXT)")
      store.execute("INSERT INTO judgements VALUES (?)", [f"better, 2026-01-01T00:00:0{second:.0f}.000Z"])
    store.close()
  same = results.digest(one)
  assert results.differences(results.digest(two), same) == []
  (two / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 0.25}) + "\n")
  assert results.differences(results.digest(two), same) == ["metrics.jsonl"]
  shutil.copy(one / "metrics.jsonl", two)
  (two / "done.json").write_text('{"seconds"')
  with sqlite3.connect(two / "feedback.db") as store:
    store.execute("UPDATE judgements SET row = 'worse'")
  store.close()
  (two / "speed.jsonl").write_text('{"step": 2')
  assert results.differences(results.digest(two), same) == ["done.json", "feedback.db", "speed.jsonl"]
  (two / "feedback.db").unlink()
  assert "feedback.db" in results.differences(results.digest(two), same)


def test_the_digest_of_a_checkpoint_is_of_all_its_arrays(tmp_path):
  def written(name, weight=1.0, moment=2.0):
    state = TrainState(jnp.ones((), jnp.int32), {"w": jnp.full(3, weight)}, {"m": jnp.full(3, moment)}, ())
    with open_checkpoints(tmp_path / name / "checkpoints") as checkpoints:
      save(checkpoints, state, {})
    return digest_of(name)

  def digest_of(name):
    results._read_checkpoint(tmp_path / name / "checkpoints", tmp_path / "digest")
    return (tmp_path / "digest").read_text()

  first = written("first")
  assert re.fullmatch("[0-9a-f]{16}", first) and written("same") == first
  assert len({first, written("weight", weight=3.0), written("moment", moment=3.0)}) == 3
  (tmp_path / "same" / "done.json").write_text('{"step": 2}')
  assert "names another step" in digest_of("same")
  part = tmp_path / "first" / "checkpoints" / "1" / "rest" / "0.safetensors"
  part.write_bytes(part.read_bytes()[:-9])
  assert digest_of("first").startswith("DamagedError")


def test_every_change_of_an_input_changes_it(tmp_path):
  source = ROOT / "benchmarks" / "fault_injection" / "place"
  (tmp_path / "user").mkdir()
  (tmp_path / "user" / "rows.jsonl").write_text("1\n2\n3\n4\n")
  for name in reference.FILES:
    shutil.copy(source / name, tmp_path)
    injections._edit(Place(tmp_path), name, 0)
    assert (tmp_path / name).read_text() != (source / name).read_text()
  injections._edit(Place(tmp_path), "rows.jsonl", 1)
  assert (tmp_path / "user" / "rows.jsonl").read_text() == "4\n3\n2\n1\n"
  injections._edit(Place(tmp_path), "rows.jsonl", 0)
  assert (tmp_path / "user" / "rows.jsonl").read_text() == "4\n3\n"
  assert set(injections.CODE.values()) == set(reference.FILES)


def test_a_broken_gradient_leaves_the_loss():
  loss = learner.with_broken_gradient(lambda params, batch, weights: (jnp.sum(weights * params["w"] ** 2), {}))
  params, weights = {"w": jnp.array([1.0, 2.0])}, jnp.array([0.25, 0.75])
  (value, _), gradient = jax.value_and_grad(loss, has_aux=True)(params, None, weights)
  assert value == 3.25
  np.testing.assert_array_equal(gradient["w"], [0.5, 3.0])
  (value, _), gradient = jax.value_and_grad(loss, has_aux=True)(params, None, -weights)
  assert value == 3.25 and np.isnan(gradient["w"]).any()


def row(stage, kind, number, outcome):
  found = dict(injected="", outcome=outcome, detail="", runs=[], cpu_seconds=1.0, version="a")
  return {**dict(stage=stage, kind=kind, number=number), **found}


@pytest.mark.parametrize("outcome", [IDENTICAL, SILENT])
def test_a_row_tells_what_happened_and_the_place_of_a_mistake_is_kept(tmp_path, monkeypatch, outcome):
  def fault(scene):
    scene.place = Place(tmp_path / "place")
    scene.place.directory.mkdir()
    scene.add(attempt(2, f"rlhf-jax: {scene.place.directory}/run/x is cut"))
    return "half of x", outcome, scene.attempts[0].stderr

  monkeypatch.setitem(injections.KINDS, "kill", fault)
  trial = injections.Trial("sft", "kill", 3)
  found = campaign.inject(trial, 0, reference.Reference(tmp_path, "version"), {"sft": None})
  assert found == {
    "stage": "sft", "kind": "kill", "number": 3, "injected": "half of x", "outcome": outcome,
    "detail": "rlhf-jax: run/x is cut", "runs": [[2, 1.0]], "cpu_seconds": 1.0,
  }  # fmt: skip
  kept = tmp_path / "place" / "outputs.txt"
  assert kept.exists() == (outcome == SILENT) and (outcome != SILENT or "run/x is cut" in kept.read_text())


def test_a_second_call_knows_what_was_tried_with_the_same_code(tmp_path):
  log = tmp_path / "log.jsonl"
  first = {**row("sft", "kill", 0, IDENTICAL), "version": "a", "seed": 0}
  other = {**row("sft", "kill", 1, IDENTICAL), "version": "b", "seed": 0}
  failed = {**row("sft", "kill", 2, CRASH), "version": "b", "seed": 0}
  seeded = {**row("sft", "kill", 3, IDENTICAL), "version": "a", "seed": 1}
  log.write_text("".join(json.dumps(found) + "\n" for found in (first, other, failed, seeded)) + '{"stage": "s')

  def known(mended=False):
    return {trial.number: found for trial, found in campaign._read(log, {"version": "a", "seed": 0}, mended).items()}

  assert known() == {0: first}
  assert known(mended=True) == {0: first, 1: other}  # what failed with other code is tried again
  assert campaign._read(tmp_path / "none", {"version": "a", "seed": 0}) == {}


def test_figures_and_table(tmp_path):
  rows = [row("sft", "kill", 0, IDENTICAL), row("sft", "kill", 1, SILENT), row("ppo", "damage", 0, NAMED)]
  found = campaign.figures(rows, 4)
  assert (found["tried"], found["planned"], found["fewest_of_a_kind_and_stage"]) == (3, 4, 1)
  assert [one["outcome"] for one in found["found"]] == [SILENT]
  page = tmp_path / "page.md"
  page.write_text(f"before\n{campaign.BEGIN}\nold\n{campaign.END}\nafter\n")
  campaign.write_table(page, found)
  text = page.read_text()
  assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
  assert "3 faults of 4 planned were injected, at least 1 of each kind for each kind of stage, with 0 min" in text
  assert "| kill | 2 | 1 | 0 | 0 | 1 | 0 |" in text and "| ppo | 1 | 0 | 0 | 1 | 0 | 0 |" in text
  assert text.count("| all | 3 | 1 | 0 | 1 | 1 | 0 |") == 2
  campaign.write_table(page, found)
  assert page.read_text() == text
  page.write_text("no marks")
  with pytest.raises(ValueError, match="once each"):
    campaign.write_table(page, found)


def test_the_page_has_a_place_for_the_table():
  page = (ROOT / "docs" / "reliability.md").read_text()
  assert page.count(campaign.BEGIN) == page.count(campaign.END) == 1
  assert all(f"**{outcome}**" in page for outcome in OUTCOMES)


def test_what_every_run_does_alike_is_done_before_the_first_fork():
  code = "import faults; faults.prepare(); import sys; print('rlhf_jax.algorithms.grpo' in sys.modules)"
  environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)])}
  ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
  assert ended.stdout == "True\n", ended.stderr


@pytest.mark.parametrize("name", recipe.LEARNERS)
def test_every_learner_is_made_with_a_nan_where_it_is_asked_for(name, monkeypatch):
  module = learner.own(name)
  asked = "make_update" if hasattr(module, "make_update") else "make_functions"
  assert getattr(module, asked).__module__ == learner.__name__
  monkeypatch.setenv("NAN_IN", "loss")
  monkeypatch.setenv("NAN_AT", "3")
  update = learner.with_nan(lambda state, batch, weights: weights)
  scales = [float(update(TrainState(jnp.int32(step), {}, {}, ()), {}, jnp.ones(()))) for step in (1, 2)]
  assert scales[0] == learner.FACTOR and np.isnan(scales[1])


@pytest.mark.slow
def test_a_sample_of_the_faults_ends_well(tmp_path):
  """One fault of each kind in five kinds of stage, in at most five minutes."""
  command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--work", str(tmp_path / "work"), "--count", "1"]
  command += ["--stages", "world,sft,preferences,reinforce,import_model", "--minutes", "3"]
  ended = subprocess.run([*command, "--out", str(tmp_path / "faults.json")], stdout=subprocess.PIPE, text=True)
  found = json.loads((tmp_path / "faults.json").read_text())
  assert (ended.returncode, found["found"]) == (0, []), ended.stdout
  assert found["tried"] >= 10
