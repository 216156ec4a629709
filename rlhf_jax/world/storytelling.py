"""A reader of stories: somebody meets a thing, does something with it, and is glad or sad in the end."""

import functools
import re

from rlhf_jax.world.facts import CATEGORIES, World
from rlhf_jax.world.language import phrases
from rlhf_jax.world.tasks import Task

MIDDLE = 1  # the part of a story that may have several sentences

_OPENING = phrases("""
  one day | once | once upon a time | yesterday | long ago | [1|that|the next] [day|morning|evening|night] | then | next
  so | soon | later | after that | in the end | at the end | finally | at last | and
""")
_PARTS = (
  (r"{who} (?:found|saw|met|bought|got|had|spotted|noticed|came upon) (?:a|an|the) {thing}(?: in {town})?",),
  (
    r"(?:{who} )?(?:took|brought|carried|led) {it} (?:home|to (?:the town of )?{town})",
    r"(?:{who} )?showed {it} to {other}",
    r"(?:{who} )?showed {other} {it}",
    r"(?:{who} )?{give}",
  ),
  (r"(?:{who} )?(?:was|felt|became|got|went home) (?:very |so |really )?(?:happy|sad|glad)(?: again)?",),
)  # fmt: skip
_FEED = r"(?:gave {it} (?:some |a bit of )?{food}|fed {it}(?: some| with)? {food}|gave (?:some )?{food} to {it})"
_HAND_OVER = r"gave {it} to {other}"


@functools.lru_cache(maxsize=1 << 12)
def _patterns(world: World, name: str, thing: str) -> tuple[re.Pattern[str], ...]:
  animal = thing in CATEGORIES["animal"]
  others = [person.lower() for person in world.names if person.lower() != name]
  slots = {
    "give": _FEED if animal else _HAND_OVER,  # only animals are fed
    "who": rf"(?:{name}|he|she)",
    "thing": thing,
    "it": rf"(?:(?:the|this|that) {thing}|it)",
    "town": f"(?:{'|'.join(CATEGORIES['town']).lower()})",
    "food": f"(?:{'|'.join(CATEGORIES['food'])})",
    "other": f"(?:{'|'.join(others)})",
  }
  out = []
  for part, forms in enumerate(_PARTS):
    text = "|".join(forms)
    for _ in range(2):
      text = re.sub(r"{([a-z]+)}", lambda match: slots[match[1]], text)
    if part == 0:
      text = text.replace(slots["who"], name)
    out.append(re.compile(f"(?:{_OPENING} ){{0,2}}(?:{text})"))
  return tuple(out)


def story_part(world: World, task: Task, text: str) -> int:
  """The part of the story asked for that plain words tell, 0 to 2; -1 for none."""
  name, thing = task.values["name"].lower(), task.values["thing"]
  return next((part for part, form in enumerate(_patterns(world, name, thing)) if form.fullmatch(text)), -1)
