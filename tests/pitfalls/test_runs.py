"""A run goes on where it stopped, and its config means what it says."""

import ast
import dataclasses
import importlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from miniature import ADAM

import rlhf_jax
from rlhf_jax import data
from rlhf_jax.algorithms import dpo
from rlhf_jax.models import DecoderConfig
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.stage import Transport
from rlhf_jax.train import Environment, Function, Lora, Optimizer, Reward, Sampling, run_steps
from rlhf_jax.train.pair_losses import OPTIONS
from rlhf_jax.types import Mean, TrainState

ROWS, BATCH, STEPS = 10, 4, 10


def test_resume_neither_replays_nor_skips_a_batch(workspace, tmp_path):
  """Resume resets the epoch, replays or skips batches, or ignores the flag.

  [verl #4156; open-instruct #681, #1823; accelerate #4071; TRL #3247]
  """

  def run(root, killed_at=None):
    seen = []

    def step(state, index):
      if index == killed_at:
        raise KeyboardInterrupt
      rows = data.batch_indices(ROWS, BATCH, index, 7)
      seen.extend(rows)
      total = state.params["total"] * 1.5 + jnp.float32(rows[0])
      return state.replace(params={"total": total}), {"loss": Mean(total, jnp.ones(()))}

    start = TrainState(jnp.zeros((), jnp.int32), {"total": jnp.zeros(())}, (), {})
    try:
      state = run_steps(workspace.stage("toy", root), start, step, STEPS, identity={}, checkpoint_every=3)
    except KeyboardInterrupt:
      return seen[: 3 * BATCH], None  # what the checkpoint of step 3 knows of
    return seen, float(state.params["total"])

  whole, total = run(tmp_path / "whole")
  before, _ = run(tmp_path / "cut", killed_at=5)
  after, resumed = run(tmp_path / "cut")
  assert before + after == whole and resumed == total
  # Four epochs, each of which shows every row once, in an order of its own.
  epochs = np.reshape(whole, (-1, ROWS))
  np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(ROWS), (4, 1)))
  assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4


def test_a_config_key_that_does_not_exist_is_refused():
  """A config key that is read under another name with a default. [tunix kl_coef]"""
  given = dataclasses.asdict(ADAM)
  assert parse(Optimizer, given, "optimizer") == ADAM
  with pytest.raises(ConfigError, match=r"no key 'lerning_rate'.*'learning_rate'"):
    parse(Optimizer, {**given, "lerning_rate": 1.0}, "optimizer")
  with pytest.raises(ConfigError, match="lacks the key 'learning_rate'"):
    parse(Optimizer, {k: v for k, v in given.items() if k != "learning_rate"}, "optimizer")


PACKAGE = Path(rlhf_jax.__file__).parent
ALGORITHMS = [
  importlib.import_module(f"rlhf_jax.algorithms.{path.stem}")
  for path in sorted((PACKAGE / "algorithms").glob("*.py"))
  if path.stem not in ("__init__", "world")  # `world` hands all of its keys to a function that refuses others
]
PARTS = (DecoderConfig, Transport, Environment, Sampling, Reward, Function, Optimizer, Lora)


def test_every_config_key_is_read():
  """A config key that nothing reads. [tunix kl_coef]"""
  everywhere = {name for path in PACKAGE.rglob("*.py") for _, name in reads(path)}
  for module in ALGORITHMS:
    # `algorithm` is the pipeline's. A value read through a default of its own counts as not read.
    names = {name for owner, name in reads(Path(module.__file__)) if owner in ("config", "self")} | {"algorithm"}
    assert not {field.name for field in dataclasses.fields(module.Config)} - names, module.__name__
  for part in PARTS:
    assert not {field.name for field in dataclasses.fields(part)} - everywhere, part.__name__
  # Those of the losses of DPO are read by name, and handed on.
  losses = [dpo.Loss(name, 1.0, **dict.fromkeys(keys, 0.1)) for name, keys in OPTIONS.items()]
  handed = {key for loss in losses for key in loss.options}
  assert {field.name for field in dataclasses.fields(dpo.Loss)} == handed | {"name", "function", "weighting"}


def reads(path):
  """(x, name) of every `x.name` in a file."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Attribute):
      yield getattr(node.value, "id", ""), node.attr
