"""Sources: where rows come from, as a config describes it, and the readers that hold all records of a small one.

dict(path="alpaca.json.gz")
dict(path="squad/*.parquet", columns=dict(prompt="question", response="answers.text.0"))
dict(path="owner/name", format="datasets", split="train")
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from rlhf_jax.data import row_formats
from rlhf_jax.data.dialogue import UnusableDialogue, render_prompt, render_response
from rlhf_jax.data.files import DataError, PathLike, RowError, read_text
from rlhf_jax.data.readers import Format, Rows, open_rows
from rlhf_jax.data.row_formats import Comparison, Critique, Demonstration, Ratings, Shapes
from rlhf_jax.data.row_values import rename, value

Skip = Literal["malformed", "schema", "duplicate", "unusable", "too_long"]


@dataclass(frozen=True)
class Source:
  """Where rows come from.

  path: a file (which may be .gz), several of them ("part-*.parquet"), a directory, or the name of a data set. format:
  "auto" tells by the name; "text" hands on a long text in pieces, "lines" each line as {"text"}, "tsv" columns named
  0, 1, ... split, subset: of a data set. columns: our name -> the file's, one entry a column. templates: phrasings as
  (prompt, answer) with columns in braces, "zero_shot", "chain_of_thought", or "FILE:TASK" (see `data.prompting`); none
  where the row is a demonstration. shots: numbers of solved examples in front of a prompt, one of which is drawn.
  weight: in a mixture. rows: how many it has, where that cannot be counted. skip: what may be left out, and is counted
  by reason: "malformed" rows (no UTF-8, no JSON), those whose "schema" is wrong, a "duplicate" of an id (the column
  `columns.id`), those that are "unusable" (an empty answer, say) or "too_long". All else that is wrong stops the run.
  """

  path: str
  format: Format = "auto"
  split: str = "train"
  subset: str = ""
  columns: dict[str, str] = field(default_factory=dict)
  templates: str | tuple[tuple[str, ...], ...] = ()
  shots: tuple[int, ...] = (0,)
  weight: float = 1.0
  rows: int = 0
  skip: tuple[Skip, ...] = ("unusable", "too_long")

  def __post_init__(self):
    if self.weight <= 0 or self.rows < 0:
      raise ValueError(f"weight={self.weight} must be above 0, and rows={self.rows} at least 0")
    if not self.shots or min(self.shots) < 0:
      raise ValueError(f"shots={self.shots} must be numbers of examples, each at least 0")

  def open(self) -> Rows:
    """Its rows, not yet read."""
    return open_rows(self.path, self.format, self.split, self.subset)


def read_demonstrations(source: PathLike | Source) -> tuple[list[Demonstration], Counter]:
  """Demonstrations and the counted reasons of skipped ones.

  Accepts {prompt, response}, {messages}, Alpaca {instruction, input, output}, self-instruct {instruction, instances}
  (a demonstration per instance), and the chosen side of comparisons: {prompt, chosen} or HH {chosen}.

  Raises:
    DataError: the source cannot be read, the columns are none of these, a value has a wrong type, or no row is usable.
  """
  return read_records(source, row_formats.DEMONSTRATIONS)


def read_corpus(path: PathLike) -> str:
  """The text of a file to learn language from: plain text, or the rendered dialogues of rows (.json, .jsonl).

  Raises:
    DataError: as `read_text` and `read_demonstrations` do.
  """
  if ".json" not in os.fspath(path):
    return read_text(path)
  demonstrations, _ = read_demonstrations(path)
  return "".join(render_prompt(d.prompt) + render_response(d.response) for d in demonstrations)


def stream_corpus(path: PathLike) -> Iterator[str]:
  """The text of `read_corpus` in pieces, of which one at a time is in memory; rows may have a column "text" instead.

  Raises:
    DataError: while it is read: as `read_corpus`.
  """
  is_rows = any(mark in os.fspath(path) for mark in (".json", ".parquet"))
  source = Source(os.fspath(path), format="auto" if is_rows else "text")
  for where, row in source.open().stream(0):
    if isinstance(row, dict) and "text" in row:
      yield value(row, "text", str, where)
    else:
      for prompt, response in records_of(source, where, row, row_formats.DEMONSTRATIONS, Counter()):
        yield render_prompt(prompt) + render_response(response)


def read_comparisons(source: PathLike | Source) -> tuple[list[Comparison], Counter]:
  """Comparisons and the counted reasons of skipped ones.

  Accepts {prompt, responses, ranks}, {prompt, chosen, rejected} and whole dialogues {chosen, rejected}, as HH texts or
  as messages, all with an optional annotator, and OASST trees: a prompter's turn with two or more ranked replies is one
  ranked list (unranked replies are absent) under the dialogue so far; ranked turns of the prompter are no responses.

  Raises:
    DataError: the source cannot be read, the columns are none of these, a value has a wrong type, or no row is usable.
  """
  return read_records(source, row_formats.COMPARISONS)


def read_ratings(source: PathLike | Source) -> tuple[list[Ratings], Counter]:
  """Ratings, from {prompt, responses, ratings} or {prompt, response, rating}, and the counted reasons of skipped ones.

  Raises:
    DataError: the source cannot be read, the columns are none of these, a value has a wrong type, or no row is usable.
  """
  return read_records(source, row_formats.RATINGS)


def read_critiques(source: PathLike | Source) -> tuple[list[Critique], Counter]:
  """Feedback in words, from {prompt, response} with critique, rewrite or both, and the counted reasons of skipped ones.

  Raises:
    DataError: the source cannot be read, the columns are none of these, a value has a wrong type, or no row is usable.
  """
  return read_records(source, row_formats.CRITIQUES)


def read_prompts(source: PathLike | Source) -> tuple[list[str], Counter]:
  """Prompts in the order of the file, and the counted reasons of skipped ones.

  Accepts {prompt} rows and every shape of `read_demonstrations` and `read_comparisons`. A prompt that stands in the
  file several times is returned as often: the file is the distribution that prompts are drawn from.

  Raises:
    DataError: the source cannot be read, the columns are none of these, a value has a wrong type, or no row is usable.
  """
  return read_records(source, row_formats.PROMPTS)


def read_records(source: PathLike | Source, shape: Shapes) -> tuple[list[Any], Counter]:
  """All records of one shape, in order, and the counted reasons of skipped ones. Raises DataError."""
  source = source if isinstance(source, Source) else Source(os.fspath(source))
  skips: Counter = Counter()
  duplicates = find_duplicates(source)
  stream = enumerate(source.open().stream(0))
  records = [record for i, row in stream for record in records_of(source, *row, shape, skips, i in duplicates)]
  if not records:
    reasons = ", ".join(f"{reason}: {count}" for reason, count in skips.items()) or "they hold no such record"
    raise DataError(f"{source.path}: none of its rows is usable ({reasons}); check that this is the file you meant")
  return records, skips


def records_of(
  source: Source, where: str, row: dict | RowError, shape: Shapes, skips: Counter, duplicate: bool = False
) -> Iterator[Any]:
  """The usable records of one row; what the source allows to leave out is counted in `skips`. Raises RowError."""
  try:
    if duplicate:
      found = rename(row, source.columns, where)["id"]
      raise RowError(f"{where}: the id {found!r} stands in a row before it, too", "duplicate")
    if isinstance(row, RowError):
      raise row
    for record in shape.parse(rename(row, source.columns, where), where):
      reason = shape.problem(record)
      if reason is None:
        yield record
      else:
        leave_out(source, skips, where, reason, "unusable")
  except UnusableDialogue as error:
    leave_out(source, skips, where, str(error), "unusable")
  except RowError as error:
    if error.kind not in source.skip:
      raise
    reasons = {"malformed": "malformed row", "schema": "wrong columns or types", "duplicate": "duplicate id"}
    skips[reasons[error.kind]] += 1


def find_duplicates(source: Source) -> frozenset[int]:
  """The numbers of the rows whose id (the column `columns.id`) stands in a row before; none where no id is named.

  Holds one hash a row while it looks.
  """
  if "id" not in source.columns:
    return frozenset()
  seen, found = set(), set()
  for number, (where, row) in enumerate(source.open().stream(0)):
    if isinstance(row, RowError):
      continue
    try:
      mark = hash(repr(rename(row, {"id": source.columns["id"]}, where)["id"]))
    except RowError:
      continue  # told, or counted, where the row is read
    if mark in seen:
      found.add(number)
    seen.add(mark)
  return frozenset(found)


def leave_out(source: Source, skips: Counter, where: str, reason: str, kind: Skip) -> None:
  """Counts what the source allows to leave out. Raises RowError for all else."""
  if kind not in source.skip:
    raise RowError(f"{where}: {reason}; repair the row, or name {kind!r} in the source's skip", kind)
  skips[reason] += 1
