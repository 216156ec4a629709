"""The mix of pretraining in an update: its gradient, its rows, and what it does to a stage on the tiny chain."""

import jax
import numpy as np
import optax
import pytest
from tiny_chain import a_stage, recipe, run_stages, shortness

from rlhf_jax.algorithms import ppo
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.objectives import lm_loss
from rlhf_jax.reduce import token_weights, weighted_sum
from rlhf_jax.stage import Transport
from rlhf_jax.train import Ptx, init_state, make_update, open_ptx, place, policy_and_value, with_ptx
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.types import Batch, Experience

pytestmark = pytest.mark.usefixtures("unoptimised")
ROWS, LENGTH = 4, 10
RNG = np.random.default_rng(0)
MODEL = language_model(DecoderConfig(24, 1, 16, 2, 2, 24, 16, tied=False))
TOKENS = RNG.integers(3, 24, (ROWS, LENGTH)).astype(np.int32)
MASK = np.arange(LENGTH) >= np.array([[3], [2], [5], [4]])
EPISODES = Experience(
  TOKENS, MASK, np.where(MASK, -3.0, 0).astype(np.float32), RNG.normal(size=(ROWS, LENGTH)).astype(np.float32),
  *RNG.normal(size=(2, ROWS, LENGTH)).astype(np.float32),
)  # fmt: skip
SETTINGS = Ptx(text="corpus.txt", coef=2.5, rows=3, length=8)
TEXT_MASK = RNG.random((ROWS, 3, 8)) < 0.8
TEXTS = Batch(RNG.integers(3, 24, (ROWS, 3, 8)).astype(np.int32), TEXT_MASK)


def loss_of():
  apply, _ = policy_and_value(MODEL, shared_trunk=False)
  return ppo.make_loss(apply, clip=0.2, value_clip=0.2, value_coef=0.5, entropy_coef=0.01)


@pytest.fixture(scope="module")
def params():
  policy = MODEL.init(jax.random.key(0))
  return {"policy": policy, "value": MODEL.init_head(jax.random.key(1), policy)}


def test_the_gradient_is_the_sum_of_both(params):
  weights, shares = np.asarray(token_weights(MASK)), np.asarray(token_weights(TEXT_MASK))

  def language(params):
    logits = MODEL.apply(params["policy"], TEXTS.tokens.reshape(-1, 8))
    return weighted_sum(
      lm_loss(logits, TEXTS.tokens.reshape(-1, 8), mask=TEXT_MASK.reshape(-1, 8)), shares.reshape(-1, 8)
    )

  @jax.jit
  def gradients(params):
    mixed = with_ptx(SETTINGS, loss_of(), MODEL.apply)
    (loss, metrics), both = jax.value_and_grad(mixed, has_aux=True)(params, (EPISODES, TEXTS), (weights, shares))
    (alone, _), of_episodes = jax.value_and_grad(loss_of(), has_aux=True)(params, EPISODES, weights)
    text, of_text = jax.value_and_grad(language)(params)
    return loss, both, alone, of_episodes, text, of_text, metrics["ptx/loss"].sum()

  loss, both, alone, of_episodes, text, of_text, metric = gradients(params)
  assert loss == pytest.approx(float(alone + 2.5 * text), rel=1e-5) and metric.compute() == pytest.approx(float(text))
  expected = jax.tree.map(lambda a, b: a + 2.5 * b, of_episodes, of_text)
  jax.tree.map(lambda found, want: np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6), both, expected)
  assert max(float(np.abs(x).max()) for x in jax.tree.leaves(of_text["policy"])) > 1e-2
  assert not any(np.any(x) for x in jax.tree.leaves(of_text["value"]))


def test_without_settings_nothing_is_changed():
  loss_fn = loss_of()
  assert with_ptx(None, loss_fn, MODEL.apply) is loss_fn
  mixed = open_ptx(None, None, MODEL, None, episodes=4, updates=2)
  assert mixed(loss_fn, 3) is loss_fn


@pytest.mark.parametrize("transport", [Transport("jit", 1, 1), Transport("jit", 1, 2), Transport("pmap", 1, 1)])
def test_an_update_is_the_same_however_its_rows_are_cut(params, transport):
  optimizer = optax.sgd(0.1)
  weights, shares = np.asarray(token_weights(MASK)), np.asarray(token_weights(TEXT_MASK))
  update = make_update(with_ptx(SETTINGS, loss_of(), MODEL.apply), optimizer, transport)
  state, metrics = update(place(init_state(params, optimizer), transport), (EPISODES, TEXTS), (weights, shares))
  loss_fn = with_ptx(SETTINGS, loss_of(), MODEL.apply)
  (loss, _), grads = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(params, (EPISODES, TEXTS), (weights, shares))
  assert metrics["loss"].compute() == pytest.approx(float(loss), rel=1e-5)
  expected = jax.tree.map(lambda x, g: x - 0.1 * g, params, grads)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state.params, expected)


class Characters:
  """A tokenizer of single characters, as far as rows of text need one."""

  bos_id, pad_id = 1, 0

  def encode(self, text):
    return [3 + ord(letter) % 20 for letter in text]


def test_the_rows_of_an_update_follow_from_its_number(tmp_path):
  (tmp_path / "corpus.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
  settings = Ptx(text=str(tmp_path / "corpus.txt"), coef=1.0, rows=2, length=8)
  seen = []

  def update(state, batch, weights):
    (_, texts), (_, shares) = batch, weights
    assert texts.tokens.shape == shares.shape == (4, 2, 8) and shares.sum() == pytest.approx(1)
    seen.append(texts.tokens)
    return state, {}

  mixed = open_ptx(settings, a_stage(tmp_path), MODEL, Characters(), episodes=4, updates=2)
  for index in (0, 1, 0):
    of_step = mixed(update, index)
    for _ in range(2):
      of_step(None, EPISODES, None)
  first, second, third, fourth, again, and_again = seen
  np.testing.assert_array_equal(first, again)
  np.testing.assert_array_equal(second, and_again)
  assert len({x.tobytes() for x in (first, second, third, fourth)}) == 4


def test_with_it_a_stage_keeps_its_language(chain, tmp_path):
  """The loss of text under a reward that text does not have, at a rate that spoils the model without the mix."""
  environment = shortness(tmp_path, batch_size=16)
  ends = {}
  for coef in (0.0, 5.0):
    ptx = dict(text=f"{chain}/world/corpus.txt", coef=coef, rows=1, length=32)
    settings = dict(num_steps=6, optimizer=dict(learning_rate=1e-2), environment=environment, ptx=ptx, kl_coef=0.0)
    run_stages(recipe("ppo"), chain, tmp_path / str(coef), {"ppo": settings})
    rows = read_metrics(tmp_path / str(coef) / "ppo" / "metrics.jsonl")
    ends[coef] = rows[0]["ptx/loss"], rows[-1]["ptx/loss"]
  assert ends[5.0][1] < ends[5.0][0] - 0.1 and ends[5.0][1] < ends[0.0][1] - 0.2
