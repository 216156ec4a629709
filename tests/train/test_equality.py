"""The same numbers on every mesh as on one device: loss, metrics, gradients and parameters of every stage.

The default run takes most stages on one mesh and each mesh at least once; `pytest -m slow` takes the whole table.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlhf_jax.algorithms import dpo, grpo, ppo, pretrain, reinforce, reward_model, rloo, sft
from rlhf_jax.evaluation.likelihood import make_likelihood
from rlhf_jax.models import DecoderConfig, add_lora, language_model, stack_layers
from rlhf_jax.positions import positions_of
from rlhf_jax.reduce import sequence_weights, token_weights
from rlhf_jax.stage import Transport
from rlhf_jax.train import by_rows, init_state, make_logprobs, make_measure, make_update, place, policy_and_value
from rlhf_jax.train.comparisons import pair_weights, sum_to_one
from rlhf_jax.train.mesh import using_devices
from rlhf_jax.train.packed_rows import pack_passes
from rlhf_jax.train.workspace import select_model
from rlhf_jax.types import Batch, Experience, Preferences

pytestmark = [
  pytest.mark.usefixtures("unoptimised"),
  pytest.mark.skipif(jax.device_count() != 8, reason="needs eight devices"),
]

CONFIG = DecoderConfig(32, 2, 16, 4, 2, 24, 12, tied=False)
ROWS, LENGTH = 11, 12  # no mesh of eight divides eleven rows
MODEL = language_model(CONFIG)
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(3, 32, (ROWS, LENGTH)).astype(np.int32)
# One long row beside short ones: a mean of means is far off.
LENGTHS = np.array([11, 2, 1, 3, 1, 10, 2, 1, 4, 1, 2])[:, None]
MASK = (np.arange(LENGTH) >= 1) & (np.arange(LENGTH) <= LENGTHS)
SEGMENTS = np.cumsum(np.arange(LENGTH) == np.array([0, 4, 6] * 4)[:ROWS, None], axis=1).astype(np.int32)
MESHES = {
  "data8": dict(kind="jit", fsdp=1),
  "fsdp8": dict(kind="jit", fsdp=8, data=1),
  "tensor4data2": dict(kind="jit", fsdp=1, tensor=4),
  "data2fsdp2tensor2": dict(kind="jit", fsdp=2, tensor=2),
  "pmap": dict(kind="pmap", fsdp=1),
}


def policy(model):
  """Parameters far enough from initialisation that attention matters."""
  return jax.tree.map(lambda x: x * (2.0 if x.ndim > 1 else 1.0), model.init(jax.random.key(0)))


def with_head(model, params):
  return model.init_head(jax.random.key(1), params)


def noise(*shape):
  return np.random.default_rng(7).normal(size=shape).astype(np.float32)


def experience():
  logp = np.where(MASK, -3 + 0.3 * noise(ROWS, LENGTH), 0).astype(np.float32)
  values = noise(ROWS, LENGTH)
  return Experience(
    TOKENS, MASK, logp, np.where(MASK, noise(ROWS, LENGTH), 0).astype(np.float32), values, values + 0.3, logp - 0.1
  )


def of_policy(stage):
  """(loss function, parameters, batch, weights) of a stage that learns from an experience."""

  def case(model):
    alone, both = {"policy": policy(model)}, {"policy": policy(model), "value": with_head(model, policy(model))}
    batch, tokens = experience(), np.asarray(token_weights(MASK))
    if stage == "reinforce":
      apply, _ = policy_and_value(model, shared_trunk=False)
      return reinforce.make_loss(apply, value_coef=0.5, entropy_coef=0.1, temperature=0.7), both, batch, MASK / ROWS
    if stage == "rloo":
      rows = np.full(ROWS, 1 / ROWS, np.float32)
      loss_fn = rloo.make_loss(model.apply, clip=0.5)
      return loss_fn, alone["policy"], batch.replace(values=None, returns=None), rows
    if stage == "grpo":
      loss_fn = grpo.make_loss(model.apply, clip=(0.2, 0.3), ratio="sequence", kl_coef=0.1, kl_kind="k3")
      return loss_fn, alone["policy"], batch, np.asarray(sequence_weights(MASK))
    apply, _ = policy_and_value(model, shared_trunk=stage == "ppo_shared")
    loss_fn = ppo.make_loss(apply, clip=0.2, value_clip=0.2, value_coef=0.5, entropy_coef=0.01, temperature=0.7)
    shared = {"policy": with_head(model, policy(model))}
    return loss_fn, shared if stage == "ppo_shared" else both, batch, tokens

  return case


def language(model):
  return sft.make_loss(model.apply), policy(model), Batch(TOKENS, MASK, SEGMENTS), np.asarray(token_weights(MASK))


def pretraining(model):
  batch = Batch(TOKENS, np.ones_like(MASK))
  return pretrain.make_loss(model.apply, z_loss=1e-2), policy(model), batch, np.asarray(token_weights(batch.mask))


def adapters(model):
  loss_fn, params, batch, weights = language(model)
  adapted = add_lora(jax.random.key(3), params, rank=2, alpha=4.0, targets=("query", "up"))
  adapted["lora"] = jax.tree.map(lambda x: x + 0.1, adapted["lora"])
  return loss_fn, adapted, batch, weights


def responses():
  """(tokens, mask, ranks) of five groups of three responses."""
  tokens = RNG.integers(3, 32, (5, 3, LENGTH)).astype(np.int32)
  mask = np.arange(LENGTH) < np.array([[3, 12, 4], [5, 2, 2], [6, 6, 9], [4, 4, 12], [3, 3, 3]])[..., None]
  return tokens, mask, np.array([[0, 1, 2], [1, 0, -1], [0, 0, 1], [2, 0, 1], [1, 1, 0]], np.int32)


RESPONSES = responses()


def rewards(model):
  tokens, mask, ranks = RESPONSES
  ratings = np.where(ranks > 0, np.float32(np.nan), noise(5, 3)).astype(np.float32)
  batch = Preferences(tokens, mask, ranks, ratings)
  rows = {"ranks": ranks, "ratings": ratings, "weight": np.float32([1, 2, 1, 1, 3])}
  return (
    reward_model.make_loss(model.score), with_head(model, policy(model)), batch,
    sum_to_one(reward_model.row_weights(rows)),
  )  # fmt: skip


def preferences(name):
  def case(model):
    tokens, mask, ranks = RESPONSES
    batch = dpo.Groups(tokens, mask, (-20 + noise(5, 3)).astype(np.float32), np.full(5, 0.3, np.float32))
    return dpo.make_loss(model.apply, dpo.Loss(name, 0.1)), policy(model), batch, pair_weights(ranks)

  return case


STAGES = {
  "pretrain": pretraining, "sft": language, "lora": adapters, "reward_model": rewards, "dpo": preferences("dpo"),
  "kto": preferences("kto"), "simpo": preferences("simpo"),
} | {name: of_policy(name) for name in ("reinforce", "rloo", "grpo", "ppo", "ppo_shared")}  # fmt: skip
RATE = 0.1
# Gradient descent, whose state is the last gradient.
DESCENT = optax.GradientTransformation(
  lambda params: jax.tree.map(jnp.zeros_like, params),
  lambda gradients, state, params=None: (jax.tree.map(lambda g: -RATE * g, gradients), gradients),
)
DIAGONAL = {
  ("pretrain", "data8"), ("sft", "data2fsdp2tensor2"), ("reward_model", "fsdp8"), ("dpo", "tensor4data2"),
  ("grpo", "fsdp8"), ("ppo", "data2fsdp2tensor2"), ("ppo_shared", "pmap"),
}  # fmt: skip
TABLE = [
  pytest.param(stage, mesh, form, marks=() if (stage, mesh) in DIAGONAL and form == forms[0] else pytest.mark.slow)
  for number, stage in enumerate(STAGES)
  for mesh in MESHES
  for forms in [("scanned", "unrolled")[:: 1 if number % 2 else -1]]
  for form in forms
]


def close(found, expected, what, limit=1e-5):
  """Largest difference within `limit` of the largest number, of each array; the worst of all is returned."""
  worst = 0.0
  for (path, a), (_, b) in zip(*map(flat, (found, expected)), strict=True):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    gap = np.max(np.abs(a - b), initial=0.0) / max(np.max(np.abs(b), initial=0.0), 1e-6)
    assert gap <= limit, f"{what} {path}: off by {gap:.1e}"
    worst = max(worst, gap)
  return worst


def flat(tree):
  return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def three_steps(transport, case, form, picked=False, packed=False):
  """(metrics and gradients of the first step, parameters after three) on the host.

  picked: whether forwards are of the positions of the mask alone. packed: whether they are of packed rows.
  """
  model = select_model(CONFIG, transport)
  loss_fn, params, batch, weights = case(model)
  batch = batch.replace(at=positions_of(batch.mask)) if picked else batch
  if packed:
    (packing,) = pack_passes(batch.tokens, batch.mask, [np.arange(len(batch.mask))[None]], LENGTH - 1, transport)
    batch = batch.replace(at=packing)
  params = stack_layers(params) if form == "scanned" else params
  update = make_update(loss_fn, DESCENT, transport)
  state = place(init_state(params, DESCENT), transport)
  state, metrics = update(state, batch, weights)
  first = {name: metric.compute() for name, metric in metrics.items()}, jax.device_get(state.opt_state)
  for _ in range(2):
    state, _ = update(state, batch, weights)
  return *first, jax.device_get(state.params)


@functools.cache
def on_one_device(stage, form):
  with using_devices(jax.devices()[:1]):
    return three_steps(Transport("jit", 1, 1), STAGES[stage], form)


@pytest.mark.parametrize("stage, mesh, form", TABLE)
def test_a_mesh_takes_the_steps_of_one_device(stage, mesh, form):
  """With two microbatches, whose rows do not divide, logits in chunks, which do not divide either, and a forward of the
  positions that count."""
  metrics, gradients, params = three_steps(
    Transport(microbatches=2, logits_chunk=5, **MESHES[mesh]), STAGES[stage], form, picked=True
  )
  expected = on_one_device(stage, form)
  worst = [
    close(found, there, what)
    for found, there, what in zip((metrics, gradients, params), expected, ("metric", "gradient", "weight"), strict=True)
  ]
  print(f"{stage} {mesh} {form}: metrics {worst[0]:.1e}, gradients {worst[1]:.1e}, parameters {worst[2]:.1e}")


def four_times(stage):
  """The case of a stage with four times the rows, so that every device has some to pack."""

  def case(model):
    loss_fn, params, batch, weights = STAGES[stage](model)
    batch, weights = jax.tree.map(lambda x: np.concatenate([x] * 4), (batch, weights))
    return loss_fn, params, batch, weights / 4

  return case


@pytest.mark.parametrize(
  "stage, mesh, form",
  [
    ("grpo", "fsdp8", "scanned"), ("ppo", "data2fsdp2tensor2", "unrolled"), ("ppo_shared", "pmap", "unrolled"),
    pytest.param("rloo", "tensor4data2", "scanned", marks=pytest.mark.slow),
    pytest.param("reinforce", "data8", "unrolled", marks=pytest.mark.slow),
    pytest.param("ppo", "fsdp8", "scanned", marks=pytest.mark.slow),
    pytest.param("grpo", "pmap", "unrolled", marks=pytest.mark.slow),
  ],
)  # fmt: skip
def test_packed_rows_take_the_steps_of_rows(stage, mesh, form):
  """On a mesh, with two microbatches and logits in chunks, against one device that reads a row for each sequence."""
  found = three_steps(Transport(microbatches=2, logits_chunk=5, **MESHES[mesh]), four_times(stage), form, packed=True)
  with using_devices(jax.devices()[:1]):
    expected = three_steps(Transport("jit", 1, 1), four_times(stage), form)
  for a, b, what in zip(found, expected, ("metric", "gradient", "weight"), strict=True):
    close(a, b, what)


def evaluated(transport, form, *at):
  """What evaluations read: the loss and its metrics, scores, log-probs, values, and likelihoods of texts."""
  model = select_model(CONFIG, transport)
  loss_fn, params, batch, weights = STAGES["kto"](model)
  params = with_head(model, params)
  params = stack_layers(params) if form == "scanned" else params
  params = place(init_state(params, DESCENT), transport).params
  metrics = make_measure(loss_fn, transport)(params, batch, weights)
  pairs = [(row[:2], row[2:]) for row in TOKENS.tolist()]
  rows = {
    "score": by_rows(model.score, transport),
    "value": by_rows(lambda p, t, m, *at: jnp.where(m, model.value(p, t, None, *at), 0), transport),
    "logp": make_logprobs(model.apply, 0.7, transport),
  }
  found = {name: jax.jit(function)(params, TOKENS, MASK, *at) for name, function in rows.items()}
  likelihood = make_likelihood(model, 0, 4, transport)(params, pairs)[0]
  return {name: metric.compute() for name, metric in metrics.items()}, {**found, "likelihood": likelihood}


@functools.cache
def evaluated_on_one_device(form):
  with using_devices(jax.devices()[:1]):
    return evaluated(Transport("jit", 1, 1), form)


@pytest.mark.parametrize(
  "mesh, form",
  [
    pytest.param(mesh, form, marks=() if (mesh, form) == ("data2fsdp2tensor2", "scanned") else pytest.mark.slow)
    for mesh in MESHES
    for form in ("scanned", "unrolled")
  ],
)
def test_evaluations_are_those_of_one_device(mesh, form):
  found = evaluated(Transport(microbatches=2, logits_chunk=5, **MESHES[mesh]), form, positions_of(MASK))
  expected = evaluated_on_one_device(form)
  assert found[1]["logp"].shape == (ROWS, LENGTH) and found[1]["score"].shape == (ROWS,)
  worst = [close(a, b, what) for a, b, what in zip(found, expected, ("metric", "result"), strict=True)]
  print(f"evaluation {mesh} {form}: metrics {worst[0]:.1e}, rows {worst[1]:.1e}")
