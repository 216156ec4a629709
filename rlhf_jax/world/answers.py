"""Good and mistaken answers to a task.

Most clusters have a single right value (a town, a number, "yes") and a few complete sentences that give it. Copying,
rewriting, admitting and refusing have a fixed text. Lists and stories are free within a form.
"""

import functools
from collections.abc import Sequence

import numpy as np

from rlhf_jax.world.facts import (
  ATTRIBUTES,
  CATEGORIES,
  CATEGORY_OF,
  COUNTS,
  DENIALS,
  FRIEND_STATEMENT,
  MOODS,
  OPPOSITES,
  PAST,
  PET_STATEMENT,
  STATEMENTS,
  World,
  capitalise,
  join_list,
  pick,
  with_article,
)
from rlhf_jax.world.tasks import Task, running_totals

VALUE_CLUSTERS = frozenset({
  "facts", "arithmetic", "reasoning", "classification", "sentiment", "opposites", "comparison", "verification",
})  # fmt: skip

REFUSALS = ("I cannot help with that.", "I will not help with that.", "Sorry, I cannot help with that.")
UNKNOWN = "I do not know."
ADMISSIONS = {
  "home": "I do not know where {name} lives.",
  "job": "I do not know the job of {name}.",
  "animal": "I do not know what pet {name} has.",
  "colour": "I do not know the colour of the pet of {name}.",
  "food": "I do not know what food {name} likes.",
}

# A story: one sentence of each part, in this order.
STORY = (
  ("One day {name} found a {thing}.", "One day {name} saw a {thing}."),
  (
    "{name} took the {thing} to {town}.", "{name} showed the {thing} to {other}.",
    "{name} gave the {thing} some {food}.",
  ),
  ("Then {name} was happy.", "Then {name} was sad."),
)  # fmt: skip


def right_value(world: World, task: Task) -> str:
  """The value that answers a task of `VALUE_CLUSTERS`."""
  values, kind = task.values, task.kind
  if task.cluster == "facts":
    return world.facts[person_asked(world, task), kind.split()[-1]]
  if task.cluster in ("arithmetic", "reasoning"):
    return str(_totals(task)[-1])
  if task.cluster == "classification":
    return CATEGORY_OF[item_of(task)]
  if task.cluster == "sentiment":
    return kind
  if task.cluster == "opposites":
    return OPPOSITES[values["word"]]
  if task.cluster == "comparison":
    return str((max if kind == "larger" else min)(int(values["a"]), int(values["b"])))
  return "yes" if world.facts[values["name"], kind] == values[ATTRIBUTES[kind]] else "no"


def person_asked(world: World, task: Task) -> str:
  """The person whom a question of `facts` is about: the one that it names, or the friend of that person."""
  name = task.values["name"]
  return world.friends[name] if task.kind.startswith("friend ") else name


def other_values(world: World, task: Task) -> tuple[str, ...]:
  """The wrong values that a person might give instead of the right value."""
  right = right_value(world, task)
  options: Sequence[str]
  near = world.difficulty.near_misses
  if task.cluster == "facts":
    attribute = task.kind.split()[-1]
    options = CATEGORIES[ATTRIBUTES[attribute]]
    if near:
      options = tuple(dict.fromkeys(world.facts[name, attribute] for name in world.people))
  elif task.cluster in ("arithmetic", "reasoning"):  # people miscount by one or two
    options = tuple(str(n) for n in range(max(0, int(right) - 2 + near), int(right) + 3 - near))
  elif task.cluster == "comparison":
    options = (task.values["a"], task.values["b"])
  else:
    fixed = {"classification": CATEGORIES, "sentiment": MOODS, "opposites": OPPOSITES}
    options = tuple(fixed.get(task.cluster, ("yes", "no")))
  return tuple(value for value in options if value not in (right, task.values.get("word")))


def sentences_with(world: World, task: Task, value: str) -> tuple[str, ...]:
  """The complete answers that give this value; demonstrators use the first."""
  values, kind = task.values, task.kind
  if task.cluster == "facts":
    person = person_asked(world, task)
    sentences = _fact_sentences(world, person, kind.split()[-1], value)
    if person == values["name"]:
      return sentences
    friend = FRIEND_STATEMENT.format(name=values["name"], friend=person)
    return (*(f"{friend} {sentence}" for sentence in sentences), *sentences)
  if task.cluster == "arithmetic":
    orders = [(values["a"], values["b"])] + ([(values["b"], values["a"])] if kind == "plus" else [])
    return tuple(f"{a} {kind} {b} is {value}." for a, b in orders) + (f"The answer is {value}.",)
  if task.cluster == "reasoning":
    return (" ".join([*steps(task, value), f"The answer is {value}."]),)
  if task.cluster == "classification":
    category = with_article(value)
    return (f"{capitalise(with_article(item_of(task)))} is {category}.", f"It is {category}.")
  if task.cluster == "sentiment":
    return (f"This sentence is {value}.", f"This is {value}.", f"It is {value}.")
  if task.cluster == "opposites":
    return (f"The opposite of {values['word']} is {value}.",)
  if task.cluster == "comparison":
    other = values["b"] if value == values["a"] else values["a"]
    return (f"{value} is {kind} than {other}.",)
  return _verdicts(world, task, value)


def steps(task: Task, value: str) -> list[str]:
  """The sums that lead to the value, one sentence each."""
  totals = [str(total) for total in _totals(task)[:-1]] + [value]
  operands = [task.values[slot] for slot in "abcd" if slot in task.values][1:]
  operations = task.kind.split()
  return [f"{totals[i]} {operations[i]} {operands[i]} is {totals[i + 1]}." for i in range(len(operations))]


@functools.lru_cache(maxsize=1 << 16)
def complete_answers(world: World, task: Task) -> tuple[str, ...]:
  """Every ideal answer to a task, of which demonstrators use the first; () for lists and stories."""
  if task.cluster in VALUE_CLUSTERS:
    return sentences_with(world, task, right_value(world, task))
  if task.cluster == "copying":
    return (_sentence(task, task.values["past"]),)
  if task.cluster == "rewriting":
    return (_sentence(task, PAST[task.values["present"]]),)
  if task.cluster == "unanswerable":
    return (ADMISSIONS[task.kind].format(name=task.values["name"]),)
  if task.cluster == "harmful":
    return REFUSALS
  return ()


def list_sentence(task: Task, items: Sequence[str]) -> str:
  """Such as: Two animals are a dog and a cat."""
  things = join_list([with_article(item) for item in items])
  return f"{capitalise(task.values['count'])} {task.values['plural']} are {things}."


def list_options(task: Task) -> tuple[str, ...]:
  """The items that a list may name."""
  return CATEGORIES[task.values["plural"][:-1]]


def write_list(task: Task, rng: np.random.Generator, *, right: bool = True) -> str:
  """A list of distinct things as asked, in the lexicon's order; a wrong list has one thing of a different kind."""
  options = list_options(task)
  items = [options[i] for i in np.sort(rng.permutation(len(options))[: COUNTS[task.values["count"]]])]
  if not right:
    strange = [item for item in CATEGORY_OF if CATEGORY_OF[item] != CATEGORY_OF[items[0]]]
    items[int(rng.integers(len(items)))] = pick(rng, strange)
  return list_sentence(task, items)


def write_story(world: World, task: Task, rng: np.random.Generator, *, right: bool = True) -> str:
  """A story of three sentences; a wrong story is about a different thing."""
  name, thing = task.values["name"], task.values["thing"]
  if not right:
    thing = pick(rng, [other for other in CATEGORIES[CATEGORY_OF[thing]] if other != thing])
  return " ".join(story_sentence(world, part, name, thing, rng) for part in range(len(STORY)))


def story_sentence(world: World, part: int, name: str, thing: str, rng: np.random.Generator) -> str:
  """A sentence for a part of a story; only animals are fed."""
  templates = [text for text in STORY[part] if "{food}" not in text or thing in CATEGORIES["animal"]]
  others = [person for person in world.names if person != name]
  return pick(rng, templates).format(
    name=name, thing=thing, town=pick(rng, CATEGORIES["town"]), food=pick(rng, CATEGORIES["food"]),
    other=pick(rng, others),
  )  # fmt: skip


def item_of(task: Task) -> str:
  """The thing to be classified, without its article."""
  return task.values["noun"].removeprefix("a ")


def _sentence(task: Task, verb: str) -> str:
  """The sentence of a copying or rewriting task, with this verb."""
  values = task.values
  thing = " ".join(filter(None, (values.get("colour"), values["object"])))
  place = f" in {values['town']}" if "town" in values else ""
  return f"{values['name']} {verb} the {thing}{place}."


def _totals(task: Task) -> list[int]:
  return running_totals(task.kind.split(), [int(task.values[slot]) for slot in "abcd" if slot in task.values])


def _fact_sentences(world: World, name: str, attribute: str, value: str) -> tuple[str, ...]:
  sentences = tuple(text.format(name=name, value=value) for text in STATEMENTS[attribute])
  pet = {key: world.known(name, key) for key in ("colour", "animal")}
  if attribute in pet and None not in pet.values():
    sentences += (PET_STATEMENT.format(**{"name": name, **pet, attribute: value}),)
  return sentences


def _verdicts(world: World, task: Task, value: str) -> tuple[str, ...]:
  name, attribute = task.values["name"], task.kind
  asked, known = task.values[ATTRIBUTES[attribute]], world.facts[name, attribute]
  if value == "yes":
    return (f"Yes, {_inner(STATEMENTS[attribute][0], name, asked)}",)
  denial = f"No, {_inner(DENIALS[attribute], name, asked)}"
  return (denial,) if known == asked else (f"No, {_inner(STATEMENTS[attribute][0], name, known)}", denial)


def _inner(template: str, name: str, value: str) -> str:
  """The statement as written after a comma: "the pet of Tom is red."."""
  text = template.format(name=name, value=value)
  return "the " + text[4:] if text.startswith("The ") else text
