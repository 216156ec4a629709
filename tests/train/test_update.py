"""Every transport and any cut of the batch is the same optimiser step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlhf_jax.models import DecoderConfig, add_lora, language_model, merge_lora, split_lora
from rlhf_jax.objectives import lm_loss
from rlhf_jax.reduce import token_weights, weighted_sum
from rlhf_jax.stage import Transport
from rlhf_jax.train.update import init_state, make_update, place
from rlhf_jax.train.workspace import select_model
from rlhf_jax.types import Batch, Mean

pytestmark = pytest.mark.usefixtures("unoptimised")

CONFIG = DecoderConfig(13, 1, 16, 2, 2, 24, 8)
MODEL = language_model(CONFIG)
PARAMS = MODEL.init(jax.random.key(0))
OPTIMIZER = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-2))
# One row of eight tokens beside rows of one or two: a mean of per-device means is far off.
LENGTHS = np.array([7, 1, 1, 2, 1, 1, 2, 1, 7, 7, 1, 1, 1, 2, 1, 1])
MASK = (np.arange(8) >= 1) & (np.arange(8) <= LENGTHS[:, None])
TOKENS = np.asarray(jax.random.randint(jax.random.key(1), (16, 8), 0, 13))
BATCH = Batch(TOKENS, MASK)


def make_loss(model):
  def loss_fn(params, batch, weights):
    loss = lm_loss(model.apply(params, batch.tokens), batch.tokens, mask=batch.mask)
    return weighted_sum(loss, weights), {"nll": Mean(loss, weights), "tokens": Mean(loss > 1, batch.mask)}

  return loss_fn


loss_fn = make_loss(MODEL)


def train(transport, steps=5, params=PARAMS):
  update = make_update(make_loss(select_model(CONFIG, transport)), OPTIMIZER, transport)
  state = place(init_state(params, OPTIMIZER), transport)
  history = []
  for _ in range(steps):
    state, metrics = update(state, BATCH, token_weights(BATCH.mask))
    history.append({name: metric.compute() for name, metric in metrics.items()})
  return state, history


@functools.cache
def single():
  """The reference: plain JAX on one device, nothing of train/."""
  params, opt_state, history = PARAMS, OPTIMIZER.init(PARAMS), []
  gradient = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
  for _ in range(5):
    (loss, _), grads = gradient(params, BATCH, MASK / MASK.sum())
    updates, opt_state = OPTIMIZER.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    history.append({"loss": float(loss), "grad_norm": float(optax.tree.norm(grads))})
  return params, history


@pytest.mark.parametrize(
  "transport",
  [
    Transport("jit", 1, 1),
    Transport("jit", 1, 2),
    Transport("jit", 4, 1),
    Transport("pmap", 1, 1),
    Transport("pmap", 1, 2),
    Transport("shard_map", 1, 1),
    Transport("shard_map", 1, 2),
  ],
  ids=lambda t: f"{t.kind}-fsdp{t.fsdp}-micro{t.microbatches}",
)
def test_transports_agree_with_one_device(transport):
  if jax.device_count() != 8:
    pytest.skip("needs eight devices")
  state, history = train(transport)
  params, expected = single()
  for got, want in zip(history, expected, strict=True):
    assert got["loss"] == pytest.approx(want["loss"], rel=1e-5)
    assert got["nll"] == pytest.approx(want["loss"], rel=1e-5)
    assert got["grad_norm"] == pytest.approx(want["grad_norm"], rel=1e-4)
  for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
  "transport", [Transport("jit", 4, 2), Transport("pmap", 1, 1)], ids=lambda t: f"{t.kind}-micro{t.microbatches}"
)
def test_the_logged_loss_is_what_is_differentiated_whatever_the_weights_sum_to(transport):
  # Divided by the sum of the weights, a loss of 12 with weights mask / rows was logged as 3.
  if jax.device_count() != 8:
    pytest.skip("needs eight devices")
  weights = MASK / len(MASK)
  expected, gradient = jax.value_and_grad(lambda params: loss_fn(params, BATCH, weights)[0])(PARAMS)
  assert weights.sum() > 2
  update = make_update(make_loss(select_model(CONFIG, transport)), OPTIMIZER, transport)
  _, metrics = update(place(init_state(PARAMS, OPTIMIZER), transport), BATCH, weights)
  assert metrics["loss"].compute() == pytest.approx(float(expected), rel=1e-5)
  assert metrics["grad_norm"].compute() == pytest.approx(float(optax.tree.norm(gradient)), rel=1e-4)
  assert metrics["nll"].compute() == pytest.approx(float(expected) / weights.sum(), rel=1e-5)  # a mean is a mean


ADAPTED = add_lora(jax.random.key(3), PARAMS, rank=2, alpha=4.0, targets=("query", "up"))


@pytest.mark.parametrize(
  "transport",
  [
    Transport("jit", 4, 2),
    pytest.param(Transport("pmap", 1, 1), marks=pytest.mark.slow),
    pytest.param(Transport("shard_map", 1, 2), marks=pytest.mark.slow),
  ],
  ids=lambda t: f"{t.kind}-fsdp{t.fsdp}-micro{t.microbatches}",
)
def test_adapters_train_alike_under_every_transport(transport):
  """Against Adam on merged trees in plain JAX; the base is neither moved nor part of the optimiser's state."""
  if jax.device_count() != 8:
    pytest.skip("needs eight devices")
  state, history = train(transport, steps=3, params=ADAPTED)
  trained, base = split_lora(state.params)
  assert set(trained) == {"lora"}
  jax.tree.map(np.testing.assert_array_equal, base["decoder"], PARAMS["decoder"])
  assert sum(x.ndim > 0 for x in jax.tree.leaves(state.opt_state)) == 2 * len(jax.tree.leaves(trained))
  adapters, losses = adapted_on_one_device()
  assert [row["loss"] for row in history] == pytest.approx(losses, rel=1e-5)
  for a, b in zip(jax.tree.leaves(trained["lora"]), jax.tree.leaves(adapters), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


@functools.cache
def adapted_on_one_device():
  adapters, losses = ADAPTED["lora"], []
  opt_state = OPTIMIZER.init(adapters)

  def loss_of(adapters):
    params = {"decoder": merge_lora(PARAMS["decoder"], adapters, scale=2.0)}
    return loss_fn(params, BATCH, MASK / MASK.sum())[0]

  gradient = jax.jit(jax.value_and_grad(loss_of))
  for _ in range(3):
    loss, grads = gradient(adapters)
    updates, opt_state = OPTIMIZER.update(grads, opt_state, adapters)
    adapters = optax.apply_updates(adapters, updates)
    losses.append(float(loss))
  return adapters, losses


def test_a_mean_of_means_would_be_off_by_more_than_five_percent():
  logits = MODEL.apply(PARAMS, TOKENS) * 20
  loss = np.asarray(lm_loss(logits, TOKENS, mask=MASK))
  of_parts = np.mean([loss[i : i + 2].sum() / MASK[i : i + 2].sum() for i in range(0, 16, 2)])
  whole = loss.sum() / MASK.sum()
  assert abs(of_parts / whole - 1) > 0.05


def test_the_callers_parameters_survive_donation():
  train(Transport("jit", 1, 1), steps=2)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(PARAMS))


@pytest.mark.parametrize("fsdp", [1, 4])
def test_an_update_is_compiled_once_and_found_again_by_one_name(fsdp, monkeypatch):
  made, jit = [], jax.jit
  monkeypatch.setattr(jax, "jit", lambda *args, **kw: made.append(jit(*args, **kw)) or made[-1])
  train(Transport("jit", fsdp, 1), steps=3)
  assert [function._cache_size() for function in made if function.__name__ == "update"] == [1]


def test_masked_garbage_changes_nothing():
  update = make_update(loss_fn, OPTIMIZER, Transport("jit", 1, 1))
  garbage = Batch(np.where(MASK | (np.arange(8) == 0), TOKENS, 12), MASK)
  first, _ = update(place(init_state(PARAMS, OPTIMIZER), Transport("jit", 1, 1)), BATCH, token_weights(MASK))
  second, _ = update(place(init_state(PARAMS, OPTIMIZER), Transport("jit", 1, 1)), garbage, token_weights(MASK))
  jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


def test_means_pool_instead_of_averaging():
  a = Mean(jnp.array([1.0, 1.0, 1.0]), jnp.ones(3)).sum()
  b = Mean(jnp.array([5.0]), jnp.ones(1)).sum()
  assert (a + b).compute() == 2.0
  assert np.isnan(Mean(jnp.array([jnp.nan]), jnp.zeros(1)).compute())
  assert Mean(jnp.array([jnp.nan, 3.0]), jnp.array([0.0, 2.0])).compute() == 3.0
