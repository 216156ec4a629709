"""People in the loop: a reward that is one labeller's rating of each response, bought anew for every sample."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from rlhf_jax.world.gold import gold_reward
from rlhf_jax.world.labellers import POINTS, perceive, population, ratings


def simulated_rating(
  prompts: Sequence[str], responses: Sequence[str], *, seed: int, labellers: Mapping[str, int]
) -> np.ndarray:
  """Each response is rated from 1 to 7 by one labeller of the population, drawn at random: f32[N].

  In units of gold reward, 0 for the middle of the scale. Everything random follows from the texts and from `seed`, the
  world's, so that a run that continues gets the same ratings. Raises ValueError as `gold_reward` and `population` do.
  """
  people, gold = population(labellers), gold_reward(prompts, responses, seed)
  rng = np.random.default_rng([seed, zlib.crc32("\n".join([*prompts, *responses]).encode())])
  given = np.zeros(len(gold))
  for i, response in enumerate(responses):
    person = people[rng.integers(len(people))]
    given[i] = ratings(person, perceive(person, gold[i : i + 1], np.array([len(response.split())]), rng))[0]
  return ((given - 4) / POINTS).astype(np.float32)
