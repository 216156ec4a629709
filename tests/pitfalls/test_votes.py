"""What several people said of one pair."""

import numpy as np

from rlhf_jax.agreement.consensus import leading_outcome


def test_the_vote_of_a_tie_counts():
  """The vote of a tie is lost in a majority: signs are added, so that tie, tie, better is better. [here]"""
  votes = np.array([[0, 2, 1], [1, 2, 0], [1, 1, 1], [0, 1, 2], [2, 0, 1], [1, 0, 1]])  # worse, tie, better
  assert leading_outcome(votes).tolist() == [0.5, 0.5, 0.5, 1, 0, 0.5]
