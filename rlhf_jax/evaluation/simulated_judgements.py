"""Judgements of simulated labellers: of one item, and a whole study without a model.

In the study demonstrators answer the world's tasks, and labellers rank the answers.
"""

import collections
import datetime
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from rlhf_jax.data import prompt_text
from rlhf_jax.feedback.ranks import dense_ranks
from rlhf_jax.feedback.records import (
  NOTHING_TO_ADD,
  Annotator,
  Item,
  Judgement,
  Records,
  Response,
  make_item,
  timestamp,
)
from rlhf_jax.world import (
  CLUSTERS,
  Labeller,
  Traits,
  accepts,
  answering_seconds,
  demonstrate,
  gold_parts,
  make_world,
  perceive,
  prompt_seconds,
  ratings,
  sample_tasks,
  strength,
  traits_of,
)

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp()
HABITS = MappingProxyType({
  "ideal": 0.4, "terse": 0.15, "rambling": 0.15, "wrong": 0.2, "misleading": 0.05, "doubting": 0.1, "refusing": 0.1,
  "claiming": 0.3, "complying": 0.3,
})  # fmt: skip


def simulate_judgements(
  labellers: Sequence[Labeller],
  *,
  num_items: int,
  judges: int,
  responses: int = 4,
  gold_share: float = 0.15,
  habits: Mapping[str, float] = HABITS,
  seed: int = 0,
) -> Records:
  """Records of a study in which `judges` labellers rank each of `num_items` items of the world of `seed`.

  responses: number of responses of an item, different texts by demonstrators whose habits have the weights `habits`.
  gold_share: share of the items that are stored with the gold order. The numbers of items of two labellers differ by
  one at most; each sees the responses in a display order of their own.

  Raises:
    ValueError: there are more judges than labellers.
  """
  if judges > len(labellers):
    raise ValueError(f"judges: {judges} of {len(labellers)} labellers cannot judge an item each")
  rng = np.random.default_rng([seed, 17])
  items, pages = _items(num_items, responses, round(gold_share * num_items), habits, seed, rng)
  judgements: list[Judgement] = []
  judged = collections.Counter[int]()
  for number, (item, page) in enumerate(zip(items, pages, strict=True)):
    for person in _judges(len(labellers), judges, number, seed):
      number, before = len(judgements), judged[person]
      judgements.append(judge_item(labellers[person], item, page, rng, ("ranks",), number=number, judged=before))
      judged[person] += 1
  return annotator_records(labellers), items, judgements


def judge_item(
  labeller: Labeller,
  item: Item,
  page: Traits,
  rng: np.random.Generator,
  kinds: Sequence[str],
  *,
  number: int,
  judged: int,
  study: str = "j",
  critiques: tuple[str, ...] | None = None,
) -> Judgement:
  """A labeller's judgement of an item whose responses have the traits `page`, each f[K]; the `number`-th of a study.

  judged: number of items that the labeller judged before.
  kinds: opinions that are given, a part of `rlhf_jax.feedback.records.OPINIONS`; all come from one noisy look. Two
  ranked responses get a strength too. A labeller without kinds and critiques skips the item. The seconds are those of
  the look and of all that the page asks beside (`rlhf_jax.world.seconds`).
  """
  num = len(item.responses)
  places = rng.permutation(num)
  look = perceive(labeller, page, rng, judged, places)
  ranked = "ranks" in kinds and num > 1
  beside = prompt_seconds(prompt_text(item.prompt)) + answering_seconds(kinds, num, critiques)
  return Judgement(
    f"{study}{number + 1}",
    item.id,
    labeller.name,
    order=tuple(int(i) for i in np.argsort(places)),
    ratings=tuple(ratings(labeller, look.logits).tolist()) if "ratings" in kinds else None,
    ranks=tuple(np.argsort(np.argsort(-look.logits)).tolist()) if ranked else None,
    strength=strength(look.logits) if ranked and num == 2 else None,
    yes_no=tuple(accepts(labeller, look.logits).tolist()) if "yes_no" in kinds else None,
    critiques=critiques,
    skipped=None if kinds or any(critiques or ()) else NOTHING_TO_ADD,
    seconds=round(look.seconds + labeller.pace * beside, 1),
    guidelines="1",
    created=timestamp(START + 60 * number),
  )


def annotator_records(labellers: Sequence[Labeller]) -> list[Annotator]:
  """The labellers as annotators of records, in which nothing but the name tells the kind."""
  return [Annotator(labeller.name, "simulated", labeller.kind == "expert") for labeller in labellers]


def _items(
  num: int, size: int, num_gold: int, habits: Mapping[str, float], seed: int, rng: np.random.Generator
) -> tuple[list[Item], list[Traits]]:
  """Items of `size` different responses, `num_gold` of them with gold ranks, and the traits f64[K] of each."""
  world = make_world(seed)
  items: dict[str, Item] = {}
  pages: list[Traits] = []
  tasks = iter(sample_tasks(world, CLUSTERS, 4 * num + 100, seed))  # some have too few different answers
  while len(items) < num:
    task = next(tasks)
    texts = dict.fromkeys(demonstrate(world, task, rng, habits)[0] for _ in range(4 * size))
    if len(texts) < size:
      continue
    chosen = list(texts)[:size]
    page = traits_of(gold_parts([task.prompt] * size, chosen, seed), chosen)
    is_gold = len(items) < num_gold
    responses = [Response(text, {"file": "demonstrators"}) for text in chosen]
    item = make_item(task.prompt, responses, dense_ranks(page.total[None])[0].tolist() if is_gold else None)
    if item.id not in items:
      items[item.id] = item
      pages.append(page)
  order = rng.permutation(num)
  everything = list(items.values())
  return [everything[i] for i in order], [pages[i] for i in order]


def _judges(num_labellers: int, judges: int, item: int, seed: int) -> np.ndarray:
  """Indices i64[judges] of the labellers of an item, dealt from a deck that is shuffled anew whenever it is empty."""
  per_deck = num_labellers // judges
  deck = np.random.default_rng([seed, 18, item // per_deck]).permutation(num_labellers)
  start = (item % per_deck) * judges
  return deck[start : start + judges]
