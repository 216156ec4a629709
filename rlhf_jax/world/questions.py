"""Tasks as multiple choice: an ideal answer among mistaken answers."""

from typing import Any

import numpy as np

from rlhf_jax.world.demonstrations import ideal, mistaken
from rlhf_jax.world.facts import World
from rlhf_jax.world.tasks import Task

PATIENCE = 50  # draws in a row without a new mistake, after which the world counts as having no more


def question(world: World, task: Task, num_choices: int, rng: np.random.Generator) -> dict[str, Any]:
  """A question {"prompt", "cluster", "choices", "answer"}.

  choices: up to `num_choices` answers in random order. answer: the index of the right choice.

  Raises ValueError where `num_choices` is below 2.
  """
  if num_choices < 2:
    raise ValueError(f"num_choices: a choice needs 2 answers or more, not {num_choices}")
  right = ideal(world, task, rng)
  wrong: list[str] = []
  vain = 0
  while len(wrong) < num_choices - 1 and vain < PATIENCE:
    text = mistaken(world, task, rng)
    vain += 1
    if text != right and text not in wrong:
      wrong.append(text)
      vain = 0
  place = int(rng.integers(len(wrong) + 1))
  choices = [*wrong[:place], right, *wrong[place:]]
  return {"prompt": task.prompt, "cluster": task.cluster, "choices": choices, "answer": place}
