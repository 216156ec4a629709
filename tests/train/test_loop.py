"""The loop: resume is bitwise, metrics have no holes or repeats, nothing is half-done."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.train import Interrupted, checkpoint, init_state, make_update, place, run_steps
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.types import Mean

TRANSPORT = Transport("jit", 1, 1)
OPTIMIZER = optax.adam(0.1)


def make_stage(root):
  return Stage("toy", root, 0, "", Model(1, 2, 1, 1, 2, 4), TRANSPORT, "print")


def loss_fn(params, batch, weights):
  error = (batch @ params["w"] - 1.0) ** 2
  return jnp.sum(weights * error), {"error": Mean(error, weights)}


UPDATE = make_update(loss_fn, OPTIMIZER, TRANSPORT)


def step_fn(state, index):
  batch = jax.random.normal(jax.random.fold_in(jax.random.key(0), index), (8, 3))
  return UPDATE(state, batch, jnp.full((8,), 1 / 8))


def run(root, steps=12, step=step_fn, every=4):
  state = place(init_state({"w": jnp.ones(3)}, OPTIMIZER), TRANSPORT)
  evaluate = lambda state: {"norm": Mean(jnp.linalg.norm(state.params["w"]), jnp.ones(()))}  # noqa: E731
  return run_steps(
    make_stage(root), state, step, steps, identity={"stage": "print"}, checkpoint_every=every, evaluate=evaluate
  )


def killed_at(k):
  def step(state, index):
    if index == k:
      raise RuntimeError("killed")
    return step_fn(state, index)

  return step


@pytest.mark.parametrize("k", [1, 4, 6, 11])
def test_a_killed_run_continues_bitwise(tmp_path, k):
  whole = run(tmp_path / "whole")
  with pytest.raises(RuntimeError):
    run(tmp_path / "cut", step=killed_at(k))
  resumed = run(tmp_path / "cut")
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)
  assert int(resumed.step) == 12
  rows = read_metrics(tmp_path / "cut" / "toy" / "metrics.jsonl")
  assert [row["step"] for row in rows] == list(range(1, 13))
  assert rows == read_metrics(tmp_path / "whole" / "toy" / "metrics.jsonl")
  assert "eval/norm" in rows[-1] and "eval/norm" not in rows[-2]


def test_a_finished_run_takes_no_step(tmp_path):
  first = run(tmp_path)
  second = run(tmp_path, step=killed_at(0))
  jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("number, last", [(signal.SIGINT, 6), (signal.SIGTERM, 12)])
def test_a_signal_saves_and_stops(tmp_path, number, last):
  """In the last step too: the stage is not done, and no other stage starts."""
  before = signal.getsignal(number)

  def step(state, index):
    if index == last - 1:
      os.kill(os.getpid(), number)
    return step_fn(state, index)

  with pytest.raises(Interrupted, match=f"step {last} of 12"):
    run(tmp_path, step=step, every=100)
  assert [p.name for p in (tmp_path / "toy" / "checkpoints").iterdir() if p.name.isdigit()] == [str(last)]
  jax.tree.map(np.testing.assert_array_equal, run(tmp_path), run(tmp_path / "whole"))
  assert signal.getsignal(number) is before


def test_a_signal_after_the_last_step_stops_too(tmp_path, monkeypatch):
  """While its checkpoint is written."""

  def saved_and_told(*arguments):
    save(*arguments)
    os.kill(os.getpid(), signal.SIGTERM)

  save = checkpoint.save
  monkeypatch.setattr(checkpoint, "save", saved_and_told)
  with pytest.raises(Interrupted, match="step 12 of 12"):
    run(tmp_path, every=100)


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(tmp_path):
  def step(state, index):
    state, metrics = step_fn(state, index)
    return state, {**metrics, "loss": jnp.nan if index == 9 else metrics["loss"]}

  with pytest.raises(FloatingPointError, match="toy is nan at step 10"):
    run(tmp_path, step=step)
  steps = sorted(int(p.name) for p in (tmp_path / "toy" / "checkpoints").iterdir() if p.name.isdigit())
  assert steps == [4, 8]


def test_a_metrics_line_cut_short_is_dropped(tmp_path):
  run(tmp_path, steps=8)
  path = tmp_path / "toy" / "metrics.jsonl"
  path.write_text(path.read_text() + '{"step": 9, "lo')
  run(tmp_path, steps=12)
  assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == list(range(1, 13))
