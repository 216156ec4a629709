"""Claims that a sentence makes, and whether they are true in the world.

Every checkable statement in a text of the world matches a form below: facts about people and their denials, sums,
opposites, orders of numbers, and categories of things.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Hashable

from rlhf_jax.world.facts import (
  ATTRIBUTES,
  CATEGORIES,
  CATEGORY_OF,
  DENIALS,
  OPPOSITES,
  PET_STATEMENT,
  STATEMENTS,
  Difficulty,
  World,
)
from rlhf_jax.world.phrasings import slots

_NUMBER = "[0-9]{1,9}"


@dataclasses.dataclass(frozen=True)
class Claim:
  """A claim of a sentence."""

  subject: Hashable
  """Subject of the claim, such as ("home", "Tom")."""
  true: bool
  """Truth of the claim; False for a claim that nobody can know."""


def read_claims(world: World, sentence: str) -> tuple[Claim, ...]:
  """The claims of a sentence; () where it matches no form.

  Case, a final mark and a leading "Yes," or "No," are ignored. A claim about a stranger is never true, since nobody can
  know it.
  """
  text = re.sub(r"^(yes|no)\b[,.]?\s*", "", sentence.strip().rstrip(".!").strip().lower())
  return _read(world, text)


@functools.lru_cache(maxsize=1 << 16)
def _read(world: World, text: str) -> tuple[Claim, ...]:
  for pattern, claims in _forms(world.difficulty):
    match = pattern.fullmatch(text)
    if match:
      return claims(world, match.groupdict())
  return ()


Reader = Callable[[World, dict[str, str]], tuple[Claim, ...]]


@functools.cache
def _forms(difficulty: Difficulty) -> tuple[tuple[re.Pattern[str], Reader], ...]:
  forms = [(_pattern(difficulty, PET_STATEMENT), _pet)]
  for attribute, category in ATTRIBUTES.items():
    for statement in STATEMENTS[attribute]:
      forms.append((_pattern(difficulty, statement, category), functools.partial(_fact, attribute)))
    forms.append((_pattern(difficulty, DENIALS[attribute], category), functools.partial(_denial, attribute)))
  items = "|".join(CATEGORY_OF).lower()
  forms += [
    (re.compile(rf"(?P<a>{_NUMBER}) (?P<sign>plus|minus) (?P<b>{_NUMBER}) is (?P<c>{_NUMBER})"), _sum),
    (re.compile(rf"(?P<a>{_NUMBER}) is (?P<order>larger|smaller) than (?P<b>{_NUMBER})"), _order),
    (re.compile(rf"the opposite of (?P<a>{'|'.join(OPPOSITES)}) is (?P<b>[a-z]+)"), _opposite),
    (re.compile(rf"(an? )?(?P<item>{items}) is an? (?P<category>{'|'.join(CATEGORIES)})"), _class),
  ]
  return tuple(forms)


def _pattern(difficulty: Difficulty, statement: str, category: str | None = None) -> re.Pattern[str]:
  """A lower-case regular expression; {value} stands for an item of the category."""
  text = re.escape(statement.rstrip(".").lower())
  for slot, source in {"name": "name", "colour": "colour", "animal": "animal", "value": category}.items():
    if source is not None:
      text = text.replace(re.escape(f"{{{slot}}}"), f"(?P<{slot}>{'|'.join(slots(difficulty)[source]).lower()})")
  return re.compile(text)


def _known(world: World, values: dict[str, str], attribute: str) -> str | None:
  known = world.known(values["name"].capitalize(), attribute)
  return known and known.lower()


def _fact(attribute: str, world: World, values: dict[str, str]) -> tuple[Claim, ...]:
  true = _known(world, values, attribute) == values["value"]
  return (Claim((attribute, values["name"].capitalize()), true),)


def _denial(attribute: str, world: World, values: dict[str, str]) -> tuple[Claim, ...]:
  true = _known(world, values, attribute) not in (None, values["value"])
  return (Claim(("not " + attribute, values["name"].capitalize()), true),)


def _pet(world: World, values: dict[str, str]) -> tuple[Claim, ...]:
  return tuple(
    Claim((attribute, values["name"].capitalize()), _known(world, values, attribute) == values[attribute])
    for attribute in ("colour", "animal")
  )


def _sum(world: World, values: dict[str, str]) -> tuple[Claim, ...]:
  a, b, c = (int(values[slot]) for slot in "abc")
  plus = values["sign"] == "plus"
  return (Claim(sum_subject(values["sign"], values["a"], values["b"]), c == (a + b if plus else a - b)),)


def sum_subject(sign: str, a: str, b: str) -> Hashable:
  """The subject of the claim "a plus b is c"; the order of the terms of a sum does not matter."""
  return (sign, *(sorted((a, b)) if sign == "plus" else (a, b)))


def _order(world: World, values: dict[str, str]) -> tuple[Claim, ...]:
  a, b = int(values["a"]), int(values["b"])
  true = a > b if values["order"] == "larger" else a < b
  return (Claim(("order", frozenset((values["a"], values["b"]))), true),)


def _opposite(world: World, values: dict[str, str]) -> tuple[Claim, ...]:
  return (Claim(("opposite", values["a"]), OPPOSITES.get(values["a"]) == values["b"]),)


def _class(world: World, values: dict[str, str]) -> tuple[Claim, ...]:
  item = values["item"]
  category = CATEGORY_OF.get(item) or CATEGORY_OF.get(item.capitalize())
  return (Claim(("class", item), category == values["category"]),)
