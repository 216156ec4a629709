"""People in the loop: a reward that is a labeller's rating of each response, bought anew for every sample."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from rlhf_jax.data import PromptValue
from rlhf_jax.world.gold import gold_parts
from rlhf_jax.world.labellers import POINTS, SESSION, Traits, make_labellers, perceive, ratings, traits_of
from rlhf_jax.world.tasks import asked_text


def simulated_rating(
  prompts: Sequence[PromptValue],
  responses: Sequence[str],
  *,
  seed: int,
  labellers: Mapping[str, int],
  difficulty: str = "easy",
) -> np.ndarray:
  """Ratings of N responses, each from 1 to 7 by a labeller drawn at random, in units of gold reward: f32[N].

  The crowd's scale is calibrated as a whole: 0 is the mean rating of a middling response, and the unit allows for
  labellers who spread their ratings or skim. A labeller's leniency and habits stay in the ratings. Draw and noise
  follow from the texts and the world's `seed` alone, so that a resumed run gets the same ratings. Raises ValueError as
  `gold_parts` and `make_labellers` do.
  """
  people = make_labellers(labellers)
  middle = 4 + np.mean([person.leniency for person in people])
  points = POINTS * np.mean([person.stretch * person.attention for person in people])
  everything = traits_of(gold_parts(prompts, responses, seed, difficulty), responses)
  rng = np.random.default_rng([seed, zlib.crc32("\n".join([*map(asked_text, prompts), *responses]).encode())])
  given = np.zeros(len(responses))
  for i in range(len(responses)):
    person, judged = people[rng.integers(len(people))], int(rng.integers(SESSION))
    page = Traits(*(trait[i : i + 1] for trait in everything))
    given[i] = ratings(person, perceive(person, page, rng, judged).logits)[0]
  return ((given - middle) / points).astype(np.float32)
