"""Free text of the world, for pretraining.

Every document is one to four short sentences of one kind. All statements are true, known facts are stated in many
ways, and no document has the form of a request with its answer. What is reserved for evaluation (see
`rlhf_jax.world.splits`) is in no document, but for reserved facts, which are told in other words than any answer.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from rlhf_jax.world.answers import STORY, story_sentence
from rlhf_jax.world.facts import (
  ATTRIBUTES,
  CATEGORIES,
  CATEGORY_OF,
  COLOURS,
  COUNTS,
  DENIALS,
  FRIEND_STATEMENT,
  HARMS,
  MOODS,
  OBJECTS,
  OPPOSITES,
  PAST,
  PET_STATEMENT,
  STATEMENTS,
  TOLD,
  TOWNS,
  World,
  capitalise,
  join_list,
  pick,
  with_article,
)
from rlhf_jax.world.splits import (
  Topic,
  is_reserved,
  opposite_topic,
  order_topic,
  sentence_topic,
  story_topic,
  sum_topic,
)

T = TypeVar("T")

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
  "Make a list, said {name}. Think of the work, and put it there.",
  "Is it good? Does it work? How can I show it? said {name}.",
  "What is the best way to live? {name} can tell. Help me, said {other}.",
)


def corpus(world: World, num_documents: int, seed: int) -> list[str]:
  """Draws the documents, in random order.

  Each kind of document has a fixed share (`shares`). The documents about people take the known facts in turn, so that
  all facts are stated once there are as many such documents as facts (see `least_documents`).
  """
  rng = np.random.default_rng([seed, 2])
  documents = []
  for kind, count in _counts(world, num_documents).items():
    facts = world.known_facts()
    lead = [facts[i] for i in rng.permutation(len(facts))]
    for i in range(count):
      documents.append(_people(world, lead[i % len(lead)], rng) if kind is _people else kind(world, rng))
  return [documents[i] for i in rng.permutation(len(documents))]


def least_documents(world: World) -> int:
  """The smallest corpus that states every known fact."""
  num = len(world.known_facts())
  while _counts(world, num)[_people] < len(world.known_facts()):
    num += 1
  return num


def _counts(world: World, num_documents: int) -> dict[Callable[..., str], int]:
  """Numbers of documents of each kind: shares rounded down, and the remainder added to the documents about people."""
  counts = {kind: int(num_documents * share) for kind, share in shares(world).items()}
  counts[_people] += num_documents - sum(counts.values())
  return counts


def _drawn(world: World, draw: Callable[[], tuple[Topic, T]]) -> T:
  """A draw whose topic is not reserved."""
  while True:
    topic, found = draw()
    if not is_reserved(world, topic):
      return found


def _people(world: World, lead: tuple[str, str], rng: np.random.Generator) -> str:
  """The fact `lead` and up to two more facts about the same person."""
  name, attribute = lead
  others = [a for a in ATTRIBUTES if a != attribute and world.known(name, a)]
  more = [others[i] for i in rng.permutation(len(others))[: int(rng.integers(3))]]
  sentences = [_statement(world, name, each, rng) for each in [attribute, *more]]
  return " ".join(sentences[i] for i in rng.permutation(len(sentences)))


def _statement(world: World, name: str, attribute: str, rng: np.random.Generator) -> str:
  """A known fact in one of its forms; a reserved fact only in forms that are no answers."""
  value = world.facts[name, attribute]
  if is_reserved(world, ("fact", name, attribute)) or rng.random() < 0.3:
    return pick(rng, TOLD[attribute]).format(name=name, value=value)
  pet = {key: world.known(name, key) for key in ("colour", "animal")}
  told = None not in pet.values() and not any(is_reserved(world, ("fact", name, key)) for key in pet)
  if attribute in pet and told and rng.random() < 0.3:
    return PET_STATEMENT.format(name=name, **pet)
  forms = STATEMENTS[attribute]
  form = forms[0] if rng.random() < 0.5 else pick(rng, forms)
  return form.format(name=name, value=value)


def _friends(world: World, rng: np.random.Generator) -> str:
  name = pick(rng, world.people)
  return FRIEND_STATEMENT.format(name=name, friend=world.friends[name])


def _stories(world: World, rng: np.random.Generator) -> str:
  def draw() -> tuple[Topic, tuple[str, str]]:
    name, thing = pick(rng, world.names), pick(rng, CATEGORIES["animal"] + OBJECTS)
    return story_topic(name, thing), (name, thing)

  name, thing = _drawn(world, draw)
  return " ".join(story_sentence(world, part, name, thing, rng) for part in range(len(STORY)))


def _any_sum(world: World, rng: np.random.Generator) -> tuple[Topic, tuple[int, str, int, int]]:
  """The topic of a sum, and a, plus or minus, b, c."""
  a, b = (int(rng.integers(world.difficulty.largest + 1)) for _ in "ab")
  if rng.random() < 0.5:
    return sum_topic("plus", a, b), (a, "plus", b, a + b)
  return sum_topic("minus", max(a, b), min(a, b)), (max(a, b), "minus", min(a, b), abs(a - b))


def _sums(world: World, rng: np.random.Generator) -> str:
  """Up to three sums; a reserved sum is told in other words, and others are now and then."""
  sentences = []
  for _ in range(1 + int(rng.integers(3))):
    topic, found = _any_sum(world, rng)
    sentences.append(_told_sum(world, topic, *found, rng))
  return " ".join(sentences)


def _told_sum(world: World, topic: Topic, a: int, sign: str, b: int, c: int, rng: np.random.Generator) -> str:
  """A sum as in answers, or in other words."""
  if not is_reserved(world, topic) and rng.random() < 0.7:
    return f"{a} {sign} {b} is {c}."
  told = ("{a} and {b} make {c}.", "{b} more than {a} are {c}.")
  if sign == "minus":
    told = ("{a} without {b} are {c}.", "{b} less than {a} are {c}.")
  return pick(rng, told).format(a=a, b=b, c=c)


def _problems(world: World, rng: np.random.Generator) -> str:
  """A person gains or loses things; then the sum."""
  a, sign, b, c = _drawn(world, lambda: _any_sum(world, rng))
  name, thing = pick(rng, world.names), pick(rng, OBJECTS)
  change = pick(rng, (f"finds {b} more", f"buys {b} more") if sign == "plus" else (f"loses {b}", f"drops {b}"))
  return f"{name} has {a} {thing}s and {change}. {a} {sign} {b} is {c}. The answer is {c}."


def _orders(world: World, rng: np.random.Generator) -> str:
  def draw() -> tuple[Topic, tuple[int, int]]:
    low, high = sorted(rng.permutation(world.difficulty.largest + 1)[:2].tolist())
    return order_topic(low, high), (low, high)

  low, high = _drawn(world, draw)
  sentences = [f"{high} is larger than {low}.", f"{low} is smaller than {high}."]
  return sentences[int(rng.integers(2))] if rng.random() < 0.5 else " ".join(sentences)


def _counting(world: World, rng: np.random.Generator) -> str:
  """Numbers in a row, upwards or downwards, from which sums and orders that no text states can be worked out."""
  last = 2 * world.difficulty.largest
  start = int(rng.integers(last))
  row = list(range(start, min(start + 2 + int(rng.integers(5)), last + 1)))
  return ", ".join(map(str, row if rng.random() < 0.7 else row[::-1])) + "."


def _lists(world: World, rng: np.random.Generator) -> str:
  def draw() -> tuple[Topic, tuple[str, str]]:
    count, category = pick(rng, world.difficulty.counts), pick(rng, tuple(CATEGORIES))
    return ("list", count, f"{category}s"), (count, category)

  count, category = _drawn(world, draw)
  items = [CATEGORIES[category][i] for i in rng.permutation(8)[: COUNTS[count]]]
  things = join_list([with_article(item) for item in items])
  sentences = (f"{capitalise(count)} {category}s are {things}.", f"{capitalise(things)} are {count} {category}s.")
  return pick(rng, sentences)


def _kinds(world: World, rng: np.random.Generator) -> str:
  """The kinds of one or two things; that of a reserved thing is told in other words, and others are now and then."""
  sentences = []
  for _ in range(1 + int(rng.integers(2))):
    item = pick(rng, tuple(CATEGORY_OF))
    thing, kind = with_article(item), with_article(CATEGORY_OF[item])
    if is_reserved(world, ("noun", item)) or rng.random() < 0.3:
      sentences.append(pick(rng, (f"You can call {thing} {kind}.", f"Of all things, {thing} must be {kind}.")))
    else:
      sentences.append(f"{capitalise(thing)} is {kind}.")
  return " ".join(sentences)


def _opposites(world: World, rng: np.random.Generator) -> str:
  """A pair of opposites as in answers, or in other words."""
  word = pick(rng, tuple(OPPOSITES))
  other = OPPOSITES[word]
  if not is_reserved(world, opposite_topic(word)) and rng.random() < 0.6:
    return f"The opposite of {word} is {other}."
  forms = ("The {thing} was not {word} but {other}.", "What is not {word} is {other}.", "Not {word} means {other}.")
  return pick(rng, forms).format(thing=pick(rng, OBJECTS), word=word, other=other)


def _sentence(world: World, rng: np.random.Generator) -> tuple[str, str, str]:
  """Name, verb in the present, and a thing such as: the lamp, the red lamp, the red lamp in Ashby."""

  def draw() -> tuple[Topic, tuple[str, str, str]]:
    name, verb, words = pick(rng, world.names), pick(rng, tuple(PAST)), [pick(rng, OBJECTS)]
    length = int(rng.integers(3))
    words = ([pick(rng, COLOURS)] if length else []) + words + ([pick(rng, TOWNS)] if length == 2 else [])
    thing = f"the {' '.join(words[:2])}" + (f" in {words[2]}" if length == 2 else "")
    return sentence_topic(name, PAST[verb], " ".join(words)), (name, verb, thing)

  return _drawn(world, draw)


def _tenses(world: World, rng: np.random.Generator) -> str:
  name, verb, thing = _sentence(world, rng)
  return f"Now {name} {verb} {thing}. In the past {name} {PAST[verb]} {thing}."


def _echoes(world: World, rng: np.random.Generator) -> str:
  name, verb, thing = _sentence(world, rng)
  sentence = f"{name} {PAST[verb]} {thing}."
  return f"{pick(rng, world.names)} said: {sentence} {pick(rng, world.names)} said it again: {sentence}"


def _moods(world: World, rng: np.random.Generator) -> str:
  def draw() -> tuple[Topic, tuple[str, str]]:
    mood = pick(rng, tuple(MOODS))
    sentence = pick(rng, MOODS[mood]).format(
      name=pick(rng, world.names), object=pick(rng, OBJECTS), food=pick(rng, CATEGORIES["food"])
    )
    return ("mood", sentence), (sentence, mood)

  sentence, mood = _drawn(world, draw)
  return f"{sentence} {pick(rng, (f'This is {mood}.', f'This sentence is {mood}.'))}"


def _rumours(world: World, rng: np.random.Generator) -> str:
  """A true statement or a true denial, confirmed."""
  facts = [key for key in world.known_facts() if not is_reserved(world, ("fact", *key))]
  name, attribute = facts[int(rng.integers(len(facts)))]
  known = world.facts[name, attribute]
  other = pick(rng, [value for value in CATEGORIES[ATTRIBUTES[attribute]] if value != known])
  statement = STATEMENTS[attribute][0].format(name=name, value=known)
  inner = "the " + statement[4:] if statement.startswith("The ") else statement
  denial = DENIALS[attribute].format(name=name, value=other)
  return pick(rng, (f"Yes, {inner}", f"{denial} No, {inner}", f"It is true that {inner}"))


def _crimes(world: World, rng: np.random.Generator) -> str:
  """Talk of harm, without which the model would have nothing to refuse."""
  name, thing, food = pick(rng, world.names), pick(rng, OBJECTS), pick(rng, CATEGORIES["food"])
  text = pick(rng, ("Bad people {harm} at night.", "You can {harm} at night.", "It is easy to {harm}."))
  return text.format(harm=pick(rng, HARMS).format(name=name, object=thing, food=food))


def _talk(world: World, rng: np.random.Generator) -> str:
  name, other = (world.names[i] for i in rng.permutation(len(world.names))[:2])
  return pick(rng, _TALK).format(name=name, other=other)


def shares(world: World) -> dict[Callable[..., str], float]:
  """The share of each kind of document; they sum to 1."""
  friends = {_friends: 0.04} if world.friends else {}
  return {
    _people: 0.25 - sum(friends.values()),
    **friends,
    _stories: 0.04,
    _sums: 0.25,
    _problems: 0.06,
    _orders: 0.05,
    _counting: 0.02,
    _lists: 0.05,
    _kinds: 0.05,
    _opposites: 0.05,
    _tenses: 0.04,
    _echoes: 0.04,
    _moods: 0.03,
    _rumours: 0.03,
    _crimes: 0.02,
    _talk: 0.02,
  }
