"""The loop: resume is bitwise, metrics have no holes or repeats, nothing is half-done."""

import json
import os
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlhf_jax.settings import ConfigError
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.train import Interrupted, Loop, checkpoint, init_state, make_update, place, run_steps
from rlhf_jax.train.checkpoint import last_checkpoint
from rlhf_jax.train.functions import RewardTimeout
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.train.parameters import load_params
from rlhf_jax.train.stored_arrays import stored_steps
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


def norm(state):
  return {"norm": Mean(jnp.linalg.norm(state.params["w"]), jnp.ones(()))}


def run(root, steps=12, step=step_fn, every=4, **settings):
  state = place(init_state({"w": jnp.ones(3), "unseen": jnp.ones(2)}, OPTIMIZER), TRANSPORT)
  settings = {"evaluate": norm, **settings}
  return run_steps(
    make_stage(root), state, step, steps, identity={"stage": "print"}, checkpoint_every=every, **settings
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


@pytest.mark.parametrize("nonfinite, before", [("stop", [0, 0, 1, 3, 3, 4]), ("skip", [0, 1, 2, 3, 4, 5])])
def test_metrics_are_read_when_the_next_step_has_been_started(tmp_path, nonfinite, before):
  """Unless the step is saved, or the next one depends on them."""
  path, found = tmp_path / "toy" / "metrics.jsonl", []

  def step(state, index):
    found.append(len(read_metrics(path)))
    return step_fn(state, index)

  run(tmp_path, steps=6, step=step, every=3, loop=Loop(nonfinite=nonfinite))
  assert found == before and len(read_metrics(path)) == 6


def test_a_step_that_fails_leaves_the_rows_before_it(tmp_path):
  with pytest.raises(RuntimeError, match="killed"):
    run(tmp_path, step=killed_at(3), every=100)
  assert [row["step"] for row in read_metrics(tmp_path / "toy" / "metrics.jsonl")] == [1, 2, 3]


def test_a_finished_run_takes_no_step(tmp_path):
  first = run(tmp_path)
  second = run(tmp_path, step=killed_at(0))
  jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize(
  "number, last", [(signal.SIGINT, 6), (signal.SIGTERM, 12), (signal.SIGHUP, 6), (signal.SIGUSR1, 6)]
)
def test_a_signal_saves_and_stops(tmp_path, number, last):
  """In the last step too: the stage is not done, and no other stage starts."""
  before = signal.getsignal(number)

  def step(state, index):
    if index == last - 1:
      os.kill(os.getpid(), number)
    return step_fn(state, index)

  with pytest.raises(Interrupted, match=f"step {last} of 12") as stop:
    run(tmp_path, step=step, every=100)
  assert stop.value.number == number
  assert [p.name for p in (tmp_path / "toy" / "checkpoints").iterdir() if p.name.isdigit()] == [str(last)]
  jax.tree.map(np.testing.assert_array_equal, run(tmp_path), run(tmp_path / "whole"))
  assert signal.getsignal(number) is before


@pytest.mark.parametrize("signalled", [True, False])
def test_a_function_that_hangs_at_a_signal_leaves_the_state_before_its_step(tmp_path, signalled):
  """Its time limit ends it, as it does without a signal; then the error stays."""

  def step(state, index):
    if index == 6:
      if signalled:
        os.kill(os.getpid(), signal.SIGUSR1)
      raise RewardTimeout("toy", "own.py:f took too long")
    return step_fn(state, index)

  expected = (Interrupted, "stopped at step 6 of 12") if signalled else (RewardTimeout, "toy, step 7: own.py:f took")
  with pytest.raises(expected[0], match=expected[1]):
    run(tmp_path, step=step)
  assert max(int(p.name) for p in (tmp_path / "toy" / "checkpoints").iterdir() if p.name.isdigit()) == (
    6 if signalled else 4
  )
  jax.tree.map(np.testing.assert_array_equal, run(tmp_path), run(tmp_path / "whole"))


@pytest.mark.parametrize("donates", [True, False])
def test_an_evaluation_that_hangs_at_a_signal_goes_on_before_its_step(tmp_path, donates):
  """From the newest checkpoint, of step 4, where the step has taken the arrays of the state before it."""

  def step(state, index):
    return step_fn(state if donates else jax.tree.map(jnp.copy, state), index)

  def evaluate(state):
    if state.step == 6 and not (tmp_path / "hung").exists():
      (tmp_path / "hung").touch()
      os.kill(os.getpid(), signal.SIGUSR1)
      raise RewardTimeout("toy", "own.py:f took too long")
    return norm(state)

  settings = {"step": step, "evaluate": evaluate, "evaluate_every": 2}
  with pytest.raises(Interrupted, match=f"stopped at step {4 if donates else 5} of 12") as stop:
    run(tmp_path / "cut", **settings)
  assert stop.value.number == signal.SIGUSR1
  whole = run(tmp_path / "whole", **settings)
  jax.tree.map(np.testing.assert_array_equal, run(tmp_path / "cut", **settings), whole)
  rows = read_metrics(tmp_path / "cut" / "toy" / "metrics.jsonl")
  assert rows == read_metrics(tmp_path / "whole" / "toy" / "metrics.jsonl") and "eval/norm" in rows[5]


def test_a_signal_after_the_last_step_stops_too(tmp_path, monkeypatch):
  """While its checkpoint is written."""

  def saved_and_told(*arguments):
    save(*arguments)
    os.kill(os.getpid(), signal.SIGTERM)

  save = checkpoint.save
  monkeypatch.setattr(checkpoint, "save", saved_and_told)
  with pytest.raises(Interrupted, match="step 12 of 12"):
    run(tmp_path, every=100)


def spoiled(*indices, spoil):
  """`step_fn`, but for the steps of `indices`: spoil(state, batch, weights) gives the arguments of the update."""

  def step(state, index):
    batch = jax.random.normal(jax.random.fold_in(jax.random.key(0), index), (8, 3))
    weights = jnp.full((8,), 1 / 8)
    return UPDATE(*(spoil(state, batch, weights) if index in indices else (state, batch, weights)))

  return step


def nan_batch(state, batch, weights):
  return state, batch.at[0].set(jnp.nan), weights


def huge_batch(state, batch, weights):
  """Its loss is finite, and the square of its gradient overflows."""
  return state, batch.at[0].set(1e13), weights


def infinite_parameter(state, batch, weights):
  """Of a part of the model that the loss does not see, so that loss and gradient are finite."""
  return state.replace(params={**state.params, "unseen": jnp.full(2, jnp.inf)}), batch, weights


@pytest.mark.parametrize(
  "spoil, quantities",
  [
    (nan_batch, "loss is nan, grad_norm is nan"),
    (huge_batch, "grad_norm is inf"),
    (infinite_parameter, "param_norm is inf"),
  ],
)
def test_what_is_not_finite_stops_with_the_last_good_checkpoint(tmp_path, spoil, quantities):
  """Also a gradient at a finite loss, and a parameter at a finite gradient. The row is there to read."""
  with pytest.raises(FloatingPointError, match=f"stage toy, step 10: {quantities}. Nothing of this step is saved"):
    run(tmp_path, step=spoiled(9, spoil=spoil))
  assert stored_steps(tmp_path / "toy" / "checkpoints") == [4, 8]
  rows = read_metrics(tmp_path / "toy" / "metrics.jsonl")
  assert rows[-1]["step"] == 10 and not np.isfinite(list(rows[-1].values())).all()
  assert "NaN" not in (text := (tmp_path / "toy" / "metrics.jsonl").read_text()) and "Infinity" not in text
  jax.tree.map(np.testing.assert_array_equal, run(tmp_path), run(tmp_path / "whole"))


@pytest.mark.parametrize("name", ["reward/proxy", "reward/part", "advantage/mean"])
def test_rewards_and_advantages_are_finite_too(tmp_path, name):
  def step(state, index):
    state, metrics = step_fn(state, index)
    absent = Mean(jnp.full(2, jnp.nan), jnp.zeros(2))  # no element has a weight: there is nothing to be finite
    return state, {
      **metrics,
      "reward/absent": absent,
      name: Mean(jnp.array([1.0, jnp.inf if index == 5 else 1.0]), jnp.ones(2)),
    }

  with pytest.raises(FloatingPointError, match=f"step 6: {name} is inf. "):
    run(tmp_path, step=step)
  assert stored_steps(tmp_path / "toy" / "checkpoints") == [4]


def test_an_array_of_the_algorithm_is_finite_too(tmp_path):
  def step(state, index):
    state, metrics = step_fn(state, index)
    return state.replace(extra={"kl_coef": jnp.float32(jnp.nan if index == 5 else 1)}), metrics

  state = init_state({"w": jnp.ones(3)}, OPTIMIZER, {"kl_coef": jnp.float32(1)})
  with pytest.raises(FloatingPointError, match="step 6: kl_coef is nan"):
    run_steps(make_stage(tmp_path), state, step, 12, identity={}, checkpoint_every=6)
  assert stored_steps(tmp_path / "toy" / "checkpoints") == []


def test_a_skipped_update_changes_nothing(tmp_path, capsys):
  """The stage is that in which the step was never taken, also when it is killed and continued."""

  def without(state, index):
    kept = jax.tree.map(jnp.copy, state)
    state, metrics = step_fn(state, index)
    return (kept if index in (2, 5) else state), metrics

  skipping = spoiled(2, 5, spoil=nan_batch)
  found = run(tmp_path / "a", step=skipping, loop=Loop(nonfinite="skip", nonfinite_limit=1))
  jax.tree.map(np.testing.assert_array_equal, found, run(tmp_path / "b", step=without))
  assert "stage toy, step 3: loss is nan, grad_norm is nan; its updates that are not finite" in capsys.readouterr().out
  with pytest.raises(RuntimeError):
    run(tmp_path / "c", step=lambda s, i: killed_at(9)(s, i) if i > 8 else skipping(s, i), loop=Loop(nonfinite="skip"))
  jax.tree.map(np.testing.assert_array_equal, found, run(tmp_path / "c", step=skipping, loop=Loop(nonfinite="skip")))


@pytest.mark.parametrize("spoil, at, last", [(nan_batch, (2, 4, 5, 6), 7), (infinite_parameter, (4,), 5)])
def test_skipping_ends(tmp_path, spoil, at, last):
  """After `nonfinite_limit` steps in succession, or at once where the state itself is not finite."""
  with pytest.raises(FloatingPointError, match=f"stage toy, step {last}: "):
    run(tmp_path, step=spoiled(*at, spoil=spoil), loop=Loop(nonfinite="skip", nonfinite_limit=2))


def test_rollback_goes_on_from_the_last_checkpoint(tmp_path):
  """With the parameters and moments of step 4, the data of step 7, and the same end after a kill."""
  loop = Loop(nonfinite="rollback", nonfinite_limit=1, keep=1)
  bad = spoiled(6, spoil=infinite_parameter)
  found = run(tmp_path / "a", step=bad, loop=loop)
  state = run(tmp_path / "b", steps=4)
  for index in range(7, 12):
    state, _ = step_fn(state, index)
  jax.tree.map(np.testing.assert_array_equal, found.params, state.params)
  assert int(found.step) == 12 and found.params["w"].sharding == state.params["w"].sharding
  for killed in (5, 6, 7, 9):
    with pytest.raises(RuntimeError):
      run(tmp_path / f"c{killed}", step=lambda s, i, k=killed: killed_at(k)(s, i) if i >= k else bad(s, i), loop=loop)
    jax.tree.map(np.testing.assert_array_equal, found, run(tmp_path / f"c{killed}", step=bad, loop=loop))
  with pytest.raises(FloatingPointError, match="step 11: param_norm is inf after 1 steps that were answered by"):
    run(tmp_path / "d", step=spoiled(6, 10, spoil=infinite_parameter), loop=loop)


def test_rollback_before_the_first_checkpoint_goes_back_to_the_start(tmp_path):
  found = run(tmp_path / "a", steps=3, step=spoiled(0, 1, spoil=nan_batch), loop=Loop(nonfinite="rollback"))
  state = place(init_state({"w": jnp.ones(3), "unseen": jnp.ones(2)}, OPTIMIZER), TRANSPORT)
  jax.tree.map(np.testing.assert_array_equal, found.params, step_fn(state, 2)[0].params)


def bent(values):
  """A held-out evaluation with these values, one at each multiple of 2 steps."""
  return lambda state: {"loss": values[int(state.step) // 2 - 1]}


VALUES = (5.0, 3.0, 4.0, float("nan"), 2.0, 6.0)


@pytest.mark.parametrize(
  "loop, values, best, last",
  [
    (Loop(keep_best="eval/loss"), VALUES, 10, 12),
    (Loop(keep_best="eval/loss", patience=2), VALUES, 4, 8),
    (Loop(keep_best="eval/loss", patience=3), VALUES, 10, 12),
    (Loop(keep_best="eval/loss", best="highest", keep=1), VALUES, 12, 12),
    (Loop(keep_best="eval/loss", best="highest", patience=2, keep=1), VALUES, 2, 6),
  ],
)
@pytest.mark.parametrize("killed", [None, 7])
def test_the_best_state_is_the_result(tmp_path, loop, values, best, last, killed):
  """It is the last checkpoint, finished once; also of a stage that is killed and continued."""
  finished = []

  def finish(state):
    finished.append(int(state.step))
    return state.replace(params=jax.tree.map(lambda x: 2 * x, state.params))

  settings = dict(loop=loop, evaluate=bent(values), evaluate_every=2, finish=finish)
  if killed and killed < last:
    with pytest.raises(RuntimeError):
      run(tmp_path / "a", step=killed_at(killed), **settings)
  found = run(tmp_path / "a", **settings)
  at_best = run(tmp_path / "b", steps=best)
  jax.tree.map(np.testing.assert_array_equal, found.params["w"], 2 * at_best.params["w"])
  jax.tree.map(np.testing.assert_array_equal, found.opt_state, at_best.opt_state)
  assert int(found.step) == last and finished == [last]
  directory = tmp_path / "a" / "toy" / "checkpoints"
  assert last_checkpoint(directory)[0] == last and {best, last} <= set(stored_steps(directory))
  np.testing.assert_array_equal(load_params(directory, {})["w"], found.params["w"])
  again = run(tmp_path / "a", step=killed_at(0), **settings)  # takes no step
  jax.tree.map(np.testing.assert_array_equal, again, found)
  assert finished == [last]


def test_a_last_step_that_is_skipped_is_finished_too(tmp_path):
  double = lambda state: state.replace(params=jax.tree.map(lambda x: 2 * x, state.params))  # noqa: E731
  found = run(tmp_path / "a", steps=3, step=spoiled(2, spoil=nan_batch), loop=Loop(nonfinite="skip"), finish=double)
  jax.tree.map(np.testing.assert_array_equal, found.params, double(run(tmp_path / "b", steps=2)).params)


def test_without_a_choice_the_last_state_is_finished_before_its_evaluation(tmp_path):
  finish = lambda state: state.replace(params={"w": jnp.full(3, 7.0)})  # noqa: E731
  found = run(tmp_path, finish=finish)
  np.testing.assert_array_equal(found.params["w"], 7.0)
  assert read_metrics(tmp_path / "toy" / "metrics.jsonl")[-1]["eval/norm"] == pytest.approx(7 * 3**0.5)


@pytest.mark.parametrize(
  "loop, settings, message",
  [
    (
      Loop(keep_best="eval/los"),
      {},
      "config.toy.loop.keep_best: no evaluation has 'eval/los'. Did you mean 'eval/loss'?",
    ),
    (Loop(keep_best="eval/loss"), {"evaluate": None}, "keep_best: stage 'toy' makes no held-out evaluations"),
    (Loop(keep_best="eval/loss", patience=1), {"evaluate_every": 0}, "patience=1 needs evaluations before the end"),
  ],
)
def test_a_choice_by_what_is_not_evaluated_is_refused(tmp_path, loop, settings, message):
  with pytest.raises(ConfigError, match=re.escape(message)):
    run(tmp_path, **{"loop": loop, "evaluate": bent(VALUES), "evaluate_every": 2, **settings})


@pytest.mark.parametrize("settings, message", [({"keep_best": "loss"}, "eval/"), ({"patience": 2}, "needs keep_best")])
def test_settings_that_contradict_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    Loop(**settings)


def test_the_newest_checkpoint_that_is_whole_is_continued_bitwise(tmp_path, capsys):
  whole = run(tmp_path / "whole")
  run(tmp_path / "a")
  directory = tmp_path / "a" / "toy" / "checkpoints"
  (directory / "12" / "record" / "metadata").write_text("{")
  jax.tree.map(np.testing.assert_array_equal, whole, run(tmp_path / "a"))
  assert "12 is damaged" in capsys.readouterr().out
  assert read_metrics(tmp_path / "a" / "toy" / "metrics.jsonl") == read_metrics(tmp_path / "whole/toy/metrics.jsonl")


def test_rows_that_are_not_those_that_were_written_are_named(tmp_path, capsys):
  """A flipped digit is a row like any other, which only a checksum finds."""
  with pytest.raises(RuntimeError):
    run(tmp_path, step=killed_at(6))
  path = tmp_path / "toy" / "metrics.jsonl"
  with pytest.raises(RuntimeError):
    run(tmp_path, step=killed_at(6))
  assert "not those that were written" not in capsys.readouterr().out
  (tmp_path / "toy" / "speed.jsonl").unlink()
  first, second, *others = path.read_text().splitlines(keepends=True)
  path.write_text("".join([first, json.dumps({**json.loads(second), "loss": 7.0}) + "\n", *others]))
  run(tmp_path)
  told = capsys.readouterr().out
  assert f"{path}: the rows up to step 4 are not those that were written" in told
  assert "speed.jsonl: 4 steps from 1 to 4 have no row" in told


def test_a_metrics_line_cut_short_is_dropped(tmp_path):
  run(tmp_path, steps=8)
  path = tmp_path / "toy" / "metrics.jsonl"
  path.write_text(path.read_text() + '{"step": 9, "lo')
  run(tmp_path, steps=12)
  assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == list(range(1, 13))
