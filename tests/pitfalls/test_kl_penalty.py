"""The KL from the reference: its sign, its slope, what it is of, and what its coefficient is adapted to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from miniature import experience_of, rewards_of, rollout_by_hand

from rlhf_jax import data
from rlhf_jax.algorithms import kto, reinforce
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.objectives import kl_estimate, kl_exact, kto_loss, ppo_policy_objective, token_logprobs
from rlhf_jax.train.response_logprobs import mismatched_rows

POLICY = jnp.log(jnp.array([0.5, 0.3, 0.2]))
REFERENCE = jnp.log(jnp.array([0.3, 0.3, 0.4]))


def test_the_penalty_is_subtracted():
  """Wrong sign. [verl #179] What the policy likes more than the reference does costs reward."""
  rollout = rollout_by_hand([2])
  rewards = rewards_of(rollout, rollout.logp - 0.5, np.float32([1]), kl_coef=0.1)
  np.testing.assert_allclose(rewards, [[0, -0.05, 0.95, 0]], atol=1e-6)
  _, metrics = reinforce.make_experience(
    rollout, rollout.logp - 0.5, None, np.float32([1]), 0.0, kl_coef=0.1, baseline="none", samples_per_prompt=1
  )
  assert metrics["reward/return"].compute() == pytest.approx(0.9)


@pytest.mark.parametrize("kind, slope", [("k1", 1.0), ("k2", 0.5), ("k3", 1 - np.exp(-0.5))])
def test_a_kl_loss_has_a_gradient(kind, slope):
  """Computed where no gradient flows. [open-instruct #530]"""
  value, got = jax.value_and_grad(lambda logp: kl_estimate(logp, -1.5, kind=kind))(-1.0)
  assert value != 0 and float(got) == pytest.approx(slope, abs=1e-6)
  assert np.abs(jax.grad(kl_exact)(POLICY, REFERENCE)).max() > 0.1


def test_no_clamp_kills_the_gradient():
  """A clamp that kills the gradient exactly where the policies are furthest apart. [NeMo-RL #2958]"""
  value, slope = jax.value_and_grad(lambda logp: kl_estimate(logp, -1.0, kind="k3"))(-61.0)
  assert np.isfinite(value) and np.isfinite(slope) and slope < -1e6
  # A negative advantage, for which the upper clip does not hold, at a ratio of exp(60).
  slope = jax.grad(lambda logp: ppo_policy_objective(logp, -61.0, -1.0, clip=0.2)[0])(-1.0)
  assert np.isfinite(slope) and slope < -1e6


def test_k2_is_the_kl_loss_while_k1_has_no_gradient_and_k3_another():
  """k1 as a differentiable loss has expected gradient 0; k3 as a loss is biased; k2 is exact. [tunix default]"""
  p = jax.nn.softmax(POLICY)

  def expected_gradient(kind):
    return jax.grad(lambda z: p @ kl_estimate(jax.nn.log_softmax(z), REFERENCE, kind=kind))(POLICY)

  exact = jax.grad(kl_exact)(POLICY, REFERENCE)
  reverse = jax.grad(lambda z: jnp.exp(REFERENCE) @ (REFERENCE - jax.nn.log_softmax(z)))(POLICY)
  np.testing.assert_allclose(expected_gradient("k1"), 0, atol=1e-7)
  np.testing.assert_allclose(expected_gradient("k2"), exact, atol=1e-7)
  np.testing.assert_allclose(expected_gradient("k3"), reverse, atol=1e-7)
  assert np.abs(exact).max() > 0.1 and np.abs(reverse - exact).max() > 0.01


def test_the_kl_metric_is_the_penalised_one_summed_over_a_sequence():
  """Another KL than the one that is penalised; token and sequence sums mixed. [trlX #361, #441; TRL #1180, #2575]"""
  rollout = rollout_by_hand([3, 1])
  logp_ref = rollout.logp - np.where(rollout.mask, np.float32([[9, 0.1, -0.3, 0.5, 9], [9, 0.2, 9, 9, 9]]), 0)
  _, metrics = experience_of(rollout, logp_ref, np.float32([0, 0]), kl_coef=0.5)
  rewards = rewards_of(rollout, logp_ref, np.float32([0, 0]), kl_coef=0.5)
  assert metrics["kl/reference"].compute() == pytest.approx((0.3 + 0.2) / 2, abs=1e-6)
  assert metrics["kl/reference"].compute() == pytest.approx(-rewards.sum() / 0.5 / 2, abs=1e-6)


def test_the_controller_is_fed_the_kl_that_is_penalised(scripted):
  """The controller is fed another KL than the one that is penalised. [trlX #361, #441; TRL #1180, #2575]"""
  rows, fed = scripted
  assert fed == [(pytest.approx(0.1), 2, 16, 3.0, 100.0), (pytest.approx(0.2), 2, 16, 3.0, 100.0)]
  assert [row["kl/coef"] for row in rows] == pytest.approx([0.1, 0.2])


def test_log_probs_are_float32_before_they_are_subtracted():
  """Precision: a difference of bf16 log-probs. [OpenRLHF #620] Log-probs are float32."""
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(0, 4, (2, 64, 33)), jnp.bfloat16)
  tokens = rng.integers(0, 33, 64)
  exact = np.asarray(logits, np.float64)
  exact = exact - np.log(np.exp(exact).sum(axis=-1, keepdims=True))
  exact = exact[:, np.arange(64), tokens]
  logp = token_logprobs(logits, np.stack([tokens, tokens]))
  assert logp.dtype == jnp.float32
  np.testing.assert_allclose(kl_estimate(logp[0], logp[1]), exact[0] - exact[1], atol=1e-5)
  model = language_model(DecoderConfig(13, 1, 16, 2, 1, 16, 8, dtype="bfloat16"))
  params = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)))
  assert jax.eval_shape(model.apply, params, tokens[None, :4]).dtype == jnp.float32


def test_kto_measures_its_kl_on_responses_to_other_prompts(tokenizer):
  """A response under the prompt that it answers, among the mismatched pairs. [TRL #1911; LLaMA-Factory #7509]"""
  prompts, responses = ["Say a.", "Say a.", "Say b."], ["a", "aa", "b"]
  tokens, mask = mismatched_rows(tokenizer, prompts, responses, 32)
  expected, _ = data.demonstration_rows(
    tokenizer, [data.Demonstration(*pair) for pair in zip(prompts, ["b", "b", "a"], strict=True)], 32
  )
  np.testing.assert_array_equal(tokens, expected["tokens"])
  np.testing.assert_array_equal(mask, expected["mask"])


def test_kto_without_a_mismatched_response_has_a_loss():
  """A mean over no pair is NaN, and so is the loss. [TRL #1380]"""
  settings, rows = kto.Loss("kto", 0.1), (np.zeros((2, 3), np.int32), np.zeros((2, 3), bool), np.zeros(2, np.float32))
  z = kto.make_baseline(lambda *_: jnp.ones(2), settings)(None, *rows[:2], None, rows[2], np.ones(2, bool))
  assert kto_loss(-1.0, -1.0, True, z, beta=0.1) == pytest.approx(0.5)
