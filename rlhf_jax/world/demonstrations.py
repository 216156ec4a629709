"""Demonstrators: simulated people who answer tasks, with the habits of human writers.

An answer is ideal or has one bad habit. Habits of style: a bare word instead of a sentence, an unrelated sentence at
the end. Habits of substance: a wrong value, step or list item in the form of a good answer, an aside that is false, the
answer to a different question, doubt about something known, a guess where nobody can know, the refusal of an innocent
request, help with a harmful one.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from rlhf_jax.world.answers import (
  REFUSALS,
  UNKNOWN,
  VALUE_CLUSTERS,
  complete_answers,
  other_values,
  right_value,
  sentences_with,
  story_sentence,
  write_list,
  write_story,
)
from rlhf_jax.world.facts import ATTRIBUTES, CATEGORIES, OBJECTS, STATEMENTS, World, pick
from rlhf_jax.world.splits import TRAINING, asks_reserved, cell, is_reserved, sum_topic, topics
from rlhf_jax.world.tasks import Task, draw_task, running_totals

HABITS = (
  "ideal", "terse", "rambling", "wrong", "misleading", "straying", "doubting", "refusing", "claiming", "complying",
)  # fmt: skip
IDEAL = MappingProxyType({"ideal": 1.0})


def demonstrate(
  world: World, task: Task, rng: np.random.Generator, habits: Mapping[str, float] = IDEAL
) -> tuple[str, str]:
  """A demonstrator's answer and the habit that shaped it, one of `HABITS`.

  habits: the weight of each habit; one is drawn in proportion from those that the task allows (`habits_of`). A task
  that allows none of those with a weight is answered ideally. Raises ValueError for an unknown habit, a weight below 0
  or no weight above 0.
  """
  habit = draw_habit(task, rng, habits)
  return write(world, task, habit, rng), habit


def draw_habit(task: Task, rng: np.random.Generator, habits: Mapping[str, float]) -> str:
  """A habit that the task allows, drawn as in `demonstrate`. Raises as `demonstrate`."""
  check_habits(habits)
  allowed = habits_of(task)
  weights = np.array([habits.get(habit, 0.0) for habit in allowed])
  return allowed[int(rng.choice(len(allowed), p=weights / weights.sum()))] if weights.sum() else "ideal"


def check_habits(habits: Mapping[str, float]) -> None:
  """Raises ValueError for an unknown habit, a weight below 0 or no weight above 0."""
  for habit, weight in habits.items():
    if habit not in HABITS:
      raise ValueError(f"habits: {habit!r} is no habit; choose from {', '.join(HABITS)}")
    if not weight >= 0:
      raise ValueError(f"habits.{habit}: a weight cannot be below 0, and is {weight!r}")
  if not any(habits.values()):
    raise ValueError("habits: give at least one habit a weight above 0")


def habits_of(task: Task) -> tuple[str, ...]:
  """The habits that an answer to the task can have."""
  if task.cluster == "harmful":
    return ("ideal", "rambling", "misleading", "complying")
  if task.cluster == "unanswerable":
    return ("ideal", "terse", "rambling", "misleading", "refusing", "claiming")
  return ("ideal", "terse", "rambling", "wrong", "misleading", "straying", "doubting", "refusing")


def write(world: World, task: Task, habit: str, rng: np.random.Generator) -> str:
  """An answer with the habit, one of those that the task allows."""
  return _WRITERS[habit](world, task, rng)


def ideal(world: World, task: Task, rng: np.random.Generator) -> str:
  """An ideal answer: the usual sentence, a random list or story, every fifth refusal in different words."""
  if task.cluster == "listing":
    return write_list(task, rng)
  if task.cluster == "stories":
    return write_story(world, task, rng)
  answers = complete_answers(world, task)
  return answers[1] if task.cluster == "harmful" and rng.random() < 0.2 else answers[0]


def mistaken(world: World, task: Task, rng: np.random.Generator) -> str:
  """A wrong answer in the form of a good answer; a claim where nobody can know; compliance with a harmful request."""
  habit = {"unanswerable": "claiming", "harmful": "complying"}.get(task.cluster, "wrong")
  return _WRITERS[habit](world, task, rng)


def _wrong(world: World, task: Task, rng: np.random.Generator) -> str:
  """One wrong value, step, list item, thing or verb, in the form of an ideal answer."""
  if task.cluster == "reasoning":
    return _miscounted(world, task, rng)
  if task.cluster in VALUE_CLUSTERS:
    return sentences_with(world, task, pick(rng, other_values(world, task)))[0]
  if task.cluster == "listing":
    return write_list(task, rng, right=False)
  if task.cluster == "stories":
    return write_story(world, task, rng, right=False)
  answer = complete_answers(world, task)[0]
  if task.cluster == "rewriting":  # left in the present
    words = answer.split()
    return " ".join([words[0], task.values["present"], *words[2:]])
  thing = task.values["object"]
  others = [other for other in OBJECTS if other != thing]
  if not asks_reserved(world, task):  # no training text has a sentence that evaluation asks to be copied
    copies = {other: dataclasses.replace(task, slots=_with(task, "object", other)) for other in others}
    others = [other for other, copy in copies.items() if not asks_reserved(world, copy)] or others
  return answer.replace(thing, pick(rng, others))


def _with(task: Task, slot: str, text: str) -> tuple[tuple[str, str], ...]:
  return tuple((name, text if name == slot else value) for name, value in task.slots)


def _miscounted(world: World, task: Task, rng: np.random.Generator) -> str:
  """The steps of a word problem, of which one is off by one or two; the later steps go on from there."""
  operations = task.kind.split()
  numbers = [int(task.values[slot]) for slot in "abcd" if slot in task.values]
  fault = int(rng.integers(len(operations)))
  totals = running_totals(operations, numbers)
  misses = list[list[int]]()
  for miss in (-2, -1, 1, 2):
    wrong = [total + miss * (i > fault) for i, total in enumerate(totals)]
    later = [sum_topic(*step) for step in zip(operations, wrong, numbers[1:], strict=False)][fault + 1 :]
    if min(wrong) >= 0 and (asks_reserved(world, task) or not any(is_reserved(world, topic) for topic in later)):
      misses.append(wrong)
  if not misses:  # the last step
    misses = [[*totals[:-1], totals[-1] + 1]]
  totals = pick(rng, misses)
  steps = [f"{totals[i]} {operations[i]} {numbers[i + 1]} is {totals[i + 1]}." for i in range(len(operations))]
  return " ".join([*steps, f"The answer is {totals[-1]}."])


def _terse(world: World, task: Task, rng: np.random.Generator) -> str:
  """The bare value, the bare items, the first sentence of a story, or the words without article and full stop."""
  if task.cluster in VALUE_CLUSTERS:
    return right_value(world, task)
  if task.cluster == "unanswerable":
    return UNKNOWN
  if task.cluster == "listing":
    return write_list(task, rng).split(" are ")[1].rstrip(".")
  if task.cluster == "stories":
    return story_sentence(world, 0, task.values["name"], task.values["thing"], rng)
  return " ".join(word for word in complete_answers(world, task)[0].rstrip(".").split() if word != "the")


def _rambling(world: World, task: Task, rng: np.random.Generator, *, true: bool = True) -> str:
  """The ideal answer and a fact about a different person, which is told otherwise than it is unless `true`."""
  answer, keys = ideal(world, task, rng), _tellable(world)
  while True:
    name, attribute = keys[int(rng.integers(len(keys)))]
    if name != task.values.get("name"):
      break
  known = world.facts[name, attribute]
  others = [value for value in CATEGORIES[ATTRIBUTES[attribute]] if value != known]
  aside = STATEMENTS[attribute][0].format(name=name, value=known if true else pick(rng, others))
  return f"{answer} {aside}"


@functools.lru_cache(maxsize=16)
def _tellable(world: World) -> tuple[tuple[str, str], ...]:
  """The facts that an answer may tell without being asked: those that evaluation does not reserve."""
  return tuple(key for key in world.known_facts() if not is_reserved(world, ("fact", *key)))


def _straying(world: World, task: Task, rng: np.random.Generator) -> str:
  """The ideal answer to a different task of the cluster, of those that are asked in training; another value."""
  while True:
    other = draw_task(world, task.cluster, rng)
    if cell(world, other) != TRAINING or topics(world, other) == topics(world, task):
      continue
    if task.cluster not in VALUE_CLUSTERS or right_value(world, other) != right_value(world, task):
      return ideal(world, other, rng)


def _doubting(world: World, task: Task, rng: np.random.Generator) -> str:
  """An admission where the answer is known; for a fact, the ideal answer about a stranger."""
  if task.cluster != "facts":
    return UNKNOWN
  name, attribute = task.values["name"], task.kind.split()[-1]
  if task.kind.startswith("friend "):
    name = f"the friend of {name}"
  about = dataclasses.replace(task, cluster="unanswerable", kind=attribute, slots=(("name", name),))
  return complete_answers(world, about)[0]


def _refusing(world: World, task: Task, rng: np.random.Generator) -> str:
  return REFUSALS[int(rng.random() < 0.2)]


def _claiming(world: World, task: Task, rng: np.random.Generator) -> str:
  value = pick(rng, CATEGORIES[ATTRIBUTES[task.kind]])
  return STATEMENTS[task.kind][0].format(name=task.values["name"], value=value)


def _complying(world: World, task: Task, rng: np.random.Generator) -> str:
  return pick(rng, COMPLIANCES).format(harm=harm_of(task))


COMPLIANCES = ("You can {harm} at night.", "It is easy to {harm}.")


def harm_of(task: Task) -> str:
  """The harmful act that the prompt names, such as "hurt Tom"."""
  prompt = task.prompt.rstrip("?.")
  return prompt[prompt.index(f"{task.kind} ") :]


_WRITERS: dict[str, Callable[[World, Task, np.random.Generator], str]] = {
  "ideal": ideal,
  "terse": _terse,
  "rambling": _rambling,
  "wrong": _wrong,
  "misleading": functools.partial(_rambling, true=False),
  "straying": _straying,
  "doubting": _doubting,
  "refusing": _refusing,
  "claiming": _claiming,
  "complying": _complying,
}
