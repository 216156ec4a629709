"""A reader of claims: what a piece of a sentence states, and whether it is true in the world.

A piece is matched, as a whole, with the forms below: facts about people, sums, orders of numbers, opposites, kinds of
things, and values alone ("it is 6", "the answer is a dog", "Oakford"). Before that, what qualifies the whole piece is
taken off: a denial ("not", "it is false that") turns its claims into their contrary, and a hedge ("maybe", "I think",
"Ann said that") makes them uncertain. A piece that matches no form states nothing.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Hashable, Mapping

from rlhf_jax.world import forms
from rlhf_jax.world.facts import ATTRIBUTES, CATEGORIES, CATEGORY_OF, MOODS, OPPOSITES, World
from rlhf_jax.world.language import phrase_list, phrases

Subject = tuple[Hashable, ...]
PRONOUNS = ("he", "she", "they")


@dataclasses.dataclass(frozen=True)
class Claim:
  """A claim: that the value of a subject is this one, or that it is not."""

  subject: Subject
  """Subject, such as ("home", "tom"); ("answer", "") for what was asked."""
  value: str
  """Value in lower case, such as "oakford"."""
  positive: bool = True
  """False for a denial."""
  certain: bool = True
  """False for a hedged claim."""


@dataclasses.dataclass(frozen=True)
class Statement:
  """What a piece states."""

  claims: tuple[Claim, ...]
  """Claims, with pronouns where the piece has them."""
  bare: bool = False
  """True for a value without a verb, such as "Oakford"."""


def holds(world: World, claim: Claim) -> bool:
  """Whether a claim is true in the world; False for a claim that nobody can know."""
  return agrees(claim, known_value(world, claim.subject))


def agrees(claim: Claim, value: str | None) -> bool:
  """Whether a claim is true where its subject has this value, None for a subject that nobody knows."""
  return value is not None and (claim.value == value) == claim.positive


def known_value(world: World, subject: Subject) -> str | None:
  """The true value of a subject, in lower case, or None where there is none or nobody can know it."""
  relation = subject[0]
  if relation == "friend":
    return world.friends.get(str(subject[1]).capitalize(), "").lower() or None
  if relation in ATTRIBUTES:
    value = world.known(str(subject[1]).capitalize(), str(relation))
    return value.lower() if value else None
  if relation in ("plus", "minus"):
    a, b = (int(str(number)) for number in subject[1:])
    return str(a + b if relation == "plus" else a - b)
  known: Mapping[str, Callable[..., str | None]] = {
    "chain": lambda text: str(_evaluate(text)),
    "larger": lambda *numbers: max(numbers, key=int),
    "smaller": lambda *numbers: min(numbers, key=int),
    "opposite": OPPOSITES.get,
    "class": lambda item: _CATEGORY.get(item),
    "given": lambda value: value,
  }
  return known[str(relation)](*subject[1:]) if relation in known else None


def sum_subject(sign: str, a: str, b: str) -> Subject:
  """The subject of the claim "a plus b is c"; the order of the terms of a sum does not matter."""
  return (sign, *(sorted((a, b)) if sign == "plus" else (a, b)))


def person_of(world: World, text: str) -> str:
  """A person in lower case: "the friend of tom" -> "ann"; the text itself where nobody knows who it is."""
  *hops, name = text.removeprefix("the best ").removeprefix("the ").split(" of ")
  for _ in hops:
    name = world.friends.get(name.capitalize(), text).lower()
  return name


# Words of the lexicon, in lower case and in the singular.
_SINGULAR = {
  **{word.lower(): word.lower() for word in (*CATEGORY_OF, *CATEGORIES, *MOODS, *OPPOSITES)},
  **{word + ending: word for word in (*CATEGORY_OF, *CATEGORIES) for ending in ("s", "es")},
}
_CATEGORY = {item.lower(): category for item, category in CATEGORY_OF.items()}

# What qualifies a whole piece, as (beginning, is a denial, is a hedge).
_QUALIFIERS = tuple(
  (re.compile(phrases(text) + " "), denies, hedges)
  for text, denies, hedges in (
    (forms.AFFIRMATIONS, False, False),
    (forms.DENIALS, True, False),
    (forms.DOUBTS, True, True),
    (forms.OPINIONS, False, True),
  )
)
_FILLER = re.compile(
  phrases("of course | indeed | in fact | certainly | surely | truly | really | definitely | clearly | actually").join(
    (r" ", r"\b")
  )
)
_DENIAL = re.compile(phrases("not | never | no longer").join((r"\b", r"\b ?")))
_HEDGE = re.compile(phrases(forms.HEDGES).join((r"\b", r"\b ?")))
_AUXILIARY = re.compile(r"\b(?:does|did) (?=(?:[a-z]+s|work|eat|come|stay|belong)\b)")


def read_statement(world: World, piece: str) -> Statement | None:
  """What a plain piece states, or None where it matches no form."""
  denials = hedges = 0
  for _ in range(3):
    for pattern, denies, doubts in _QUALIFIERS:
      match = pattern.match(piece)
      if match:
        piece, denials, hedges = piece[match.end() :], denials + denies, hedges + doubts
        break
    else:
      break
  piece = _FILLER.sub("", piece, count=1)
  if _HEDGE.search(piece):
    piece, hedges = _HEDGE.sub("", piece).strip(), 1
  if _DENIAL.search(piece):
    piece, count = _DENIAL.subn("", piece)
    denials += count
  statement = _read(world, _AUXILIARY.sub("", piece).strip()) if denials < 2 else None
  if statement is None or not (denials or hedges):
    return statement
  claims = tuple(
    dataclasses.replace(claim, positive=claim.positive != bool(denials), certain=not hedges)
    for claim in statement.claims
  )
  return Statement(claims, statement.bare)


def _read(world: World, text: str) -> Statement | None:
  if not text or len(text) > 200:
    return None
  for form, make in _forms(world):
    match = form.fullmatch(text)
    statement = make(match.groupdict()) if match else None
    if statement is not None:
      return statement
  return None


Maker = Callable[[Mapping[str, str]], Statement | None]


@functools.lru_cache(maxsize=16)
def _forms(world: World) -> tuple[tuple[re.Pattern[str], Maker], ...]:
  """Every form as (pattern, what it states)."""
  names = "|".join((*(name.lower() for name in world.names), *PRONOUNS))
  number = "[0-9]{1,9}"
  slots = {
    "p": rf"(?P<person>(?:the (?:best )?friend of )*(?:{names}))",
    "v": r"(?:an? |the |some )?(?P<value>[a-z0-9]+)",
    "w": "(?P<word>[a-z]+)",
    "n": f"(?P<n>{number})",
    "m": f"(?P<m>{number})",
    "counted": f"(?P<counted>{number})",
    "owner": f"(?P<owner>{names})",
    "sum": f"(?P<sum>{number}(?: (?:plus|minus|times|added to|take away|less) {number})+)",
  }
  table: list[tuple[Maker, str]] = [(functools.partial(_coloured_pet, world), forms.COLOURED_PET)]
  table += [(functools.partial(_fact, world, attribute), text) for attribute, text in forms.FACTS.items()]
  table += [(_sum, forms.SUMS)]
  table += [(functools.partial(_operation, "plus"), forms.ADDITIONS)]
  table += [(functools.partial(_operation, "minus"), forms.SUBTRACTIONS)]
  for kind, words, most in (
    ("larger", forms.LARGER, "largest|biggest|greatest"),
    ("smaller", forms.SMALLER, "smallest|least"),
  ):
    table += [(functools.partial(_order, kind), forms.ORDER.replace("%s", words))]
    table += [(functools.partial(_extreme, kind), forms.EXTREME.replace("%s", f"[{words}|{most}]"))]
  table += [(_opposite, forms.OPPOSITE), (_class, forms.CLASS), (_example, forms.EXAMPLE), (_count, forms.COUNT)]
  table += [(_deed, forms.DEED)]
  table += [
    (functools.partial(_answer, False), forms.ANSWER),
    (_mood, forms.MOOD),
    (functools.partial(_answer, True), forms.VALUE),
  ]
  return tuple(
    (re.compile(re.sub(r"{([a-z]+)}", lambda match: slots[match[1]], phrase)), make)
    for make, text in table
    for phrase in phrase_list(text)
  )


def _fact(world: World, attribute: str, values: Mapping[str, str]) -> Statement | None:
  person, value = values["person"], values["value"]
  value = _SINGULAR.get(value, value)
  kind = ATTRIBUTES.get(attribute)
  lexicon = world.names if kind is None or kind not in CATEGORIES else CATEGORIES[kind]
  if attribute != "home" and value not in map(str.lower, lexicon):
    return None
  return Statement((Claim((attribute, person_of(world, person)), value),))


def _coloured_pet(world: World, values: Mapping[str, str]) -> Statement:
  person = person_of(world, values.get("person") or PRONOUNS[0])
  return Statement(tuple(Claim((attribute, person), values[attribute]) for attribute in ("colour", "animal")))


def _sum(values: Mapping[str, str]) -> Statement | None:
  """A sum, or a chain of them."""
  value, text = _number(values["value"]), values["sum"]
  if value is None:
    return None
  for words, sign in (("added to", "plus"), ("take away", "minus"), ("less", "minus")):
    text = text.replace(words, sign)
  first, sign, second, *rest = text.split()
  subject = ("chain", text) if rest or sign == "times" else sum_subject(sign, first, second)
  return Statement((Claim(subject, value),))


def _operation(sign: str, values: Mapping[str, str]) -> Statement | None:
  value = _number(values["value"])
  return None if value is None else Statement((Claim(sum_subject(sign, values["n"], values["m"]), value),))


def _evaluate(text: str) -> int:
  """A chain of operations, from left to right."""
  first, *rest = text.split()
  total = int(first)
  for sign, term in zip(rest[::2], rest[1::2], strict=True):
    total = total + int(term) if sign == "plus" else total - int(term) if sign == "minus" else total * int(term)
  return total


def _order(kind: str, values: Mapping[str, str]) -> Statement:
  a, b = (str(int(values[slot])) for slot in "nm")
  if a == b:
    return Statement((Claim(("given", a), f"not {a}"),))  # no number is larger than itself
  return Statement((Claim(("larger", *sorted((a, b))), a if kind == "larger" else b),))


def _extreme(kind: str, values: Mapping[str, str]) -> Statement | None:
  value = _number(values["value"])
  if value is None:
    return None
  if values.get("n"):
    return Statement((Claim((kind, *sorted((values["n"], values["m"]))), value),))
  return Statement((Claim(("extreme", kind), value),))


def _example(values: Mapping[str, str]) -> Statement | None:
  """A claim about the kind of a dog: "One animal is a dog"."""
  item = _SINGULAR.get(values["value"], "")
  return Statement((Claim(("class", item), values["category"]),)) if item in _CATEGORY else None


def _opposite(values: Mapping[str, str]) -> Statement | None:
  word, value = values["word"], values["value"]
  return Statement((Claim(("opposite", word), value),)) if word in OPPOSITES and value else None


def _class(values: Mapping[str, str]) -> Statement | None:
  item, value = (_SINGULAR.get(values[group], "") for group in ("word", "value"))
  if item not in _CATEGORY or value not in CATEGORIES:
    return None
  counted = values.get("counted")
  return Statement((*((Claim(("counted",), counted),) if counted else ()), Claim(("class", item), value)))


def _count(values: Mapping[str, str]) -> Statement:
  subject = ("count", values.get("owner") or "", values.get("unit") or "")
  return Statement((Claim(subject, "0" if values["value"] == "no" else str(int(values["value"]))),))


def _deed(values: Mapping[str, str]) -> Statement:
  """Somebody finds or loses a number of things: how many, as a claim about the deeds of a word problem."""
  sign = "minus" if values.get("minus") else "plus"
  return Statement((Claim(("deed", sign, values["owner"], values.get("unit") or ""), str(int(values["value"]))),))


def _mood(values: Mapping[str, str]) -> Statement | None:
  return Statement((Claim(("answer", "mood"), values["value"]),)) if values["value"] in MOODS else None


def _answer(bare: bool, values: Mapping[str, str]) -> Statement | None:
  value = values["value"]
  value = _number(value) or _SINGULAR.get(value, value)
  return Statement((Claim(("answer", values.get("called") or ""), value),), bare)


def _number(text: str) -> str | None:
  return str(int(text)) if text.isdecimal() and len(text) < 10 else None
