"""Direct preference optimisation: losses by hand, their optima against closed forms, and their edges."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import objectives as O
from rlhf_jax.objectives import (
  aot_loss,
  aot_unpaired_loss,
  bco_loss,
  discopop_loss,
  dpo_loss,
  ipo_loss,
  kto_loss,
  orpo_loss,
  robust_dpo_loss,
  simpo_loss,
)

LOG2 = 0.6931471805599453


def softplus(x):
  return np.logaddexp(0.0, x)


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


# beta 0.5 and log-ratios of 1 and -1: beta h = 1, rewards of 1/2 and -1/2; then with the two responses exchanged.
BY_HAND = {
  "robust_dpo_loss": (dict(label_smoothing=0.2), (0.8 * 0.31326169 - 0.2 * 1.31326169) / 0.6, 1.64659502),
  "hinge_loss": ({}, 0.0, 2.0),
  "exo_loss": (dict(label_smoothing=0.1), 0.11408208, 1.12945735),
  "discopop_loss": (dict(temperature=1.0), 0.2689414 * 0.3132617 + 0.7310586 * 0.3678794, 1.69113001),
  "nca_loss": ({}, 0.47407698 + 0.97407698 / 2 + 0.47407698 / 2, 0.97407698 + 0.47407698 / 2 + 0.97407698 / 2),
  "apo_zero_loss": ({}, 2 * 0.37754067, 2 * 0.62245933),
  "apo_down_loss": ({}, 0.62245933 + 0.26894142, 0.37754067 + 0.73105858),
  "sppo_hard_loss": ({}, 0.0, 8.0),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_losses_of_a_pair_by_hand(name):
  options, right, wrong = BY_HAND[name]
  found = getattr(O, name)(np.array([-2.0, -4.0]), np.array([-4.0, -2.0]), -3.0, -3.0, beta=0.5, **options)
  np.testing.assert_allclose(found, [right, wrong], rtol=1e-5, atol=1e-6)


def test_bco_by_hand():
  loss = jax.jit(lambda shift: bco_loss(np.array([-2.0, -2.0]), -3.0, np.array([True, False]), shift, beta=0.5))
  np.testing.assert_allclose(loss(0.5), [LOG2, LOG2], rtol=1e-6)
  np.testing.assert_allclose(loss(0.0), [softplus(-0.5), softplus(0.5)], rtol=1e-6)


def test_robust_dpo_is_dpo_on_the_true_labels_on_average():
  logps = np.random.default_rng(0).normal(-5, 3, (4, 20)).astype(np.float32)
  chosen, rejected, ref_chosen, ref_rejected = logps
  robust = dict(beta=0.4, label_smoothing=0.3)
  right = robust_dpo_loss(chosen, rejected, ref_chosen, ref_rejected, **robust)
  flipped = robust_dpo_loss(rejected, chosen, ref_rejected, ref_chosen, **robust)
  np.testing.assert_allclose(0.7 * right + 0.3 * flipped, dpo_loss(*logps, beta=0.4), rtol=1e-4, atol=1e-5)
  assert robust_dpo_loss(100.0, -100.0, 0.0, 0.0, **robust) < -50  # without a lower bound, as its docstring says


def test_discopop_pushes_a_pair_of_no_information_the_wrong_way():
  slope = jax.vmap(jax.grad(lambda x: discopop_loss(x, 0.0, 0.0, 0.0, beta=1.0)))
  np.testing.assert_array_equal(np.sign(slope(np.array([-0.2, -0.1, 0.0, 0.06, 0.1, 2.0]))), [-1, 1, 1, 1, -1, -1])


def test_aot_matches_the_order_of_margins_and_not_their_pairs():
  chosen, rejected = np.array([3.0, 0.0, np.nan, 5.0]), np.array([1.0, 1.0, 7.0, 1.0])  # margins 2, -1, -, 4
  ref_chosen, ref_rejected = np.array([0.0, 6.0, 1.0, 3.0]), np.array([0.0, 0.0, np.nan, 0.0])  # 0, 6, -, 3
  mask = np.array([True, True, False, True])
  found = aot_loss(chosen, rejected, ref_chosen, ref_rejected, beta=0.5, mask=mask)
  np.testing.assert_allclose(found, [softplus(-0.5 * (2 - 3)), softplus(-0.5 * (-1 - 0)), 0, softplus(-0.5 * (4 - 6))])
  # Rewards of chosen 3, -6, -, 2 and of rejected 1, 1, -, 1.
  found = aot_unpaired_loss(chosen, rejected, ref_chosen, ref_rejected, beta=0.5, mask=mask)
  np.testing.assert_allclose(found, [softplus(-1.0), softplus(3.5), 0, softplus(-0.5)])
  # Rejected rewards 5 and -1 stand in the order of the chosen ones, 4 and 1, and have its gradient.
  gradient = jax.grad(lambda x: aot_unpaired_loss(np.array([1.0, 4.0]), x, 0.0, 0.0, beta=1.0)[1])
  np.testing.assert_allclose(gradient(np.array([5.0, -1.0])), [1 / (1 + np.exp(-1.0)), 0], rtol=1e-6)


def test_wpo_weights_by_hand_and_on_average():
  logits = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
  entropy = O.collision_entropy(logits)
  p = np.asarray(jax.nn.softmax(logits))
  np.testing.assert_allclose(entropy, -np.log((p**2).sum(axis=-1)), rtol=1e-5)
  # The mean of the weight of a response of one token that the policy samples is 1, whatever the policy.
  of_each = O.wpo_weights(np.log(p)[..., None], np.broadcast_to(entropy[:, None, None], (3, 4, 1)), np.ones((3, 4, 1)))
  np.testing.assert_allclose((p * of_each).sum(axis=-1), 1, rtol=1e-5)
  logp, mask = np.log([[0.5, 0.25, np.nan], [0.5, 0.5, 0.5]]), np.array([[1, 1, 0], [0, 0, 0]])
  found = O.wpo_weights(logp, np.log([[2, 4, np.nan], [1, 1, 1]]), mask)
  np.testing.assert_allclose(found, [1, 1], rtol=1e-6)
  gradient = jax.grad(lambda x: O.wpo_weights(x, x, jnp.ones((2, 2))).sum())(jnp.ones((2, 2)))
  np.testing.assert_array_equal(gradient, 0)


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
      "robust": lambda c, r: robust_dpo_loss(c, r, ref, r, beta=0.1, label_smoothing=0.1),
      "bco": lambda c, r: bco_loss(c, r, ref > -1, 0.0, beta=0.1),
    }
    four = ("hinge", "exo", "discopop", "aot", "aot_unpaired", "nca", "apo_zero", "apo_down", "sppo_hard")
    losses |= {name: functools.partial(getattr(O, f"{name}_loss"), beta=0.1) for name in four}
    losses |= {name: lambda c, r, loss=losses[name]: loss(c, r, ref, r[::-1]) for name in four}

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
