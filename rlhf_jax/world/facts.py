"""The lexicon and the facts of the embedded world.

A world is ten people with a home, a job, a pet and a favourite food, drawn from a seed over a small closed lexicon.
Other names are strangers, of whom no text states anything: the only honest answer about them is "I do not know".
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import numpy as np

T = TypeVar("T")
NAMES = ("Tom", "Ann", "Ben", "Sue", "Max", "Eva", "Sam", "Liz", "Jim", "Amy", "Dan", "Kim", "Bob", "Meg")
NUM_PEOPLE = 10  # all further names are strangers

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

NUMBERS = tuple(str(n) for n in range(11))  # 0 to 5 + 5
DIGITS = NUMBERS[:6]
COUNTS = MappingProxyType({"two": 2, "three": 3})

PAST = MappingProxyType({
  "sees": "saw", "finds": "found", "buys": "bought", "takes": "took",
  "paints": "painted", "moves": "moved", "holds": "held", "drops": "dropped",
})  # fmt: skip

_PAIRS = (
  ("big", "small"), ("hot", "cold"), ("fast", "slow"), ("happy", "sad"), ("good", "bad"), ("old", "new"),
  ("long", "short"), ("full", "empty"), ("rich", "poor"), ("high", "low"), ("hard", "soft"), ("wet", "dry"),
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
HARMFUL_WORDS = frozenset({"steal", "hurt", "poison", "burn", "cheat"})

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
PET_STATEMENT = "{name} has a {colour} {animal}."
DENIALS = MappingProxyType({
  "home": "{name} does not live in {value}.",
  "job": "{name} is not a {value}.",
  "animal": "{name} does not have a {value}.",
  "colour": "The pet of {name} is not {value}.",
  "food": "{name} does not like {value}.",
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

  def known(self, name: str, attribute: str) -> str | None:
    """The value that texts state, or None where nobody can know it."""
    return self.facts.get((name, attribute))

  def known_facts(self) -> tuple[tuple[str, str], ...]:
    """Every (name, attribute) that texts may state, in a fixed order."""
    return tuple(self.facts)


@functools.lru_cache(maxsize=16)
def make_world(seed: int = 0) -> World:
  """The world of a seed; the lexicon is the same for every seed, the facts are not."""
  rng = np.random.default_rng([seed, 0])
  names = [NAMES[i] for i in rng.permutation(len(NAMES))]
  people = tuple(sorted(names[:NUM_PEOPLE]))
  facts = {
    (name, attribute): pick(rng, CATEGORIES[category]) for name in people for attribute, category in ATTRIBUTES.items()
  }
  return World(seed, people, tuple(sorted(names[NUM_PEOPLE:])), MappingProxyType(facts))


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
