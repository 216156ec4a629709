"""Rewards and values: what enters, where it enters, and what must never enter."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from miniature import environment, experience_of, rewards_of, rollout_by_hand

from rlhf_jax.algorithms import ppo
from rlhf_jax.objectives import group_normalize, shaped_rewards
from rlhf_jax.reduce import masked_moments, masked_sum, token_weights, whiten
from rlhf_jax.train import Episodes, Function, Reward, make_environment, make_score_function
from rlhf_jax.train.episodes import refill
from rlhf_jax.types import Experience


def test_rewards_keep_their_fraction_though_tokens_are_integers():
  """Rewards built with `zeros_like(token_ids)` are integers: 0.7 becomes 0, -1.6 becomes -1. [tunix ppo_learner]"""
  rollout = rollout_by_hand([3, 2])
  rewards = rewards_of(rollout, rollout.logp, np.float32([0.7, -1.6]), kl_coef=0.5)
  np.testing.assert_array_equal(rewards, np.float32([[0, 0, 0, 0.7, 0], [0, 0, -1.6, 0, 0]]))
  # An integer score must not take the fraction of the penalty with it: 1 - 0.5 * 0.5.
  rewards = rewards_of(rollout, rollout.logp - 0.5, np.int32([1, 1]), kl_coef=0.5)
  np.testing.assert_allclose(rewards, [[0, -0.25, -0.25, 0.75, 0], [0, -0.25, 0.75, 0, 0]])


def test_a_reward_function_keeps_its_fraction(workspace):
  """The same truncation one step earlier, where texts become scores. [tunix ppo_learner]"""
  score = make_score_function(Function(environment().reward.function, {"value": -1.6}), workspace.stage("fraction"))
  np.testing.assert_array_equal(score(["a"], ["b"]), np.float32([-1.6]))


def test_a_reward_of_zero_is_a_reward(workspace, tokenizer, on_one_device):
  """A reward of exactly 0.0 is taken for "no reward". [OpenRLHF #1219]"""

  def episodes(tokenizer, **changes):
    return make_environment(environment(**changes), workspace.stage("zero"), workspace.model, tokenizer)(
      workspace.params, 0
    )

  # A token that the model often draws serves as the end, so that some responses end and others do not.
  rollout = episodes(tokenizer).rollout
  often = int(np.bincount(rollout.tokens[rollout.mask]).argmax())
  ending = dataclasses.replace(tokenizer, eos_id=often, end_ids=(often,))
  batch = episodes(ending, missing_eos_score=0.0)
  finished = np.asarray(batch.rollout.finished)
  assert finished.any() and not finished.all()
  np.testing.assert_array_equal(batch.scores, np.where(finished, 0.5, 0))
  worthless = Reward("", 0.0, environment().reward.function, 1.0, {"value": 0.0})
  batch = episodes(ending, reward=worthless, missing_eos_score=-1.0)
  np.testing.assert_array_equal(batch.scores, np.where(finished, 0, -1))


def test_the_score_enters_once_on_the_last_response_token():
  """Score written at the wrong position, dropped, or counted twice; terminal reward on a masked token.

  [TRL #3750, #1893; miles #1827]
  """
  rollout = rollout_by_hand([3, 1, 2])
  rewards = rewards_of(rollout, rollout.logp, np.float32([1, 2, 3]), kl_coef=0.1)
  np.testing.assert_array_equal(rewards, [[0, 0, 0, 1, 0], [0, 2, 0, 0, 0], [0, 0, 3, 0, 0]])


def test_scores_of_single_tokens_stand_where_they_were_given_and_once():
  """Dense rewards shifted by a token, or counted again in the score on the last one. [spinningup #50]"""
  rollout = rollout_by_hand([3, 1])
  given = np.float32([[9, 1, 0.5, -1, 9], [9, 2, 9, 9, 9]])
  rewards = shaped_rewards(np.float32([2, 2]), np.zeros(given.shape), rollout.mask, coef=0.1, token_scores=given)
  np.testing.assert_array_equal(rewards, [[0, 1, 0.5, 0.5, 0], [0, 2, 0, 0, 0]])


def refilled(part=""):
  """Two groups of two, of which the first is taken from a second round; "correct" is a part of the reward."""

  def episodes(mark, scores, correct):
    rollout = rollout_by_hand([1] * 4)
    rollout = rollout.replace(tokens=rollout.tokens + 10 * mark)
    names = [f"{mark}{i}" for i in range(4)]
    parts = {"correct": np.float32(correct)}
    return Episodes(jax.tree.map(jnp.asarray, rollout), jnp.float32(scores), {}, names, [*names], parts)

  first = episodes(1, [3, 3 + (part != ""), 5, 6], [0, 0, 0, 1])
  return refill(first, lambda _: episodes(2, [1, 1, 7, 8], [1, 1, 1, 0]), 1, copies=2, part=part)


def test_a_refilled_batch_keeps_scores_texts_and_tokens_together():
  """Scores of all responses that were drawn beside the tokens of those that were kept. [NeMo-RL #3794]"""
  found = refilled()
  assert found.scores.tolist() == [7, 8, 5, 6] and found.parts["correct"].tolist() == [1, 0, 0, 1]
  assert found.responses == found.prompts == ["22", "23", "12", "13"]
  assert (np.asarray(found.rollout.tokens)[:, 0] // 10).tolist() == [2, 2, 1, 1]


def test_what_is_drawn_again_is_decided_by_the_part_that_is_named():
  """A group of wrong answers stays for their lengths, once the score has a length in it. [NeMo-RL #2431]"""
  found = refilled("correct")
  assert found.responses == ["22", "23", "12", "13"] and found.scores.tolist() == [7, 8, 5, 6]


def test_nothing_is_bootstrapped_from_padding():
  """Bootstrap from the value of a masked or padded position. [ROLL #447; verl #50, #1440, #1758]"""
  rollout = rollout_by_hand([3])
  values = np.float32([[9, 0.5, 0.4, 0.3, 9]])
  experience, _ = experience_of(rollout, rollout.logp, np.float32([1]), values=values)
  np.testing.assert_allclose(experience.advantages, [[0, 0.43675, 0.565, 0.7, 0]], atol=1e-6)
  np.testing.assert_allclose(experience.returns, [[0, 0.93675, 0.965, 1, 0]], atol=1e-6)


def test_the_value_loss_has_its_half_and_the_mask_of_the_policy():
  """Value loss short of its factor 1/2, or masked differently from the policy loss. [verl #2016, #1850]"""
  rollout = rollout_by_hand([2, 1])
  mask, zeros = rollout.mask, np.zeros(rollout.mask.shape, np.float32)
  values = np.float32([[50, 1, 3, 50], [50, 0, 50, 50]])  # targets 3: errors 2, 0 and 3
  loss_fn = ppo.make_loss(
    lambda values, tokens: (jnp.zeros((*tokens.shape, 5)), values),
    clip=0.2, value_clip=100.0, value_coef=1.0, entropy_coef=0.0,
  )  # fmt: skip
  batch = Experience(rollout.tokens, mask, np.full_like(zeros, np.log(0.2)), zeros, values, np.full_like(zeros, 3))
  loss, metrics = jax.jit(loss_fn)(values, batch, token_weights(mask))
  assert float(loss) == pytest.approx((2 + 0 + 4.5) / 3)
  assert metrics["value/loss"].compute() == pytest.approx((2 + 0 + 4.5) / 3)


def test_the_reward_model_reads_the_last_token_of_the_response(small):
  """Reward model reads its score at a pad position or one token off. [gpt-neox #1285; N+ details 12]"""
  tokens = np.asarray(jax.random.randint(jax.random.key(3), (3, 8), 2, 13))
  lengths = np.array([5, 3, 7])
  mask = np.arange(8) < lengths[:, None]
  # The value at index t is the head's reading of what was read up to and with token t - 1.
  expected = np.asarray(small.value(small.params, tokens))[np.arange(3), lengths]
  np.testing.assert_allclose(small.score(small.params, tokens, mask), expected, atol=1e-5)
  padded = np.where(mask, tokens, 0)
  np.testing.assert_allclose(small.score(small.params, padded, mask), expected, atol=1e-5)
  assert np.ptp(np.asarray(small.value(small.params, tokens))[:, 1:], axis=1).min() > 0.1


def test_an_empty_response_does_not_poison_the_batch():
  """NaN * 0: one empty or all-masked response poisons the batch.

  [OpenRLHF #1240; verl #2377, #782; open-instruct #1685]
  """
  rollout = rollout_by_hand([2, 3, 0])
  bad = np.where(np.arange(3)[:, None] == 2, np.float32(np.nan), np.float32(0)) + np.zeros((3, 5), np.float32)
  rollout = rollout.replace(logp=rollout.logp + bad)
  loss_fn = ppo.make_loss(
    lambda params, tokens: (params["logits"], params["values"]),
    clip=0.2, value_clip=0.2, value_coef=0.1, entropy_coef=0.1,
  )  # fmt: skip
  params = {"logits": jnp.asarray(bad)[..., None] + jnp.linspace(0.0, 1.0, 5), "values": jnp.asarray(bad)}

  @jax.jit
  def update(rollout, params):
    scores = jnp.ones(len(rollout.tokens))
    experience, metrics = experience_of(
      rollout, rollout.logp - 0.1, scores, values=params["values"], kl_coef=0.1, whiten_advantages=True
    )
    loss, grads = jax.value_and_grad(lambda p: loss_fn(p, experience, token_weights(rollout.mask))[0])(params)
    return loss, jax.tree.map(lambda x: x[:2], grads), metrics["value/mean"].sum()

  whole, without = update(rollout, params), update(*jax.tree.map(lambda x: x[:2], (rollout, params)))
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(whole))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole, without)
  # XLA turns a product with a boolean into a selection and hides the bug; a float mask shows it.
  np.testing.assert_array_equal(masked_sum(jnp.array([[2.0], [np.nan]]), np.float32([[1], [0]]), axis=1), [2, 0])


def test_the_variance_of_one_element_is_zero():
  """The variance of a mask with one element divides by zero. [tunix masked_var]"""
  x, mask = jnp.array([[5.0, 7.0]]), np.array([[True, False]])
  for ddof in (0, 1):
    assert [float(moment) for moment in masked_moments(x, mask, ddof=ddof)] == [5, 0]
    np.testing.assert_array_equal(whiten(x, mask, ddof=ddof), [[0, 0]])
    np.testing.assert_array_equal(group_normalize(jnp.array([[5.0]]), ddof=ddof), [[0]])
  rollout = rollout_by_hand([1])
  experience, _ = experience_of(rollout, rollout.logp, np.float32([3]), whiten_advantages=True, whiten_rewards=True)
  assert np.isfinite(experience.advantages).all()
