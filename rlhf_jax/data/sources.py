"""Sources: where rows come from, as a config describes it, and functions that read all records of a source.

dict(path="alpaca.json.gz")
dict(path="squad/*.parquet", columns=dict(prompt="question", response="answers.text.0"))
dict(path="owner/name", format="datasets", split="train")
"""

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from rlhf_jax.data import row_formats
from rlhf_jax.data.dialogue import Prompt, UnusableDialogue, render_prompt, render_response
from rlhf_jax.data.files import DataError, PathLike, Row, RowError, read_text
from rlhf_jax.data.readers import Rows, SourceFormat, format_of, open_rows
from rlhf_jax.data.records import Comparison, Critique, Demonstration, Ratings, Steps, Unpaired
from rlhf_jax.data.row_formats import RowFormats
from rlhf_jax.data.row_values import rename, value
from rlhf_jax.ranges import NonNegativeInt, PositiveFloat

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
  """Names for columns of the file, as {our name: name or path in the file}, such as {"response": "answers.text.0"}; ""
  leaves the column of our name out. The name "id" marks the column by which duplicates are found."""
  templates: str | tuple[tuple[str, ...], ...] = ()
  """Phrasings of a row, as pairs (prompt, answer) of texts with columns in braces, or "zero_shot", "chain_of_thought"
  or "FILE:NAME" (see `rlhf_jax.data.templates`); () where a row is a demonstration already."""
  shots: tuple[NonNegativeInt, ...] = (0,)
  """Numbers of solved examples in front of a prompt, of which one is drawn for each prompt; 0 for no examples."""
  weight: PositiveFloat = 1.0
  """Weight of the source in a mixture, above 0: a factor beside its number of rows, or alone with mixing="weights"."""
  rows: NonNegativeInt = 0
  """Number of rows, for a source in which they cannot be counted; 0 to count them."""
  skip: tuple[Skip, ...] = ("unusable", "too_long")
  """Faults for which a row is left out and counted: "malformed" (no UTF-8, no JSON), "schema" (wrong columns or types),
  "duplicate" (of an id), "unusable" (an empty answer, for instance), "too_long" (more tokens than a row holds)."""

  def __post_init__(self) -> None:
    if not self.shots:
      raise ValueError("shots is empty: name at least one number of examples, such as 0")

  def open(self) -> Rows:
    """The rows of the source, not yet read. Raises DataError."""
    return open_rows(self.path, self.format, self.split, self.subset)


def read_demonstrations(source: PathLike | Source) -> tuple[list[Demonstration], Counter[str]]:
  """(demonstrations, {reason: how many were skipped for it}).

  Accepts {prompt, response} or {prompt, completion}, {messages}, ShareGPT {conversations}, Alpaca {instruction, output}
  with an optional input, self-instruct {instruction, instances} (one demonstration per instance), {question, answer},
  and the chosen side of comparisons: {prompt, chosen} or HH {chosen}. A row with the label false is skipped.

  Raises:
    DataError: the source cannot be read, its columns are none of these, a value has a wrong type, or no row is usable.
  """
  return read_records(source, row_formats.DEMONSTRATIONS)


def read_corpus(source: PathLike | Source) -> str:
  """The text to learn language from: plain text, rows {text}, or the rendered dialogues of rows.

  Raises:
    DataError: as `read_text` and `read_demonstrations` do.
  """
  if not isinstance(source, Source) and not _holds_rows(source):
    return read_text(source)
  text = "".join(stream_corpus(source))
  if not text.strip():
    raise DataError(f"{source.path if isinstance(source, Source) else source}: its rows hold no text")
  return text


def stream_corpus(source: PathLike | Source) -> Iterator[str]:
  """The text of `read_corpus` in pieces, of which memory holds one at a time.

  Raises:
    DataError: as `read_corpus`, while the text is read.
  """
  if not isinstance(source, Source):
    source = Source(os.fspath(source), format="auto" if _holds_rows(source) else "text")
  for where, row in source.open().stream(0):
    named = rename(row, source.columns, where) if isinstance(row, dict) else {}
    if named.get("text") is not None:
      yield value(named, "text", str, where)
    else:
      for prompt, response in records_of(source, where, row, row_formats.DEMONSTRATIONS, Counter()):
        yield render_prompt(prompt) + render_response(response)


def _holds_rows(path: PathLike) -> bool:
  return format_of(os.fspath(path)) in ("json", "parquet")


def read_comparisons(source: PathLike | Source) -> tuple[list[Comparison], Counter[str]]:
  """(comparisons, {reason: how many were skipped for it}).

  Accepts {prompt, responses, ranks}, {prompt, chosen, rejected} and whole dialogues {chosen, rejected}, as HH texts or
  as messages, ShareGPT's {conversations, chosen, rejected}, lists of chosen and of rejected answers, LLMBar's {input,
  output_1, output_2, label}, all with an optional annotator, summaries {info, summaries, choice}, and OASST trees. In a
  tree each prompter's turn with two or more ranked replies is one comparison under the dialogue so far, in which
  replies without a rank are absent.

  Raises:
    DataError: the source cannot be read, its columns are none of these, a value has a wrong type, or no row is usable.
  """
  return read_records(source, row_formats.COMPARISONS)


def read_unpaired(source: PathLike | Source) -> tuple[list[Unpaired], Counter[str]]:
  """(single responses with their label, {reason: how many were skipped for it}).

  Accepts the rows of `read_demonstrations`, but for comparisons, with a label true or false, and an optional annotator;
  and the rows of `read_comparisons`, whose best responses are good ones and whose worst are bad ones.

  Raises:
    DataError: the source cannot be read, its columns are none of these, a value has a wrong type, or no row is usable.
  """
  return read_records(source, row_formats.UNPAIRED)


def read_steps(source: PathLike | Source) -> tuple[list[Steps], Counter[str]]:
  """(responses in steps with a label for each, {reason: how many were skipped for it}).

  Accepts {prompt, completions, labels}: the steps in order, and true or false for each; with an optional annotator.

  Raises:
    DataError: the source cannot be read, its columns are none of these, a value has a wrong type, or no row is usable.
  """
  return read_records(source, row_formats.STEPWISE)


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


def read_prompts(source: PathLike | Source) -> tuple[list[Prompt], Counter[str]]:
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


def check_rows(source: PathLike | Source, formats: RowFormats, count: int) -> None:
  """Reads the first `count` rows of a source as `read_records` does. Raises DataError where that would."""
  source = source if isinstance(source, Source) else Source(os.fspath(source))
  for where, row in itertools.islice(source.open().stream(0), count):
    for _ in records_of(source, where, row, formats, Counter()):
      pass


def renamed_rows(source: Source) -> Iterator[tuple[str, Row]]:
  """("file:line", row with the columns of `source.columns`) of the rows that can be read. Raises DataError."""
  for where, row in source.open().stream(0):
    if isinstance(row, RowError):
      if row.kind not in source.skip:
        raise row
      continue
    yield where, rename(row, source.columns, where)


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
