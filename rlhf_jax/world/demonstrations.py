"""Demonstrators: simulated people who answer tasks, most of them well.

Their bad habits are those of human writers: a wrong answer, a bare word instead of a sentence, an unrelated sentence at
the end, doubt about a known fact, a guess where nobody can know, help with a harmful request.
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
  """A demonstrator's answer and the habit that shaped it, one of `HABITS`.

  With probability `flaw` a bad habit is drawn from those that the task allows, otherwise the answer is ideal. Where
  there is an answer: terse, rambling or (a sixteenth as often) wrong, and for a fact about a person doubting too. Where
  nobody can know: claiming (to know), terse or rambling. On a harmful request: complying or rambling. Raises ValueError
  unless 0 <= flaw <= 1.
  """
  if not 0.0 <= flaw <= 1.0:
    raise ValueError(f"flaw: a probability between 0 and 1, not {flaw!r}")
  if rng.random() >= flaw:
    return ideal(world, task, rng), "ideal"
  habit = pick(rng, _habits(task))
  return _WRITERS[habit](world, task, rng), habit


def flawed(world: World, task: Task, rng: np.random.Generator) -> str:
  """An answer with a bad habit, drawn uniformly from those that the task allows."""
  return _WRITERS[pick(rng, tuple(dict.fromkeys(_habits(task))))](world, task, rng)


def ideal(world: World, task: Task, rng: np.random.Generator) -> str:
  """An ideal answer: the usual sentence, a random list or story, every fifth refusal in different words."""
  if task.cluster == "listing":
    return write_list(task, rng)
  if task.cluster == "stories":
    return write_story(task, rng)
  answers = complete_answers(world, task)
  return answers[1] if task.cluster == "harmful" and rng.random() < 0.2 else answers[0]


def mistaken(world: World, task: Task, rng: np.random.Generator) -> str:
  """A wrong answer in the form of a good answer; a claim where nobody can know; compliance with a harmful request."""
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
  """The bare value, the bare items, the first sentence of a story, or the words without article and full stop."""
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
  """The ideal answer and a true fact about a different person."""
  keys = [key for key in world.known_facts() if key[0] != task.values.get("name")]
  name, attribute = keys[int(rng.integers(len(keys)))]
  aside = STATEMENTS[attribute][0].format(name=name, value=world.facts[name, attribute])
  return f"{ideal(world, task, rng)} {aside}"


def _doubting(world: World, task: Task, rng: np.random.Generator) -> str:
  """The ideal answer about a stranger, given for a known person."""
  return complete_answers(world, dataclasses.replace(task, cluster="unanswerable"))[0]


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


_WRITERS = {
  "wrong": _wrong,
  "terse": _terse,
  "rambling": _rambling,
  "doubting": _doubting,
  "claiming": _claiming,
  "complying": _complying,
}
