"""Records of the rows that learners read: the rows of `learner_rows`, and the comparisons that a run writes.

A row compares responses, {"prompt", "responses", "ranks"}, or speaks of one, {"prompt", "response"} with "rating",
"label" (yes or no), "critique", "rewrite", "flags" or "spans". Rows of one "group" become one judgement again,
whichever files they stand in. The responses of an "item" are all those that its rows name. A row without a group is a
judgement of its own.

A row may say where its responses are from: "source", an object as `Response.source`, or "sources", one for each
response. Without them, and without an item, the source is the file. "cluster" is that of the prompt, and "final": true
marks the judgement of an expert that settles the item.

Rows hold neither the time nor the order of display, the kind of the annotator nor the responses without an
opinion: `seconds` is 0, `created` is 1970, `order` is that of the rows, and annotators count as human; annotators of
rows with "gold" scores, as the stages of a run write them, count as simulated, and whoever gave a final judgement as an
expert.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlhf_jax.data import DataError, Prompt, prompt_of
from rlhf_jax.feedback.checks import check_id, check_length, check_ranks, check_text, check_type
from rlhf_jax.feedback.ranks import dense_ranks, pair_outcomes
from rlhf_jax.feedback.records import Annotator, Item, Judgement, Record, Response, content_id, make_item

Slot = tuple[str, int]  # a response: its text, and the number of earlier responses with the same text
Said = dict[Slot, dict[str, Any]]  # response -> column -> value in the rows
COLUMNS = ("rating", "label", "critique", "rewrite", "flags", "spans")  # of a row that speaks of one response
FIELDS: dict[str, tuple[str, Any]] = {  # field of Judgement -> its column, and its value where a response has none
  "ranks": ("rank", -1), "ratings": ("rating", None), "critiques": ("critique", ""), "rewrites": ("rewrite", ""),
  "flags": ("flags", ()), "spans": ("spans", ()), "yes_no": ("label", None),
}  # fmt: skip


class _Opinion(NamedTuple):
  """The content of a row or, after `_merge`, of all rows of a judgement; `item` and `group` are "" where absent."""

  where: str
  file: str
  line: int
  group: str
  item: str
  annotator: str
  prompt: Prompt
  said: Said
  strength: int | None
  sources: dict[Slot, dict[str, Any]]  # those that the rows tell
  cluster: str
  final: bool


def records_of_rows(
  files: Iterable[tuple[Path, Sequence[tuple[int, Mapping[str, Any]]]]],
) -> Iterator[tuple[str, Record]]:
  """(path, rows with their line numbers) of all files -> ("file:line", record), the judgement of an item after it.

  Pairs of one group become the ranking that they make up. Where they make up none (some were removed, or contradict
  each other), each of them becomes a judgement of two responses.

  Raises:
    DataError: naming file and line: a row is malformed, or contradicts an earlier row of its group.
  """
  groups: dict[tuple[str, str], list[_Opinion]] = {}
  for path, rows in files:
    seen: Counter[tuple[str, ...]] = Counter()
    for line, row in rows:
      opinion = _parse(path, line, row, seen)
      groups.setdefault(("group", opinion.group) if opinion.group else ("row", opinion.where), []).append(opinion)
  opinions = [opinion for rows_of_group in groups.values() for opinion in _merge(rows_of_group)]
  items: dict[str, dict[Slot, dict[str, Any]]] = {}  # item -> its responses, each with its first source
  clusters: dict[str, str] = {}
  for opinion in filter(lambda opinion: opinion.item, opinions):
    known = items.setdefault(opinion.item, {})
    for slot in opinion.said:
      known[slot] = known.get(slot) or opinion.sources.get(slot, {})
    clusters[opinion.item] = clusters.get(opinion.item) or opinion.cluster
  experts = {opinion.annotator for opinion in opinions if opinion.final}
  for opinion in opinions:
    slots = {slot: opinion.sources.get(slot) or {"file": opinion.file} for slot in opinion.said}
    whole = opinion._replace(cluster=clusters.get(opinion.item, opinion.cluster))
    records = _records(whole, items.get(opinion.item, slots), opinion.annotator in experts)
    yield from ((opinion.where, record) for record in records)


def _parse(path: Path, line: int, row: Mapping[str, Any], seen: Counter[tuple[str, ...]]) -> _Opinion:
  where = f"{path}:{line}"
  names = {name: row.get(name) or default for name, default in (("group", ""), ("item", ""), ("annotator", "unknown"))}
  try:
    prompt = prompt_of(dict(row), where)
    for name, value in names.items():
      if value:
        check_id(name, value)
    if "responses" in row and "ranks" in row:
      said, strength = _compared(row), row.get("strength")
    elif "response" in row and any(row.get(column) is not None for column in COLUMNS):
      said, strength = _commented(row, names["group"] or where, seen), None
    else:
      raise ValueError(
        f"found the columns {', '.join(row)}; a row is a record with a 'type', or has 'prompt', 'responses' and "
        f"'ranks', or 'prompt', 'response' and one of {', '.join(map(repr, COLUMNS))}"
      )
  except DataError:
    raise
  except ValueError as error:
    raise DataError(f"{where}: {error}") from error
  sources = _sources(row, said)
  cluster = row.get("cluster")
  return _Opinion(where, path.name, line, **names, prompt=prompt, said=said, strength=strength, sources=sources,
                  cluster=cluster if isinstance(cluster, str) else "", final=row.get("final") is True)  # fmt: skip


def _sources(row: Mapping[str, Any], said: Said) -> dict[Slot, dict[str, Any]]:
  """The sources that are objects; a column of these names that holds something else means something else."""
  given = row.get("sources") if "ranks" in row else [row.get("source")]
  told = given if isinstance(given, list) and len(given) == len(said) else []
  return {slot: source for slot, source in zip(said, told, strict=False) if isinstance(source, dict) and source}


def _compared(row: Mapping[str, Any]) -> Said:
  texts = check_type("responses", row["responses"], list)
  for i, text in enumerate(texts):
    check_text(f"responses[{i}]", text)
  ranks = tuple(check_type("ranks", row["ranks"], list))
  check_ranks("ranks", ranks, len(texts))
  seen: Counter[str] = Counter()
  said: Said = {}
  for text, rank in zip(texts, ranks, strict=True):
    said[text, seen[text]] = {"rank": rank}
    seen[text] += 1
  if row.get("gold") is not None:
    if row.get("group") or row.get("item"):
      raise ValueError("'gold' scores belong to comparisons without 'group' and 'item'")
    gold = check_type("gold", row["gold"], list)
    check_length("gold", tuple(gold), len(texts))
    if any(type(score) not in (int, float) for score in gold):
      raise ValueError(f"'gold' must be numbers, found {gold!r:.60}")
    for columns, rank in zip(said.values(), dense_ranks(np.array([gold], np.float64))[0].tolist(), strict=True):
      columns["gold"] = rank
  return said


def _commented(row: Mapping[str, Any], group: str, seen: Counter[tuple[str, ...]]) -> Said:
  text = row["response"]
  check_text("response", text)
  said: Said = {}
  for column in COLUMNS:
    value = row.get(column)
    if value is not None:
      key = group, column, text
      if column in ("flags", "spans"):
        value = tuple(tuple(part) if isinstance(part, list) else part for part in check_type(column, value, list))
      said.setdefault((text, seen[key]), {})[column] = value
      seen[key] += 1
  return said


def _merge(rows: Sequence[_Opinion]) -> list[_Opinion]:
  """The judgement of the rows of one group, or a judgement of each pair where the pairs make up no ranking."""
  first = rows[0]
  said: Said = {}
  sources = {slot: source for row in reversed(rows) for slot, source in row.sources.items()}
  compared: list[_Opinion] = []
  for row in rows:
    for name in ("annotator", "item", "prompt", "final"):
      mine, known = getattr(row, name), getattr(first, name)
      if mine != known:
        raise DataError(f"{row.where}: {name!r} is {mine!r:.60}, but {known!r:.60} in the same group at {first.where}")
    if _is_comparison(row):
      if not any((row.said, row.strength) == (other.said, other.strength) for other in compared):
        compared.append(row)
      continue
    for slot, columns in row.said.items():
      for column, value in columns.items():
        if said.setdefault(slot, {}).setdefault(column, value) != value:
          raise DataError(f"{row.where}: {column!r} is {value!r:.60}, but another one earlier in the same group")
  ranking = compared[0].said if len(compared) == 1 else _ranking_of_pairs(compared)
  if ranking is None:
    alone = [row._replace(group="", item="") for row in compared]
    return alone + ([first._replace(said=said, strength=None, sources=sources)] if said else [])
  ranked = {slot: {**columns, **said.pop(slot, {})} for slot, columns in ranking.items()}
  strength = compared[0].strength if len(compared) == 1 else None
  return [first._replace(said=ranked | said, strength=strength, sources=sources)]


def _is_comparison(row: _Opinion) -> bool:
  return any("rank" in columns for columns in row.said.values())


def _ranking_of_pairs(rows: Sequence[_Opinion]) -> Said | None:
  """The ranking of K responses that K (K - 1) / 2 pairs make up; None where they make up none."""
  worse: Counter[Slot] = Counter({slot: 0 for row in rows for slot in row.said})  # responses that are better
  for row in rows:
    if len(row.said) != 2:
      raise DataError(f"{row.where}: a ranking of {len(row.said)}, and its group has other ranks too; keep one of them")
    (a, first), (b, second) = row.said.items()
    worse[a] += second["rank"] < first["rank"]
    worse[b] += first["rank"] < second["rank"]
  if not len(rows) == len({frozenset(row.said) for row in rows}) == len(worse) * (len(worse) - 1) // 2:
    return None
  ranks = dict(zip(worse, dense_ranks(-np.array([list(worse.values())], np.float64))[0].tolist(), strict=True))
  for row in rows:
    (a, first), (b, second) = row.said.items()
    given, derived = ((first["rank"], second["rank"]), (ranks[a], ranks[b]))
    if pair_outcomes(*map(np.array, given)) != pair_outcomes(*map(np.array, derived)):
      return None
  return {slot: {"rank": rank} for slot, rank in ranks.items()}


def _records(
  opinion: _Opinion, slots: Mapping[Slot, dict[str, Any]], expert: bool
) -> tuple[Annotator, Item, Judgement]:
  """The records of a judgement of the item with these responses and their sources. expert: of the annotator."""
  said = [opinion.said.get(slot, {}) for slot in slots]
  gold = [columns["gold"] for columns in said] if "gold" in said[0] else None
  fields: dict[str, Any] = {
    field: tuple(columns.get(column, absent) for columns in said)
    for field, (column, absent) in FIELDS.items()
    if any(column in columns for columns in said)
  }
  try:
    responses = [Response(text, source) for (text, _), source in slots.items()]
    item = make_item(opinion.prompt, responses, gold, opinion.cluster)
    if opinion.item:
      item = Item(opinion.item, opinion.prompt, item.responses, cluster=opinion.cluster)
    name = opinion.group or content_id([item.id, opinion.annotator, opinion.line])
    order = tuple(range(len(slots)))
    fields |= {"strength": opinion.strength, "final": opinion.final}
    judgement = Judgement(name, item.id, opinion.annotator, order, **fields)
  except ValueError as error:
    raise DataError(f"{opinion.where}: {error}") from error
  return Annotator(opinion.annotator, "human" if gold is None else "simulated", expert), item, judgement
