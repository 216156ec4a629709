"""People in the loop: a reward that is a labeller's rating of each response, bought anew for every sample."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from rlhf_jax.world.gold import gold_reward
from rlhf_jax.world.labellers import POINTS, make_labellers, perceive, ratings


def simulated_rating(
  prompts: Sequence[str], responses: Sequence[str], *, seed: int, labellers: Mapping[str, int]
) -> np.ndarray:
  """Ratings of N responses, each from 1 to 7 by a labeller drawn at random, in units of gold reward: f32[N].

  0 is the middle of the scale. Draw and noise follow from the texts and the world's `seed` alone, so that a resumed run
  gets the same ratings. Raises ValueError as `gold_reward` and `make_labellers` do.
  """
  people, gold = make_labellers(labellers), gold_reward(prompts, responses, seed)
  rng = np.random.default_rng([seed, zlib.crc32("\n".join([*prompts, *responses]).encode())])
  given = np.zeros(len(gold))
  for i, response in enumerate(responses):
    person = people[rng.integers(len(people))]
    given[i] = ratings(person, perceive(person, gold[i : i + 1], np.array([len(response.split())]), rng))[0]
  return ((given - 4) / POINTS).astype(np.float32)
