"""What must hold for the losses and the experience of PPO and REINFORCE, whatever the policy: here it is a table."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular
from tiny_chain import recipe

from rlhf_jax.algorithms import ppo, reinforce
from rlhf_jax.reduce import token_weights, weighted_sum
from rlhf_jax.settings import ConfigError, import_module, parse
from rlhf_jax.stage import Transport
from rlhf_jax.train.update import init_state, make_update, place
from rlhf_jax.types import Rollout

BASELINES = ["none", "moving_mean", "leave_one_out", "greedy", "value"]
ALGORITHMS = ["ppo", *BASELINES]
KL_COEF, MOVING_MEAN, CLIP = 0.5, 0.3, 0.2
SIZE, GROUP = 160, 4  # all rollouts are of this size, so that each experience is compiled once
PROBLEM = tabular.tree(seed=7, stop=True)
APPLY = tabular.make_apply(PROBLEM)


def perturbed(params, spread, seed):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: np.float32(x + rng.normal(0, spread, x.shape)), params)


BEHAVIOUR = perturbed(tabular.initial(PROBLEM), 0.5, seed=5)  # the policy that sampled, which is not the reference
MOVED = perturbed(BEHAVIOUR, 0.3, seed=6)  # the policy after some updates


@jax.jit
def sampled(temperature=1.0):
  """`(rollout, logp_ref, values, scores)` with the longest responses first and the last row empty."""
  uniform = np.random.default_rng(9).uniform(size=(SIZE, tabular.DEPTH)).astype(np.float32)
  rollout = tabular.sample(PROBLEM, BEHAVIOUR["logits"], uniform, temperature)
  order = jnp.argsort(-jnp.sum(rollout.mask, axis=1))
  rollout = jax.tree.map(lambda x: x[order], rollout)
  mask = rollout.mask.at[-1].set(False)
  rollout = rollout.replace(mask=mask, logp=jnp.where(mask, rollout.logp, 0.0))
  logp_ref = jnp.where(mask, tabular.logprobs(PROBLEM, PROBLEM.reference, rollout.tokens, temperature), 0.0)
  return rollout, logp_ref, APPLY(BEHAVIOUR, rollout.tokens)[1], tabular.scores(PROBLEM, rollout.tokens)


def three_tokens():
  """A rollout in which every response has three tokens, and the policy is the reference."""
  problem = tabular.tree(seed=7, stop=False)
  return tabular.rollout_of(problem, problem.reference, np.resize(tabular.leaves(problem), (SIZE, tabular.WIDTH)))


@functools.partial(jax.jit, static_argnames=("algorithm", "group", "whiten_rewards", "whiten"))
def make_experience(
  algorithm, inputs, *, group=GROUP, token_scores=None, discount=1.0, lam=0.95, whiten_rewards=False, whiten=True
):
  """Either algorithm's, of (rollout, logp_ref, values, scores); what follows `token_scores` is of PPO's config."""
  if algorithm == "ppo":
    config = tabular.ppo_config(discount=discount, lam=lam, whiten_rewards=whiten_rewards, whiten_advantages=whiten)
    return ppo.make_experience(*inputs, jnp.asarray(KL_COEF), config, token_scores)
  settings = dict(kl_coef=KL_COEF, baseline=algorithm, samples_per_prompt=group, token_scores=token_scores)
  return reinforce.make_experience(*inputs, jnp.asarray(MOVING_MEAN), **settings)


def make_loss(algorithm, apply=APPLY, *, value_coef=0.0, entropy_coef=0.0, temperature=1.0):
  settings = dict(value_coef=value_coef, entropy_coef=entropy_coef, temperature=temperature)
  if algorithm == "ppo":
    return ppo.make_loss(apply, clip=CLIP, value_clip=CLIP, **settings)
  return reinforce.make_loss(apply, **settings)


def assert_trees_equal(got, expected, **tolerance):
  compare = functools.partial(np.testing.assert_allclose, **tolerance) if tolerance else np.testing.assert_array_equal
  jax.tree.map(compare, got, expected)


@jax.jit
def without_learning(state, temperature, orders):
  """Updates at learning rate 0: the final state, the metrics of each minibatch and its loss if all ratios are 1."""
  experience, _ = make_experience("ppo", sampled(temperature))
  update = make_update(make_loss("ppo", temperature=temperature), optax.sgd(0.0), Transport("jit", 1, 1))

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
  state = place(init_state(BEHAVIOUR, optax.sgd(0.0)), Transport("jit", 1, 1))
  state, (metrics, on_policy) = without_learning(state, temperature, orders)
  np.testing.assert_array_equal(metrics["policy/clip_fraction"].values, np.zeros(8))
  np.testing.assert_allclose(metrics["policy/approx_kl"].values, np.zeros(8), atol=1e-12)
  # A ratio of 1 makes the surrogate the advantage, whitened with the rollout and not with the minibatch.
  np.testing.assert_allclose(metrics["loss"].values, on_policy, atol=1e-6)
  assert np.all(np.abs(on_policy) > 1e-3)
  assert_trees_equal(state.params, BEHAVIOUR)


def test_where_the_policy_is_the_reference_the_score_is_the_only_reward_of_ppo():
  """Once, on the last token of the response, and with its fraction though the tokens are integers."""
  rollout, _, values, scores = sampled()
  # With discount 0 and V = 0 the advantages are the rewards.
  inputs = rollout, rollout.logp, jnp.zeros_like(values), scores
  experience, metrics = make_experience("ppo", inputs, discount=0.0, whiten=False)
  assert metrics["kl/reference"].compute() == 0
  expected = np.zeros(values.shape, np.float32)
  for row, mask in enumerate(np.asarray(rollout.mask)):
    if mask.any():
      expected[row, np.flatnonzero(mask)[-1]] = scores[row]
  np.testing.assert_array_equal(experience.advantages, expected)


@pytest.mark.parametrize("algorithm", BASELINES)
def test_where_the_policy_is_the_reference_the_score_is_the_return_of_reinforce(algorithm):
  rollout, _, values, scores = sampled()
  experience, metrics = make_experience(algorithm, (rollout, rollout.logp, jnp.zeros_like(values), scores))
  assert metrics["kl/reference"].compute() == 0
  assert metrics["reward/return"].compute() == pytest.approx(float(np.mean(scores)), abs=1e-6)
  mask, scores = np.asarray(rollout.mask), np.asarray(scores)
  of_others = (scores.reshape(-1, GROUP).sum(1).repeat(GROUP) - scores) / (GROUP - 1)
  given = {"moving_mean": MOVING_MEAN, "greedy": MOVING_MEAN}
  baseline = {**given, "leave_one_out": of_others}.get(algorithm, 0)
  expected = np.where(mask, (scores - baseline)[:, None], 0)
  np.testing.assert_allclose(np.where(mask, experience.advantages, 0), expected, atol=1e-6)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_kl_metric_is_that_of_the_policy_from_the_reference(algorithm):
  """p = (.5, .3, .2), of which the responses are an exact sample, and q = (.4, .4, .2): KL(p || q) = .0252671539."""
  problem, policy = tabular.bandit((0.4, 0.4, 0.2), (0, 0, 0)), tabular.bandit((0.5, 0.3, 0.2), (0, 0, 0)).reference
  tokens = tabular.leaves(problem)[np.repeat([0, 1, 2], (SIZE // 2, 3 * SIZE // 10, SIZE // 5))]
  rollout = tabular.rollout_of(problem, policy, tokens)
  logp_ref = tabular.logprobs(problem, problem.reference, tokens)
  _, metrics = make_experience(algorithm, (rollout, logp_ref, jnp.zeros_like(logp_ref), jnp.zeros(SIZE)))
  assert metrics["kl/reference"].compute() == pytest.approx(0.0252671539, abs=1e-6)
  assert metrics["kl/coef"].compute() == KL_COEF


@pytest.mark.parametrize("lam, expected", [(0.95, (0.43675, 0.565, 0.7)), (0, (-0.1, -0.1, 0.7)), (1, (0.5, 0.6, 0.7))])
def test_ppo_advantages_by_hand(lam, expected):
  rollout = three_tokens()
  values = np.tile(np.float32([9, 0.5, 0.4, 0.3, 9]), (SIZE, 1))  # 9 in front of the response and behind it
  inputs = rollout, rollout.logp, values, jnp.ones(SIZE)
  experience, _ = make_experience("ppo", inputs, lam=float(lam), whiten=False)
  np.testing.assert_allclose(experience.advantages[0], [0, *expected, 0], atol=1e-6)
  np.testing.assert_allclose(experience.returns[0], [0, *np.add(expected, (0.5, 0.4, 0.3)), 0], atol=1e-6)


@pytest.mark.parametrize("whiten_rewards", [False, True])
def test_ppo_experience_equals_a_loop_whitened_over_the_whole_rollout(whiten_rewards):
  inputs = sampled()
  experience, metrics = make_experience("ppo", inputs, discount=0.9, whiten_rewards=whiten_rewards)
  rollout, logp_ref, values, scores = jax.tree.map(np.asarray, inputs)
  mask, kl = rollout.mask, np.float64(rollout.logp) - logp_ref
  rewards, advantages = np.zeros(mask.shape), np.zeros(mask.shape)
  for row, t in zip(*np.nonzero(mask), strict=True):
    rewards[row, t] = -KL_COEF * kl[row, t] + (0 if mask[row, t + 1 :].any() else scores[row])
  if whiten_rewards:
    mean = rewards[mask].mean()
    rewards[mask] = (rewards[mask] - mean) / rewards[mask].std() + mean
  for row in range(SIZE):
    next_value = next_advantage = 0.0
    for t in np.flatnonzero(mask[row])[::-1]:
      delta = rewards[row, t] + 0.9 * next_value - values[row, t]
      advantages[row, t] = next_advantage = delta + 0.9 * 0.95 * next_advantage
      next_value = values[row, t]
  np.testing.assert_allclose(experience.returns, np.where(mask, advantages + values, 0), atol=1e-5)
  whitened = np.where(mask, (advantages - advantages[mask].mean()) / advantages[mask].std(), 0)
  np.testing.assert_allclose(experience.advantages, whitened, atol=1e-5)
  assert metrics["kl/reference"].compute() == pytest.approx(kl.sum() / SIZE, rel=1e-4)


@pytest.mark.parametrize("algorithm", ["ppo", "leave_one_out", "value"])
def test_integer_scores_do_not_truncate_what_is_added_to_them(algorithm):
  rollout, logp_ref, values, _ = sampled()
  scores = np.arange(SIZE, dtype=np.int32) % 3 - 1
  of_integers, _ = make_experience(algorithm, (rollout, logp_ref, values, scores))
  of_floats, _ = make_experience(algorithm, (rollout, logp_ref, values, np.float32(scores)))
  assert_trees_equal(of_integers, of_floats)
  assert of_integers.advantages.dtype == jnp.float32


@pytest.mark.parametrize(
  "algorithm, expected", [("ppo", -0.5), ("none", 0), ("moving_mean", -0.3), ("leave_one_out", -2), ("value", -0.5)]
)
def test_a_score_of_0_is_a_score(algorithm, expected):
  rollout = three_tokens()
  scores = np.tile(np.float32([0, 2, 2, 2]), SIZE // 4)
  inputs = rollout, rollout.logp, jnp.full_like(rollout.logp, 0.5), scores
  experience, metrics = make_experience(algorithm, inputs, whiten=False)
  assert float(experience.advantages[0, 3]) == pytest.approx(expected)
  if algorithm != "ppo":
    assert metrics["reward/return"].compute() == 1.5


def test_leave_one_out_compares_the_responses_of_one_prompt():
  """(1, 2, 3, 6) gives (-8/3, -4/3, 0, 4), for prompts with easy scores as for those with hard ones."""
  rollout = three_tokens()
  scores = np.float32([1, 2, 3, 6]) + 100 * np.arange(SIZE // 4, dtype=np.float32)[:, None]
  experience, _ = make_experience("leave_one_out", (rollout, rollout.logp, None, scores.reshape(-1)))
  expected = np.tile(np.array([-8 / 3, -4 / 3, 0, 4])[:, None], (SIZE // 4, 3))
  np.testing.assert_allclose(experience.advantages[:, 1:4], expected, atol=1e-3)


@pytest.mark.parametrize("algorithm", ["ppo", "leave_one_out", "value"])
def test_garbage_at_masked_positions_leaves_everything_bitwise_unchanged(algorithm):
  rollout, logp_ref, values, scores = clean = sampled()
  outside = ~np.asarray(rollout.mask)
  garbage = np.resize(np.float32([np.nan, np.inf, -np.inf, 1e30]), outside.shape)
  # What stands in front of the response is the prompt, which does matter, but any token may stand behind it.
  behind = outside & (np.arange(tabular.WIDTH) > 0) & ~outside.all(axis=1, keepdims=True)
  tokens = np.where(behind, np.array([99, -7, 2, -1, 5]), rollout.tokens)
  logp, logp_ref, values = (np.where(outside, garbage, x) for x in (rollout.logp, logp_ref, values))
  spoilt = Rollout(tokens, rollout.mask, logp, rollout.finished), logp_ref, values, scores
  # The last row of the tables serves the masked positions: there the model's own logits and values are NaN.
  spoilt_params = jax.tree.map(lambda x: np.concatenate([x[:-1], np.full_like(x[-1:], np.nan)]), MOVED)
  loss_fn = jax.value_and_grad(make_loss(algorithm, value_coef=0.5, entropy_coef=0.1), has_aux=True)

  @jax.jit
  def update_of(params, inputs, fill):
    experience, metrics = make_experience(algorithm, inputs, whiten_rewards=True)
    mask = experience.mask
    kept = ("tokens", "mask", "scores", "finished")  # the last two are of whole responses
    numbers = {name: x for name, x in vars(experience).items() if name not in kept and x is not None}
    filled = experience.replace(**{name: jnp.where(mask, x, fill) for name, x in numbers.items()})
    (loss, more), grads = loss_fn(params, filled, token_weights(mask))
    metrics = {name: metric.sum() for name, metric in (metrics | more).items()}
    return {name: jnp.where(mask, x, 0) for name, x in numbers.items()}, loss, grads, metrics

  expected = update_of(MOVED, clean, np.zeros_like(garbage))
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(expected))
  assert_trees_equal(update_of(spoilt_params, spoilt, garbage), expected)


def test_scores_of_single_tokens_are_rewards_where_they_stand():
  """PPO's rewards are its advantages where the discount and all values are 0; the value baseline sums what follows."""
  rollout, logp_ref, values, scores = sampled()
  inputs = (rollout, logp_ref, jnp.zeros_like(values), scores)
  mask = np.asarray(rollout.mask)
  given = np.where(mask, np.random.default_rng(3).normal(size=mask.shape), 9).astype(np.float32)
  dense = np.where(mask, given, 0)
  change = dense - np.where(
    mask & (mask.cumsum(axis=1) == mask.sum(axis=1, keepdims=True)), dense.sum(axis=1)[:, None], 0
  )
  of_ppo = [make_experience("ppo", inputs, discount=0.0, whiten=False, token_scores=x)[0] for x in (None, given)]
  np.testing.assert_allclose(of_ppo[1].advantages, of_ppo[0].advantages + change, atol=1e-5)
  of_value = [make_experience("value", inputs, token_scores=x)[0] for x in (None, given)]
  to_go = np.where(mask, change[:, ::-1].cumsum(axis=1)[:, ::-1], 0)
  np.testing.assert_allclose(of_value[1].returns, of_value[0].returns + to_go, atol=1e-5)
  assert np.abs(to_go[mask]).max() > 0.5  # and the first token's return is that of the whole score, as before
  np.testing.assert_allclose(to_go[np.arange(len(mask)), mask.argmax(axis=1)], 0, atol=1e-5)
  of_whole = [make_experience("leave_one_out", inputs, token_scores=x)[0] for x in (None, given)]
  np.testing.assert_array_equal(of_whole[1].advantages, of_whole[0].advantages)
  np.testing.assert_array_equal(of_whole[0].scores, scores)
  np.testing.assert_array_equal(of_whole[0].finished, rollout.finished)


@pytest.mark.parametrize("algorithm", ["ppo", "value"])
def test_no_gradient_flows_through_the_experience(algorithm):
  """Old log-probs, values, advantages and returns are constants, even if made inside what is differentiated."""
  rollout, logp_ref, values, scores = sampled()
  loss_fn = make_loss(algorithm, value_coef=0.5)

  def with_slope(x, of):
    return x + of - jax.lax.stop_gradient(of)

  def experience_of(params):
    logp = with_slope(rollout.logp, tabular.logprobs(PROBLEM, params["logits"], rollout.tokens))
    inputs = rollout.replace(logp=logp), logp_ref, with_slope(values, APPLY(params, rollout.tokens)[1]), scores
    return make_experience(algorithm, inputs, whiten=False)[0]

  @jax.jit
  def gradients(params):
    weights, fixed = token_weights(rollout.mask), experience_of(params)
    inside = jax.grad(lambda params: loss_fn(params, experience_of(params), weights)[0])(params)
    return inside, jax.grad(lambda params: loss_fn(params, fixed, weights)[0])(params)

  assert_trees_equal(*gradients(MOVED), atol=1e-7)


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
    inputs = rollout, logp_ref, apply(params, rollout.tokens)[1], tabular.scores(problem, rollout.tokens)
    experience, _ = make_experience(algorithm, inputs, group=group, lam=1.0, whiten=False)
    weights = jnp.repeat(p / group, group)[:, None] * rollout.mask
    loss_fn = make_loss(algorithm, apply, temperature=temperature)
    got = jax.grad(lambda params: loss_fn(params, experience, weights)[0])(params)
    exact = jax.grad(tabular.expected_return, argnums=1)(problem, params["logits"], KL_COEF, temperature)
    return got["logits"], -exact

  for temperature in (1.0, 2.0):
    got, expected = gradients(MOVED, temperature)
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(got, expected, atol=1e-6)


def token_by_token(inputs):
  """Of each token that counts: where it is, its log-prob, the policy's probabilities and the value, all of MOVED."""
  logp = np.asarray(tabular.logprobs(PROBLEM, MOVED["logits"], inputs[0].tokens))
  states = np.asarray(tabular.states(PROBLEM, inputs[0].tokens))
  for at in zip(*np.nonzero(np.asarray(inputs[0].mask)), strict=True):
    odds = np.exp(MOVED["logits"][states[at]])
    yield at, logp[at], odds / odds.sum(), MOVED["values"][states[at]]


def test_the_ppo_loss_and_its_metrics_token_by_token():
  inputs = sampled()
  experience, _ = make_experience("ppo", inputs)
  loss_fn = make_loss("ppo", value_coef=0.5, entropy_coef=0.1)
  loss, metrics = jax.jit(loss_fn)(MOVED, experience, token_weights(experience.mask))
  experience, parts = jax.tree.map(np.asarray, experience), []
  for at, logp, p, value in token_by_token(inputs):
    ratio, advantage = np.exp(logp - experience.logp[at]), experience.advantages[at]
    unclipped, clipped = ratio * advantage, np.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage
    old, target = experience.values[at], experience.returns[at]
    error = 0.5 * max((value - target) ** 2, (np.clip(value, old - CLIP, old + CLIP) - target) ** 2)
    approx_kl = ratio - 1 - np.log(ratio)
    parts.append((min(unclipped, clipped), clipped < unclipped, approx_kl, -np.sum(p * np.log(p)), error))
  objective, clip_fraction, approx_kl, entropy, error = np.mean(parts, axis=0)
  assert float(loss) == pytest.approx(-objective + 0.5 * error - 0.1 * entropy, rel=1e-5)
  assert metrics["policy/clip_fraction"].compute() == pytest.approx(clip_fraction) != 0
  assert metrics["policy/approx_kl"].compute() == pytest.approx(approx_kl, rel=1e-4)
  assert metrics["policy/entropy"].compute() == pytest.approx(entropy, rel=1e-5)
  assert metrics["value/loss"].compute() == pytest.approx(error, rel=1e-5)


def test_the_reinforce_loss_and_its_metrics_token_by_token():
  inputs = sampled()
  experience, _ = make_experience("value", inputs)
  loss_fn = make_loss("value", value_coef=0.5, entropy_coef=0.1)
  loss, metrics = jax.jit(loss_fn)(MOVED, experience, experience.mask / SIZE)
  rollout, logp_ref, values, scores = jax.tree.map(np.asarray, inputs)
  parts = []
  for (row, t), logp, p, value in token_by_token(inputs):
    to_go = scores[row] - KL_COEF * np.sum((rollout.logp - logp_ref)[row, t:])
    parts.append((logp * (to_go - values[row, t]), -np.sum(p * np.log(p)), 0.5 * (value - to_go) ** 2))
  objective, entropy, error = np.sum(parts, axis=0)
  assert float(loss) == pytest.approx((-objective + 0.5 * error - 0.1 * entropy) / SIZE, rel=1e-4)
  assert metrics["policy/entropy"].compute() == pytest.approx(entropy / len(parts), rel=1e-5)
  assert metrics["value/loss"].compute() == pytest.approx(error / len(parts), rel=1e-5)


def test_ppo_is_the_same_however_the_batch_is_cut():
  experience, _ = make_experience("ppo", sampled())
  tokens = np.asarray(experience.mask).reshape(4, -1).sum(axis=1)
  assert tokens[0] > 2 * tokens[-1]  # The parts differ in length, so that a mean of their means would be far off.
  loss_fn = make_loss("ppo", value_coef=0.5, entropy_coef=0.1)
  results = []
  for microbatches in (1, 2, 4):
    transport = Transport("jit", 1, microbatches)
    update = make_update(loss_fn, optax.sgd(1.0), transport)
    state, metrics = update(
      place(init_state(MOVED, optax.sgd(1.0)), transport), experience, token_weights(experience.mask)
    )
    results.append((state.params, {name: metric.compute() for name, metric in metrics.items()}))
  assert {"loss", "policy/clip_fraction", "policy/approx_kl", "policy/entropy", "value/loss"} < results[0][1].keys()
  for result in results[1:]:
    assert_trees_equal(result, results[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  "name, changes, message",
  [
    ("ppo", dict(clip=-2.0), "config.ppo.clip is -2.0, and must be at least 0"),
    ("rloo", dict(clip=-2.0), "config.rloo.clip is -2.0, and must be at least 0"),
    ("ppo", dict(environment=dict(batch_size=0)), "config.ppo.environment.batch_size is 0, and must be at least 1"),
  ],
)
def test_settings_that_cannot_train_are_refused(name, changes, message):
  section = recipe(name)[name]
  environment = {**section["environment"], **changes.get("environment", {})}
  module = import_module(section["algorithm"])
  with pytest.raises(ConfigError, match=message):
    parse(module.Config, {**section, **changes, "environment": environment}, name)
