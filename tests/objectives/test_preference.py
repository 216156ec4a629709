"""Losses of reward models: by hand, against numpy loops, and their optima against closed forms and choix."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.objectives import (
  bradley_terry_loss,
  correctness_loss,
  davidson_loss,
  pairwise_ranking_loss,
  plackett_luce_loss,
  rating_loss,
  reward_centring_loss,
)

LOG2 = 0.6931471805599453
pairwise, plackett_luce = jax.jit(pairwise_ranking_loss), jax.jit(plackett_luce_loss)
bradley_terry = jax.jit(bradley_terry_loss)
davidson = jax.jit(davidson_loss)


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


def probabilities(gap, tie):
  """(first wins, tie, second wins) of two rewards this far apart, each f[...]."""
  zero, no, yes = np.zeros_like(gap), np.zeros(np.shape(gap), bool), np.ones(np.shape(gap), bool)
  outcomes = ((gap, zero, no), (gap, zero, yes), (zero, gap, no))
  return [np.exp(-np.asarray(davidson(*pair, tie=tie), np.float64)) for pair in outcomes]


def test_davidson_by_hand():
  """At a gap of 2 log 2 the three weights are 2, tie and 1 / 2; they sum to one whatever gap and tie are."""
  win, tie, loss = probabilities(np.full(3, 2 * np.log(2.0), np.float32), np.array([0.0, 1.5, 7.5], np.float32))
  np.testing.assert_allclose(win, [0.8, 0.5, 0.2], rtol=1e-6)
  np.testing.assert_allclose(tie, [0.0, 0.375, 0.75], rtol=1e-6)
  np.testing.assert_allclose(loss, [0.2, 0.125, 0.05], rtol=1e-6)
  gaps, ties = (x.astype(np.float32) for x in np.meshgrid(np.linspace(-60, 60, 25), [0.0, 1e-3, 1.0, 1e3]))
  win, tie, loss = probabilities(gaps, ties)
  np.testing.assert_allclose(win + tie + loss, 1, rtol=1e-5)
  np.testing.assert_allclose(np.log(win / loss)[np.abs(gaps) < 40], gaps[np.abs(gaps) < 40], rtol=1e-4, atol=1e-4)


def test_davidson_without_ties_is_bradley_terry_and_a_tie_impossible():
  chosen, rejected = np.array([1.0, -3.0, 50.0], np.float32), np.array([0.5, 4.0, -50.0], np.float32)
  margin = np.array([0.5, 0.0, 2.0], np.float32)
  found = davidson(chosen, rejected, False, tie=0.0, margin=margin)
  np.testing.assert_array_equal(found, bradley_terry(chosen, rejected, margin=margin))
  np.testing.assert_array_equal(davidson(chosen, rejected, True, tie=0.0), np.inf)
  tied = davidson(chosen, rejected, True, tie=2.0, margin=margin)  # no margin between equals
  np.testing.assert_array_equal(tied, davidson(chosen, rejected, True, tie=2.0))
  np.testing.assert_allclose(tied, davidson(rejected, chosen, True, tie=2.0), rtol=1e-6)


def test_gradients_of_davidson_by_hand():
  """dL / dd is (P(win) - P(loss)) / 2 for a tie and 1 / 2 less for a win; dL / dtie is P(tie) / tie, less 1 / tie."""
  slopes = jax.jit(jax.grad(lambda d, nu, tied: davidson_loss(d, 0.0, tied, tie=nu), (0, 1)))
  for gap, nu in ((2 * np.log(2.0), 1.5), (-1.0, 0.3), (0.0, 2.0)):
    weights = np.exp([gap / 2, -gap / 2])
    win, loss = weights / (weights.sum() + nu)
    half, share = (win - loss) / 2, 1 / (weights.sum() + nu)
    np.testing.assert_allclose(slopes(gap, nu, True), [half, share - 1 / nu], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slopes(gap, nu, False), [half - 0.5, share], rtol=1e-5, atol=1e-6)
  assert np.isfinite(slopes(1e4, 1.0, True)).all() and np.isfinite(slopes(0.5, 0.0, False)).all()


def test_the_optimum_of_davidson_is_the_shares_of_two_responses():
  """9 wins, 12 ties and 4 losses: d = log(9 / 4) and tie = 12 / sqrt(9 * 4), as for boards."""

  def total(x):
    outcomes = ((x[0], 0.0, False, 9), (x[0], 0.0, True, 12), (0.0, x[0], False, 4))
    return sum(num * davidson_loss(a, b, tied, tie=x[1]) for a, b, tied, num in outcomes)

  def step(_, x):
    return x - jnp.linalg.solve(jax.hessian(total)(x), jax.grad(total)(x))

  found = jax.jit(lambda x: jax.lax.fori_loop(0, 20, step, x))(jnp.array([0.5, 1.5]))
  np.testing.assert_allclose(found, [np.log(9 / 4), 2.0], rtol=1e-5)


def test_tied_pairs_of_a_ranking_count_where_a_parameter_says_so():
  """By hand: three responses, of which two tie, one absent; the mean over the pairs that are compared."""
  rewards, ranks = np.array([0.5, -0.3, 1.0, 9.0], np.float32), np.array([0, 1, 1, -1])
  decided = [davidson(0.5, x, False, tie=2.0, margin=0.5) for x in (-0.3, 1.0)]
  tied = davidson(-0.3, 1.0, True, tie=2.0)
  assert pairwise(rewards, ranks, margin=0.5, tie=2.0) == pytest.approx(float(np.mean([*decided, tied])), rel=1e-6)
  alone = pairwise(rewards, np.array([-1, 0, 0, -1]), tie=2.0)
  assert alone == pytest.approx(float(tied), rel=1e-6) and pairwise(rewards, np.array([-1, 0, 0, -1])) == 0
  both = pairwise(np.stack([rewards] * 2), np.stack([ranks] * 2), tie=np.array([0.0, 2.0]))
  assert both.tolist() == [pairwise(rewards, ranks), pairwise(rewards, ranks, tie=2.0)]
  gradient = jax.grad(pairwise_ranking_loss)(np.array([0.0, 3.0], np.float32), np.array([0, 0]), tie=1.0)
  assert gradient[1] > 0.3 and gradient[0] == pytest.approx(-gradient[1])  # equal responses are drawn together


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


def test_correctness_by_hand():
  found = correctness_loss(np.array([0.0, 2.0, 2.0, -1e4]), np.array([True, True, False, True]))
  np.testing.assert_allclose(found, [LOG2, softplus(-2.0), softplus(2.0), 1e4], rtol=1e-6)


def test_centring_by_hand_and_what_it_holds_fixed():
  """(2 + 1)^2 of one pair; of four responses with a tie and an absence the mean over the pairs that are compared."""
  assert reward_centring_loss(np.array([2.0, 1.0]), np.array([0, 1])) == 9
  found = reward_centring_loss(np.array([1.0, 2.0, -3.0, np.nan]), np.array([0, 1, 1, -1]))
  assert found == pytest.approx((3**2 + 2**2) / 2)

  @jax.jit
  def descend(rewards):
    def total(rewards):
      return bradley_terry_loss(rewards[0], rewards[1], label_smoothing=0.2) + 0.1 * reward_centring_loss(
        rewards, np.array([0, 1])
      )

    return jax.lax.fori_loop(0, 400, lambda _, x: x - 0.5 * jax.grad(total)(x), rewards)

  # The gap is that of the labels, log(0.8 / 0.2), as without centring; the sum, which they leave open, goes to 0.
  np.testing.assert_allclose(descend(np.array([7.0, 5.0])), [np.log(2), -np.log(2)], atol=1e-4)
