"""Sources: where rows come from, as a config describes it, and functions that read all records of a source.

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
from rlhf_jax.data.files import DataError, PathLike, Row, RowError, read_text
from rlhf_jax.data.readers import Rows, SourceFormat, open_rows
from rlhf_jax.data.row_formats import Comparison, Critique, Demonstration, Ratings, RowFormats
from rlhf_jax.data.row_values import rename, value

Skip = Literal["malformed", "schema", "duplicate", "unusable", "too_long"]


@dataclass(frozen=True)
class Source:
  """Where rows come from. A fault of a row stops the run unless `skip` names its kind."""

  path: str
  """Path of a file (.gz too), pattern of several files ("part-*.parquet"), directory, or name of a data set."""
  format: SourceFormat = "auto"
  """Format of the rows; "auto" tells it by the path. "text" makes rows {text} of pieces of a long text, "lines" of its
  lines, and "tsv" has columns named 0, 1, and so on."""
  split: str = "train"
  """Split of a data set that is read; files have none."""
  subset: str = ""
  """Subset, or configuration, of a data set; "" for a data set without subsets."""
  columns: dict[str, str] = field(default_factory=dict)
  """Names for columns of the file, as {our name: name or path in the file}, such as {"response": "answers.text.0"}. The
  name "id" marks the column by which duplicates are found."""
  templates: str | tuple[tuple[str, ...], ...] = ()
  """Phrasings of a row, as pairs (prompt, answer) of texts with columns in braces, or "zero_shot", "chain_of_thought"
  or "FILE:NAME" (see `rlhf_jax.data.templates`); () where a row is a demonstration already."""
  shots: tuple[int, ...] = (0,)
  """Numbers of solved examples in front of a prompt, of which one is drawn for each prompt; 0 for no examples."""
  weight: float = 1.0
  """Weight of the source in a mixture, above 0: a factor beside its number of rows, or alone with mixing="weights"."""
  rows: int = 0
  """Number of rows, for a source in which they cannot be counted; 0 to count them."""
  skip: tuple[Skip, ...] = ("unusable", "too_long")
  """Faults for which a row is left out and counted: "malformed" (no UTF-8, no JSON), "schema" (wrong columns or types),
  "duplicate" (of an id), "unusable" (an empty answer, for instance), "too_long" (more tokens than a row holds)."""

  def __post_init__(self) -> None:
    if self.weight <= 0 or self.rows < 0:
      raise ValueError(f"weight={self.weight} must be above 0, and rows={self.rows} at least 0")
    if not self.shots or min(self.shots) < 0:
      raise ValueError(f"shots={self.shots} must be numbers of examples, each at least 0")

  def open(self) -> Rows:
    """The rows of the source, not yet read. Raises DataError."""
    return open_rows(self.path, self.format, self.split, self.subset)


def read_demonstrations(source: PathLike | Source) -> tuple[list[Demonstration], Counter[str]]:
  """(demonstrations, {reason: how many were skipped for it}).

  Accepts {prompt, response}, {messages}, Alpaca {instruction, input, output}, self-instruct {instruction, instances}
  (one demonstration per instance), and the chosen side of comparisons: {prompt, chosen} or HH {chosen}.

  Raises:
    DataError: the source cannot be read, its columns are none of these, a value has a wrong type, or no row is usable.
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
  """The text of `read_corpus` in pieces, of which memory holds one at a time; rows may have a column "text" instead.

  Raises:
    DataError: as `read_corpus`, while the text is read.
  """
  is_rows = any(mark in os.fspath(path) for mark in (".json", ".parquet"))
  source = Source(os.fspath(path), format="auto" if is_rows else "text")
  for where, row in source.open().stream(0):
    if isinstance(row, dict) and "text" in row:
      yield value(row, "text", str, where)
    else:
      for prompt, response in records_of(source, where, row, row_formats.DEMONSTRATIONS, Counter()):
        yield render_prompt(prompt) + render_response(response)


def read_comparisons(source: PathLike | Source) -> tuple[list[Comparison], Counter[str]]:
  """(comparisons, {reason: how many were skipped for it}).

  Accepts {prompt, responses, ranks}, {prompt, chosen, rejected} and whole dialogues {chosen, rejected}, as HH texts or
  as messages, all with an optional annotator, and OASST trees. In a tree each prompter's turn with two or more ranked
  replies is one comparison under the dialogue so far, in which replies without a rank are absent.

  Raises:
    DataError: the source cannot be read, its columns are none of these, a value has a wrong type, or no row is usable.
  """
  return read_records(source, row_formats.COMPARISONS)


def read_ratings(source: PathLike | Source) -> tuple[list[Ratings], Counter[str]]:
  """(ratings, {reason: how many were skipped for it}).

  Accepts {prompt, responses, ratings} and {prompt, response, rating}, with an optional annotator.

  Raises:
    DataError: the source cannot be read, its columns are none of these, a value has a wrong type, or no row is usable.
  """
  return read_records(source, row_formats.RATINGS)


def read_critiques(source: PathLike | Source) -> tuple[list[Critique], Counter[str]]:
  """(critiques, {reason: how many were skipped for it}).

  Accepts {prompt, response} with critique, rewrite or both, and an optional annotator.

  Raises:
    DataError: the source cannot be read, its columns are none of these, a value has a wrong type, or no row is usable.
  """
  return read_records(source, row_formats.CRITIQUES)


def read_prompts(source: PathLike | Source) -> tuple[list[str], Counter[str]]:
  """(prompts in the order of the file, {reason: how many were skipped for it}).

  Accepts {prompt} rows and every format of `read_demonstrations` and `read_comparisons`. A prompt that stands in the
  file several times is returned as often: the file is the distribution that prompts are drawn from.

  Raises:
    DataError: the source cannot be read, its columns are none of these, a value has a wrong type, or no row is usable.
  """
  return read_records(source, row_formats.PROMPTS)


def read_records(source: PathLike | Source, formats: RowFormats) -> tuple[list[Any], Counter[str]]:
  """(all records of one kind, in order, {reason: how many were skipped for it}). Raises DataError."""
  source = source if isinstance(source, Source) else Source(os.fspath(source))
  skips: Counter[str] = Counter()
  duplicates = find_duplicates(source)
  stream = enumerate(source.open().stream(0))
  records = [record for i, row in stream for record in records_of(source, *row, formats, skips, i in duplicates)]
  if not records:
    reasons = list_reasons(skips) or "they hold no such record"
    raise DataError(f"{source.path}: none of its rows is usable ({reasons}); check that this is the file you meant")
  return records, skips


def records_of(
  source: Source, where: str, row: Row | RowError, formats: RowFormats, skips: Counter[str], is_duplicate: bool = False
) -> Iterator[Any]:
  """The usable records of one row; faults that `source.skip` names are counted in `skips`. Raises RowError."""
  try:
    if isinstance(row, RowError):
      raise row
    renamed = rename(row, source.columns, where)
    if is_duplicate:
      raise RowError(f"{where}: the id {renamed['id']!r} stands in a row before it, too", "duplicate")
    for record in formats.parse(renamed, where):
      reason = formats.problem(record)
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
  """The numbers (from 0) of the rows whose id stands in an earlier row too; none for a source without `columns.id`.

  Memory holds one hash a row during the search.
  """
  if "id" not in source.columns:
    return frozenset()
  seen: set[int] = set()
  found: set[int] = set()
  for number, (where, row) in enumerate(source.open().stream(0)):
    if isinstance(row, RowError):
      continue
    try:
      mark = hash(repr(rename(row, {"id": source.columns["id"]}, where)["id"]))
    except RowError:
      continue  # reported, or counted, where the row is read
    if mark in seen:
      found.add(number)
    seen.add(mark)
  return frozenset(found)


def leave_out(source: Source, skips: Counter[str], where: str, reason: str, kind: Skip) -> None:
  """Counts a row that the source allows to leave out. Raises RowError where it does not allow that."""
  if kind not in source.skip:
    raise RowError(f"{where}: {reason}; repair the row, or name {kind!r} in the source's skip", kind)
  skips[reason] += 1


def list_reasons(skips: Counter[str]) -> str:
  """The reasons for skipped rows in a message: "empty prompt: 2, empty response: 1"; "" where there are none."""
  return ", ".join(f"{reason}: {count}" for reason, count in skips.items())
