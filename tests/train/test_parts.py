"""Parts of a stage: kept one by one, verified when they are read, and gone when the stage has its results."""

import os
import resource
import signal

import pytest

from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.train import Interrupted, RewardError
from rlhf_jax.train.functions import RewardTimeout
from rlhf_jax.train.parts import open_parts


def make_stage(root, fingerprint="print"):
  return Stage("toy", root, 0, "", Model(1, 2, 1, 1, 2, 4), Transport("jit", 1, 1), fingerprint)


def run(stage, calls, event=lambda number: None, total=5):
  """A stage of five parts, which notes the parts that are computed in `calls`."""

  def work(number):
    calls.append(number)
    event(number)
    return {"number": number, "third": number / 3, "nan": float("nan"), "pair": (number, "ü")}

  with open_parts(stage, total) as parts:
    found = []
    for number in range(1, total + 1):
      found.append(parts(work, number))
      parts.update(number)
    assert (stage.directory / "parts.txt").exists()
  return [(row["number"], row["third"], repr(row["nan"]), row["pair"]) for row in found]


EXPECTED = [(n, n / 3, "nan", [n, "ü"]) for n in range(1, 6)]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_a_signal_ends_the_stage_after_its_part_and_the_rest_is_done_later(tmp_path, capsys, k):
  stage, calls = make_stage(tmp_path), []
  with pytest.raises(Interrupted, match=f"stopped after part {k} of toy") as stop:
    run(stage, calls, lambda number: os.kill(os.getpid(), signal.SIGUSR1) if number == k else None)
  assert stop.value.number == signal.SIGUSR1 and calls == list(range(1, k + 1))
  capsys.readouterr()
  assert run(stage, calls) == EXPECTED
  assert calls == [1, 2, 3, 4, 5] and not (tmp_path / "toy" / "parts.txt").exists()
  assert k == 5 or f"toy {k}/5  compiling" in capsys.readouterr().out  # progress begins where the parts end


def test_a_signal_while_the_results_are_written_stops_too(tmp_path):
  stage = make_stage(tmp_path)
  with pytest.raises(Interrupted, match="after part 1 of toy"):
    with open_parts(stage, 1) as parts:
      parts(int)
      os.kill(os.getpid(), signal.SIGTERM)
  assert (tmp_path / "toy" / "parts.txt").exists()


def killed(stage, calls, at=4):
  def event(number):
    if number == at:
      raise OSError("killed")

  with pytest.raises(OSError, match="killed"):
    run(stage, calls, event)


def test_parts_of_another_config_are_never_taken(tmp_path, capsys):
  killed(make_stage(tmp_path), [])
  calls = []
  assert run(make_stage(tmp_path, "another"), calls) == EXPECTED
  assert calls == [1, 2, 3, 4, 5]
  assert "parts.txt: what follows part 0 is cut, damaged or of another config" in capsys.readouterr().out


def test_a_line_that_is_cut_or_damaged_is_done_anew_with_what_follows(tmp_path, capsys):
  path = tmp_path / "toy" / "parts.txt"
  killed(make_stage(tmp_path), [])
  whole = path.read_bytes()
  assert whole.count(b"\n") == 3
  lines = whole.splitlines(keepends=True)
  damages = {
    2: [whole[:-1], whole[: len(whole) - 20], lines[0] + lines[1] + lines[1]],
    1: [whole.replace(b'"number": 2', b'"number": 7'), lines[0] + lines[2], lines[0] + b"\0" * 40],
    0: [lines[1] + lines[0], b"\n" + whole, b" \n"],
  }
  for kept, damaged in damages.items():
    for content in damaged:
      path.write_bytes(content)
      calls = []
      assert run(make_stage(tmp_path), calls) == EXPECTED
      assert calls == list(range(kept + 1, 6)), content
      assert f"what follows part {kept} is cut" in capsys.readouterr().out


def test_a_failing_function_is_named_with_its_part(tmp_path):
  def fails(number):
    if number == 2:
      raise RewardError("toy", "own.py:f raised KeyError")

  with pytest.raises(RewardError, match="toy, part 2: own.py:f raised KeyError"):
    run(make_stage(tmp_path), [], fails)


@pytest.mark.parametrize("signalled", [True, False])
def test_a_function_that_hangs_at_a_signal_ends_the_stage_before_its_part(tmp_path, signalled):
  def hangs(number):
    if number == 3:
      if signalled:
        os.kill(os.getpid(), signal.SIGTERM)
      raise RewardTimeout("toy", "own.py:f took too long")

  stage, calls = make_stage(tmp_path), []
  expected = (
    (Interrupted, "stopped after part 2 of toy") if signalled else (RewardTimeout, "toy, part 3: own.py:f took")
  )
  with pytest.raises(expected[0], match=expected[1]):
    run(stage, calls, hangs)
  assert run(stage, calls) == EXPECTED and calls == [1, 2, 3, 3, 4, 5]


@pytest.mark.parametrize("signalled", [True, False])
def test_a_function_that_hangs_at_a_signal_beside_the_parts_ends_the_stage_too(tmp_path, signalled):
  stage = make_stage(tmp_path)
  with pytest.raises(Interrupted if signalled else RewardTimeout, match="after part 1 of toy" if signalled else "long"):
    with open_parts(stage, 2) as parts:
      parts(int)
      if signalled:
        os.kill(os.getpid(), signal.SIGUSR1)
      raise RewardTimeout("toy", "own.py:f took too long")
  assert (tmp_path / "toy" / "parts.txt").exists()


def test_a_failed_write_is_named_with_the_path(tmp_path):
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  with pytest.raises(OSError, match="File too large: '.*toy/parts.txt'"):
    with open_parts(make_stage(tmp_path), 1) as parts:
      resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
      try:
        parts(int)
      finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
