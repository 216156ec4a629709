"""A reader of stories: somebody meets a thing, does something with it, and is glad or sad in the end.

The phrases are in the notation of `language.phrases`. {name} is the person asked for, {thing} the thing, {who} and {it}
are the person and the thing once they are known, {other} is a different person. Words may be left out at the beginning:
"and took it to Ashby".
"""

import functools
import re

from rlhf_jax.world.facts import CATEGORIES, World
from rlhf_jax.world.language import phrases
from rlhf_jax.world.tasks import Task

BEGIN, MIDDLE, END, THING_KNOWN, PERSON_KNOWN, ANNOUNCED, TIME, CLOSED = range(8)

_FIRST = """[one day|once|once upon a time|yesterday|long ago|[1|that] [day|morning|evening|night]|in {town}|and
  |there]"""
_NEXT = """[then|next|so|soon|later|after that|that [day|morning|evening|night]|the next day|and|there]"""
_LAST = """[then|so|soon|later|after that|that [day|evening|night]|the next day|in the end|at the end|finally|at last
  |and]"""
_MEETS = "[found|saw|met|bought|got|had|spotted|noticed|came upon]"
_PHRASES = {
  BEGIN: f"""
    [{_FIRST} ]*{{name}} {_MEETS} [a|an] {{thing}}[ in {{town}}]?
  """,
  MIDDLE: f"""
    [{_NEXT} ]*[{{who}} ]?[took|brought|carried|led] {{it}} [home|to [the town of ]?{{town}}]
    [{_NEXT} ]*[{{who}} ]?{{give}}
    [{_NEXT} ]*[{{who}} ]?showed {{it}} to {{other}} | [{_NEXT} ]*[{{who}} ]?showed {{other}} {{it}}
  """,
  END: f"""
    [{_LAST} ]*[{{who}} ]?[was|felt|became|got|went home] [very |so |really ]?[happy|sad|glad][ again| all day
      | that day]?
    [{_LAST} ]*[{{who}} ]?[smiled|cried|laughed][ all day]?
  """,
  THING_KNOWN: f"[{_FIRST} ]*there was [once ]?[a|an] {{thing}}[ in {{town}}]?",
  PERSON_KNOWN: f"[{_FIRST} ]*{{name}} [went to|was in] {{town}}",
  ANNOUNCED: """
    [here is|this is|i will tell] [a|the|my|your] [short ]?story[ about {name}]? | [a|the] {thing}
  """,
  CLOSED: "the end",
  TIME: f"{_FIRST} | {_NEXT} | {_LAST}",
}
_FEED = "gave {it} [some |a bit of ]?{food} | fed {it}[ some| with]? {food} | gave [some ]?{food} to {it}"
_HAND_OVER = "gave {it} to {other}"


def story_part(world: World, task: Task, text: str, known: frozenset[int]) -> int:
  """The part of the story asked for that plain words tell; -1 for none.

  known: the parts told before. A person or a thing of whom the story has told is known by a pronoun too.
  """
  name, thing = task.values["name"].lower(), task.values["thing"]
  text = " ".join({name: "hero", thing: "item"}.get(word, word) for word in text.split())
  forms = _patterns(world, thing in CATEGORIES["animal"], known & {THING_KNOWN, PERSON_KNOWN})
  return next((part for part, form in forms if form.fullmatch(text)), -1)


@functools.lru_cache(maxsize=64)
def _patterns(world: World, animal: bool, known: frozenset[int]) -> tuple[tuple[int, re.Pattern[str]], ...]:
  """The phrases of each part, where the person is called "hero" and the thing "item"."""
  who, it = "[hero|he|she]", "[[the|this|that] item|it]"
  slots = {
    "{give}": f"[{(_FEED if animal else _HAND_OVER).replace(' | ', '|')}]",  # only animals are fed
    "{name}": who if PERSON_KNOWN in known else "hero",
    "[a|an] {thing}": f"[[a|an] item|{it}]" if THING_KNOWN in known else "[a|an] item",
    "{thing}": "item",
    "{who}": who,
    "{it}": it,
    "{town}": f"[{'|'.join(CATEGORIES['town']).lower()}]",
    "{food}": f"[{'|'.join(CATEGORIES['food'])}]",
    "{other}": f"[{'|'.join(world.names).lower()}]",
  }
  forms = []
  for part, text in _PHRASES.items():
    for slot, filling in slots.items():
      text = text.replace(slot, filling)
    forms.append((part, re.compile(phrases(text))))
  return tuple(forms)
