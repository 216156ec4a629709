"""From the parts of a reward to scores: weights, parts on single tokens, responses without an end, what is logged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.train.reward_functions import Scored
from rlhf_jax.train.scores import score_episodes

FINISHED = np.array([True, False, True, True])
TOKENS = np.float32([[0, 1, 2, 0], [0, 5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 4]])
PARTS = {
  "model": Scored(jnp.float32([1, 2, 3, 4])),
  "function": Scored(
    TOKENS.sum(axis=1), TOKENS, {"style": np.float32([1, 1, 0, 0]), "length": np.float32([0, 4, 0, 8])}
  ),
  "length": Scored(np.float32([-1, 0, 0, -1]), None, {"style": np.float32([9, 9, 9, 9])}),
}
WEIGHTS = {"model": 1.0, "function": 2.0, "length": 0.5}


def scores_of(missing=None, copies=2, parts=PARTS):
  scores, tokens, metrics = score_episodes(parts, WEIGHTS, FINISHED, missing_eos_score=missing, copies=copies)
  return scores, tokens, {name: metric.compute() for name, metric in metrics.items()}


def test_a_score_is_the_weighted_sum_of_all_parts():
  scores, tokens, metrics = scores_of()
  np.testing.assert_allclose(scores, [1 + 2 * 3 - 0.5, 2 + 2 * 5, 3, 4 + 2 * 4 - 0.5])
  np.testing.assert_allclose(tokens, 2 * TOKENS)  # the part of the scores on single tokens, weighted as they are
  assert metrics["reward/proxy"] == pytest.approx(np.mean(scores))
  assert metrics["reward/model"] == 2.5 and metrics["reward/function"] == 3 and metrics["reward/length"] == -0.5
  # What a function names: of a part by the part's name, and of the function itself where a part has that name.
  assert (
    metrics["reward/style"] == 0.5 and metrics["reward/length/style"] == 9 and metrics["reward/function/length"] == 3
  )


def test_a_response_without_an_end_has_nothing_on_single_tokens():
  scores, tokens, _ = scores_of(missing=-1.0)
  np.testing.assert_allclose(scores, [6.5, -1, 3, 11.5])
  np.testing.assert_allclose(tokens, 2 * TOKENS * FINISHED[:, None])


def test_without_parts_on_tokens_there_are_none():
  alone = {"function": Scored(np.float32([1, 2, 3, 3]))}
  scores, tokens, metrics = scores_of(parts=alone)
  assert tokens is None and metrics["reward/groups_alike"] == 0.5
  assert set(metrics) == {"reward/proxy", "reward/std", "reward/groups_alike"}
  assert isinstance(scores, jax.Array)
