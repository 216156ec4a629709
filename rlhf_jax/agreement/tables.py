"""Judgements as arrays: a table with a row for each judgement, and the pairs of responses that it compares."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from rlhf_jax.data import prompt_text
from rlhf_jax.feedback.ranks import dense_ranks, pair_outcomes, ranked_pairs
from rlhf_jax.feedback.records import (
  UNDONE,
  UNKNOWN_TIME,
  Annotator,
  Item,
  Judgement,
  answers,
  current,
  models_of,
  settled,
)


@dataclasses.dataclass(frozen=True)
class Table:
  """N judgements by A annotators of M items with at most K responses."""

  annotators: tuple[str, ...]
  """Ids of the annotators: [A]."""
  expert: np.ndarray
  """Whether an annotator is an expert: bool[A]."""
  num_skips: np.ndarray
  """Number of items that an annotator skipped: i64[A]."""
  items: tuple[str, ...]
  """Ids of the items: [M]."""
  prompts: tuple[str, ...]
  """Prompts of the items: [M]."""
  num_words: np.ndarray
  """Number of words of a response: f64[M, K], NaN where the item has no such response."""
  gold: np.ndarray
  """Ranks of an item by an expert: i64[M, K], -1 where there is none."""
  final: np.ndarray
  """Ranks by the final judgement that settles an item: i64[M, K], -1 where there is none."""
  num_final: int
  """Number of final judgements, one for each item that is settled."""
  models: tuple[tuple[tuple[str, ...], ...], ...]
  """Names of the models that gave each response of an item, [M][K or fewer]; () where it is unknown."""
  clusters: tuple[str, ...]
  """Cluster of the prompt of an item: [M], "" where it is unknown."""
  annotator: np.ndarray
  """Index of the annotator of a judgement: i64[N]."""
  item: np.ndarray
  """Index of the item of a judgement: i64[N]."""
  ranks: np.ndarray
  """Ranks given to the responses: i64[N, K], 0 is the best, equal ranks tie, -1 is absent. A judgement with ratings and
  no ranks has the ranks that its ratings imply, or else its answers of yes and no."""
  ratings: np.ndarray
  """Ratings given to the responses: f64[N, K], NaN where there is none."""
  yes_no: np.ndarray
  """Answers to the yes-or-no question: f64[N, K], 1 for yes, 0 for no, NaN where there is none."""
  places: np.ndarray
  """Place on the page at which a response was shown: i64[N, K], 0 the first, -1 unknown."""
  seconds: np.ndarray
  """Seconds spent on a judgement: f64[N], NaN unknown."""
  left_out: tuple[str, ...] = ()
  """Sentences that say how many judgements are not in the table, and why."""

  def where(self, judgements: np.ndarray) -> "Table":
    """The table with the judgements chosen by bool[N] alone; annotators and items stay."""
    names = ("annotator", "item", "ranks", "ratings", "yes_no", "places", "seconds")
    return dataclasses.replace(self, **{name: getattr(self, name)[judgements] for name in names})


@dataclasses.dataclass(frozen=True)
class Pairs:
  """The P pairs of ranked responses of all judgements, in their order; first < second in the order of the item."""

  judgement: np.ndarray
  """Index of the judgement, a row of the table: i64[P]."""
  annotator: np.ndarray
  """Index of the annotator: i64[P]."""
  item: np.ndarray
  """Index of the item: i64[P]."""
  first: np.ndarray
  """Index of the first response in its item: i64[P]."""
  second: np.ndarray
  """Index of the second response in its item: i64[P]."""
  unit: np.ndarray
  """Number of the combination (item, first, second), which several annotators may have judged: i64[P]."""
  outcome: np.ndarray
  """Outcome of the comparison: f64[P], 1 where the first response is better, 0.5 for a tie, 0 where the second is."""
  gold: np.ndarray
  """Outcome by the expert's ranks: f64[P], NaN where there are none."""
  earlier: np.ndarray
  """Places by which the first response was shown before the second: f64[P], NaN unknown."""
  longer: np.ndarray
  """Words by which the first response is longer than the second: f64[P]."""
  share: np.ndarray
  """Weight of the pair: f64[P], 2 / (responses ranked), since a ranking of K responses is evidence of K - 1 independent
  comparisons and not of K (K - 1) / 2."""
  num_units: int
  """Number of different units."""

  def where(self, chosen: np.ndarray) -> "Pairs":
    """The pairs chosen by bool[P] or by indices alone; units keep their numbers."""
    arrays = {f.name: getattr(self, f.name)[chosen] for f in dataclasses.fields(self) if f.name != "num_units"}
    return Pairs(**arrays, num_units=self.num_units)


def judgement_table(
  annotators: Sequence[Annotator], items: Sequence[Item], judgements: Sequence[Judgement], *, answered: bool = False
) -> Table:
  """The table of the records of `rlhf_jax.feedback.records`.

  Superseded judgements are left out, and skips are counted in `num_skips` alone. Of several judgements of one item by
  one annotator only the one created last is in the table. A final judgement, whose author has seen those of others, is
  no independent rating: it is in `final` alone. answered: whether the table is of the judgements that answer the items,
  a final one in the place of all others of its item.

  Raises:
    ValueError: a judgement names an item or annotator that is not among the records.
  """
  counted, left_out = _counted(judgements, answered)
  by_expert = settled(judgements)
  people = {person.id: i for i, person in enumerate(annotators)}
  numbers = {item.id: i for i, item in enumerate(items)}
  for judgement in (*counted, *by_expert.values()):
    for kind, key, known in (("item", judgement.item, numbers), ("annotator", judgement.annotator, people)):
      if key not in known:
        raise ValueError(f"judgement {judgement.id!r}: {kind} {key!r} is not among the {len(known)} {kind}s given")
  skips = collections.Counter(judgement.annotator for judgement in counted if judgement.skipped not in (None, UNDONE))
  orders = [(judgement, _ranks(judgement)) for judgement in counted if judgement.skipped is None]
  used = [(judgement, ranks) for judgement, ranks in orders if ranks]
  if len(used) < len(orders):
    left_out.append(f"{len(orders) - len(used)} judgements that order nothing (words or aspects alone)")
  size = max((len(item.responses) for item in items), default=0)
  gold = [_padded(item.gold_ranks, size, -1) for item in items]
  final = [_padded(_ranks(by_expert[item.id]) if item.id in by_expert else None, size, -1) for item in items]
  words = [_padded([len(response.text.split()) for response in item.responses], size, np.nan) for item in items]
  return Table(
    annotators=tuple(people),
    expert=np.array([person.expert for person in annotators], bool),
    num_skips=np.array([skips[name] for name in people], np.int64),
    items=tuple(numbers),
    prompts=tuple(prompt_text(item.prompt) for item in items),
    num_words=np.array(words, np.float64).reshape(-1, size),
    gold=np.array(gold, np.int64).reshape(-1, size),
    final=np.array(final, np.int64).reshape(-1, size),
    num_final=len(by_expert),
    models=tuple(tuple(models_of(response.source) for response in item.responses) for item in items),
    clusters=tuple(item.cluster for item in items),
    annotator=np.array([people[judgement.annotator] for judgement, _ in used], np.int64),
    item=np.array([numbers[judgement.item] for judgement, _ in used], np.int64),
    ranks=np.array([_padded(ranks, size, -1) for _, ranks in used], np.int64).reshape(-1, size),
    ratings=np.array([_padded(judgement.ratings, size, np.nan) for judgement, _ in used], float).reshape(-1, size),
    yes_no=np.array([_padded(judgement.yes_no, size, np.nan) for judgement, _ in used], float).reshape(-1, size),
    places=np.array([_places(judgement, size) for judgement, _ in used], np.int64).reshape(-1, size),
    seconds=np.array([judgement.seconds or np.nan for judgement, _ in used], np.float64),  # 0 stands for unknown
    left_out=tuple(left_out),
  )


def pairs_of(table: Table) -> Pairs:
  """Every two ranked responses of each judgement, in the order of the judgements."""
  judgement, first, second = ranked_pairs(table.ranks)
  item, size = table.item[judgement], table.ranks.shape[1]
  _, unit = np.unique((item * size + first) * size + second, return_inverse=True)
  num_ranked = (table.ranks[judgement] >= 0).sum(1)
  return Pairs(
    judgement=judgement,
    annotator=table.annotator[judgement],
    item=item,
    first=first,
    second=second,
    unit=unit,
    outcome=pair_outcomes(table.ranks[judgement, first], table.ranks[judgement, second]),
    gold=pair_outcomes(table.gold[item, first], table.gold[item, second]),
    earlier=_difference(table.places[judgement, second], table.places[judgement, first]),
    longer=table.num_words[item, first] - table.num_words[item, second],
    share=2 / num_ranked,
    num_units=len(np.unique(unit)),
  )


def _counted(judgements: Iterable[Judgement], answered: bool) -> tuple[list[Judgement], list[str]]:
  """The judgement of each annotator and item that counts, and sentences on those left out."""
  judgements = list(judgements)
  standing = current(judgements)
  wanted = answers(judgements) if answered else [judgement for judgement in standing if not judgement.final]
  latest: dict[tuple[str, str], Judgement] = {}
  for judgement in wanted:
    key = judgement.annotator, judgement.item
    if key not in latest or judgement.created >= latest[key].created:
      latest[key] = judgement
  left_out = []
  if corrected := len(judgements) - len(standing):
    left_out.append(f"{corrected} judgements that a later one supersedes")
  if repeated := len(wanted) - len(latest):
    left_out.append(f"{repeated} judgements of an item that the same annotator judged again later")
  return list(latest.values()), left_out


def _ranks(judgement: Judgement) -> Sequence[int]:
  """The ranks, or else those that the ratings or the answers of yes and no imply; empty where there is none."""
  for scores in (judgement.ratings, judgement.yes_no):
    if judgement.ranks is None and any(score is not None for score in scores or ()):
      return dense_ranks(_padded(scores, len(judgement.order), np.nan)[None])[0].tolist()
  return judgement.ranks or ()


def _places(judgement: Judgement, size: int) -> np.ndarray:
  places = np.full(size, -1, np.int64)
  if judgement.created.startswith(UNKNOWN_TIME[:19]) and judgement.order == tuple(range(len(judgement.order))):
    return places
  places[list(judgement.order)] = np.arange(len(judgement.order))
  return places


def _padded(values: Sequence | None, size: int, fill: float) -> np.ndarray:
  row = np.full(size, fill, np.float64)
  for i, value in enumerate(values or ()):
    row[i] = fill if value is None else value
  return row


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  return np.where((a >= 0) & (b >= 0), (a - b).astype(np.float64), np.nan)
