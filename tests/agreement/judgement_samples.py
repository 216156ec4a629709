"""Small sets of records to compute by hand."""

import json

from rlhf_jax.agreement.tables import judgement_table
from rlhf_jax.feedback.record_rows import to_row
from rlhf_jax.feedback.records import Annotator, Item, Judgement, Response, timestamp


def item(name, size=2, gold=None, words=None):
  texts = [" ".join(["word"] * n) for n in (words or range(1, size + 1))]
  return Item(name, f"What is {name}?", tuple(Response(text) for text in texts), gold)


def judgement(name, where, annotator, ranks=None, order=None, seconds=10.0, created=1.0e9, **fields):
  size = len(ranks or fields.get("ratings") or order or (0, 0))
  fields |= {"ranks": ranks, "seconds": seconds, "created": timestamp(created)}
  return Judgement(name, where, annotator, order or tuple(range(size)), **fields)


def records(ranks, gold=None, experts=(), orders=None, words=None, seconds=None):
  """ranks: {annotator: {item: ranks}}; gold, orders, words, seconds the same by item or (annotator, item)."""
  gold, orders, words, seconds = gold or {}, orders or {}, words or {}, seconds or {}
  sizes = {name: len(given) for own in ranks.values() for name, given in own.items()}
  items = [item(name, size, gold.get(name), words.get(name)) for name, size in sorted(sizes.items())]
  people = [Annotator(name, expert=name in experts) for name in ranks]
  judgements = [
    judgement(f"{who}/{where}", where, who, given, orders.get((who, where)), seconds.get((who, where), 10.0))
    for who, own in ranks.items()
    for where, given in own.items()
  ]
  return people, items, judgements


def table(*args, **kwargs):
  return judgement_table(*records(*args, **kwargs))


def write(path, given):
  """Records (annotators, items, judgements) as a JSONL file."""
  path.write_text("".join(json.dumps(to_row(record)) + "\n" for group in given for record in group), encoding="utf-8")
  return path
