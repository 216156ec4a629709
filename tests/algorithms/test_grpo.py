"""GRPO and its variants: by hand, exact gradients and optima on tables, against loops, the stage on the tiny chain."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular
from tiny_chain import WATCH, check_recording, recipe, run_stages, shortness

from rlhf_jax.algorithms import grpo
from rlhf_jax.objectives import group_centre, group_normalize
from rlhf_jax.reduce import token_weights
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.stage import Transport
from rlhf_jax.train import ArrayFunction, init_state, make_update, place, run_epochs
from rlhf_jax.train.metrics import read_metrics

pytestmark = pytest.mark.usefixtures("unoptimised")
TRANSPORT = Transport("jit", 1, 1)
PROBLEM = tabular.tree(seed=7, stop=True)
BANDIT = tabular.bandit((0.5, 0.3, 0.2), (0, 1, 2))
SIZE, GROUP, MAX_NEW_TOKENS = 160, 4, 5
DEFAULTS = dict(clip=(0.2, 0.2), ratio="token", kl_coef=0.3, kl_kind="k3")


def logits_of(problem):
  apply = tabular.make_apply(problem)
  return lambda table, tokens: apply({"logits": table, "values": jnp.zeros(tabular.STATES + 1)}, tokens)[0]


def perturbed(spread, seed):
  return np.float32(PROBLEM.reference + np.random.default_rng(seed).normal(0, spread, PROBLEM.reference.shape))


BEHAVIOUR, MOVED = perturbed(0.5, 5), perturbed(0.8, 6)


def make_loss(problem=PROBLEM, temperature=1.0, **changes):
  return grpo.make_loss(logits_of(problem), **{**DEFAULTS, **changes}, temperature=temperature)


@jax.jit
def sampled(temperature=1.0):
  uniform = np.random.default_rng(9).uniform(size=(SIZE, tabular.DEPTH)).astype(np.float32)
  rollout = tabular.sample(PROBLEM, BEHAVIOUR, uniform, temperature)
  logp_ref = tabular.logprobs(PROBLEM, PROBLEM.reference, rollout.tokens, temperature)
  scores = tabular.scores(PROBLEM, rollout.tokens)
  return grpo.make_experience(rollout, logp_ref, scores, samples_per_prompt=GROUP)


@pytest.mark.parametrize(
  "centred, expected", [(group_normalize, (-1.0690, -0.5345, 0.0, 1.6036)), (group_centre, (-2.0, -1.0, 0.0, 3.0))]
)
def test_advantages_by_hand(centred, expected):
  """Groups that differ by a constant have the same advantages; a group of equals has none."""
  rollout = tabular.rollout_of(PROBLEM, BEHAVIOUR, tabular.leaves(PROBLEM)[:12])
  scores = np.array([1, 2, 3, 6, 101, 102, 103, 106, 7, 7, 7, 7])  # integers, as a count would be
  experience, _ = grpo.make_experience(rollout, rollout.logp, scores, samples_per_prompt=4, advantages_of=centred)
  advantages = [*expected, *expected, 0, 0, 0, 0]
  np.testing.assert_allclose(experience.advantages, np.tile(np.array(advantages)[:, None], 5), atol=1e-4)


@pytest.mark.parametrize("kl_kind", ["k2", "k3", "k3+"])
def test_the_expected_gradient_on_one_token(kl_kind):
  """(K - 1) / K of the score's exact gradient, as the mean is of all K, and kl_coef times that of a KL: which one."""
  group, kl_coef, length = 3, 0.3, 4
  rows = tabular.leaves(BANDIT)
  groups = np.array(list(itertools.product(range(3), repeat=group)))
  table = np.float32(BANDIT.reference + np.random.default_rng(3).normal(0, 0.5, BANDIT.reference.shape))
  loss_fn = make_loss(BANDIT, kl_coef=kl_coef, kl_kind=kl_kind)

  @jax.jit
  def gradients(table):
    p = tabular.distribution(BANDIT, table)[groups].prod(axis=1)
    rollout = tabular.rollout_of(BANDIT, table, rows[groups.reshape(-1)])
    logp_ref = tabular.logprobs(BANDIT, BANDIT.reference, rollout.tokens)
    scores = tabular.scores(BANDIT, rollout.tokens)
    experience, _ = grpo.make_experience(
      rollout, logp_ref, scores, samples_per_prompt=group, advantages_of=group_centre
    )
    shares = grpo.token_shares("constant", length)(rollout.mask)  # 1 / (B * length) on every token
    weights = shares * (len(rows) ** group) * jnp.repeat(p, group)[:, None]
    got = jax.grad(lambda table: loss_fn(table, experience, weights)[0])(table)

    def kl(table):
      p, ref = tabular.distribution(BANDIT, table), tabular.distribution(BANDIT, BANDIT.reference)
      return jnp.sum(p * jnp.log(p / ref)) if kl_kind != "k3" else jnp.sum(ref * jnp.log(ref / p))

    score = jax.grad(tabular.expected_return, argnums=1)(BANDIT, table, 0.0)
    return got, (kl_coef * jax.grad(kl)(table) - (group - 1) / group * score) / length

  got, expected = gradients(table)
  assert np.abs(expected).max() > 0.02
  np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_optimum_of_k2_is_that_of_rlhf():
  """On one token without the standard deviation: p_ref exp(r / beta) / Z with beta = kl_coef K / (K - 1)."""
  steps, kl_coef = 150, 0.6
  optimizer = optax.adam(optax.linear_schedule(0.1, 0.0, 2 * steps))
  update = make_update(make_loss(BANDIT, kl_coef=kl_coef, kl_kind="k2"), optimizer, TRANSPORT)
  weights_of = grpo.token_shares("sequence", MAX_NEW_TOKENS)
  uniform = np.random.default_rng(0).uniform(size=(steps, 1024, tabular.DEPTH)).astype(np.float32)

  @jax.jit
  def train(state):
    def step(state, uniform):
      rollout = tabular.sample(BANDIT, state.params, uniform)
      logp_ref = tabular.logprobs(BANDIT, BANDIT.reference, rollout.tokens)
      scores = tabular.scores(BANDIT, rollout.tokens)
      experience, _ = grpo.make_experience(
        rollout, logp_ref, scores, samples_per_prompt=GROUP, advantages_of=group_centre
      )

      def pass_over(state, rows):
        minibatch = jax.tree.map(lambda x: x[rows], experience)
        return update(state, minibatch, weights_of(minibatch.mask))[0], None

      return jax.lax.scan(pass_over, state, jnp.arange(1024).reshape(2, 512))[0], None

    return jax.lax.scan(step, state, uniform)[0]

  state = train(place(init_state(jnp.asarray(BANDIT.reference), optimizer), TRANSPORT))
  expected = tabular.optimum(BANDIT, kl_coef * GROUP / (GROUP - 1))
  np.testing.assert_allclose(tabular.distribution(BANDIT, state.params), expected, atol=0.02)


SURROGATES = {
  "dual_clip_objective": dict(clip=0.2, bound=3.0), "cispo_objective": dict(clip=(1.0, 0.2)), "sapo_objective": {},
  "gspo_token_objective": dict(clip=0.2), "clip_cov_objective": dict(clip=0.2, share=0.01),
  "kl_cov_objective": dict(share=0.1),
}  # fmt: skip


@pytest.mark.parametrize("name", SURROGATES)
def test_every_surrogate_is_on_policy_at_first_and_learns(name):
  """Two updates on each rollout of a bandit, whose best action has probability 0.2 at first."""
  steps, size = 30, 256
  objective = ArrayFunction(f"rlhf_jax.objectives:{name}", SURROGATES[name])
  optimizer = optax.adam(optax.linear_schedule(0.1, 0.0, 2 * steps))
  update = make_update(make_loss(BANDIT, kl_coef=0.0, objective=objective), optimizer, TRANSPORT)
  uniform = np.random.default_rng(0).uniform(size=(steps, size, tabular.DEPTH)).astype(np.float32)

  @jax.jit
  def train(state):
    def step(state, uniform):
      rollout = tabular.sample(BANDIT, state.params, uniform)
      scores = tabular.scores(BANDIT, rollout.tokens)
      experience, _ = grpo.make_experience(rollout, rollout.logp, scores, samples_per_prompt=GROUP)

      def pass_over(state, _):
        state, metrics = update(state, experience, token_weights(experience.mask))
        kl, mean, largest = (metrics[f"policy/{key}"] for key in ("approx_kl", "ratio_mean", "ratio_max"))
        return state, (kl.values / kl.weights, mean.values / mean.weights, largest.values)

      return jax.lax.scan(pass_over, state, None, 2)

    return jax.lax.scan(step, state, uniform)

  state, (kl, mean, largest) = train(place(init_state(jnp.asarray(BANDIT.reference), optimizer), TRANSPORT))
  np.testing.assert_allclose(kl[:, 0], 0, atol=1e-11)
  np.testing.assert_allclose(np.stack([mean[:, 0], largest[:, 0]]), 1, atol=1e-6)
  assert kl[:, 1].min() > 0 and tabular.distribution(BANDIT, state.params)[2] > 0.6


@pytest.mark.parametrize(
  "weights, ratio, clip",
  [
    ("sequence", "token", (0.2, 0.2)),
    ("token", "token", (0.1, 0.6)),
    ("constant", "token", (0.2, 0.2)),
    ("sequence", "sequence", (0.1, 0.3)),
  ],
)
def test_every_variant_by_a_loop(weights, ratio, clip):
  experience, _ = sampled()
  loss_fn = jax.jit(make_loss(clip=clip, ratio=ratio))
  loss, metrics = loss_fn(MOVED, experience, grpo.token_shares(weights, MAX_NEW_TOKENS)(experience.mask))
  logp = np.asarray(tabular.logprobs(PROBLEM, MOVED, experience.tokens), np.float64)
  mask, old, ref = (np.asarray(x) for x in (experience.mask, experience.logp, experience.logp_ref))
  total, clipped, kls, tokens = 0.0, [], [], mask.sum()
  for row in range(SIZE):
    advantage, count = float(experience.advantages[row, 0]), mask[row].sum()
    share = {"sequence": 1 / (SIZE * count), "token": 1 / tokens, "constant": 1 / (SIZE * MAX_NEW_TOKENS)}[weights]
    for t in np.flatnonzero(mask[row]):
      log_ratio = logp[row, t] - old[row, t]
      if ratio == "sequence":
        log_ratio = (logp[row, mask[row]] - old[row, mask[row]]).mean()
      unclipped, bounded = np.exp(log_ratio), np.clip(np.exp(log_ratio), 1 - clip[0], 1 + clip[1])
      d = ref[row, t] - logp[row, t]
      kls.append(np.exp(d) - 1 - d)
      clipped.append(bounded * advantage < unclipped * advantage)
      total += share * (0.3 * kls[-1] - min(unclipped * advantage, bounded * advantage))
  assert float(loss) == pytest.approx(total, rel=1e-3, abs=1e-5)
  assert metrics["policy/clip_fraction"].compute() == pytest.approx(np.mean(clipped)) and np.mean(clipped) > 0.05
  assert metrics["kl/loss"].compute() == pytest.approx(np.mean(kls), rel=1e-3)


@pytest.mark.parametrize("ratio, temperature", [("token", 0.5), ("sequence", 2.0)])
def test_at_learning_rate_0_every_minibatch_is_on_policy(ratio, temperature):
  experience, _ = sampled(temperature)
  loss_fn = make_loss(temperature=temperature, ratio=ratio, kl_coef=0.0, clip=(1e-5, 1e-5))
  update = make_update(loss_fn, optax.sgd(0.0), TRANSPORT)
  state = place(init_state(BEHAVIOUR, optax.sgd(0.0)), TRANSPORT)
  shares = grpo.token_shares("constant", MAX_NEW_TOKENS)
  state, _, metrics = run_epochs(
    update, state, experience, lambda *_: (experience, {}), shares, epochs=2, minibatches=4, seed=(0, 0)
  )
  assert metrics["policy/clip_fraction"].compute() == 0
  assert abs(metrics["policy/approx_kl"].compute()) < 1e-12
  np.testing.assert_array_equal(state.params, BEHAVIOUR)


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_garbage_at_masked_positions_leaves_loss_and_gradient_unchanged(ratio):
  experience, _ = sampled()
  outside = ~np.asarray(experience.mask)
  garbage = np.resize(np.float32([np.nan, np.inf, -np.inf, 1e30]), outside.shape)
  loss_fn = jax.jit(jax.value_and_grad(make_loss(ratio=ratio), has_aux=True))
  weights, results = grpo.token_shares("token", MAX_NEW_TOKENS)(experience.mask), []
  for spoil in (False, True):
    logp, logp_ref = (np.where(outside & spoil, garbage, x) for x in (experience.logp, experience.logp_ref))
    table = np.concatenate([MOVED[:-1], np.full_like(MOVED[-1:], np.nan)]) if spoil else MOVED
    (loss, metrics), grads = loss_fn(table, experience.replace(logp=logp, logp_ref=logp_ref), weights)
    results.append((loss, grads, {key: x.compute() for key, x in metrics.items()}))
  jax.tree.map(np.testing.assert_array_equal, *results)


@pytest.mark.parametrize(
  "changes",
  [dict(clip=(0.2, 0.9)), dict(ratio="sequence"), dict(kl_coef=0.1), dict(kl_kind="k2"), dict(temperature=2.0)],
)
def test_every_key_of_the_loss_has_an_effect(changes):
  experience, _ = sampled()
  weights = grpo.token_shares("token", MAX_NEW_TOKENS)(experience.mask)
  before, after = (float(jax.jit(make_loss(**c))(MOVED, experience, weights)[0]) for c in ({}, changes))
  assert after != pytest.approx(before, rel=1e-3)


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(environment=dict(samples_per_prompt=1)), "samples_per_prompt=1 must be >= 2"),
    (dict(clip=(0.2,)), r"config.grpo.clip must be a tuple of 2, not \(0.2,\)"),
    (dict(clip=(0.2, -0.1)), r"config.grpo.clip\[1\] is -0.1, and must be at least 0"),
    (dict(minibatches=3), "minibatches=3 must divide the 64 episodes"),
    (dict(ratio="word"), "config.grpo.ratio is 'word'"),
  ],
)
def test_what_cannot_be_is_refused(changes, message):
  section = recipe("grpo")["grpo"]
  changes["environment"] = {**section["environment"], **changes.get("environment", {})}
  with pytest.raises(ConfigError, match=message):
    parse(grpo.Config, {**section, **changes}, "grpo")


def test_the_variants_of_the_recipe_differ_in_what_they_are_named_for():
  plain = recipe("grpo")["grpo"]
  different = {
    name: {key for key, value in recipe("grpo", name)[name].items() if value != plain[key]}
    for name in ("dr_grpo", "dapo", "gspo")
  }
  assert different == {"dr_grpo": {"normalize_std", "weights"}, "dapo": {"weights", "clip"}, "gspo": {"ratio", "clip"}}
  with pytest.raises(ValueError, match="does not know 'gpro'. Did you mean 'gspo'. Known: grpo, dr_grpo, dapo, gspo"):
    recipe("grpo", "gpro")


def test_the_stage_learns(chain, tmp_path):
  """Short answers are rewarded, and answers become short."""
  environment = shortness(tmp_path, batch_size=4, samples_per_prompt=4)
  settings = dict(num_steps=12, optimizer=dict(learning_rate=3e-2), environment=environment, watch=WATCH)
  run_stages(recipe("grpo"), chain, tmp_path, {"grpo": settings}, devices=8)
  rows = read_metrics(tmp_path / "grpo" / "metrics.jsonl")
  names = ("reward/proxy", "reward/gold", "kl/reference", "kl/coef", "kl/loss", "loss", "response/length")
  assert {*names, "policy/entropy", "policy/clip_fraction", "policy/approx_kl"} <= rows[0].keys()
  assert abs(rows[0]["kl/reference"]) < 1e-4 < rows[-1]["kl/reference"]
  first, last = (np.mean([row["reward/proxy"] for row in part]) for part in (rows[:2], rows[-2:]))
  assert last > first + 0.3
  check_recording(tmp_path / "grpo", "clipped")
