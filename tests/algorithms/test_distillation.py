"""Distillation: what a student learns on tables, by whose data, and the stage on the tiny chain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular
from tiny_chain import SAMPLING, recipe, run_stages

from rlhf_jax.algorithms import distillation
from rlhf_jax.reduce import token_weights
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.stage import Transport
from rlhf_jax.train import init_state, make_update, place
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.types import Batch

pytestmark = pytest.mark.usefixtures("unoptimised")
PROBLEM = tabular.tree(seed=7, stop=True)
TEACHER = np.float32(PROBLEM.reference + np.random.default_rng(5).normal(0, 1, PROBLEM.reference.shape))


def logits_of(table, tokens, segments=None):
  return jnp.asarray(table)[tabular.states(PROBLEM, tokens)]


def taught(tokens, mask):
  return distillation.Taught(Batch(tokens, mask), logits_of(TEACHER, tokens))


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_student_becomes_its_teacher_on_its_own_responses(beta):
  steps, size = 150, 256
  optimizer = optax.adam(optax.linear_schedule(0.2, 0.0, steps))
  update = make_update(distillation.make_loss(logits_of, beta=beta), optimizer, Transport("jit", 1, 1))
  uniform = np.random.default_rng(0).uniform(size=(steps, size, tabular.DEPTH)).astype(np.float32)

  @jax.jit
  def train(state):
    def step(state, uniform):
      rollout = tabular.sample(PROBLEM, state.params, uniform)
      state, metrics = update(state, taught(rollout.tokens, rollout.mask), token_weights(rollout.mask))
      return state, metrics["loss"].values

    return jax.lax.scan(step, state, uniform)

  state, losses = train(place(init_state(jnp.asarray(PROBLEM.reference), optimizer), Transport("jit", 1, 1)))
  expected = tabular.distribution(PROBLEM, TEACHER)
  assert 0.5 * np.abs(tabular.distribution(PROBLEM, PROBLEM.reference) - expected).sum() > 0.25
  assert 0.5 * np.abs(tabular.distribution(PROBLEM, state.params) - expected).sum() < 0.03
  assert losses[-1] < 1e-3 < losses[0]


def test_the_loss_is_of_the_response_alone_and_at_the_temperature():
  tokens = tabular.leaves(PROBLEM)
  mask = np.asarray(tabular.states(PROBLEM, tokens) != tabular.STATES)
  found = []
  for spoil in (False, True):
    table = np.concatenate([PROBLEM.reference[:-1], np.full_like(PROBLEM.reference[-1:], np.nan if spoil else 0)])
    loss_fn = distillation.make_loss(logits_of, beta=1.0, temperature=2.0)
    found.append(jax.value_and_grad(loss_fn, has_aux=True)(table, taught(tokens, mask), token_weights(mask)))
  jax.tree.map(np.testing.assert_array_equal, found[0][0][0], found[1][0][0])
  np.testing.assert_array_equal(found[0][1][:-1], found[1][1][:-1])
  q, p = (jax.nn.softmax(logits_of(table, tokens) / 2.0) for table in (PROBLEM.reference, TEACHER))
  expected = np.sum(np.asarray(q * jnp.log(q / p)), axis=-1)[mask].mean()
  (loss, metrics), _ = found[0]
  assert loss == pytest.approx(expected, rel=1e-5) and metrics["kl/teacher"].compute() == pytest.approx(
    expected, rel=1e-5
  )


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(student_share=0.5, demonstrations=""), "student_share=0.5 reads demonstrations in other steps"),
    (dict(beta=1.5), "beta is 1.5"),
    (dict(sampling=dict(SAMPLING, temperature=0.0)), "sampling.temperature=0 divides the logits"),
  ],
)
def test_what_cannot_be_is_refused(changes, message):
  section = recipe("distillation")["distillation"]
  with pytest.raises(ConfigError, match=message):
    parse(distillation.Config, {**section, **changes}, "mine")


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_stage_learns(chain, tmp_path, share):
  settings = dict(
    init="pretrain", num_steps=16, batch_size=16, length=64, student_share=share, sampling=SAMPLING,
    checkpoint_every=8, optimizer=dict(learning_rate=1e-2),
  )  # fmt: skip
  run_stages(recipe("distillation"), chain, tmp_path, {"distillation": settings})
  rows = read_metrics(tmp_path / "distillation" / "metrics.jsonl")
  own = [row["student_share"] for row in rows]
  assert own == [1.0] * 16 if share == 1 else 0 < sum(own) < 16
  kind = [row["kl/teacher"] for row in rows if row["student_share"] == 1]
  assert np.mean(kind[-2:]) < 0.7 * np.mean(kind[:2])
