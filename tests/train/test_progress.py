"""The time left, as a log shows it: compilation is no part of the estimate."""

import pytest

from rlhf_jax.train import progress
from rlhf_jax.train.progress import StageProgress


@pytest.fixture
def clock(monkeypatch):
  """A clock that stands until a test sets it."""
  now = [100.0]
  monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
  return now


def lines(capsys):
  return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("done", [0, 4])
def test_the_first_step_is_no_part_of_the_estimate(clock, capsys, done):
  """The first step takes 60 s, of which 59 s are compilation; each later step takes 4 s."""
  with StageProgress("ppo", done + 10, done) as shown:
    assert lines(capsys) == [f"ppo {done}/{done + 10} compiling"]
    clock[0] += 60
    shown.update(done + 1, {"loss": 0.5})
    assert lines(capsys) == [f"ppo {done + 1}/{done + 10} compiled and took the first step in 60 s loss 0.500"]
    for step in range(2, 5):
      clock[0] += 4
      shown.update(done + step, {})
    assert lines(capsys) == [f"ppo {done + 4}/{done + 10} 24 s left"]
    clock[0] += 100
    shown.update(done + 10, {})
    assert lines(capsys) == [f"ppo {done + 10}/{done + 10} 0 s left"]


def test_short_steps_are_not_all_shown(clock, capsys):
  with StageProgress("sft", 100) as shown:
    for step in range(1, 101):
      clock[0] += 0.5
      shown.update(step, {})
  assert [line.split()[1] for line in lines(capsys)] == ["0/100", "21/100", "42/100", "63/100", "84/100", "100/100"]


def test_skipped_rows_are_counted_by_reason(capsys):
  progress.report_skips("rows.jsonl", {"too long": 2, "empty": 1}, 10)
  assert lines(capsys) == ["rows.jsonl: skipped 1 of 10 rows: empty", "rows.jsonl: skipped 2 of 10 rows: too long"]
