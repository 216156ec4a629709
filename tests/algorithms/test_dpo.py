"""DPO and its relatives: exact optima on tables, every loss pair by pair, and the stage on the tiny chain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular
from tiny_chain import SIZES, a_stage, recipe, run_stages

from rlhf_jax import data
from rlhf_jax.algorithms import dpo
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.stage import Transport
from rlhf_jax.train import init_state, make_measure, make_update, place, update
from rlhf_jax.train.comparisons import load_comparisons, pair_weights
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.train.pair_losses import OPTIONS
from rlhf_jax.train.parameters import load_params

pytestmark = pytest.mark.usefixtures("unoptimised")
PROBLEM = tabular.tree(seed=7, stop=True)
SETTINGS = {
  "dpo": dict(beta=0.4, label_smoothing=0.1),
  "robust": dict(beta=0.4, label_smoothing=0.1),
  "sigmoid_norm": dict(beta=0.4, label_smoothing=0.1),
  "ipo": dict(beta=0.4),
  "hinge": dict(beta=0.4),
  "exo_pair": dict(beta=0.4, label_smoothing=0.1),
  "discopop": dict(beta=0.4, temperature=0.5),
  "aot": dict(beta=0.4, label_smoothing=0.1),
  "aot_unpaired": dict(beta=0.4, label_smoothing=0.1),
  "kto": dict(beta=0.4, desirable_weight=1.5, undesirable_weight=0.7),
  "bco_pair": dict(beta=0.4),
  "nca_pair": dict(beta=0.4),
  "apo_zero": dict(beta=0.4),
  "apo_down": dict(beta=0.4),
  "sppo_hard": dict(beta=0.4),
  "orpo": dict(beta=0.4),
  "simpo": dict(beta=2.0, margin=0.6),
}
OF_THE_BATCH = ("aot", "aot_unpaired")
RANKS = np.array([[0, 1, 2, 3], [1, 0, 1, 2], [0, 0, 0, 0], [2, -1, 0, 0], [-1, 0, -1, 1], [0, -1, -1, -1]])
Z = 0.05  # KTO's


def apply(params, tokens):
  return tabular.make_apply(PROBLEM)({"logits": params, "values": np.zeros(tabular.STATES + 1)}, tokens)[0]


def groups_of(problem, tokens, present=None):
  """Groups[N, K] of rows of tokens; the absent ones have no token that counts."""
  flat = tokens.reshape(-1, tabular.WIDTH)
  mask = np.asarray(tabular.states(problem, flat) != tabular.STATES).reshape(tokens.shape)
  mask = mask if present is None else mask & present[..., None]
  logp = np.asarray(tabular.logprobs(problem, problem.reference, flat)).reshape(tokens.shape)
  return dpo.Groups(tokens, mask, np.where(mask, logp, 0).sum(axis=-1), np.full(len(tokens), Z, np.float32))


def ranked():
  """Groups of four responses with ties and absences, their pair weights, and a policy that is not the reference."""
  rng = np.random.default_rng(1)
  tokens = tabular.leaves(PROBLEM)[rng.integers(0, len(tabular.leaves(PROBLEM)), RANKS.shape)]
  table = PROBLEM.reference + rng.normal(0, 0.5, PROBLEM.reference.shape).astype(np.float32)
  return groups_of(PROBLEM, tokens, RANKS >= 0), pair_weights(RANKS), table


def descend(problem, settings, weights, steps=800):
  """The policy that minimises the loss over all responses as one group, from the reference."""
  groups = groups_of(problem, tabular.leaves(problem)[None])
  loss_fn = dpo.make_loss(
    lambda table, tokens: tabular.make_apply(problem)({"logits": table, "values": table[:, 0]}, tokens)[0], settings
  )
  optimizer = optax.adam(optax.linear_schedule(0.1, 0.0, steps))

  def step(carry, _):
    table, state = carry
    grads = jax.grad(lambda table: loss_fn(table, groups, weights)[0])(table)
    updates, state = optimizer.update(grads, state)
    return (table + updates, state), None

  table = jnp.asarray(problem.reference)
  run = jax.jit(lambda table: jax.lax.scan(step, (table, optimizer.init(table)), length=steps)[0][0])
  return tabular.distribution(problem, run(table))


@pytest.mark.parametrize("name", ["bandit", "ragged"])
def test_the_optimum_of_dpo_is_that_of_rlhf(name):
  """All pairs, labelled by Bradley-Terry on r: p_ref exp(r / beta) / Z, which PPO and REINFORCE find too."""
  problem = {"bandit": tabular.bandit((0.5, 0.3, 0.2), (0, 1, 2)), "ragged": tabular.tree(seed=2, stop=True)}[name]
  beta = {"bandit": 1.0, "ragged": 0.5}[name]
  rewards = np.asarray(tabular.scores(problem, tabular.leaves(problem)))
  wins = 1 / (1 + np.exp(rewards[None, :] - rewards[:, None])) * (1 - np.eye(len(rewards)))
  found = descend(problem, dpo.Loss("dpo", beta), np.float32(wins / wins.sum())[None])
  expected = tabular.optimum(problem, beta)
  assert np.abs(tabular.distribution(problem, problem.reference) - expected).sum() > 0.3
  np.testing.assert_allclose(found, expected, atol=2e-4)
  if name == "bandit":
    np.testing.assert_allclose(found, [0.1790000, 0.2919435, 0.5290565], atol=2e-4)


def test_ipo_stops_at_its_margin_where_all_labels_agree():
  problem = tabular.bandit((0.5, 0.3, 0.2), (0, 0, 0))
  found = descend(problem, dpo.Loss("ipo", 0.5), pair_weights(np.array([[0, 1, -1]])))
  assert np.log(found[0] / found[1]) - np.log(5 / 3) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("name, expected", [("dpo", np.log(2)), ("ipo", 1.25**2), ("kto", 0.5)])
def test_at_the_reference_nothing_is_known(name, expected):
  groups, weights, _ = ranked()
  groups = groups.replace(kl=np.zeros_like(groups.kl))
  loss, metrics = jax.jit(dpo.make_loss(apply, dpo.Loss(name, 0.4)))(PROBLEM.reference, groups, weights)
  assert float(loss) == pytest.approx(expected, rel=1e-5)
  np.testing.assert_allclose([metrics[key].compute() for key in ("margin", "kl/forward")], 0, atol=1e-6)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def pair_loss(name, chosen, rejected, ref_chosen, ref_rejected, lengths):
  """The loss of one pair as the papers write it, from sums of log-probs."""
  settings = SETTINGS[name]
  h, (n, m) = (chosen - ref_chosen) - (rejected - ref_rejected), lengths
  x, right, wrong = 0.4 * h, 0.4 * (chosen - ref_chosen), 0.4 * (rejected - ref_rejected)
  log, p = np.log, sigmoid(x)
  simple = {
    "robust": (-0.9 * log(p) + 0.1 * log(1 - p)) / 0.8,
    "hinge": max(1 - x, 0),
    "exo_pair": p * log(p / 0.9) + (1 - p) * log((1 - p) / 0.1),
    "discopop": -log(p) * (1 - sigmoid(x / 0.5)) + np.exp(-x) * sigmoid(x / 0.5),
    "bco_pair": -log(sigmoid(right)) - log(sigmoid(-wrong)),
    "nca_pair": -log(sigmoid(right)) - 0.5 * log(sigmoid(-right)) - 0.5 * log(sigmoid(-wrong)),
    "apo_zero": 1 - sigmoid(right) + sigmoid(wrong),
    "apo_down": sigmoid(right) + 1 - p,
    "sppo_hard": (chosen - ref_chosen - 1 / 0.8) ** 2 + (rejected - ref_rejected + 1 / 0.8) ** 2,
  }
  if name in simple:
    return simple[name]
  if name == "sigmoid_norm":
    mean = 0.4 * ((chosen - ref_chosen) / n - (rejected - ref_rejected) / m)
    return -0.9 * log(sigmoid(mean)) - 0.1 * log(sigmoid(-mean))
  if name == "dpo":
    return -0.9 * np.log(sigmoid(0.4 * h)) - 0.1 * np.log(sigmoid(-0.4 * h))
  if name == "ipo":
    return (h - 1 / 0.8) ** 2
  if name == "kto":
    gains = 0.4 * (chosen - ref_chosen - Z), 0.4 * (Z - rejected + ref_rejected)
    return 0.5 * (1.5 * (1 - sigmoid(gains[0])) + 0.7 * (1 - sigmoid(gains[1])))
  if name == "simpo":
    return -np.log(sigmoid(settings["beta"] * (chosen / n - rejected / m) - settings["margin"]))
  p, q = np.exp(chosen / n), np.exp(rejected / m)
  return -chosen / n - 0.4 * np.log(sigmoid(np.log(p / (1 - p)) - np.log(q / (1 - q))))


@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in OF_THE_BATCH])
def test_every_loss_and_its_metrics_pair_by_pair(name):
  groups, weights, table = ranked()
  settings = dpo.Loss(name, **SETTINGS[name])
  loss, metrics = jax.jit(dpo.make_loss(apply, settings))(table, groups, weights)
  logp = np.asarray(tabular.logprobs(PROBLEM, table, groups.tokens.reshape(-1, tabular.WIDTH)), np.float64)
  logp = np.where(groups.mask, logp.reshape(groups.tokens.shape), 0).sum(axis=-1)
  lengths, ref = groups.mask.sum(axis=-1), np.asarray(groups.ref_logp)
  rewards = logp / np.maximum(lengths, 1) if name in ("orpo", "simpo") else logp - ref
  rewards = rewards / np.maximum(lengths, 1) if name == "sigmoid_norm" else rewards
  of_groups, margins = [], []
  for n, ranks in enumerate(RANKS):
    pairs = [(i, j) for i in range(4) for j in range(4) if 0 <= ranks[i] < ranks[j]]
    margins += [settings.beta * (rewards[n, i] - rewards[n, j]) for i, j in pairs]
    losses = [
      pair_loss(name, logp[n, i], logp[n, j], ref[n, i], ref[n, j], (lengths[n, i], lengths[n, j])) for i, j in pairs
    ]
    of_groups += [np.mean(losses)] if pairs else []
  assert len(of_groups) == 4 and len(margins) == 6 + 5 + 2 + 1
  assert float(loss) == pytest.approx(np.mean(of_groups), rel=1e-4)
  assert metrics["margin"].compute() == pytest.approx(np.mean(margins), rel=1e-4)
  assert metrics["accuracy"].compute() == pytest.approx(np.mean((np.sign(margins) + 1) / 2))
  assert metrics["kl/forward"].compute() == pytest.approx((ref - logp)[RANKS >= 0].mean(), rel=1e-4)
  assert ("kl/mismatch" in metrics) == (name == "kto")


def test_aot_sorts_all_pairs_of_the_batch_and_wpo_weighs_each():
  groups, weights, table = ranked()
  logp = np.asarray(tabular.logprobs(PROBLEM, table, groups.tokens.reshape(-1, tabular.WIDTH)), np.float64)
  logp = np.where(groups.mask, logp.reshape(groups.tokens.shape), 0).sum(axis=-1)
  n, i, j = np.nonzero(weights)
  margins, ref_margins = (x[n, i] - x[n, j] for x in (logp, np.asarray(groups.ref_logp)))
  order = np.argsort(np.argsort(margins))  # the place of each pair's margin
  x = 0.4 * (margins - np.sort(ref_margins)[order])
  losses = -0.9 * np.log(sigmoid(x)) - 0.1 * np.log(sigmoid(-x))
  found, _ = dpo.make_loss(apply, dpo.Loss("aot", **SETTINGS["aot"]))(table, groups, weights)
  assert float(found) == pytest.approx(np.sum(weights[n, i, j] * losses), rel=1e-4)
  # WPO: each response weighs its mean of p / sum p^2, in logs.
  states = np.asarray(tabular.states(PROBLEM, groups.tokens.reshape(-1, tabular.WIDTH)))
  p = np.asarray(jax.nn.softmax(table))[states]
  aligned = np.log(np.take_along_axis(p, groups.tokens.reshape(-1, tabular.WIDTH)[..., None], -1)[..., 0])
  aligned = (aligned - np.log((p**2).sum(axis=-1))).reshape(groups.tokens.shape)
  wpo = np.exp(np.where(groups.mask, aligned, 0).sum(axis=-1) / np.maximum(groups.mask.sum(axis=-1), 1))
  h = (logp - np.asarray(groups.ref_logp))[n, i] - (logp - np.asarray(groups.ref_logp))[n, j]
  found, _ = dpo.make_loss(apply, dpo.Loss("dpo", 0.4, weighting="wpo"))(table, groups, weights)
  expected = np.sum(weights[n, i, j] * wpo[n, i] * wpo[n, j] * -np.log(sigmoid(0.4 * h)))
  assert float(found) == pytest.approx(expected, rel=1e-4) and wpo.std() > 0.1


@pytest.mark.parametrize("name, weighting", [*((name, "none") for name in SETTINGS), ("dpo", "wpo"), ("kto", "wpo")])
def test_every_loss_trains(name, weighting):
  """Steps of gradient descent lower the loss."""
  groups, weights, table = ranked()
  loss_fn = dpo.make_loss(apply, dpo.Loss(name, **SETTINGS[name], weighting=weighting))

  @jax.jit
  def descend(table):
    def step(table, _):
      loss, gradient = jax.value_and_grad(lambda table: loss_fn(table, groups, weights)[0])(table)
      return table - 0.3 * gradient, loss

    return jax.lax.scan(step, table, length=8)

  table, losses = descend(table)
  assert np.isfinite(losses).all() and np.isfinite(table).all() and losses[-1] < losses[0] - 1e-3, losses


def test_pair_weights_by_hand():
  weights = pair_weights(np.array([[0, 1, 2], [1, 0, 1], [0, 0, 0], [0, -1, -1]]))
  thirds, halves = np.zeros((3, 3)), np.zeros((3, 3))
  thirds[0, 1] = thirds[0, 2] = thirds[1, 2] = 1 / 6
  halves[1, 0] = halves[1, 2] = 1 / 4
  np.testing.assert_allclose(weights, [thirds, halves, np.zeros((3, 3)), np.zeros((3, 3))], rtol=1e-6)
  assert pair_weights(np.array([[0, 0], [3, 3]])).sum() == 0


@pytest.mark.parametrize("name", SETTINGS)
def test_prompt_padding_and_absent_responses_count_nothing(name):
  """NaN in the policy's logits outside the responses, and whatever stands in what is absent."""
  groups, weights, table = ranked()
  loss_fn = jax.jit(jax.value_and_grad(dpo.make_loss(apply, dpo.Loss(name, **SETTINGS[name])), has_aux=True))
  (loss, metrics), grads = loss_fn(table, groups, weights)
  spoilt = np.concatenate([table[:-1], np.full_like(table[-1:], np.nan)])
  absent = RANKS < 0
  garbage = groups.replace(ref_logp=np.where(absent, np.nan, groups.ref_logp).astype(np.float32))
  (again, metrics_again), grads_again = loss_fn(spoilt, garbage, weights)
  assert float(loss) == float(again)
  np.testing.assert_array_equal(grads, grads_again)
  for key in metrics:
    assert metrics[key].compute() == metrics_again[key].compute() and np.isfinite(metrics[key].compute())


def test_it_is_the_same_however_the_batch_is_cut():
  groups, weights, table = ranked()
  loss_fn, results = dpo.make_loss(apply, dpo.Loss("kto", **SETTINGS["kto"])), []
  for microbatches in (1, 3):
    transport = Transport("jit", 1, microbatches)
    state = place(init_state(table, optax.sgd(1.0)), transport)
    # Eight devices: every row eight times, with an eighth of its weight.
    batch, shares = jax.tree.map(lambda x: np.repeat(x, 8, axis=0), (groups, weights))
    state, metrics = make_update(loss_fn, optax.sgd(1.0), transport)(state, batch, shares / 8)
    results.append((state.params, {key: metric.compute() for key, metric in metrics.items()}))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_key_of_a_loss_has_an_effect_and_no_other_is_taken(name):
  groups, weights, table = ranked()

  def loss_of(**changes):
    loss_fn = dpo.make_loss(apply, dpo.Loss(name, **{**SETTINGS[name], **changes}))
    return float(jax.jit(loss_fn)(table, groups, weights)[0])

  for key, value in SETTINGS[name].items():
    assert loss_of(**{key: value + 0.2}) != pytest.approx(loss_of(), rel=1e-3), key
  for key in {key for keys in OPTIONS.values() for key in keys} - set(OPTIONS.get(name, ())):
    with pytest.raises(ConfigError, match=f"config.dpo.loss: {key} has no effect on the loss '{name}'"):
      needed = dict(label_smoothing=0.1) if name == "robust" else {}
      parse(dpo.Loss, {"name": name, "beta": 0.1, **needed, key: 1.0 if key == "temperature" else 0.0}, "dpo.loss")


@pytest.mark.parametrize(
  ("name", "smoothing", "message"),
  [
    ("robust", None, "label_smoothing=None: the loss 'robust' needs a share of flips below 0.5"),
    ("robust", 0.5, "label_smoothing=0.5: the loss 'robust' needs a share of flips below 0.5"),
    ("exo_pair", 0.0, "label_smoothing=0.0: the loss 'exo_pair' is infinite at 0 and at 1"),
  ],
)
def test_a_label_smoothing_that_has_no_loss_is_refused(name, smoothing, message):
  with pytest.raises(ConfigError, match=f"config.dpo.loss: {message}"):
    parse(dpo.Loss, {"name": name, "beta": 0.1, "label_smoothing": smoothing}, "dpo.loss")


def test_a_beta_of_0_is_refused():
  with pytest.raises(ConfigError, match="config.dpo.loss.beta is 0, and must be above 0"):
    parse(dpo.Loss, {"name": "dpo", "beta": 0}, "dpo.loss")


def test_groups_of_a_prompt_are_never_split(tmp_path, chain):
  tokenizer = data.load_tokenizer(chain / "vocabulary" / "tokenizer.json")
  rows = [{"prompt": f"Who is {k % 20}?", "chosen": "Tom.", "rejected": f"Ann {k}."} for k in range(60)]
  data.write_rows(tmp_path / "pairs.jsonl", rows)
  sides = load_comparisons("{run}/pairs.jsonl", a_stage(tmp_path), tokenizer, 64, 0.3)
  prompts = [{group.prompt for group in side.groups} for side in sides]
  assert not prompts[0] & prompts[1] and len(prompts[0] | prompts[1]) == 20
  assert sum(len(side.groups) for side in sides) == 60
  assert all(len(side.groups) == len(side.rows["ranks"]) for side in sides)
  train, held_out = load_comparisons("{run}/pairs.jsonl", a_stage(tmp_path), tokenizer, 64, 0.0)
  assert len(train.groups) == 60 and not held_out.groups and held_out.rows["tokens"].shape == (0, 2, 64)


def run_dpo(chain, tmp_path, arg, **changes):
  settings = dict(length=64, batch_size=16, eval_fraction=0.2, num_epochs=6, optimizer=dict(learning_rate=2e-2))
  run_stages(recipe("dpo", arg), chain, tmp_path, {arg or "dpo": {**settings, **changes}})
  return read_metrics(tmp_path / arg / "metrics.jsonl")


@pytest.mark.slow
def test_the_stage_learns_the_comparisons(chain, tmp_path):
  rows = run_dpo(chain, tmp_path, "dpo")
  assert rows[0]["loss"] == pytest.approx(np.log(2), abs=1e-4) and abs(rows[0]["kl/forward"]) < 1e-3
  assert rows[-1]["loss"] < 0.4 and rows[-1]["accuracy"] > 0.8 and rows[-1]["margin"] > 0
  assert {"eval/loss", "eval/accuracy", "eval/margin", "eval/kl/forward"} <= rows[-1].keys()
  assert rows[-1]["kl/forward"] > 0
  sft, policy = (load_params(root / "checkpoints", {}) for root in (chain / "sft", tmp_path / "dpo"))
  assert min(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), sft, policy))) > 0


def test_the_stage_of_kto_takes_its_baseline_from_mismatched_responses(chain, tmp_path, monkeypatch):
  """Of all losses the one that uses most of the stage: the reference's log-probs, and z before each update."""
  calls = {}

  def recording(make):
    def made(function, *settings, **more):
      compiled = make(function, *settings, **more)

      def call(*arguments):
        calls.setdefault(getattr(function, "__name__", ""), []).append((function, arguments))
        return compiled(*arguments)

      return call

    return made

  monkeypatch.setattr(jax, "jit", recording(jax.jit))
  monkeypatch.setattr(update, "make_measure", recording(make_measure))
  rows = run_dpo(chain, tmp_path, "kto", num_epochs=3)
  check_padding(calls)
  assert rows[0]["loss"] == pytest.approx(0.5, abs=1e-4) and abs(rows[0]["kl/mismatch"]) < 1e-3
  assert abs(rows[-1]["kl/mismatch"]) > 1e-2 and {"eval/kl/mismatch"} <= rows[-1].keys()
  assert rows[-1]["loss"] < 0.45 and {"eval/loss", "eval/accuracy"} <= rows[-1].keys()


def check_padding(calls):
  """A last, smaller batch of the evaluation is filled up with groups that count nothing: one shape, one program."""
  assert {args[1].tokens.shape[0] for _, args in calls["loss_fn"]} == {16}
  loss_fn, (params, batch, weights) = calls["loss_fn"][-1]
  kept = np.asarray(batch.mask).any(axis=(1, 2))
  assert 0 < kept.sum() < 16
  (loss, metrics), (expected, alone) = (
    jax.jit(loss_fn)(params, *given) for given in ((batch, weights), jax.tree.map(lambda x: x[kept], (batch, weights)))
  )
  assert float(loss) == pytest.approx(float(expected), rel=1e-5)
  for name, metric in metrics.items():
    whole, part = metric.sum(), alone[name].sum()
    assert float(whole.weights) == float(part.weights) > 0, name
    assert float(whole.values) == pytest.approx(float(part.values), rel=1e-4), name
  _, (_, _, mask, *_) = calls["mismatch_kl"][-1]
  assert not mask[~kept].any() and mask[kept].any(axis=(1, 2)).sum() > 0.8 * kept.sum()  # one may be too long


def test_rows_count_the_response_and_its_end_alone(chain):
  """The mask of `data.demonstration_rows`, which SFT trains on; mismatched rows have the next group's response."""
  tokenizer = data.load_tokenizer(chain / "vocabulary" / "tokenizer.json")
  config = parse(dpo.Config, {**recipe("dpo", "kto")["kto"], "length": 64, "batch_size": 8}, "dpo")
  split = load_comparisons("{run}/preferences/comparisons.jsonl", a_stage(chain), tokenizer, 64, 0.2)[1]
  rows = dpo._rows(config, tokenizer, lambda params, tokens, mask, at: mask.sum(axis=-1), None, split)
  responses = [(group.prompt, response) for group in split.groups for response in group.responses]
  expected, _ = data.demonstration_rows(tokenizer, [data.Demonstration(*pair) for pair in responses], 64)
  present = rows["ranks"].reshape(-1) >= 0
  for key in ("tokens", "mask"):
    np.testing.assert_array_equal(rows[key].reshape(-1, 64)[present], expected[key])
  np.testing.assert_array_equal(rows["ref_logp"].reshape(-1)[present], expected["mask"].sum(axis=-1))
  following = [*split.groups[1:], split.groups[0]]
  pairs = [data.Demonstration(a.prompt, b.responses[0]) for a, b in zip(split.groups, following, strict=True)]
  fits = [
    len(data.prompt_ids(tokenizer, pair.prompt) + data.response_ids(tokenizer, pair.prompt, pair.response)) <= 64
    for pair in pairs
  ]
  expected, skips = data.demonstration_rows(tokenizer, pairs, 64)
  assert sum(fits) > 0 and skips.total() == fits.count(False)
  for key in ("tokens", "mask"):
    np.testing.assert_array_equal(rows[f"other_{key}"][fits, 0], expected[key])
    assert not rows[f"other_{key}"][np.logical_not(fits)].any()  # no token, which counts nowhere


def test_a_length_beyond_the_model_is_refused(chain, tmp_path):
  limit = SIZES["model"]["max_length"]
  with pytest.raises(ValueError, match=f"length={limit + 1} exceeds model.max_length={limit}"):
    run_dpo(chain, tmp_path, "dpo", length=limit + 1)
  assert not (tmp_path / "dpo").exists()
