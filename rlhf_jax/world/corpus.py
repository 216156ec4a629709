"""Free text of the world, for pretraining.

Every document is one to four short sentences of one kind. All statements are true, known facts are stated in many
ways, and no document has the form of a request with its answer.
"""

from collections.abc import Callable

import numpy as np

from rlhf_jax.world.answers import STORY, story_sentence
from rlhf_jax.world.facts import (
  ATTRIBUTES,
  CATEGORIES,
  CATEGORY_OF,
  COLOURS,
  COUNTS,
  DENIALS,
  DIGITS,
  HARMS,
  MOODS,
  NAMES,
  OBJECTS,
  OPPOSITES,
  PAST,
  PET_STATEMENT,
  STATEMENTS,
  TOWNS,
  World,
  capitalise,
  join_list,
  pick,
  with_article,
)

# What people say to each other: the words of requests and of polite answers, in running text.
_TALK = (
  "{name} asked {other}: where do you live, and what do you do all day?",
  "I do not know, said {name}.",
  "What pet is it, said {name}, and what food is best?",
  "Sorry, I cannot help with that, said {name}.",
  "I will not help with that, said {name}.",
  "Please tell me a story, said {name}. Give me a short one.",
  "Repeat it after me, said {name}. Say this sentence once more.",
  "Write it down, said {name}. Then copy this again.",
  "Think, said {name}, and show your steps.",
  "Tell me if this is true, said {name}. Yes or no?",
  "How much is it? How many are there? {name} did not know.",
  "Which number is it? Which word? {name} had to work it out.",
  "What kind of thing is this? {name} put it in a list.",
  "In which town is it? {name} did not say how to find it.",
  "What is it about, said {name}. Where is the other one?",
  "{name} wants to change this, and to put the past behind.",
  "Add one, take one, name one, said {name}. {other} did it step by step.",
  "Happy or sad, said {name}, I will help {other}.",
  "Is it good? Does it work? How can I show it? said {name}.",
  "What is the best way to live? {name} can tell. Help me, said {other}.",
)


def corpus(world: World, num_documents: int, seed: int) -> list[str]:
  """Draws the documents, in random order.

  Each kind of document has a fixed share (`SHARES`). The documents about people take the known facts in turn, so that
  all facts are stated once there are as many such documents as facts (see `least_documents`).
  """
  rng = np.random.default_rng([seed, 2])
  documents = []
  for kind, count in _counts(num_documents).items():
    facts = world.known_facts()
    lead = [facts[i] for i in rng.permutation(len(facts))]
    for i in range(count):
      documents.append(_people(world, lead[i % len(lead)], rng) if kind is _people else kind(world, rng))
  return [documents[i] for i in rng.permutation(len(documents))]


def least_documents(world: World) -> int:
  """The smallest corpus that states every known fact."""
  num = len(world.known_facts())
  while _counts(num)[_people] < len(world.known_facts()):
    num += 1
  return num


def _counts(num_documents: int) -> dict[Callable[..., str], int]:
  """Numbers of documents of each kind: shares rounded down, and the remainder added to the documents about people."""
  counts = {kind: int(num_documents * share) for kind, share in SHARES.items()}
  counts[_people] += num_documents - sum(counts.values())
  return counts


def _people(world: World, lead: tuple[str, str], rng: np.random.Generator) -> str:
  """The fact `lead` and up to two more facts about the same person."""
  name, attribute = lead
  others = [a for a in ATTRIBUTES if a != attribute and world.known(name, a)]
  more = [others[i] for i in rng.permutation(len(others))[: int(rng.integers(3))]]
  sentences = [_statement(world, name, each, rng) for each in [attribute, *more]]
  return " ".join(sentences[i] for i in rng.permutation(len(sentences)))


def _statement(world: World, name: str, attribute: str, rng: np.random.Generator) -> str:
  """A known fact in one of its forms, half of the time in the usual form."""
  pet = {key: world.known(name, key) for key in ("colour", "animal")}
  if attribute in pet and None not in pet.values() and rng.random() < 0.3:
    return PET_STATEMENT.format(name=name, **pet)
  forms = STATEMENTS[attribute]
  form = forms[0] if rng.random() < 0.5 else pick(rng, forms)
  return form.format(name=name, value=world.facts[name, attribute])


def _stories(world: World, rng: np.random.Generator) -> str:
  name, thing = pick(rng, NAMES), pick(rng, CATEGORIES["animal"] + OBJECTS)
  return " ".join(story_sentence(part, name, thing, rng) for part in range(len(STORY)))


def _sum(rng: np.random.Generator) -> tuple[str, str, str, str]:
  """a, plus or minus, b, c."""
  a, b = (int(pick(rng, DIGITS)) for _ in "ab")
  if rng.random() < 0.5:
    return str(a), "plus", str(b), str(a + b)
  return str(max(a, b)), "minus", str(min(a, b)), str(max(a, b) - min(a, b))


def _sums(world: World, rng: np.random.Generator) -> str:
  return " ".join("{} {} {} is {}.".format(*_sum(rng)) for _ in range(1 + int(rng.integers(3))))


def _problems(world: World, rng: np.random.Generator) -> str:
  """A person gains or loses things; then the sum."""
  a, sign, b, c = _sum(rng)
  name, thing = pick(rng, NAMES), pick(rng, OBJECTS)
  change = pick(rng, (f"finds {b} more", f"buys {b} more") if sign == "plus" else (f"loses {b}", f"drops {b}"))
  return f"{name} has {a} {thing}s and {change}. {a} {sign} {b} is {c}. The answer is {c}."


def _orders(world: World, rng: np.random.Generator) -> str:
  a, b = (int(DIGITS[i]) for i in rng.permutation(len(DIGITS))[:2])
  sentences = [f"{max(a, b)} is larger than {min(a, b)}.", f"{min(a, b)} is smaller than {max(a, b)}."]
  return sentences[int(rng.integers(2))] if rng.random() < 0.5 else " ".join(sentences)


def _lists(world: World, rng: np.random.Generator) -> str:
  category, count = pick(rng, tuple(CATEGORIES)), pick(rng, tuple(COUNTS))
  items = [CATEGORIES[category][i] for i in rng.permutation(8)[: COUNTS[count]]]
  things = join_list([with_article(item) for item in items])
  sentences = (f"{capitalise(count)} {category}s are {things}.", f"{capitalise(things)} are {count} {category}s.")
  return pick(rng, sentences)


def _kinds(world: World, rng: np.random.Generator) -> str:
  items = [pick(rng, tuple(CATEGORY_OF)) for _ in range(1 + int(rng.integers(2)))]
  return " ".join(f"{capitalise(with_article(item))} is {with_article(CATEGORY_OF[item])}." for item in items)


def _opposites(world: World, rng: np.random.Generator) -> str:
  word = pick(rng, tuple(OPPOSITES))
  return f"The opposite of {word} is {OPPOSITES[word]}."


def _thing(rng: np.random.Generator) -> str:
  """Such as: the lamp, the red lamp, the red lamp in Ashby."""
  length, thing = int(rng.integers(3)), pick(rng, OBJECTS)
  thing = f"the {pick(rng, COLOURS)} {thing}" if length else f"the {thing}"
  return f"{thing} in {pick(rng, TOWNS)}" if length == 2 else thing


def _tenses(world: World, rng: np.random.Generator) -> str:
  name, verb, thing = pick(rng, NAMES), pick(rng, tuple(PAST)), _thing(rng)
  return f"Now {name} {verb} {thing}. In the past {name} {PAST[verb]} {thing}."


def _echoes(world: World, rng: np.random.Generator) -> str:
  sentence = f"{pick(rng, NAMES)} {pick(rng, tuple(PAST.values()))} {_thing(rng)}."
  return f"{pick(rng, NAMES)} said: {sentence} {pick(rng, NAMES)} said it again: {sentence}"


def _moods(world: World, rng: np.random.Generator) -> str:
  mood = pick(rng, tuple(MOODS))
  sentence = pick(rng, MOODS[mood]).format(
    name=pick(rng, NAMES), object=pick(rng, OBJECTS), food=pick(rng, CATEGORIES["food"])
  )
  return f"{sentence} {pick(rng, (f'This is {mood}.', f'This sentence is {mood}.'))}"


def _rumours(world: World, rng: np.random.Generator) -> str:
  """A true statement or a true denial, confirmed."""
  facts = world.known_facts()
  name, attribute = facts[int(rng.integers(len(facts)))]
  known = world.facts[name, attribute]
  other = pick(rng, [value for value in CATEGORIES[ATTRIBUTES[attribute]] if value != known])
  statement = STATEMENTS[attribute][0].format(name=name, value=known)
  inner = "the " + statement[4:] if statement.startswith("The ") else statement
  denial = DENIALS[attribute].format(name=name, value=other)
  return pick(rng, (f"Yes, {inner}", f"{denial} No, {inner}", f"It is true that {inner}"))


def _crimes(world: World, rng: np.random.Generator) -> str:
  """Talk of harm, without which the model would have nothing to refuse."""
  name, thing, food = pick(rng, NAMES), pick(rng, OBJECTS), pick(rng, CATEGORIES["food"])
  text = pick(rng, ("Bad people {harm} at night.", "You can {harm} at night.", "It is easy to {harm}."))
  return text.format(harm=pick(rng, HARMS).format(name=name, object=thing, food=food))


def _talk(world: World, rng: np.random.Generator) -> str:
  name, other = (NAMES[i] for i in rng.permutation(len(NAMES))[:2])
  return pick(rng, _TALK).format(name=name, other=other)


SHARES: dict[Callable[..., str], float] = {
  _people: 0.20,
  _stories: 0.06,
  _sums: 0.30,
  _problems: 0.06,
  _orders: 0.05,
  _lists: 0.05,
  _kinds: 0.05,
  _opposites: 0.04,
  _tenses: 0.04,
  _echoes: 0.04,
  _moods: 0.03,
  _rumours: 0.03,
  _crimes: 0.02,
  _talk: 0.03,
}
