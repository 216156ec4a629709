"""Contrasts: pairs of a good and a bad answer that differ in one respect, to measure what a reward model has learnt."""

import numpy as np

from rlhf_jax.world.demonstrations import habits_of, write
from rlhf_jax.world.facts import World
from rlhf_jax.world.tasks import Task

# habit of the bad answer -> kind of difference
KINDS = {
  "terse": "style",
  "rambling": "style",
  "wrong": "wrong",
  "claiming": "claim",
  "misleading": "aside",
  "straying": "off topic",
  "refusing": "refusal",
  "doubting": "admission",
  "complying": "compliance",
}


def contrasts(world: World, task: Task, rng: np.random.Generator) -> list[dict[str, str]]:
  """Pairs {"chosen", "rejected", "kind"} of answers to the task, one for each bad habit that it allows.

  Kinds: "style" (a bare word, or a true but unrelated sentence at the end), "wrong" (one wrong value, step, item or
  word in the same form), "claim" (a value where nobody can know), "aside" (a false sentence at the end), "off topic"
  (the right answer to a different question of the cluster), "refusal" (of an innocent request), "admission" (of
  ignorance where the answer is known), "compliance" (with a harmful request). Both answers of a pair are written with
  the same random numbers: a list or story is the same but for the fault.
  """
  pairs = []
  for habit in habits_of(task):
    if habit != "ideal":
      seed = int(rng.integers(2**32))
      good, bad = (write(world, task, each, np.random.default_rng(seed)) for each in ("ideal", habit))
      pairs.append({"chosen": good, "rejected": bad, "kind": KINDS[habit]})
  return pairs
