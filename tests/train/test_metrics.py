"""Rows of metrics: what a crash or a fault of the disk left is repaired and named, and nothing goes without a word."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.train.metrics import RowFile, read_lines, read_metrics, to_floats
from rlhf_jax.types import Max, Mean, pool


def rows(*steps):
  return "".join(json.dumps({"step": step, "loss": float(step)}) + "\n" for step in steps)


def steps_of(path):
  return [row["step"] for row in read_metrics(path)]


def test_a_damaged_line_is_kept_aside_and_named_and_the_rows_behind_it_stay(tmp_path, capsys):
  path = tmp_path / "metrics.jsonl"
  path.write_text(rows(1, 2) + '{"step": 3, "lo\x00\n' + rows(4, 5))
  assert steps_of(path) == [1, 2, 4, 5]
  assert "metrics.jsonl: line 3, which holds no row, left out" in capsys.readouterr().out
  file = RowFile(path, 5, every_step=True)
  file.append([{"step": 6, "loss": 0.5}])
  file.close()
  said = capsys.readouterr().out
  assert "line 3, which holds no row, moved to metrics.damaged.jsonl" in said and "step 3 has no row" in said
  assert (tmp_path / "metrics.damaged.jsonl").read_text() == '{"step": 3, "lo\x00\n'
  assert steps_of(path) == [1, 2, 4, 5, 6]
  assert not read_lines(path).damaged


@pytest.mark.parametrize("line", [b"\xff\xfe", b"[1]", b'{"loss": 1.0}', b'{"step": "3"}', b'{"step": 3'])
def test_what_is_no_row_with_a_step_is_damaged(tmp_path, line):
  path = tmp_path / "metrics.jsonl"
  path.write_bytes(rows(1).encode() + line + b"\n" + rows(2).encode())
  assert read_lines(path).damaged == [(2, line)] and steps_of(path) == [1, 2]


def test_a_last_line_that_was_cut_short_is_dropped_and_said(tmp_path, capsys):
  path = tmp_path / "metrics.jsonl"
  path.write_text(rows(1, 2) + '{"step": 3, "lo')
  RowFile(path, 3, every_step=True).close()
  said = capsys.readouterr().out
  assert "the last line was cut short and is dropped" in said and "step 3 has no row" in said
  assert path.read_text() == rows(1, 2) and not (tmp_path / "metrics.damaged.jsonl").exists()


def test_rows_that_are_missing_at_the_end_are_named(tmp_path, capsys):
  path = tmp_path / "metrics.jsonl"
  path.write_text(rows(1, 2))
  RowFile(path, 5, every_step=True).close()
  assert "3 steps from 3 to 5 have no row" in capsys.readouterr().out


def test_a_whole_last_line_without_its_line_feed_stays(tmp_path, capsys):
  path = tmp_path / "metrics.jsonl"
  path.write_text(rows(1, 2).rstrip("\n"))
  file = RowFile(path, 2)
  file.append([{"step": 3}])
  file.close()
  assert steps_of(path) == [1, 2, 3] and not capsys.readouterr().out


def test_rows_behind_the_checkpoint_go_without_a_word_and_the_rest_keeps_its_bytes(tmp_path, capsys):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step":1,  "loss": 1.50}\n' + rows(2, 3))
  RowFile(path, 1, every_step=True).close()
  assert path.read_text() == '{"step":1,  "loss": 1.50}\n' and not capsys.readouterr().out


def test_means_divide_at_the_end_and_the_largest_value_stays():
  first = {"mean": Mean(jnp.array([1.0, jnp.nan, 3.0]), jnp.array([1.0, 0.0, 3.0])), "most": Max(jnp.array([1.0, 7.0]))}
  second = {"mean": Mean(jnp.array([6.0]), jnp.array([4.0])), "most": Max(jnp.array([5.0]))}
  reduced = [{name: metric.sum() for name, metric in part.items()} for part in (first, second)]
  pooled = pool(*reduced)
  assert to_floats({**pooled, "number": 2}) == {"mean": (1 + 9 + 24) / 8, "most": 7.0, "number": 2.0}
  assert to_floats(first) == {"mean": 2.5, "most": 7.0}
  assert np.isnan(to_floats({"none": Mean(jnp.zeros(2), jnp.zeros(2))})["none"])
