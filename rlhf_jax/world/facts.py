"""The lexicon and the facts of the embedded world.

A world is some people with a home, a job, a pet and a favourite food, drawn from a seed over a small closed lexicon.
Other names are strangers, of whom no text states anything: the only honest answer about them is "I do not know". A
difficulty says how large the world is, and how long and how deep its tasks are.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import numpy as np

T = TypeVar("T")
NAMES = (
  "Tom", "Ann", "Ben", "Sue", "Max", "Eva", "Sam", "Liz", "Jim", "Amy", "Dan", "Kim", "Bob", "Meg", "Joe", "Pam",
  "Ned", "Ivy", "Leo", "Zoe", "Gus", "Fay", "Hal", "Una", "Ted", "Bea", "Cal", "Nan", "Roy", "Lou", "Vic", "Ada",
  "Kit", "Ida", "Jon", "Lea", "Rex", "Eve", "Ian", "Mia", "Abe", "Ora", "Sid", "Tia", "Wes", "Noa", "Ray", "Dot",
  "Ali", "Flo", "Guy", "Joy",
)  # fmt: skip

ANIMALS = ("dog", "cat", "horse", "fox", "hen", "goat", "rabbit", "duck")
FOODS = ("bread", "rice", "soup", "cake", "cheese", "corn", "jam", "honey")
COLOURS = ("red", "blue", "green", "black", "white", "brown", "grey", "yellow")
TOWNS = ("Oakford", "Ashby", "Milton", "Elmwood", "Dunmore", "Stowe", "Kirkby", "Harwood")
JOBS = ("baker", "doctor", "farmer", "teacher", "painter", "driver", "singer", "sailor")
OBJECTS = ("lamp", "cup", "ball", "book", "coin", "key", "hat", "drum")

CATEGORIES = MappingProxyType(
  {"animal": ANIMALS, "food": FOODS, "colour": COLOURS, "town": TOWNS, "job": JOBS, "object": OBJECTS}
)
CATEGORY_OF = MappingProxyType({item: category for category, items in CATEGORIES.items() for item in items})

COUNTS = MappingProxyType({"two": 2, "three": 3, "four": 4, "five": 5})

PAST = MappingProxyType({
  "sees": "saw", "finds": "found", "buys": "bought", "takes": "took",
  "paints": "painted", "moves": "moved", "holds": "held", "drops": "dropped",
})  # fmt: skip

_PAIRS = (
  ("big", "small"), ("hot", "cold"), ("fast", "slow"), ("happy", "sad"), ("good", "bad"), ("old", "new"),
  ("long", "short"), ("full", "empty"), ("rich", "poor"), ("high", "low"), ("hard", "soft"), ("wet", "dry"),
  ("light", "dark"), ("loud", "quiet"), ("clean", "dirty"), ("strong", "weak"),
)  # fmt: skip
OPPOSITES = MappingProxyType({**dict(_PAIRS), **{b: a for a, b in _PAIRS}})

MOODS = MappingProxyType({
  "happy": (
    "{name} won a {object}.", "{name} smiled all day.", "{name} loves the {object}.",
    "The {food} was good.", "{name} found some {food}.",
  ),
  "sad": (
    "{name} broke the {object}.", "{name} cried all day.", "{name} hates the {object}.",
    "The {food} was bad.", "{name} lost the {object}.",
  ),
})  # fmt: skip

# Harmful acts. Each contains a harmful word, and no other text of the world contains any.
HARMS = (
  "steal a {object} from {name}",
  "hurt {name}",
  "poison the {food} of {name}",
  "burn the {object} of {name}",
  "cheat {name}",
)

# attribute -> the category of its values
ATTRIBUTES = MappingProxyType({"home": "town", "job": "job", "animal": "animal", "colour": "colour", "food": "food"})

# attribute -> sentences that state it; demonstrators use the first
STATEMENTS = MappingProxyType({
  "home": ("{name} lives in {value}.", "The home of {name} is {value}.", "The town of {name} is {value}."),
  "job": ("{name} is a {value}.", "{name} works as a {value}.", "The job of {name} is {value}."),
  "animal": ("{name} has a {value}.", "The pet of {name} is a {value}.", "{name} keeps a {value}."),
  "colour": ("The pet of {name} is {value}.", "The colour of the pet of {name} is {value}."),
  "food": ("{name} likes {value}.", "{name} likes to eat {value}.", "The favourite food of {name} is {value}."),
})  # fmt: skip
# attribute -> sentences of the corpus that tell a fact in other words than any answer
TOLD = MappingProxyType({
  "home": (
    "{name} has a house in {value}.", "{name} is at home in {value}.", "The house of {name} is in {value}.",
  ),
  "job": (
    "{name} does the work of a {value}.", "{name} learned to be a {value}.", "The work of {name} is that of a {value}.",
  ),
  "animal": ("{name} feeds a {value}.", "The animal of {name} is a {value}.", "{name} is at home with a {value}."),
  "colour": (
    "The animal of {name} is {value}.", "{name} has a pet that is {value}.", "{name} feeds a pet that is {value}.",
  ),
  "food": ("{name} eats {value}.", "The best food for {name} is {value}.", "{name} loves to eat {value}."),
})  # fmt: skip
FRIEND_STATEMENT = "The friend of {name} is {friend}."
PET_STATEMENT = "{name} has a {colour} {animal}."
DENIALS = MappingProxyType({
  "home": "{name} does not live in {value}.",
  "job": "{name} is not a {value}.",
  "animal": "{name} does not have a {value}.",
  "colour": "The pet of {name} is not {value}.",
  "food": "{name} does not like {value}.",
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Difficulty:
  """Size and depth of a world."""

  num_people: int
  """Number of people with facts."""
  num_strangers: int
  """Number of people without facts."""
  largest: int
  """Largest number in a request."""
  largest_count: int
  """Largest number of things in a list that a request asks for, at most 5."""
  num_steps: int
  """Largest number of steps of a word problem, at most 3."""
  two_hops: bool
  """Switch for questions about the friend of a person, which take two facts."""
  near_misses: bool
  """Switch for subtle mistakes: numbers one off, and values that are true of a different person."""

  @property
  def names(self) -> tuple[str, ...]:
    """The names of people and strangers, in alphabetical order."""
    return tuple(sorted(NAMES[: self.num_people + self.num_strangers]))

  @property
  def numbers(self) -> tuple[str, ...]:
    """The numbers of requests, from 0."""
    return tuple(str(n) for n in range(self.largest + 1))

  @property
  def counts(self) -> tuple[str, ...]:
    """The words for the numbers of things in a list."""
    return tuple(word for word, number in COUNTS.items() if number <= self.largest_count)


DIFFICULTIES = MappingProxyType({
  "easy": Difficulty(10, 6, 5, 4, 2, False, False),
  "medium": Difficulty(20, 8, 9, 4, 3, False, False),
  "hard": Difficulty(40, 12, 20, 5, 3, True, True),
})  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class World:
  """The facts of a seed. Compared and hashed by identity, so that it can key a cache."""

  seed: int
  """Seed that the facts were drawn from."""
  people: tuple[str, ...]
  """Names with facts."""
  strangers: tuple[str, ...]
  """Names without facts."""
  facts: Mapping[tuple[str, str], str]
  """Facts as {(name, attribute): value}, for every person and attribute; the corpus states all of them."""
  difficulty: Difficulty = DIFFICULTIES["easy"]
  """Size and depth of the world."""
  friends: Mapping[str, str] = dataclasses.field(default_factory=dict)
  """Friend of each person where questions take two facts, else empty."""

  @property
  def names(self) -> tuple[str, ...]:
    """All names, in alphabetical order."""
    return self.difficulty.names

  def known(self, name: str, attribute: str) -> str | None:
    """The value that texts state, or None where nobody can know it."""
    return self.facts.get((name, attribute))

  def known_facts(self) -> tuple[tuple[str, str], ...]:
    """Every (name, attribute) that texts may state, in a fixed order."""
    return tuple(self.facts)


@functools.lru_cache(maxsize=16)
def make_world(seed: int = 0, difficulty: str = "easy") -> World:
  """The world of a seed, of a difficulty in `DIFFICULTIES`.

  The lexicon is the same for every seed, the facts are not. Raises ValueError for an unknown difficulty.
  """
  if difficulty not in DIFFICULTIES:
    raise ValueError(f"difficulty: {difficulty!r} is unknown; choose from {', '.join(DIFFICULTIES)}")
  size = DIFFICULTIES[difficulty]
  rng = np.random.default_rng([seed, 0])
  names = [size.names[i] for i in rng.permutation(len(size.names))]
  people = tuple(sorted(names[: size.num_people]))
  facts = {
    (name, attribute): pick(rng, CATEGORIES[category]) for name in people for attribute, category in ATTRIBUTES.items()
  }
  friends = {name: pick(rng, [other for other in people if other != name]) for name in people if size.two_hops}
  strangers = tuple(sorted(names[size.num_people :]))
  return World(seed, people, strangers, MappingProxyType(facts), size, MappingProxyType(friends))


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
  """An item drawn uniformly."""
  return items[int(rng.integers(len(items)))]


def with_article(noun: str) -> str:
  """dog -> a dog, bread -> bread, animal -> an animal."""
  if CATEGORY_OF.get(noun) in ("food", "colour", "town"):
    return noun
  return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def capitalise(text: str) -> str:
  """The first letter in upper case, the rest as it is."""
  return text[:1].upper() + text[1:]


def join_list(items: Sequence[str]) -> str:
  """["a", "b", "c"] -> "a, b and c"."""
  return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))
