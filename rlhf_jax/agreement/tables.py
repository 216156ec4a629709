"""Records of judgements -> arrays that statistics can be computed on."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from rlhf_jax.feedback.ranks import dense_ranks, pair_outcomes, ranked_pairs
from rlhf_jax.feedback.records import UNDONE, UNKNOWN_TIME, Annotator, Item, Judgement, current


@dataclasses.dataclass(frozen=True)
class Table:
  """N judgements that count, of A annotators on M items with at most K responses.

  annotators, expert, num_skips: id, bool and number of skipped items of each annotator: [A].
  items, prompts: id and prompt of each item: [M].
  num_words: f64[M, K], NaN where the item has no such response.
  gold: i64[M, K], an expert's ranks of a gold item; -1 elsewhere.
  annotator, item: i64[N].
  ranks: i64[N, K], 0 is the best, equal is a tie, -1 is absent. Ratings without ranks are ranked.
  ratings: f64[N, K], NaN where there is none.
  places: i64[N, K], the place on the page at which a response was shown, 0 the first; -1 unknown.
  seconds: f64[N], NaN unknown.
  left_out: what was not used, and why, for the reader.
  """

  annotators: tuple[str, ...]
  expert: np.ndarray
  num_skips: np.ndarray
  items: tuple[str, ...]
  prompts: tuple[str, ...]
  num_words: np.ndarray
  gold: np.ndarray
  annotator: np.ndarray
  item: np.ndarray
  ranks: np.ndarray
  ratings: np.ndarray
  places: np.ndarray
  seconds: np.ndarray
  left_out: tuple[str, ...] = ()

  def where(self, judgements: np.ndarray) -> "Table":
    """The table with these judgements alone: bool[N]. Annotators and items stay."""
    names = ("annotator", "item", "ranks", "ratings", "places", "seconds")
    return dataclasses.replace(self, **{name: getattr(self, name)[judgements] for name in names})


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Every ranking as its P pairs of present responses, first < second in the item's own order.

  judgement, annotator, item, first, second: i64[P]. unit: i64[P], the number of (item, first, second), below num_units.
  outcome: f64[P], 1 where the first is better, 0.5 a tie, 0 where the second is. gold: the same by the expert, NaN
  without one. earlier: f64[P], places by which the first stood before the second, NaN unknown. longer: f64[P], words
  by which the first is longer. share: f64[P], 2 / (responses ranked): a ranking of K is K - 1 comparisons' worth of
  evidence, not K (K - 1) / 2.
  """

  judgement: np.ndarray
  annotator: np.ndarray
  item: np.ndarray
  first: np.ndarray
  second: np.ndarray
  unit: np.ndarray
  outcome: np.ndarray
  gold: np.ndarray
  earlier: np.ndarray
  longer: np.ndarray
  share: np.ndarray
  num_units: int

  def where(self, chosen: np.ndarray) -> "Pairs":
    """These pairs alone: bool[P] or indices; units keep their numbers."""
    arrays = {f.name: getattr(self, f.name)[chosen] for f in dataclasses.fields(self) if f.name != "num_units"}
    return Pairs(**arrays, num_units=self.num_units)


def judgement_table(annotators: Sequence[Annotator], items: Sequence[Item], judgements: Sequence[Judgement]) -> Table:
  """The records of `rlhf_jax.feedback.records` as arrays.

  Superseded judgements do not count, a skip counts as a skip. Of several judgements of one item by one annotator the
  last one created counts. Raises ValueError for a judgement of an unknown item or annotator.
  """
  counted, left_out = _counted(judgements)
  people = {person.id: i for i, person in enumerate(annotators)}
  numbers = {item.id: i for i, item in enumerate(items)}
  for judgement in counted:
    for what, key, known in (("item", judgement.item, numbers), ("annotator", judgement.annotator, people)):
      if key not in known:
        raise ValueError(f"judgement {judgement.id!r}: {what} {key!r} is not among the {len(known)} {what}s given")
  skips = collections.Counter(judgement.annotator for judgement in counted if judgement.skipped not in (None, UNDONE))
  orders = [(judgement, _ranks(judgement)) for judgement in counted if judgement.skipped is None]
  used = [(judgement, ranks) for judgement, ranks in orders if ranks]
  if len(used) < len(orders):
    left_out.append(f"{len(orders) - len(used)} judgements without ranks or ratings (words alone)")
  size = max((len(item.responses) for item in items), default=0)
  gold = [_padded(item.gold_ranks, size, -1) for item in items]
  words = [_padded([len(response.text.split()) for response in item.responses], size, np.nan) for item in items]
  return Table(
    annotators=tuple(people),
    expert=np.array([person.expert for person in annotators], bool),
    num_skips=np.array([skips[name] for name in people], np.int64),
    items=tuple(numbers),
    prompts=tuple(item.prompt for item in items),
    num_words=np.array(words, np.float64).reshape(-1, size),
    gold=np.array(gold, np.int64).reshape(-1, size),
    annotator=np.array([people[judgement.annotator] for judgement, _ in used], np.int64),
    item=np.array([numbers[judgement.item] for judgement, _ in used], np.int64),
    ranks=np.array([_padded(ranks, size, -1) for _, ranks in used], np.int64).reshape(-1, size),
    ratings=np.array([_padded(judgement.ratings, size, np.nan) for judgement, _ in used], float).reshape(-1, size),
    places=np.array([_places(judgement, size) for judgement, _ in used], np.int64).reshape(-1, size),
    seconds=np.array([judgement.seconds or np.nan for judgement, _ in used], np.float64),  # 0 is unknown
    left_out=tuple(left_out),
  )


def pairs_of(table: Table) -> Pairs:
  """All pairs of responses that were judged together, in the order of the judgements."""
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


def _counted(judgements: Iterable[Judgement]) -> tuple[list[Judgement], list[str]]:
  """The current judgement of each annotator and item, and what was left out."""
  judgements = list(judgements)
  standing = current(judgements)
  latest: dict[tuple[str, str], Judgement] = {}
  for judgement in standing:
    key = judgement.annotator, judgement.item
    if key not in latest or judgement.created >= latest[key].created:
      latest[key] = judgement
  left_out = []
  if corrected := len(judgements) - len(standing):
    left_out.append(f"{corrected} judgements that a later one supersedes")
  if repeated := len(standing) - len(latest):
    left_out.append(f"{repeated} judgements of an item that the same annotator judged again later")
  return list(latest.values()), left_out


def _ranks(judgement: Judgement) -> Sequence[int]:
  """The ranks, or those that the ratings imply; empty where nothing was ordered."""
  if judgement.ranks is not None or judgement.ratings is None:
    return judgement.ranks or ()
  ranks = dense_ranks(_padded(judgement.ratings, len(judgement.ratings), np.nan)[None])[0]
  return ranks.tolist() if (ranks >= 0).any() else ()


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
