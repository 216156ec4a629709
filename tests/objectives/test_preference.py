"""Preference losses: by hand, against numpy loops, and their optima against closed forms and choix."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.objectives import (
  bradley_terry_loss,
  dpo_loss,
  ipo_loss,
  kto_loss,
  orpo_loss,
  pairwise_ranking_loss,
  plackett_luce_loss,
  rating_loss,
  simpo_loss,
)

LOG2 = 0.6931471805599453
pairwise, plackett_luce = jax.jit(pairwise_ranking_loss), jax.jit(plackett_luce_loss)
bradley_terry = jax.jit(bradley_terry_loss)


def softplus(x):
  return np.logaddexp(0.0, x)


def most_likely(wins):
  """Rewards of mean 0 that minimise the Bradley-Terry loss, `wins[i, j]` times i over j, by Newton's method."""
  wins = np.asarray(wins, np.float32)

  def total(theta):
    losses = bradley_terry_loss(*jnp.broadcast_arrays(theta[:, None], theta[None, :]))
    return jnp.sum(wins * losses) + jnp.sum(theta) ** 2

  def step(_, theta):
    return theta - jnp.linalg.solve(jax.hessian(total)(theta), jax.grad(total)(theta))

  return jax.jit(lambda theta: jax.lax.fori_loop(0, 20, step, theta))(np.zeros(len(wins), np.float32))


def test_bradley_terry_by_hand():
  losses = bradley_terry(np.array([1.0, 3.0, -1000.0, 1000.0]), np.array([1.0, 1.0, 1000.0, -1000.0]))
  np.testing.assert_allclose(losses, [LOG2, softplus(-2.0), 2000, 0], rtol=1e-6)
  shifted = bradley_terry(np.array([11.0, 13.0, -990.0, 1010.0]), np.array([11.0, 11.0, 1010.0, -990.0]))
  np.testing.assert_array_equal(shifted, losses)
  margin = bradley_terry(np.array([2.0, 2.0]), np.array([1, 1]), margin=np.array([0.0, 3.0]))  # one per pair
  np.testing.assert_allclose(margin, softplus(np.array([-1.0, 2.0])), rtol=1e-6)
  smoothed = bradley_terry(np.array([2.0, 2.0]), np.array([1, 4]), label_smoothing=0.1)
  expected = [0.9 * softplus(-1.0) + 0.1 * softplus(1.0), 0.9 * softplus(2.0) + 0.1 * softplus(-2.0)]
  np.testing.assert_allclose(smoothed, expected, rtol=1e-6)


def test_bradley_terry_of_infinite_rewards():
  # A response that was ruled out loses for certain: loss 0 or infinity and no NaN, as 0 * inf would be.
  inf = np.float32(np.inf)
  chosen, rejected = np.array([inf, 1, -inf, 1], np.float32), np.array([1, -inf, 1, inf], np.float32)
  value, slope = jax.vmap(jax.value_and_grad(bradley_terry_loss))(chosen, rejected)
  np.testing.assert_array_equal(value, [0, 0, inf, inf])
  np.testing.assert_array_equal(slope, [0, 0, -1, -1])
  smoothed = bradley_terry_loss(chosen, rejected, label_smoothing=jnp.float32(0.1))
  np.testing.assert_array_equal(smoothed, inf)  # with flipped labels a certain preference is impossible
  assert np.isnan(bradley_terry_loss(inf, inf))  # there is no difference to take


@pytest.mark.parametrize(
  "wins, expected",
  [
    ([[0, 7], [3, 0]], [0.8472978603872037 / 2, -0.8472978603872037 / 2]),
    ([[0, 6, 4], [2, 0, 5], [1, 3, 0]], [0.8474208484722225, -0.19213062383372576, -0.6552902246384968]),
  ],
)
def test_bradley_terry_optimum(wins, expected):
  np.testing.assert_allclose(most_likely(wins), expected, atol=1e-5)


def test_bradley_terry_optimum_equals_choix():
  choix = pytest.importorskip("choix")
  wins = np.array([[0, 3, 5, 2], [4, 0, 1, 6], [2, 7, 0, 1], [1, 1, 3, 0]])
  comparisons = [(i, j) for i in range(4) for j in range(4) for _ in range(wins[i, j])]
  np.testing.assert_allclose(most_likely(wins), choix.opt_pairwise(4, comparisons), atol=1e-4)


def test_rankings_by_hand():
  assert pairwise(np.array([2.0, 1.0, 0.0, -1.0]), np.arange(4)) == pytest.approx(0.2070380727023926, rel=1e-6)
  rewards = np.array([1.0, 0.0, -1.0])
  probability = {}
  for order in itertools.permutations(range(3)):
    ranks = np.argsort(order)  # the rank of each response, not the order of responses
    probability["".join(map(str, order))] = np.exp(-plackett_luce(rewards, ranks))
  by_hand = {
    "012": 0.4863301075752072,
    "021": 0.17891084819961464,
    "102": 0.21555612220306056,
    "120": 0.0291723488517371,
    "201": 0.065817622855183,
    "210": 0.02421295031519747,
  }
  assert probability == pytest.approx(by_hand, rel=1e-5)
  assert sum(probability.values()) == pytest.approx(1.0)


def random_rankings():
  rng = np.random.default_rng(0)
  return rng.normal(0, 2, (40, 5)).astype(np.float32), rng.integers(-2, 4, (40, 5))  # ties and absences


def test_rankings_equal_a_loop():
  rewards, ranks = random_rankings()
  found = pairwise(rewards, ranks), plackett_luce(rewards, ranks)
  for row, (r, rank) in enumerate(zip(rewards.astype(np.float64), ranks, strict=True)):
    here = [i for i in range(5) if rank[i] >= 0]
    losses = [softplus(r[j] - r[i]) for i in here for j in here if rank[i] < rank[j]]
    assert found[0][row] == pytest.approx(np.mean(losses) if losses else 0, rel=1e-5)
    stages = [np.log(np.sum(np.exp([r[i], *(r[j] for j in here if rank[j] > rank[i])]))) - r[i] for i in here]
    assert found[1][row] == pytest.approx(sum(stages), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("loss", [pairwise, plackett_luce], ids=["pairwise", "plackett_luce"])
def test_rankings_at_the_edges(loss):
  rewards, ranks = random_rankings()
  value = loss(rewards, ranks)
  np.testing.assert_allclose(loss(rewards + 5, ranks), value, atol=1e-5)
  order = [3, 1, 4, 0, 2]
  np.testing.assert_allclose(loss(rewards[:, order], ranks[:, order]), value, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(loss(np.where(ranks < 0, np.nan, rewards), ranks), value)
  np.testing.assert_allclose(loss(rewards, 10 * ranks), value, rtol=1e-6)  # only the order of ranks counts
  for nothing_to_compare in (np.zeros_like(ranks), np.full_like(ranks, -1), np.where(np.arange(5) == 2, 0, -1)):
    np.testing.assert_allclose(loss(rewards, np.broadcast_to(nothing_to_compare, ranks.shape)), 0, atol=1e-6)
  assert loss(np.zeros(1), np.zeros(1, int)) == 0  # K = 1


def test_a_ranking_of_two_is_a_comparison():
  rewards = np.array([[0.3, 1.0], [-2.0, 4.0]], np.float32)
  expected = bradley_terry(rewards[:, 1], rewards[:, 0])
  for loss in (pairwise, plackett_luce):
    np.testing.assert_allclose(loss(rewards, np.array([[1, 0], [5, 2]])), expected, rtol=1e-5, atol=1e-6)


def test_absent_and_tied_responses_have_no_gradient_between_them():
  gradient = jax.jit(jax.vmap(jax.grad(pairwise_ranking_loss)))
  tied = gradient(np.zeros((2, 3), np.float32), np.array([[0, 1, 1], [0, -1, 1]]))
  np.testing.assert_allclose(tied, [[-0.5, 0.25, 0.25], [-0.5, 0, 0.5]])
  extreme = gradient(np.array([[1000.0, 0, -1000]], np.float32), np.array([[2, 1, 0]]))
  np.testing.assert_allclose(extreme, [[2 / 3, 0, -2 / 3]], rtol=1e-6)


def test_rating_loss():
  assert rating_loss(np.array([2]), np.array([4.5])) == 6.25


def test_dpo_by_hand():
  @jax.jit
  def everything(log_ratios):
    def loss(chosen, rejected):
      return dpo_loss(chosen - 3, rejected - 4, -3.0, -4.0, beta=0.1)

    return jax.vmap(jax.value_and_grad(loss, (0, 1)))(*log_ratios)

  value, slopes = everything(np.array([[1.0, 0.0], [-1.0, 0.0]]))
  np.testing.assert_allclose(value, [0.5981388693815918, LOG2], rtol=1e-6)
  np.testing.assert_allclose([slopes[0][0], slopes[1][0]], [-0.04501660026875222, 0.04501660026875222], rtol=1e-5)
  smoothed = dpo_loss(1.0, -1.0, 0.0, 0.0, beta=0.5, label_smoothing=0.2)
  assert smoothed == pytest.approx(0.8 * softplus(-1.0) + 0.2 * softplus(1.0), rel=1e-6)


@pytest.mark.parametrize("loss", [dpo_loss, ipo_loss])
def test_optimum_on_an_enumerable_problem(loss):
  # With every pair labelled by Bradley-Terry on r, DPO's optimum is p_ref exp(r / beta) / Z. IPO regresses its margin
  # on 1 / (2 beta): with two responses of which one always wins, it stops at exactly that log-ratio.
  @jax.jit
  def descend(p_ref, wins, beta, rate):
    def total(logits):
      logp, ref = jax.nn.log_softmax(logits), jnp.log(p_ref)
      pairs = jnp.broadcast_arrays(logp[:, None], logp[None, :], ref[:, None], ref[None, :])
      return jnp.sum(wins * loss(*pairs, beta=beta))

    step = jax.grad(total)
    return jax.nn.softmax(jax.lax.fori_loop(0, 400, lambda _, x: x - rate * step(x), jnp.log(p_ref)))

  p_ref, rewards = np.array([0.5, 0.3, 0.2]), np.array([0.0, 1.0, 2.0])
  if loss is dpo_loss:
    found = descend(p_ref, 1 / (1 + np.exp(rewards - rewards[:, None])), 1.0, 0.5)
    np.testing.assert_allclose(found, [0.1790000205742738, 0.2919435019325062, 0.5290564774932199], atol=1e-5)
  else:
    found = descend(p_ref[:2], np.array([[0.0, 1.0], [0.0, 0.0]]), 0.5, 0.1)
    assert np.log(found[0] / found[1]) == pytest.approx(np.log(5 / 3) + 1.0, rel=1e-5)


def test_kto_by_hand():
  logp, desirable = np.array([-1.0, -1.0, -2.0]), np.array([True, False, True])
  sigmoid = 1 / (1 + np.exp(-np.array([0.1, -0.1, 0.0])))

  @jax.jit
  def everything(kl, weight):
    return kto_loss(logp, -2.0, desirable, kl, beta=0.1, undesirable_weight=weight)

  np.testing.assert_allclose(everything(0.0, 1.0), 1 - sigmoid, rtol=1e-6)
  np.testing.assert_allclose(everything(-5.0, 1.0), 1 - sigmoid, rtol=1e-6)  # an estimate of KL below 0 counts as 0
  np.testing.assert_allclose(everything(1.0, 3.0), [0.5, 1.5, 1 / (1 + np.exp(-0.1))], rtol=1e-6)


def test_reference_free_losses_by_hand():
  # p of 1/2 and 1/4: odds 1 and 1/3, whose ratio is 3, so sigmoid(log 3) = 3/4.
  assert orpo_loss(-LOG2, -2 * LOG2, beta=1.0) == pytest.approx(LOG2 + np.log(4 / 3), rel=1e-6)
  assert orpo_loss(-LOG2, -2 * LOG2, beta=0.1) == pytest.approx(LOG2 + 0.1 * np.log(4 / 3), rel=1e-6)
  assert simpo_loss(-1.0, -2.0, beta=2.0) == pytest.approx(softplus(-2.0), rel=1e-6)
  assert simpo_loss(-1.0, -2.0, beta=2.0, margin=1.0) == pytest.approx(softplus(-1.0), rel=1e-6)


def test_certain_improbable_and_impossible_responses_stay_finite():
  points = np.array(list(itertools.product([0.0, -1e-9, -1.0, -200.0, -1e4, -np.inf], repeat=2)), np.float32)

  @jax.jit
  def everything(chosen, rejected):
    ref = jnp.full_like(chosen, -200.0)
    losses = {
      "dpo": lambda c, r: dpo_loss(c, r, ref, r, beta=0.1),
      "ipo": lambda c, r: ipo_loss(c, r, ref, ref, beta=0.1),
      "kto": lambda c, r: kto_loss(c, r, ref > -1, 0.0, beta=0.1),
      "orpo": lambda c, r: orpo_loss(c, r, beta=1.0),
      "simpo": lambda c, r: simpo_loss(c, r, beta=2.0),
    }

    def both(loss):
      value = loss(chosen, rejected)
      return value, jax.grad(lambda c, r: loss(c, r).sum(), (0, 1))(chosen, rejected)

    return {name: both(loss) for name, loss in losses.items()}

  found = everything(points[:, 0], points[:, 1])
  for name, leaves in found.items():
    for leaf in jax.tree.leaves(leaves):
      assert np.all(np.isfinite(leaf)), name
  # A rejected response of probability 1 must still be pushed down.
  certain = (points[:, 1] == 0) & (points[:, 0] < -0.5) & np.isfinite(points[:, 0])
  assert np.all(found["orpo"][1][1][certain] > 1e3)
