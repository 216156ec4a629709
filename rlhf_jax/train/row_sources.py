"""The rows that a config asks for: a file, a source, or several sources with their shares, read into memory.

prompts="{run}/world/prompts.jsonl"
prompts=dict(path="gsm8k/*.parquet", columns=dict(prompt="question"))
comparisons=dict(sources=dict(hh=dict(path="hh.jsonl.gz"), oasst=dict(path="trees.jsonl", weight=2.0)), cap=5000)
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

from rlhf_jax import data
from rlhf_jax.data.files import Row
from rlhf_jax.data.mixture import Sources, mix
from rlhf_jax.data.row_formats import STREAMED, RowFormats, Text
from rlhf_jax.data.source_stream import SourceStream
from rlhf_jax.data.sources import Source, list_reasons, read_records
from rlhf_jax.stage import (
  ComparisonFile,
  ContrastFile,
  DemonstrationFile,
  PromptFile,
  QuestionFile,
  Stage,
  StepFile,
  TextFile,
  UnpairedFile,
)
from rlhf_jax.train.progress import report_skips

PromptRows = PromptFile | Source | Sources
DemonstrationRows = DemonstrationFile | Source | Sources
ComparisonRows = ComparisonFile | Source | Sources
StepRows = StepFile | Source | Sources
UnpairedRows = UnpairedFile | Source | Sources
ContrastRows = ContrastFile | Source | Sources
QuestionRows = QuestionFile | Source | Sources
TextRows = TextFile | Source | Sources
AnyRows = str | Source | Sources

WINDOW = 4096  # rows whose phrasings are drawn together


def read_given(given: AnyRows, stage: Stage, formats: RowFormats) -> list[Any]:
  """The records of the rows that a config asks for, in order; what is skipped is reported. Raises as `read_counted`."""
  return read_counted(given, stage, formats)[0]


def read_counted(given: AnyRows, stage: Stage, formats: RowFormats) -> tuple[list[Any], Counter[str]]:
  """(the records of `read_given`, {reason: how many were skipped for it}).

  A source with templates or examples gives its demonstrations, or the prompts of these, in a random order.

  Raises:
    data.DataError: a source cannot be read or has no usable row.
  """
  found, skipped = {}, Counter[str]()
  for name, source in named_sources(given, stage).items():
    is_plain = not source.templates and not any(source.shots)
    found[name], skips = read_records(source, formats) if is_plain else _read_phrased(name, source, formats, stage.seed)
    report_skips(source.path, skips, len(found[name]) + sum(skips.values()))
    skipped += skips
  return (mix(given, found, stage.seed) if isinstance(given, Sources) else found[""]), skipped


def _read_phrased(name: str, source: Source, formats: RowFormats, seed: int) -> tuple[list[Any], Counter[str]]:
  if formats.of_demonstration is None:
    raise data.DataError(
      f"{source.path}: templates and shots write demonstrations and prompts, and other rows are asked for here; leave "
      "them out"
    )
  stream = SourceStream(name, source, seed=seed, window=WINDOW)
  found: list[Any] = []
  for window in itertools.count():
    examples, is_last = stream.window_examples(0, window)
    found += [formats.of_demonstration(record) for record, _, _ in examples if isinstance(record, data.Demonstration)]
    if is_last:
      break
  if not found:
    raise data.DataError(f"{source.path}: none of its rows is usable ({list_reasons(stream.skips) or 'it has none'})")
  return found, stream.skips


def read_text(given: AnyRows, stage: Stage) -> str:
  """The text of the rows that a config asks for, as `data.read_corpus` reads it. Raises data.DataError."""
  if not isinstance(given, Sources):
    (source,) = named_sources(given, stage).values()
    return data.read_corpus(source.path if isinstance(given, str) else source)
  return "".join(
    record.text
    if isinstance(record, Text)
    else data.render_prompt(record.prompt) + data.render_response(record.response)
    for record in read_given(given, stage, STREAMED)
  )  # fmt: skip


def named_sources(given: AnyRows, stage: Stage) -> dict[str, Source]:
  """{name: source} with the paths of rows and templates resolved; a source alone has the name ""."""
  sources = given.sources if isinstance(given, Sources) else {"": Source(given) if isinstance(given, str) else given}
  return {name: resolve_source(source, stage) for name, source in sources.items()}


def raw_rows(given: AnyRows, stage: Stage) -> Iterator[tuple[str, Row]]:
  """("file:line", row with its columns renamed) of all rows that can be read, whatever they hold. Raises DataError."""
  for source in named_sources(given, stage).values():
    yield from data.renamed_rows(source)


def path_of(given: AnyRows) -> str:
  """The paths of the rows, for messages."""
  if isinstance(given, Sources):
    return ", ".join(source.path for source in given.sources.values())
  return given if isinstance(given, str) else given.path


def resolve_source(source: Source, stage: Stage) -> Source:
  """A source with the paths of its rows and templates resolved."""
  templates = source.templates
  if isinstance(templates, str) and ":" in templates:
    templates = str(stage.path(templates))
  return dataclasses.replace(source, path=str(stage.path(source.path)), templates=templates)
