"""What training asks and what only evaluation asks, so that no training text answers the questions of evaluation.

A task has topics: the fact, the sum, the noun, the sentence that it asks about, in whatever words. A fifth of all
topics is reserved: no request of the training files asks for them, and no text of the world holds an ideal answer that
names them. A reserved fact about a person is told in the corpus, but in other words than any answer, and so are
reserved sums, nouns and pairs of opposites; the order of two reserved numbers has to follow from the rest. Some forms
of requests are reserved as well (see `rlhf_jax.world.phrasings`).
"""

import functools
import hashlib
from collections.abc import Hashable, Iterator

import numpy as np

from rlhf_jax.world.facts import ATTRIBUTES, CATEGORIES, OPPOSITES, PAST, World
from rlhf_jax.world.tasks import Task, running_totals

RESERVED_SHARE = 0.2  # share of the topics, rounded up in each group
Topic = tuple[Hashable, ...]

TRAINING, REPHRASED, NEW = "training", "rephrased", "new"


def cell(world: World, task: Task) -> str | None:
  """The part that a task belongs to; None for a task with a reserved topic in a reserved form, which no part uses.

  "training": neither topic nor form is reserved. "rephrased": a topic of training in a reserved form. "new": a reserved
  topic in a form of training.
  """
  new = asks_reserved(world, task)
  if new and task.reserved:
    return None
  return NEW if new else REPHRASED if task.reserved else TRAINING


def asks_reserved(world: World, task: Task) -> bool:
  """Whether a topic of the task is reserved."""
  return any(is_reserved(world, topic) for topic in topics(world, task))


def is_reserved(world: World, topic: Topic) -> bool:
  """Whether a topic is reserved for evaluation."""
  if topic[0] in ("sentence", "mood", "story", "harm"):  # too many to list: a hash decides
    digest = hashlib.sha256(repr((world.seed, topic)).encode()).digest()
    return int.from_bytes(digest[:4]) < RESERVED_SHARE * 2**32
  return topic in _reserved(world)


def topics(world: World, task: Task) -> tuple[Topic, ...]:
  """What the task asks about, in whatever words."""
  values, cluster = task.values, task.cluster
  if cluster in ("facts", "verification"):
    name, attribute = values["name"], task.kind.split()[-1]
    return (("fact", world.friends[name] if task.kind.startswith("friend ") else name, attribute),)
  if cluster == "unanswerable":
    return (("stranger", values["name"]),)
  if cluster == "arithmetic":
    return (sum_topic(task.kind, int(values["a"]), int(values["b"])),)
  if cluster == "reasoning":
    operations, numbers = task.kind.split(), [int(values[slot]) for slot in "abcd" if slot in values]
    totals = running_totals(operations, numbers)
    return tuple(map(sum_topic, operations, totals[:-1], numbers[1:]))
  if cluster == "comparison":
    return (order_topic(int(values["a"]), int(values["b"])),)
  if cluster == "classification":
    return (("noun", values["noun"].removeprefix("a ")),)
  if cluster == "opposites":
    return (opposite_topic(values["word"]),)
  if cluster == "listing":
    return (("list", values["count"], values["plural"]),)
  if cluster == "stories":
    return (story_topic(values["name"], values["thing"]),)
  if cluster in ("copying", "rewriting"):
    verb = values["past"] if cluster == "copying" else PAST[values["present"]]
    thing = " ".join(filter(None, (values.get("colour"), values["object"], values.get("town"))))
    return (sentence_topic(values["name"], verb, thing),)
  if cluster == "sentiment":
    return (("mood", task.prompt.rpartition(": ")[2]),)
  return (("harm", task.kind, *(text for _, text in task.slots)),)


def sum_topic(sign: str, a: int, b: int) -> Topic:
  """The topic of a sum or a difference; the order of the terms of a sum does not matter."""
  return (sign, *(sorted((a, b)) if sign == "plus" else (a, b)))


def order_topic(a: int, b: int) -> Topic:
  """The topic of the order of two numbers."""
  return ("order", min(a, b), max(a, b))


def opposite_topic(word: str) -> Topic:
  """The topic of a pair of opposites."""
  return ("opposite", *sorted((word, OPPOSITES[word])))


def sentence_topic(name: str, past: str, thing: str) -> Topic:
  """The topic of a sentence to copy or to put into the past, such as "Tom", "saw", "red lamp Ashby"."""
  return ("sentence", name, past, thing)


def story_topic(name: str, thing: str) -> Topic:
  """The topic of a story."""
  return ("story", name, thing)


@functools.lru_cache(maxsize=16)
def _reserved(world: World) -> frozenset[Topic]:
  """The reserved topics of those that can be listed."""
  rng = np.random.default_rng([world.seed, 5])
  chosen: set[Topic] = set()
  for group in _groups(world):
    num = int(np.ceil(RESERVED_SHARE * len(group)))
    chosen.update(group[i] for i in rng.permutation(len(group))[:num])
  return frozenset(chosen)


def _groups(world: World) -> Iterator[list[Topic]]:
  """Groups of topics of one kind, of each of which the same share is reserved."""
  for attribute in ATTRIBUTES:
    yield [("fact", name, attribute) for name in world.people if world.known(name, attribute)]
  yield [("stranger", name) for name in world.strangers]
  numbers = range(world.difficulty.largest + 1)
  yield [sum_topic("plus", a, b) for a in numbers for b in numbers if a <= b]
  yield [sum_topic("minus", a, b) for a in numbers for b in numbers if a >= b]
  yield [order_topic(a, b) for a in numbers for b in numbers if a < b]
  for items in CATEGORIES.values():
    yield [("noun", item) for item in items]
  yield list(dict.fromkeys(map(opposite_topic, OPPOSITES)))
  yield [("list", count, f"{category}s") for count in world.difficulty.counts for category in CATEGORIES]
