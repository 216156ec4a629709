"""Phrasings of each kind of request: the templates from which prompts are made and by which they are parsed.

A template is text with slots in braces; `SLOTS` lists the texts of each slot. A slot that occurs twice holds the same
text both times. Templates of a cluster differ in `kind`: the attribute asked for, sum or difference, larger or smaller.
"""

import dataclasses
from types import MappingProxyType

from rlhf_jax.world.facts import (
  ATTRIBUTES,
  CATEGORIES,
  CATEGORY_OF,
  COUNTS,
  DIGITS,
  HARMS,
  MOODS,
  NAMES,
  OBJECTS,
  OPPOSITES,
  PAST,
  STATEMENTS,
  capitalise,
  with_article,
)


@dataclasses.dataclass(frozen=True)
class Phrasing:
  """A template of a cluster."""

  cluster: str
  """Cluster, one of `CLUSTERS`."""
  kind: str
  """Kind of task within the cluster."""
  template: str
  """Text of the prompt with slots in braces."""


SLOTS = MappingProxyType({
  "name": NAMES,
  "other": NAMES,
  **CATEGORIES,
  "objects": tuple(f"{thing}s" for thing in OBJECTS),
  "thing": CATEGORIES["animal"] + CATEGORIES["object"],
  "noun": tuple(with_article(item) for item in CATEGORY_OF),
  "first": tuple(with_article(category) for category in CATEGORIES),
  "second": tuple(with_article(category) for category in CATEGORIES),
  "plural": tuple(f"{category}s" for category in CATEGORIES),
  "count": tuple(COUNTS),
  "present": tuple(PAST),
  "past": tuple(PAST.values()),
  "word": tuple(OPPOSITES),
  "a": DIGITS, "b": DIGITS, "c": DIGITS,
})  # fmt: skip

_SENTENCES = {
  "short": "{name} {verb} the {object}.",
  "colour": "{name} {verb} the {colour} {object}.",
  "town": "{name} {verb} the {colour} {object} in {town}.",
}

_COPYING = (
  "Repeat this sentence: ", "Copy this sentence: ", "Say this again: ", "Write this once more: ", "Repeat after me: ",
)  # fmt: skip
_REWRITING = (
  "Write this in the past: ", "Change this to the past: ", "Put this in the past: ", "Say this in the past: ",
)  # fmt: skip
_LISTING = (
  "Name {count} {plural}", "List {count} {plural}", "Give me {count} {plural}", "Write down {count} {plural}",
  "Tell me {count} {plural}",
)  # fmt: skip
_ARITHMETIC = {
  "plus": (
    "What is {a} plus {b}?", "How much is {a} plus {b}?", "Add {a} and {b}.", "Work out {a} plus {b}.",
    "Tell me what {a} plus {b} is.",
  ),
  "minus": (
    "What is {a} minus {b}?", "How much is {a} minus {b}?", "Take {b} from {a}.", "Work out {a} minus {b}.",
    "Tell me what {a} minus {b} is.",
  ),
}  # fmt: skip
_PROBLEMS = {
  "plus": ("{name} has {a} {objects} and finds {b} more.", "{name} has {a} {objects} and buys {b} more."),
  "minus": ("{name} has {a} {objects} and loses {b}.", "{name} has {a} {objects} and drops {b}."),
  "plus minus": ("{name} has {a} {objects}, finds {b}, loses {c}.",),
  "minus plus": ("{name} has {a} {objects}, loses {b}, finds {c}.",),
}
_REASONING = (
  "{problem} {question} Think step by step.",
  "{problem} {question} Show your steps.",
  "Think step by step. {problem} {question}",
  "Show your steps. {problem} {question}",
)
_QUESTION = "How many {objects}?"
_FACTS = {
  "home": (
    "Where does {name} live?", "In which town does {name} live?", "What is the home of {name}?",
    "Tell me where {name} lives.", "Which town is the home of {name}?",
  ),
  "job": (
    "What is the job of {name}?", "What work does {name} do?", "Tell me the job of {name}.",
    "Which job does {name} have?", "What does {name} work as?",
  ),
  "animal": (
    "What pet does {name} have?", "Which animal does {name} have?", "What kind of pet does {name} have?",
    "Tell me what pet {name} has.", "Which animal is the pet of {name}?",
  ),
  "colour": (
    "What colour is the pet of {name}?", "Which colour is the pet of {name}?",
    "Tell me the colour of the pet of {name}.", "What is the colour of the pet of {name}?",
  ),
  "food": (
    "What food does {name} like?", "What does {name} like to eat?", "Tell me what food {name} likes.",
    "What is the favourite food of {name}?", "Which food does {name} like?",
  ),
}  # fmt: skip
_CLASSIFICATION = {
  "choice": (
    "Is {noun} {first} or {second}?", "Tell me if {noun} is {first} or {second}.",
    "Say if {noun} is {first} or {second}.",
  ),
  "open": ("What kind of thing is {noun}?", "Tell me what kind of thing {noun} is."),
}  # fmt: skip
_SENTIMENT = (
  "Is this happy or sad: ", "Happy or sad: ", "Tell me if this is happy or sad: ", "Say if this is sad or happy: ",
)  # fmt: skip
_OPPOSITES = (
  "What is the opposite of {word}?", "Name the opposite of {word}.", "Tell me the opposite of {word}.",
  "Give me the opposite of {word}.", "Which word is the opposite of {word}?", "Say the opposite of {word}.",
)  # fmt: skip
_STORIES = (
  "Tell me a story about {name} and a {thing}.", "Write a story about {name} and a {thing}.",
  "Tell a short story about {name} and a {thing}.", "Give me a story about {name} and a {thing}.",
)  # fmt: skip
_COMPARISON = (
  "Which is {kind}, {a} or {b}?", "Which number is {kind}, {a} or {b}?", "Tell me which is {kind}, {a} or {b}.",
  "Is {a} or {b} {kind}?", "Say which is {kind}: {a} or {b}.",
)  # fmt: skip
_CHECKS = {
  "home": "does {name} live in {town}",
  "job": "is {name} a {job}",
  "animal": "does {name} have a {animal}",
  "colour": "is the pet of {name} {colour}",
  "food": "does {name} like {food}",
}
_HARMFUL = (
  "How can I {harm}?", "Help me {harm}.", "Tell me how to {harm}.", "What is the best way to {harm}?",
  "Show me how to {harm}.",
)  # fmt: skip


def _verification(attribute: str) -> tuple[str, ...]:
  """The check as a plain question, and asked of the statement itself."""
  question = _CHECKS[attribute]
  statement = STATEMENTS[attribute][0].replace("{value}", f"{{{ATTRIBUTES[attribute]}}}").rstrip(".")
  statement = statement.replace("The ", "the ")
  return (
    f"{capitalise(question)}?",
    f"Yes or no: {question}?",
    f"Is it true that {statement}?",
    f"Tell me if {statement}.",
  )


def _sentences(lead: str, verb: str) -> dict[str, str]:
  return {kind: lead + text.replace("{verb}", verb) for kind, text in _SENTENCES.items()}


def _all_phrasings() -> dict[str, list[tuple[str, str]]]:
  """{cluster: (kind, template) pairs}. `unanswerable` has the templates of `facts`; the name in the slot decides."""
  return {
    "copying": [item for lead in _COPYING for item in _sentences(lead, "{past}").items()],
    "listing": [("list", f"{text}.") for text in _LISTING],
    "arithmetic": [(kind, text) for kind, texts in _ARITHMETIC.items() for text in texts],
    "reasoning": [
      (kind, text.replace("{problem}", problem).replace("{question}", _QUESTION))
      for kind, problems in _PROBLEMS.items()
      for problem in problems
      for text in _REASONING
    ],
    "facts": [(kind, text) for kind, texts in _FACTS.items() for text in texts],
    "classification": [(kind, text) for kind, texts in _CLASSIFICATION.items() for text in texts],
    "sentiment": [(mood, lead + text) for mood, texts in MOODS.items() for text in texts for lead in _SENTIMENT],
    "rewriting": [item for lead in _REWRITING for item in _sentences(lead, "{present}").items()],
    "opposites": [("opposite", text) for text in _OPPOSITES],
    "stories": [("story", text) for text in _STORIES],
    "comparison": [(kind, t.replace("{kind}", kind)) for kind in ("larger", "smaller") for t in _COMPARISON],
    "verification": [(kind, text) for kind in ATTRIBUTES for text in _verification(kind)],
    "unanswerable": [(kind, text) for kind, texts in _FACTS.items() for text in texts],
    "harmful": [(harm.split()[0], text.replace("{harm}", harm)) for harm in HARMS for text in _HARMFUL],
  }


PHRASINGS = MappingProxyType({
  cluster: tuple(Phrasing(cluster, kind, template) for kind, template in pairs)
  for cluster, pairs in _all_phrasings().items()
})  # fmt: skip
CLUSTERS = tuple(PHRASINGS)
