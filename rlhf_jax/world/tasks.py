"""Tasks: requests in the world's words, drawn from the phrasings and read back from the text of a prompt.

A reward function gets the prompt alone, so `parse_prompt` reads a task back from it: the templates that write the
prompts become regular expressions.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np

from rlhf_jax.data import PromptValue
from rlhf_jax.world.facts import ATTRIBUTES, CATEGORY_OF, Difficulty, World, pick, with_article
from rlhf_jax.world.phrasings import CLUSTERS, Phrasing, phrasings, slots

HELD_OUT = ("comparison", "verification")


@dataclasses.dataclass(frozen=True)
class Task:
  """A request of the world."""

  cluster: str
  """Cluster, one of `CLUSTERS`."""
  prompt: str
  """Text that the assistant sees."""
  kind: str
  """Kind within the cluster: the attribute asked for, sum or difference, larger or smaller, and so on."""
  slots: tuple[tuple[str, str], ...]
  """Pairs (slot, text), the values in the prompt."""
  reserved: bool = False
  """True where the prompt has a form that no training prompt has."""

  @functools.cached_property
  def values(self) -> dict[str, str]:
    """The slots as {slot: text}."""
    return dict(self.slots)


def training_clusters(held_out: Sequence[str] = HELD_OUT) -> tuple[str, ...]:
  """The clusters that are not held out. Raises ValueError for a name that is no cluster."""
  for cluster in held_out:
    if cluster not in CLUSTERS:
      raise ValueError(f"held_out: {cluster!r} is no cluster; choose from {', '.join(CLUSTERS)}")
  return tuple(cluster for cluster in CLUSTERS if cluster not in held_out)


def sample_tasks(world: World, clusters: Sequence[str], num: int, seed: int) -> list[Task]:
  """Draws `num` tasks, from the clusters in turn, so that shares are equal; prompts may recur.

  Within a cluster the phrasing is uniform, then the values are uniform over those that make a sensible request.
  Raises ValueError for an unknown cluster or for no cluster at all.
  """
  if not clusters:
    raise ValueError("clusters: name at least one of " + ", ".join(CLUSTERS))
  for cluster in clusters:
    if cluster not in CLUSTERS:
      raise ValueError(f"clusters: {cluster!r} is no cluster; choose from {', '.join(CLUSTERS)}")
  rng = np.random.default_rng([seed, 1])
  return [draw_task(world, clusters[i % len(clusters)], rng) for i in range(num)]


def draw_task(world: World, cluster: str, rng: np.random.Generator) -> Task:
  """Draws a task of the cluster."""
  phrasing, texts = pick(rng, phrasings(world.difficulty)[cluster]), slots(world.difficulty)
  names = _slot_names(phrasing.template)
  while True:
    values = {slot: pick(rng, texts[slot]) for slot in names}
    if cluster == "verification" and rng.random() < 0.5:  # else seven of eight answers would be "no"
      values[ATTRIBUTES[phrasing.kind]] = world.facts.get((values["name"], phrasing.kind), "")
    if _sensible(world, phrasing, values):
      return _task(phrasing, values)


def parse_prompt(world: World, prompt: PromptValue) -> Task | None:
  """The task of a prompt, or None where the text is no request of the world.

  White space at the ends and repeated white space are ignored; everything else must match a phrasing.
  """
  return _parse(world, " ".join(asked_text(prompt).split()))


def asked_text(prompt: PromptValue) -> str:
  """The request of a prompt: its text, or that of the last message of a dialogue."""
  return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


@functools.lru_cache(maxsize=1 << 16)
def _parse(world: World, prompt: str) -> Task | None:
  for phrasing, pattern in _patterns(world.difficulty):
    match = pattern.fullmatch(prompt)
    if match and _sensible(world, phrasing, match.groupdict()):
      return _task(phrasing, match.groupdict())
  return None


def _task(phrasing: Phrasing, values: dict[str, str]) -> Task:
  prompt = phrasing.template.format(**values)
  return Task(phrasing.cluster, prompt, phrasing.kind, tuple(values.items()), phrasing.reserved)


def _slot_names(template: str) -> tuple[str, ...]:
  return tuple(dict.fromkeys(re.findall(r"{(\w+)}", template)))


@functools.cache
def _patterns(difficulty: Difficulty) -> tuple[tuple[Phrasing, re.Pattern[str]], ...]:
  everything = [phrasing for group in phrasings(difficulty).values() for phrasing in group]
  return tuple((phrasing, template_pattern(phrasing.template, difficulty)) for phrasing in everything)


def template_pattern(template: str, difficulty: Difficulty) -> re.Pattern[str]:
  """A regular expression with a named group for each slot; a slot that recurs must recur with the same text."""
  texts = slots(difficulty)
  seen: set[str] = set()
  parts: list[str] = []
  for i, part in enumerate(re.split(r"{(\w+)}", template)):
    if i % 2 == 0:
      parts.append(re.escape(part))
    elif part in seen:
      parts.append(f"(?P={part})")
    else:
      seen.add(part)
      parts.append(f"(?P<{part}>{'|'.join(sorted(texts[part], key=len, reverse=True))})")
  return re.compile("".join(parts))


def _sensible(world: World, phrasing: Phrasing, values: dict[str, str]) -> bool:
  """Whether the values make a request that belongs to the cluster and has an answer."""
  cluster, kind = phrasing.cluster, phrasing.kind
  if cluster in ("facts", "unanswerable", "verification"):
    person = world.friends.get(values["name"], "") if kind.startswith("friend ") else values["name"]
    return (world.known(person, kind.split()[-1]) is None) == (cluster == "unanswerable")
  if cluster == "classification":
    options = [values["first"], values["second"]] if kind == "choice" else []
    category = with_article(CATEGORY_OF[values["noun"].removeprefix("a ")])
    return not options or (category in options and options[0] != options[1])
  if cluster == "comparison":
    return values["a"] != values["b"]
  if cluster == "arithmetic":
    return kind == "plus" or int(values["a"]) >= int(values["b"])
  if cluster == "reasoning":
    return _countable(world.difficulty.largest, kind.split(), [int(values[slot]) for slot in "abcd" if slot in values])
  return True


def _countable(largest: int, operations: Sequence[str], numbers: Sequence[int]) -> bool:
  """Whether every change is at least 1, no total is below 0, and the totals before the last lie in 1 to `largest`."""
  totals = running_totals(operations, numbers)
  return min(numbers) >= 1 and totals[-1] >= 0 and all(1 <= total <= largest for total in totals[1:-1])


def running_totals(operations: Sequence[str], numbers: Sequence[int]) -> list[int]:
  """Totals after each operation: [3, 4, 2] with plus, minus -> [3, 7, 5]."""
  totals = [numbers[0]]
  for operation, number in zip(operations, numbers[1:], strict=True):
    totals.append(totals[-1] + number if operation == "plus" else totals[-1] - number)
  return totals
