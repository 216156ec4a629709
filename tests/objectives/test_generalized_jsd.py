"""The generalised Jensen-Shannon divergence: by loops over the vocabulary, and its limits."""

import jax
import numpy as np
import pytest

from rlhf_jax.objectives import generalized_jsd_loss, kl_exact

RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(size=(2, 3, 5)).astype(np.float32)


def softmax(x):
  p = np.exp(np.float64(x))
  return p / p.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_by_a_loop(beta):
  q, p = softmax(STUDENT), softmax(TEACHER)
  m = beta * p + (1 - beta) * q
  expected = np.sum(beta * p * np.log(p / m) + (1 - beta) * q * np.log(q / m), axis=-1)
  np.testing.assert_allclose(generalized_jsd_loss(STUDENT, TEACHER, beta=beta), expected, rtol=1e-4)


def test_the_ends_are_the_two_divergences_and_the_limits_of_the_slopes():
  q, p = softmax(STUDENT), softmax(TEACHER)
  forward, backward = np.sum(p * np.log(p / q), axis=-1), np.sum(q * np.log(q / p), axis=-1)
  np.testing.assert_allclose(generalized_jsd_loss(STUDENT, TEACHER, beta=0.0), forward, rtol=1e-5)
  np.testing.assert_allclose(generalized_jsd_loss(STUDENT, TEACHER, beta=1.0), backward, rtol=1e-5)
  np.testing.assert_array_equal(generalized_jsd_loss(STUDENT, TEACHER, beta=1), kl_exact(STUDENT, TEACHER))
  small = 1e-2
  np.testing.assert_allclose(generalized_jsd_loss(STUDENT, TEACHER, beta=small) / small, forward, rtol=5e-2)
  np.testing.assert_allclose(generalized_jsd_loss(STUDENT, TEACHER, beta=1 - small) / small, backward, rtol=5e-2)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_a_student_like_its_teacher_has_nothing_to_learn(beta):
  value, slope = jax.value_and_grad(lambda x: generalized_jsd_loss(x, TEACHER, beta=beta).sum())(TEACHER)
  assert value == pytest.approx(0, abs=1e-6) and np.abs(slope).max() < 1e-6


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_tokens_that_are_ruled_out_leave_it_finite(beta):
  student, teacher = STUDENT.copy(), TEACHER.copy()
  student[..., 0] = teacher[..., 0] = teacher[0, 1] = -np.inf
  value, slope = jax.value_and_grad(lambda x: generalized_jsd_loss(x, teacher, beta=beta).sum())(student)
  assert np.isfinite(value) and np.isfinite(slope).all()
