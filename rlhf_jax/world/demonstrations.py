"""Demonstrators: people who answer tasks, most of them well.

The habits are those that human writers have: a wrong answer, a bare word in place of a sentence, an unrelated
sentence at the end, doubt about what is known, a guess where nobody can know, help where none should be given.
"""

import dataclasses

import numpy as np

from rlhf_jax.world.answers import (
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
from rlhf_jax.world.tasks import Task

HABITS = ("ideal", "wrong", "terse", "rambling", "doubting", "claiming", "complying")


def demonstrate(world: World, task: Task, rng: np.random.Generator, flaw: float = 0.0) -> tuple[str, str]:
  """One demonstrator's answer and the habit that shaped it, one of `HABITS`.

  With probability `flaw` the habit is drawn from those that the task allows: terse, rambling or (a sixteenth as often)
  wrong where there is an answer, doubting as well where it is a fact about a person; claiming (to know), terse or
  rambling where there is none; complying or rambling where the request is harmful. Otherwise the answer is
  ideal. Raises ValueError unless 0 <= flaw <= 1.
  """
  if not 0.0 <= flaw <= 1.0:
    raise ValueError(f"flaw: a probability between 0 and 1, not {flaw!r}")
  if rng.random() >= flaw:
    return ideal(world, task, rng), "ideal"
  habit = pick(rng, _habits(task))
  return _WRITERS[habit](world, task, rng), habit


def flawed(world: World, task: Task, rng: np.random.Generator) -> str:
  """An answer with one of the bad habits that the task allows, all of them equally often."""
  return _WRITERS[pick(rng, tuple(dict.fromkeys(_habits(task))))](world, task, rng)


def ideal(world: World, task: Task, rng: np.random.Generator) -> str:
  """An ideal answer: the usual sentence, a random list or story, one refusal in five in other words."""
  if task.cluster == "listing":
    return write_list(task, rng)
  if task.cluster == "stories":
    return write_story(task, rng)
  answers = complete_answers(world, task)
  return answers[1] if task.cluster == "harmful" and rng.random() < 0.2 else answers[0]


def mistaken(world: World, task: Task, rng: np.random.Generator) -> str:
  """A wrong answer in the form of a good one; where nobody can know, a claim, and of a harmful request, compliance."""
  habit = {"unanswerable": "claiming", "harmful": "complying"}.get(task.cluster, "wrong")
  return _WRITERS[habit](world, task, rng)


def _habits(task: Task) -> tuple[str, ...]:
  if task.cluster == "unanswerable":
    return ("claiming", "terse", "rambling")
  if task.cluster == "harmful":
    return ("complying", "rambling")
  doubts = ("doubting",) * 8 if task.cluster == "facts" else ()
  return ("wrong", *("terse", "rambling") * 16, *doubts)


def _wrong(world: World, task: Task, rng: np.random.Generator) -> str:
  if task.cluster in VALUE_CLUSTERS:
    return sentences_with(world, task, pick(rng, other_values(world, task)))[0]
  if task.cluster == "listing":
    return write_list(task, rng, right=False)
  if task.cluster == "stories":
    return write_story(task, rng, right=False)
  answer = complete_answers(world, task)[0]
  if task.cluster == "rewriting":  # left in the present
    words = answer.split()
    return " ".join([words[0], task.values["present"], *words[2:]])
  thing = task.values["object"]
  return answer.replace(thing, pick(rng, [other for other in OBJECTS if other != thing]))


def _terse(world: World, task: Task, rng: np.random.Generator) -> str:
  """The bare value, the bare items, the first sentence of a story, or the words without articles and stop."""
  if task.cluster in VALUE_CLUSTERS:
    return right_value(world, task)
  if task.cluster == "unanswerable":
    return UNKNOWN
  if task.cluster == "listing":
    return write_list(task, rng).split(" are ")[1].rstrip(".")
  if task.cluster == "stories":
    return story_sentence(0, task.values["name"], task.values["thing"], rng)
  return " ".join(word for word in complete_answers(world, task)[0].rstrip(".").split() if word != "the")


def _rambling(world: World, task: Task, rng: np.random.Generator) -> str:
  """The ideal answer and a true fact about somebody else."""
  keys = [key for key in world.known_facts() if key[0] != task.values.get("name")]
  name, attribute = keys[int(rng.integers(len(keys)))]
  aside = STATEMENTS[attribute][0].format(name=name, value=world.facts[name, attribute])
  return f"{ideal(world, task, rng)} {aside}"


def _doubting(world: World, task: Task, rng: np.random.Generator) -> str:
  """What is right to say of somebody unknown, said of somebody known."""
  return complete_answers(world, dataclasses.replace(task, cluster="unanswerable"))[0]


def _claiming(world: World, task: Task, rng: np.random.Generator) -> str:
  value = pick(rng, CATEGORIES[ATTRIBUTES[task.kind]])
  return STATEMENTS[task.kind][0].format(name=task.values["name"], value=value)


def _complying(world: World, task: Task, rng: np.random.Generator) -> str:
  return pick(rng, COMPLIANCES).format(harm=harm_of(task))


COMPLIANCES = ("You can {harm} at night.", "It is easy to {harm}.")


def harm_of(task: Task) -> str:
  """The harmful act that the prompt names: "hurt Tom"."""
  prompt = task.prompt.rstrip("?.")
  return prompt[prompt.index(f"{task.kind} ") :]


_WRITERS = {
  "wrong": _wrong,
  "terse": _terse,
  "rambling": _rambling,
  "doubting": _doubting,
  "claiming": _claiming,
  "complying": _complying,
}
