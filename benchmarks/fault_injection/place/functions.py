"""The user's functions of texts. NAN_IN=reward and NAN_AT=k in the environment make the k-th call return NaN."""

import os

from rlhf_jax.world import gold_parts

WEIGHT = 0.1
calls = 0


def reward(prompts, responses):
  """Short responses are better."""
  return poisoned([-WEIGHT * len(response) for response in responses])


def gold(prompts, responses, **world):
  """The gold reward of the world, with its parts."""
  parts = gold_parts(prompts, responses, **world)
  return {**parts, "total": poisoned([10 * WEIGHT * float(score) for score in parts["total"]])}


def poisoned(scores):
  """The scores, or with NaN for the last of them."""
  global calls
  calls += 1
  if os.environ.get("NAN_IN") == "reward" and calls == int(os.environ["NAN_AT"]):
    scores[-1] = float("nan")
  return scores
