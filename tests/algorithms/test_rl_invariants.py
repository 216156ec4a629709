"""What must hold for the losses and the experience of PPO and REINFORCE, whatever the policy: here it is a table."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular

from rlhf_jax.algorithms import ppo, reinforce
from rlhf_jax.reduce import token_weights, weighted_sum
from rlhf_jax.stage import Transport
from rlhf_jax.train.update import init_state, make_update, place
from rlhf_jax.types import Rollout

BASELINES = ["none", "moving_mean", "leave_one_out", "value"]
ALGORITHMS = ["ppo", *BASELINES]
JIT = Transport("jit", 1, 1)
KL_COEF, CLIP, SIZE, GROUP = 0.5, 0.2, 32, 4
PROBLEM = tabular.tree(seed=7, stop=True)
APPLY = tabular.make_apply(PROBLEM)
RNG = np.random.default_rng(4)


def random_params(spread, seed):
  rng = np.random.default_rng(seed)
  logits = PROBLEM.reference + rng.normal(0, spread, PROBLEM.reference.shape)
  return {"logits": np.float32(logits), "values": np.float32(rng.normal(0, spread, tabular.STATES + 1))}


BEHAVIOUR = random_params(0.5, seed=5)  # the policy that sampled; it is not the reference
MOVED = jax.tree.map(lambda x: x + np.float32(RNG.normal(0, 0.3, x.shape)), BEHAVIOUR)  # after some updates


@jax.jit
def sampled(temperature=1.0):
  """`(rollout, logp_ref, values, scores)` with the longest responses first and the last row empty."""
  uniform = np.random.default_rng(6).uniform(size=(SIZE, tabular.DEPTH)).astype(np.float32)
  rollout = tabular.sample(PROBLEM, jnp.asarray(BEHAVIOUR["logits"]), uniform, temperature)
  order = jnp.argsort(-jnp.sum(rollout.mask, axis=1))
  rollout = jax.tree.map(lambda x: x[order], rollout)
  mask = rollout.mask.at[-1].set(False)
  rollout = rollout.replace(mask=mask, logp=jnp.where(mask, rollout.logp, 0.0))
  logp_ref = jnp.where(mask, tabular.logprobs(PROBLEM, PROBLEM.reference, rollout.tokens, temperature), 0.0)
  return rollout, logp_ref, APPLY(BEHAVIOUR, rollout.tokens)[1], tabular.scores(PROBLEM, rollout.tokens)


@functools.partial(jax.jit, static_argnames=("algorithm", "group", "discount", "lam", "whiten_rewards", "whiten"))
def make_experience(
  algorithm,
  rollout,
  logp_ref,
  values,
  scores,
  *,
  group=GROUP,
  discount=1.0,
  lam=0.95,
  whiten_rewards=False,
  whiten=True,
):
  """Either algorithm's; what follows `group` is of PPO's config."""
  if algorithm == "ppo":
    config = tabular.ppo_config(discount=discount, lam=lam, whiten_rewards=whiten_rewards, whiten_advantages=whiten)
    return ppo.make_experience(rollout, logp_ref, values, scores, jnp.asarray(KL_COEF), config)
  return reinforce.make_experience(
    rollout, logp_ref, values, scores, jnp.asarray(0.3), kl_coef=KL_COEF, baseline=algorithm, samples_per_prompt=group
  )


def make_loss(algorithm, apply=APPLY, *, value_coef=0.0, entropy_coef=0.0, temperature=1.0):
  settings = dict(value_coef=value_coef, entropy_coef=entropy_coef, temperature=temperature)
  if algorithm == "ppo":
    return ppo.make_loss(apply, clip=CLIP, value_clip=CLIP, **settings)
  return reinforce.make_loss(apply, **settings)


def three_tokens(rows):
  """A rollout of `rows` whole responses under the reference of a tree without stop, and their log-probs."""
  problem = tabular.tree(seed=7, stop=False)
  return tabular.rollout_of(problem, problem.reference, tabular.leaves(problem)[:rows])


def scalars(metrics):
  return {name: metric.sum() for name, metric in metrics.items()}


@jax.jit
def without_learning(state, temperature, orders):
  """Updates at learning rate 0: the final state, the metrics of each minibatch and its loss if all ratios are 1."""
  experience, _ = make_experience("ppo", *sampled(temperature))
  update = make_update(make_loss("ppo", temperature=temperature), optax.sgd(0.0), JIT)

  def step(state, rows):
    minibatch = jax.tree.map(lambda x: x[rows], experience)
    weights = token_weights(minibatch.mask)
    state, metrics = update(state, minibatch, weights)
    return state, (metrics, -weighted_sum(minibatch.advantages, weights))

  return jax.lax.scan(step, state, orders)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_at_learning_rate_0_every_minibatch_is_on_policy(temperature):
  rng = np.random.default_rng(8)
  orders = np.concatenate([rng.permutation(SIZE).reshape(4, -1) for _ in range(2)])  # two epochs of four minibatches
  state = place(init_state(BEHAVIOUR, optax.sgd(0.0)), JIT)
  state, (metrics, on_policy) = without_learning(state, temperature, orders)
  np.testing.assert_array_equal(metrics["policy/clip_fraction"].values, np.zeros(8))
  np.testing.assert_allclose(metrics["policy/approx_kl"].values, np.zeros(8), atol=1e-12)
  # A ratio of 1 makes the surrogate the advantage, as the whole rollout was whitened.
  np.testing.assert_allclose(metrics["loss"].values, on_policy, atol=1e-6)
  assert np.all(np.abs(on_policy) > 1e-3)
  jax.tree.map(np.testing.assert_array_equal, state.params, BEHAVIOUR)


def test_a_policy_that_moved_is_seen_to_have_moved():
  """Without which the zeros above would mean nothing. approx_kl is k3 of KL(old || new), so it is never below 0."""
  experience, _ = make_experience("ppo", *sampled())
  _, metrics = jax.jit(make_loss("ppo"))(MOVED, experience, token_weights(experience.mask))
  assert 0.1 < metrics["policy/clip_fraction"].compute() < 0.9
  assert 0.001 < metrics["policy/approx_kl"].compute() < 0.2


def test_where_the_policy_is_the_reference_the_kl_is_0_and_the_score_is_the_only_reward():
  rollout, _, values, scores = sampled()
  nothing = jnp.zeros_like(values)
  # With discount 0 and V = 0 the advantages are the rewards.
  experience, metrics = make_experience(
    "ppo", rollout, rollout.logp, nothing, scores, discount=0.0, whiten=False
  )
  assert metrics["kl/reference"].compute() == 0
  for rewards, mask, score in zip(experience.advantages, rollout.mask, scores, strict=True):
    expected = np.zeros(tabular.WIDTH, np.float32)
    if mask.any():
      expected[np.flatnonzero(mask)[-1]] = score  # Once, on the last token of the response.
    np.testing.assert_array_equal(rewards, expected)


@pytest.mark.parametrize("algorithm", BASELINES)
def test_where_the_policy_is_the_reference_the_return_is_the_score(algorithm):
  rollout, _, values, scores = sampled()
  experience, metrics = make_experience(algorithm, rollout, rollout.logp, jnp.zeros_like(values), scores)
  assert metrics["kl/reference"].compute() == 0
  assert metrics["reward/return"].compute() == pytest.approx(float(np.mean(scores)), abs=1e-6)
  groups = np.asarray(scores).reshape(-1, GROUP)
  others = (groups.sum(1, keepdims=True) - groups) / (GROUP - 1)
  baseline = {"none": 0, "moving_mean": 0.3, "leave_one_out": others.reshape(-1), "value": 0}[algorithm]
  expected = np.broadcast_to((scores - baseline)[:, None], rollout.mask.shape)
  np.testing.assert_allclose(experience.advantages[rollout.mask], expected[rollout.mask], atol=1e-6)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_kl_metric_is_that_of_the_policy_from_the_reference(algorithm):
  """p = (.5, .3, .2) as ten samples in proportion, q = (.4, .4, .2): KL(p || q) = .0252671539, KL(q || p) = .0258..."""
  problem = tabular.bandit((0.4, 0.4, 0.2), (0, 0, 0))
  tokens = tabular.leaves(problem)[np.repeat([0, 1, 2], (5, 3, 2))]
  policy = tabular.bandit((0.5, 0.3, 0.2), (0, 0, 0)).reference
  rollout = tabular.rollout_of(problem, policy, tokens)
  logp_ref = tabular.logprobs(problem, problem.reference, tokens)
  values = jnp.zeros_like(logp_ref)
  _, metrics = make_experience(algorithm, rollout, logp_ref, values, jnp.zeros(10), group=5)
  assert metrics["kl/reference"].compute() == pytest.approx(0.0252671539, abs=1e-7)
  assert metrics["kl/coef"].compute() == KL_COEF


@pytest.mark.parametrize("lam, expected", [(0.95, (0.43675, 0.565, 0.7)), (0, (-0.1, -0.1, 0.7)), (1, (0.5, 0.6, 0.7))])
def test_ppo_advantages_by_hand(lam, expected):
  rollout = three_tokens(1)
  values = jnp.array([[9.0, 0.5, 0.4, 0.3, 9.0]])
  experience, _ = make_experience(
    "ppo", rollout, rollout.logp, values, jnp.ones(1), lam=lam, whiten=False
  )
  np.testing.assert_allclose(experience.advantages, [[0, *expected, 0]], atol=1e-6)
  np.testing.assert_allclose(experience.returns, [[0, *np.add(expected, (0.5, 0.4, 0.3)), 0]], atol=1e-6)


@pytest.mark.parametrize("whiten_rewards", [False, True])
def test_ppo_experience_equals_a_loop_whitened_over_the_whole_rollout(whiten_rewards):
  rollout, logp_ref, values, scores = sampled()
  experience, metrics = make_experience(
    "ppo", rollout, logp_ref, values, scores, discount=0.9, whiten_rewards=whiten_rewards
  )
  mask, kl = np.asarray(rollout.mask), np.float64(rollout.logp) - np.float64(logp_ref)
  rewards, advantages = np.zeros(mask.shape), np.zeros(mask.shape)
  for row in range(SIZE):
    for t in np.flatnonzero(mask[row]):
      rewards[row, t] = -KL_COEF * kl[row, t] + (scores[row] if t == np.flatnonzero(mask[row])[-1] else 0)
  if whiten_rewards:
    mean = rewards[mask].mean()
    rewards = np.where(mask, (rewards - mean) / rewards[mask].std() + mean, 0)
  for row in range(SIZE):
    next_value = next_advantage = 0.0
    for t in np.flatnonzero(mask[row])[::-1]:
      delta = rewards[row, t] + 0.9 * next_value - values[row, t]
      advantages[row, t] = next_advantage = delta + 0.9 * 0.95 * next_advantage
      next_value = values[row, t]
  returns = np.where(mask, advantages + values, 0)
  np.testing.assert_allclose(experience.returns, returns, atol=1e-5)
  whitened = np.where(mask, (advantages - advantages[mask].mean()) / advantages[mask].std(), 0)
  np.testing.assert_allclose(experience.advantages, whitened, atol=1e-5)
  assert metrics["kl/reference"].compute() == pytest.approx(kl[mask].sum() / SIZE, rel=1e-5)
  # The statistics of a minibatch are others: to whiten there would give another answer.
  assert abs(whitened[: SIZE // 4][mask[: SIZE // 4]].mean()) > 0.1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_scores_are_numbers_whatever_their_type(algorithm):
  rollout, logp_ref, values, _ = sampled()
  integers = np.arange(SIZE, dtype=np.int32) % 3 - 1
  of_integers, of_floats = (
    make_experience(algorithm, rollout, logp_ref, values, scores)[0]
    for scores in (jnp.asarray(integers), jnp.asarray(integers, jnp.float32))
  )
  jax.tree.map(np.testing.assert_array_equal, of_integers, of_floats)
  assert of_integers.advantages.dtype == jnp.float32
  # Nor are fractions cut off where the tokens are integers: 0.7 is not 0, nor -1.6 is -1.
  fractions = jnp.tile(jnp.array([0.7, -1.6]), SIZE // 2)
  experience, _ = make_experience(
    algorithm, rollout, rollout.logp, jnp.zeros_like(values), fractions, whiten=False, lam=1.0
  )
  first = np.asarray(experience.advantages[:, 1])
  baseline = {"moving_mean": 0.3, "leave_one_out": np.tile([-2.5 / 3, -0.2 / 3], SIZE // 2)}.get(algorithm, 0)
  np.testing.assert_allclose(first[:-1], (fractions - baseline)[:-1], atol=1e-6)


@pytest.mark.parametrize(
  "algorithm, expected", [("ppo", -0.5), ("none", 0.0), ("moving_mean", -0.3), ("leave_one_out", -2.0), ("value", -0.5)]
)
def test_a_score_of_0_is_a_score(algorithm, expected):
  rollout = three_tokens(2)
  values = jnp.full_like(rollout.logp, 0.5)
  experience, metrics = make_experience(
    algorithm, rollout, rollout.logp, values, jnp.array([0.0, 2.0]), group=2, whiten=False
  )
  assert experience.advantages[0, 3] == pytest.approx(expected)
  if algorithm != "ppo":
    assert metrics["reward/return"].compute() == 1.0


def test_leave_one_out_compares_the_responses_of_one_prompt():
  """(1, 2, 3, 6) gives (-8/3, -4/3, 0, 4), and so does a second prompt with easier scores."""
  rollout = three_tokens(8)
  scores = jnp.array([1.0, 2, 3, 6, 101, 102, 103, 106])
  experience, _ = make_experience("leave_one_out", rollout, rollout.logp, None, scores, group=4)
  expected = np.tile([-8 / 3, -4 / 3, 0, 4], 2)[:, None]
  np.testing.assert_allclose(experience.advantages[:, 1:4], np.tile(expected, (1, 3)), atol=1e-5)


@pytest.mark.parametrize("algorithm", ["ppo", "leave_one_out", "value"])
def test_garbage_at_masked_positions_leaves_everything_bitwise_unchanged(algorithm):
  clean = sampled()
  outside = ~np.asarray(clean[0].mask)
  behind = outside & (np.arange(tabular.WIDTH) > 0)  # What is in front is the prompt, which does matter.
  garbage = np.resize(np.array([np.nan, np.inf, -np.inf, 1e30], np.float32), outside.shape)

  def spoil(x):
    return jnp.where(outside, garbage, x)

  rollout, logp_ref, values, scores = clean
  tokens = jnp.where(behind & ~outside.all(1, keepdims=True), jnp.array([99, -7, 2, -1, 5]), rollout.tokens)
  spoilt = Rollout(tokens, rollout.mask, spoil(rollout.logp), rollout.finished), spoil(logp_ref), spoil(values), scores
  # The last row of the tables serves the masked positions: NaN logits and values come out of the model there.
  spoilt_params = jax.tree.map(lambda x: np.concatenate([x[:-1], np.full_like(x[-1:], np.nan)]), MOVED)
  loss_fn = jax.value_and_grad(make_loss(algorithm, value_coef=0.5, entropy_coef=0.1), has_aux=True)

  @jax.jit
  def update_of(params, inputs, fill):
    experience, metrics = make_experience(algorithm, *inputs, whiten_rewards=True)
    clean = {name: jnp.where(inputs[0].mask, x, 0) for name, x in vars(experience).items() if x is not None}
    experience = experience.replace(
      **{name: jnp.where(inputs[0].mask, clean[name], fill) for name in clean if name not in ("tokens", "mask")}
    )
    (loss, more), grads = loss_fn(params, experience, token_weights(experience.mask))
    return clean, loss, grads, scalars(metrics | more)

  expected = update_of(MOVED, clean, jnp.zeros_like(garbage))
  got = update_of(spoilt_params, spoilt, garbage)
  jax.tree.map(np.testing.assert_array_equal, got, expected)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(expected))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_gradient_flows_through_the_experience(algorithm):
  """Old log-probs, values, advantages and returns are constants, even if made inside what is differentiated."""
  rollout, logp_ref, _, scores = sampled()
  loss_fn = make_loss(algorithm, value_coef=0.5)

  def experience_of(params):
    # Their own values are kept: only the derivative is that of params.
    logp = rollout.logp + tabular.logprobs(PROBLEM, params["logits"], rollout.tokens)
    logp -= jax.lax.stop_gradient(tabular.logprobs(PROBLEM, params["logits"], rollout.tokens))
    values = APPLY(params, rollout.tokens)[1]
    return make_experience(algorithm, rollout.replace(logp=logp), logp_ref, values, scores, whiten=False)[0]

  @jax.jit
  def gradients(params):
    weights = token_weights(rollout.mask)
    fixed = experience_of(params)
    return (
      jax.grad(lambda params: loss_fn(params, experience_of(params), weights)[0])(params),
      jax.grad(lambda params: loss_fn(params, fixed, weights)[0])(params),
    )

  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), *gradients(MOVED))


@pytest.mark.parametrize(
  "algorithm, name, group",
  [
    ("none", "ragged", 1),
    ("moving_mean", "ragged", 1),
    ("value", "ragged", 1),
    ("ppo", "ragged", 1),
    ("leave_one_out", "ragged", 2),
    ("leave_one_out", "bandit", 3),
  ],
)
def test_the_expected_gradient_is_the_exact_one(algorithm, name, group):
  """Every group of responses there is, weighted with its probability, against the gradient of E[score] - coef KL."""
  problem = {"ragged": PROBLEM, "bandit": tabular.bandit((0.5, 0.3, 0.2), (0, 1, 2))}[name]
  apply, rows = tabular.make_apply(problem), tabular.leaves(problem)
  groups = np.array(list(itertools.product(range(len(rows)), repeat=group)))  # [groups, group]

  @jax.jit
  def gradients(params, temperature):
    p = tabular.distribution(problem, params["logits"], temperature)[groups].prod(axis=1)
    rollout = tabular.rollout_of(problem, params["logits"], rows[groups.reshape(-1)], temperature)
    logp_ref = tabular.logprobs(problem, problem.reference, rollout.tokens, temperature)
    values, scores = apply(params, rollout.tokens)[1], tabular.scores(problem, rollout.tokens)
    inputs = rollout, logp_ref, values, scores
    experience, _ = make_experience(algorithm, *inputs, group=group, lam=1.0, whiten=False)
    weights = jnp.repeat(p / group, group)[:, None] * rollout.mask
    loss_fn = make_loss(algorithm, apply, temperature=temperature)
    got = jax.grad(lambda params: loss_fn(params, experience, weights)[0])(params)
    exact = jax.grad(tabular.expected_return, argnums=1)(problem, params["logits"], KL_COEF, temperature)
    return got["logits"], -exact

  for temperature in (1.0, 2.0):
    got, expected = gradients(MOVED, temperature)
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_ppo_loss_and_its_metrics_token_by_token():
  rollout, logp_ref, values, scores = sampled()
  experience, _ = make_experience("ppo", rollout, logp_ref, values, scores)
  loss_fn = make_loss("ppo", value_coef=0.5, entropy_coef=0.1)
  loss, metrics = jax.jit(loss_fn)(MOVED, experience, token_weights(rollout.mask))
  logp = tabular.logprobs(PROBLEM, MOVED["logits"], rollout.tokens)
  rows = np.asarray(tabular.states(PROBLEM, rollout.tokens))
  parts = []
  for at in zip(*np.nonzero(rollout.mask), strict=True):
    ratio, advantage = np.exp(float(logp[at] - rollout.logp[at])), float(experience.advantages[at])
    unclipped, clipped = ratio * advantage, np.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage
    value, old, target = MOVED["values"][rows[at]], float(values[at]), float(experience.returns[at])
    error = 0.5 * max((value - target) ** 2, (np.clip(value, old - CLIP, old + CLIP) - target) ** 2)
    p = np.exp(MOVED["logits"][rows[at]]) / np.exp(MOVED["logits"][rows[at]]).sum()
    entropy = -np.sum(p * np.log(p))
    parts.append((min(unclipped, clipped), clipped < unclipped, ratio - 1 - np.log(ratio), entropy, error))
  objective, clip_fraction, approx_kl, entropy, error = np.mean(parts, axis=0)
  assert loss == pytest.approx(-objective + 0.5 * error - 0.1 * entropy, rel=1e-5)
  assert metrics["policy/clip_fraction"].compute() == pytest.approx(clip_fraction)
  assert metrics["policy/approx_kl"].compute() == pytest.approx(approx_kl, rel=1e-4)
  assert metrics["policy/entropy"].compute() == pytest.approx(entropy, rel=1e-5)
  assert metrics["value/loss"].compute() == pytest.approx(error, rel=1e-5)


def test_the_reinforce_loss_and_its_metrics_token_by_token():
  rollout, logp_ref, values, scores = sampled()
  experience, _ = make_experience("value", rollout, logp_ref, values, scores)
  loss_fn = make_loss("value", value_coef=0.5, entropy_coef=0.1)
  loss, metrics = jax.jit(loss_fn)(MOVED, experience, rollout.mask / SIZE)
  logp = tabular.logprobs(PROBLEM, MOVED["logits"], rollout.tokens)
  rows = np.asarray(tabular.states(PROBLEM, rollout.tokens))
  kl = np.asarray(rollout.logp - logp_ref)
  parts = []
  for row, t in zip(*np.nonzero(rollout.mask), strict=True):
    to_go = float(scores[row]) - KL_COEF * kl[row, t:].sum()
    error = 0.5 * (MOVED["values"][rows[row, t]] - to_go) ** 2
    p = np.exp(MOVED["logits"][rows[row, t]]) / np.exp(MOVED["logits"][rows[row, t]]).sum()
    parts.append((float(logp[row, t]) * (to_go - float(values[row, t])), -np.sum(p * np.log(p)), error))
  objective, entropy, error = np.sum(parts, axis=0)
  assert loss == pytest.approx((-objective + 0.5 * error - 0.1 * entropy) / SIZE, rel=1e-4)
  assert metrics["policy/entropy"].compute() == pytest.approx(entropy / len(parts), rel=1e-5)
  assert metrics["value/loss"].compute() == pytest.approx(error / len(parts), rel=1e-5)


def test_ppo_is_the_same_however_the_batch_is_cut():
  experience, _ = make_experience("ppo", *sampled())
  weights = token_weights(experience.mask)
  loss_fn = make_loss("ppo", value_coef=0.5, entropy_coef=0.1)
  (loss, metrics), grads = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(MOVED, experience, weights)
  expected = {name: metric.compute() for name, metric in metrics.items()} | {"loss": float(loss)}
  after = jax.tree.map(lambda x, g: x - g, MOVED, grads)
  for microbatches in (1, 2, 4):
    transport = Transport("jit", 1, microbatches)
    update = make_update(loss_fn, optax.sgd(1.0), transport)
    state, metrics = update(place(init_state(MOVED, optax.sgd(1.0)), transport), experience, weights)
    for name, value in expected.items():
      assert metrics[name].compute() == pytest.approx(value, rel=1e-5), (microbatches, name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.params, after)
  # The rows differ enough in length that a mean of the parts' means is another number.
  of_rows = jax.vmap(lambda row: loss_fn(MOVED, jax.tree.map(lambda x: x[None], row), token_weights(row.mask)[None])[0])
  assert abs(np.mean(jax.jit(of_rows)(experience)) / float(loss) - 1) > 0.05
