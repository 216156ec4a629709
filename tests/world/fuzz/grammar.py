"""The engine: texts with choices and slots, written out at random.

A grammar of a cluster has a rule for each kind of good and of bad answer. A rule is a text in which "[one|other|]"
stands for one of the alternatives and "{name}" for a slot, which is a text of the same form. Sentences begin with a
capital. A rule may also be a function of the draw that returns the finished answer, or None where the task allows none.
"""

import dataclasses
import re
import zlib
from collections.abc import Callable

import numpy as np

from rlhf_jax.world import Task, World, sample_tasks

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"{(\w+)}")


@dataclasses.dataclass
class Draw:
  """What a rule has to go by."""

  world: World
  task: Task
  rng: np.random.Generator
  slots: dict[str, str] = dataclasses.field(default_factory=dict)

  def pick(self, items):
    return items[int(self.rng.integers(len(items)))]

  def sample(self, items, num):
    """`num` different items."""
    return [items[i] for i in self.rng.permutation(len(items))[:num]]

  def expand(self, text, **slots):
    """The text with every choice made and every slot filled."""
    while match := _CHOICE.search(text):
      text = text[: match.start()] + self.pick(match[1].split("|")) + text[match.end() :]
    slots = {**self.slots, **slots}
    return _SLOT.sub(lambda match: self.expand(str(slots[match[1]]), **slots), text)

  def say(self, text, **slots):
    """The text written out, every sentence with a capital."""
    return re.sub(r"(^|[.!?]\s+)([a-z])", lambda match: match[1] + match[2].upper(), self.expand(text, **slots))


Rule = str | Callable[[Draw], str | None]


@dataclasses.dataclass
class Grammar:
  """The grammar of a cluster."""

  slots: Callable[[Draw], dict[str, str]]
  """The slots of a draw; "ideal" is an ideal answer."""
  good: dict[str, Rule]
  bad: dict[str, Rule]


@dataclasses.dataclass(frozen=True)
class Case:
  """An answer, and whether it is good."""

  cluster: str
  good: bool
  kind: str
  prompt: str
  response: str
  ideal: str


def draw_cases(grammars: dict[str, Grammar], num: int, seed: int, world: World) -> list[Case]:
  """About `num` different cases, as many of each kind where the tasks allow it."""
  cases: dict[tuple[str, str], Case] = {}
  turns = [
    (cluster, good, kind, rule)
    for cluster, grammar in grammars.items()
    for good, rules in ((True, grammar.good), (False, grammar.bad))
    for kind, rule in rules.items()
  ]
  per_kind = -(-num // len(turns))
  for cluster, good, kind, rule in turns:
    number = zlib.crc32(f"{cluster} {good} {kind}".encode())
    rng = np.random.default_rng([seed, world.seed, number])
    found = 0
    for task in sample_tasks(world, [cluster], 3 * per_kind, int(rng.integers(1 << 31))):
      draw = Draw(world, task, rng)
      draw.slots = grammars[cluster].slots(draw)
      response = draw.say(rule) if isinstance(rule, str) else rule(draw)
      if response is not None and (task.prompt, response) not in cases:
        cases[task.prompt, response] = Case(cluster, good, kind, task.prompt, response, draw.say("{ideal}"))
        found += 1
        if found == per_kind:
          break
  return list(cases.values())
