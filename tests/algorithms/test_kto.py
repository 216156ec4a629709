"""KTO and its relatives on single responses: the loss response by response, the rows, and the stage."""

import jax
import numpy as np
import optax
import pytest
import tabular
from tiny_chain import a_stage, recipe, run_stages

from rlhf_jax import data
from rlhf_jax.algorithms import kto
from rlhf_jax.stage import Transport
from rlhf_jax.train import init_state, make_update, place
from rlhf_jax.train.labelled import load_labelled
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.train.response_logprobs import mismatched_rows

pytestmark = pytest.mark.usefixtures("unoptimised")
PROBLEM = tabular.tree(seed=7, stop=True)
NAMES = ("kto", "bco", "apo_zero")
WEIGHTED = dict(desirable_weight=1.5, undesirable_weight=0.7)
DESIRABLE = np.array([1, 0, 1, 1, 0, 0], bool)
LEVEL = 0.3


def apply(params, tokens):
  return tabular.make_apply(PROBLEM)({"logits": params, "values": np.zeros(tabular.STATES + 1)}, tokens)[0]


def labelled(name):
  """Six responses, and a policy that is not the reference; the weight of the last is 0."""
  rng = np.random.default_rng(1)
  tokens = tabular.leaves(PROBLEM)[rng.integers(0, len(tabular.leaves(PROBLEM)), len(DESIRABLE))]
  mask = np.asarray(tabular.states(PROBLEM, tokens) != tabular.STATES)
  ref = np.where(mask, tabular.logprobs(PROBLEM, PROBLEM.reference, tokens), 0).sum(axis=-1)
  table = PROBLEM.reference + rng.normal(0, 0.5, PROBLEM.reference.shape).astype(np.float32)
  level = np.full(len(tokens), 0.0 if name == "apo_zero" else LEVEL, np.float32)
  return kto.Labelled(tokens, mask, DESIRABLE, ref, level), np.float32([0.2] * 5 + [0]), table


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_and_its_metrics_response_by_response(name):
  batch, weights, table = labelled(name)
  loss, metrics = jax.jit(kto.make_loss(apply, kto.Loss(name, 0.4, **WEIGHTED)))(table, batch, weights)
  logp = np.where(batch.mask, tabular.logprobs(PROBLEM, table, batch.tokens), 0).sum(axis=-1)
  losses, right = [], []
  for d, good in zip((logp - batch.ref_logp)[:5], DESIRABLE, strict=False):
    beyond = {"kto": 0.4 * (d - LEVEL), "bco": 0.4 * d - LEVEL, "apo_zero": 0.4 * d}[name]
    of_good = 1 / (1 + np.exp(-beyond if good else beyond))
    losses.append((1.5 if good else 0.7) * (-np.log(of_good) if name == "bco" else 1 - of_good))
    right.append((beyond > 0) == good)
  assert float(loss) == pytest.approx(np.mean(losses), rel=1e-4)
  found = {key: metric.compute() for key, metric in metrics.items()}
  assert found["accuracy"] == pytest.approx(np.mean(right)) and 0 < found["accuracy"] < 1
  rewards = 0.4 * (logp - batch.ref_logp)[:5]
  assert found["reward/desirable"] == pytest.approx(rewards[DESIRABLE[:5]].mean(), rel=1e-4)
  assert found["reward/undesirable"] == pytest.approx(rewards[~DESIRABLE[:5]].mean(), rel=1e-4)
  assert found.get({"kto": "kl/mismatch", "bco": "reward/shift"}.get(name), LEVEL) == pytest.approx(LEVEL)


@pytest.mark.parametrize("name", NAMES)
def test_prompts_padding_and_rows_without_weight_count_nothing(name):
  batch, weights, table = labelled(name)
  loss_fn = jax.jit(jax.value_and_grad(kto.make_loss(apply, kto.Loss(name, 0.4)), has_aux=True))
  (loss, metrics), grads = loss_fn(table, batch, weights)
  spoilt = np.concatenate([table[:-1], np.full_like(table[-1:], np.nan)])
  garbage = batch.replace(ref_logp=np.where(weights > 0, batch.ref_logp, np.nan).astype(np.float32))
  (again, metrics_again), grads_again = loss_fn(spoilt, garbage, weights)
  assert float(loss) == float(again) and np.isfinite(grads).all()
  np.testing.assert_array_equal(grads, grads_again)
  assert all(metrics[key].compute() == metrics_again[key].compute() for key in metrics)


def test_it_is_the_same_however_the_batch_is_cut():
  (batch, weights, table), results = labelled("kto"), []
  for microbatches in (1, 3):
    transport = Transport("jit", 1, microbatches)
    state = place(init_state(table, optax.sgd(1.0)), transport)
    rows, shares = jax.tree.map(lambda x: np.repeat(x, 8, axis=0), (batch, weights))
    loss_fn = kto.make_loss(apply, kto.Loss("kto", 0.4, **WEIGHTED))
    state, metrics = make_update(loss_fn, optax.sgd(1.0), transport)(state, rows, shares / 8)
    results.append((state.params, {key: metric.compute() for key, metric in metrics.items()}))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)


def test_every_key_of_the_loss_has_an_effect():
  for name in NAMES:
    batch, weights, table = labelled(name)
    settings = dict(beta=0.4, **WEIGHTED)
    losses = [
      float(jax.jit(kto.make_loss(apply, kto.Loss(name, **{**settings, **changes})))(table, batch, weights)[0])
      for changes in ({}, *({key: value + 0.2} for key, value in settings.items()))
    ]
    assert len({round(loss, 4) for loss in losses}) == 4, name


def test_z_is_the_mean_over_mismatched_pairs_and_delta_between_the_two_kinds():
  logp = np.float32([1.0, 2.0, 6.0, 9.0])
  mask = np.array([[1, 1], [0, 1], [1, 0], [0, 0]], bool)
  rows = (np.zeros((4, 2), np.int32), mask, None, np.float32([0, 1, 1, 1]), np.array([1, 1, 0, 0], bool))
  logprobs = lambda params, tokens, mask, at: logp  # noqa: E731
  assert kto.make_baseline(logprobs, kto.Loss("kto", 0.5))(None, *rows) == pytest.approx((1 + 1 + 5) / 3)
  assert kto.make_baseline(logprobs, kto.Loss("bco", 0.5))(None, *rows) == pytest.approx(0.5 * 0.5 * (1 + 5))


def test_a_mismatched_row_has_the_next_response_to_another_prompt(chain):
  tokenizer = data.load_tokenizer(chain / "vocabulary" / "tokenizer.json")
  prompts, responses = ["Who is Tom?", "Who is Tom?", "Who is Ann?"], ["A.", "B.", "C " * 60]
  tokens, mask = mismatched_rows(tokenizer, prompts, responses, 48)
  pairs = [data.Demonstration("Who is Ann?", "A.")]
  expected, _ = data.demonstration_rows(tokenizer, pairs, 48)
  np.testing.assert_array_equal(tokens[2], expected["tokens"][0])
  np.testing.assert_array_equal(mask[2], expected["mask"][0])
  assert not mask[:2].any()  # too long
  assert not mismatched_rows(tokenizer, prompts[:2], responses[:2], 48)[1].any()  # there is no other prompt


def test_responses_to_a_prompt_are_never_split_and_pairs_are_taken_apart(tmp_path, chain):
  tokenizer = data.load_tokenizer(chain / "vocabulary" / "tokenizer.json")
  rows = [{"prompt": f"Who is {k % 20}?", "response": f"Ann {k}.", "label": k % 3 == 0} for k in range(60)]
  rows += [{"prompt": "Where?", "chosen": "Here.", "rejected": "There."}]
  rows += [{"prompt": "When?", "responses": ["Now.", "Then.", "Soon.", "Late."], "ranks": [1, 0, 2, -1]}]
  data.write_rows(tmp_path / "rows.jsonl", rows)
  sides = load_labelled("{run}/rows.jsonl", a_stage(tmp_path), tokenizer, 64, 0.3)
  prompts = [{record.prompt for record in side.responses} for side in sides]
  assert not prompts[0] & prompts[1] and len(prompts[0] | prompts[1]) == 22
  found = [record[:3] for side in sides for record in side.responses]
  assert ("Where?", "Here.", True) in found and ("Where?", "There.", False) in found
  assert ("When?", "Then.", True) in found and ("When?", "Soon.", False) in found and len(found) == 64
  for side in sides:
    assert side.rows["desirable"].tolist() == [record.desirable for record in side.responses]
    assert side.rows["tokens"].shape == (len(side.responses), 64) == side.rows["mask"].shape


@pytest.mark.parametrize("name", NAMES)
def test_the_stage_learns_the_labels(chain, tmp_path, name):
  section = f"unpaired_{name}"
  settings = dict(length=64, batch_size=16, eval_fraction=0.2, num_epochs=3, optimizer=dict(learning_rate=2e-2))
  run_stages(recipe("kto", name), chain, tmp_path, {section: settings})
  rows = read_metrics(tmp_path / section / "metrics.jsonl")
  assert rows[0]["loss"] == pytest.approx(np.log(2) if name == "bco" else 0.5, abs=1e-3)
  assert rows[0]["accuracy"] == 0.5 and abs(rows[0]["kl/forward"]) < 1e-3
  assert rows[-1]["loss"] < 0.9 * rows[0]["loss"] and rows[-1]["accuracy"] > 0.6
  assert rows[-1]["reward/desirable"] > rows[-1]["reward/undesirable"]
  assert {"eval/loss", "eval/accuracy", "eval/reward/desirable"} <= rows[-1].keys()
  if name == "kto":
    assert abs(rows[0]["kl/mismatch"]) < 1e-3 < abs(rows[-1]["kl/mismatch"])
