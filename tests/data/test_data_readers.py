"""Every file format gives the same rows, from any row on; faults of a file or a row raise an error or are counted."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
import pytest

from rlhf_jax.data import DataError, Source, read_critiques, read_demonstrations, read_rows
from rlhf_jax.data.readers import format_of
from rlhf_jax.data.source_stream import template_columns
from rlhf_jax.data.sources import read_records
from rlhf_jax.data.templates import load_templates

ROWS = [{"question": f"q{i} \u05e9\u200b", "answer": f"a{i}", "meta": {"ids": [i, i + 1]}} for i in range(7)]
COLUMNS = dict(prompt="question", response="answer")


def jsonl(path: Path, rows=ROWS) -> Path:
  text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
  path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
  return path


def write_json(path):
  text = json.dumps(ROWS, indent=1).encode()
  path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def write_parquet(path):
  plain = path.with_name("plain.bin")
  parquet.write_table(pyarrow.Table.from_pylist(ROWS), plain, row_group_size=3)
  path.write_bytes(gzip.compress(plain.read_bytes()) if path.suffix == ".gz" else plain.read_bytes())


WRITERS = {
  "rows.jsonl": jsonl,
  "rows.jsonl.gz": jsonl,
  "rows.json": write_json,
  "rows.json.gz": write_json,
  "rows.parquet": write_parquet,
  "rows.parquet.gz": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_file_gives_the_same_rows_from_any_row_on(tmp_path, name):
  WRITERS[name](tmp_path / name)
  rows = Source(str(tmp_path / name)).open()
  assert rows.count() == len(ROWS)
  for start in (0, 2, 3, 6, 7, 9):
    assert [row for _, row in rows.stream(start)] == ROWS[start:]
  where, _ = next(rows.stream(4))
  assert where.startswith(f"{tmp_path / name}:")


def test_several_files_are_one_source(tmp_path):
  jsonl(tmp_path / "part-1.jsonl", ROWS[:3])
  jsonl(tmp_path / "part-2.jsonl.gz", ROWS[3:])
  rows = Source(str(tmp_path / "part-*")).open()
  assert rows.count() == 7
  assert [row for _, row in rows.stream(0)] == ROWS
  assert [row for _, row in rows.stream(5)] == ROWS[5:]
  with pytest.raises(DataError, match="no file has such a name"):
    Source(str(tmp_path / "absent-*")).open()


@pytest.mark.parametrize("empty", [b"", b" \n\n", b"[]", gzip.compress(b"", mtime=0)])
def test_an_empty_file_among_several_has_no_rows(tmp_path, empty):
  (tmp_path / "part-0.json").write_bytes(empty)
  jsonl(tmp_path / "part-1.jsonl", ROWS[:3])
  (tmp_path / "part-2.json").write_bytes(empty)
  jsonl(tmp_path / "part-3.jsonl", ROWS[3:])
  source = Source(str(tmp_path / "part-*"), columns=COLUMNS)
  assert source.open().count() == 7 and len(read_demonstrations(source)[0]) == 7
  for start in (0, 2, 3, 5, 7):
    assert [row for _, row in source.open().stream(start)] == ROWS[start:]
  with pytest.raises(DataError, match=r"part-\[02\]\.json: none of the 2 files of this name holds a row"):
    read_demonstrations(Source(str(tmp_path / "part-[02].json")))
  with pytest.raises(DataError, match=r"part-0\.json"):
    read_demonstrations(Source(str(tmp_path / "part-0.json")))


def write_text(path):
  path.write_text("Some text with {signs}\n")


NAMED = {  # name of a file -> (its writer, the format it is read in)
  "my.json.backup/rows.txt": (write_text, "text"),
  "a.json.txt": (write_text, "text"),
  "notes on .json files": (write_text, "text"),
  "my.parquet.d/rows": (jsonl, "json"),
  "rows.jsonl.bak": (jsonl, "json"),
  "rows.JSONL": (jsonl, "json"),
  "ROWS.Json": (write_json, "json"),
  "rows.ndjson": (jsonl, "json"),
  "table": (write_parquet, "parquet"),
  "table.json.parquet": (write_parquet, "parquet"),
  "text.parquet.txt": (write_text, "text"),
  "README.md": (lambda path: path.write_text("[A link](https://example.org) and {braces}\n"), "text"),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_known_by_its_last_suffix_and_else_by_its_content(tmp_path, name, packed):
  write, format = NAMED[name]
  path = tmp_path / name
  path.parent.mkdir(exist_ok=True)
  write(path)
  if packed:
    path.write_bytes(gzip.compress(path.read_bytes()))  # whether its name says so or not
  assert format_of(str(path)) == format
  rows = [row for _, row in Source(str(path)).open().stream(0)]
  assert rows == ([{"text": path_text(path)}] if format == "text" else ROWS)


def path_text(path):
  data = path.read_bytes()
  return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()


def test_a_spreadsheet_is_refused_by_name(tmp_path):
  (tmp_path / "rows.csv").write_text("prompt,response\n")
  with pytest.raises(DataError, match=r"rows\.csv: a \.csv is not read; write it as"):
    read_demonstrations(tmp_path / "rows.csv")


def test_text_and_lines_and_tsv(tmp_path, monkeypatch):
  from rlhf_jax.data import readers

  monkeypatch.setattr(readers, "TEXT_ROW_BYTES", 4)
  (tmp_path / "a.txt").write_text("\ufeffone\ntwo two\n\nthree")
  pieces = Source(str(tmp_path / "a.txt")).open()
  assert list(pieces.stream(0)) == [
    (f"{tmp_path}/a.txt:1", {"text": "one\n"}),
    (f"{tmp_path}/a.txt:2", {"text": "two two\n"}),
    (f"{tmp_path}/a.txt:3", {"text": "\nthree"}),
  ]
  assert [row["text"] for _, row in pieces.stream(2)] == ["\nthree"]
  lines = Source(str(tmp_path / "a.txt"), format="lines").open()
  assert [(where[-1], row["text"]) for where, row in lines.stream(1)] == [("2", "two two"), ("4", "three")]
  (tmp_path / "a.tsv").write_text("q\\nr\ta\\\\n\\x\n")
  assert next(Source(str(tmp_path / "a.tsv")).open().stream(0))[1] == {"0": "q\nr", "1": "a\\n\\x"}


def test_datasets_from_disk_by_name_and_streaming(tmp_path, monkeypatch):
  datasets = pytest.importorskip("datasets")
  monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
  datasets.disable_progress_bars()
  made = datasets.Dataset.from_list(ROWS)
  made.save_to_disk(str(tmp_path / "saved"))
  datasets.DatasetDict(train=made).save_to_disk(str(tmp_path / "split"))
  (tmp_path / "owner").mkdir()
  jsonl(tmp_path / "owner" / "train.jsonl")
  monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
  sources = [
    Source(str(tmp_path / "saved"), columns=COLUMNS),
    Source(str(tmp_path / "split"), columns=COLUMNS),
    Source(str(tmp_path / "owner"), format="datasets", columns=COLUMNS),
    Source(str(tmp_path / "owner"), format="datasets_streaming", columns=COLUMNS),
  ]
  for source in sources:
    rows = source.open()
    assert [row for _, row in rows.stream(0)] == ROWS
    assert list(rows.stream(5))[0] == (f"{source.path}[5]", ROWS[5])
    assert rows.count() in ((7, None) if source.format == "datasets_streaming" else (7,))
    assert [d.response for d in read_demonstrations(source)[0]] == [row["answer"] for row in ROWS]
  with pytest.raises(DataError, match="cannot be loaded .*check name, split and subset"):
    list(Source(str(tmp_path / "owner"), format="datasets", split="absent").open().stream(0))


def test_tfds_through_its_data_source(tmp_path):
  tfds = pytest.importorskip("tensorflow_datasets")
  import numpy as np

  class Questions(tfds.core.GeneratorBasedBuilder):
    """Questions."""

    VERSION = tfds.core.Version("1.0.0")
    name = "questions"

    def _info(self):
      text, number = tfds.features.Text(), tfds.features.Scalar(np.int64)
      features = {"question": text, "answer": text, "ids": tfds.features.Sequence(np.int64), "n": number}
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      for i, row in enumerate(ROWS):
        yield i, {"question": row["question"], "answer": row["answer"], "ids": row["meta"]["ids"], "n": i}

  builder = Questions(data_dir=tmp_path, file_format="array_record")
  builder.download_and_prepare()
  source = Source(str(builder.data_path), columns=dict(COLUMNS, id="n"))
  rows = list(source.open().stream(0))
  assert source.open().count() == 7
  assert sorted(row["question"] for _, row in rows) == [row["question"] for row in ROWS]
  assert all(row["ids"] == [row["n"], row["n"] + 1] and type(row["n"]) is int for _, row in rows)
  assert list(source.open().stream(3)) == rows[3:]
  assert len(read_demonstrations(source)[0]) == 7


def test_columns_are_named_in_one_line_each(tmp_path):
  path = jsonl(tmp_path / "a.jsonl", [{"q": {"text": ["one", "two"]}, "a": "three"}])
  source = Source(str(path), columns=dict(prompt="q.text.1", response="a"))
  assert read_demonstrations(source)[0] == [("two", "three")]


@pytest.mark.parametrize(
  ("row", "columns", "message"),
  [
    ({"q": "x"}, dict(response="q", prompt="question"), "no column 'question', which the config names for 'prompt'"),
    ({"q": "x"}, dict(response="q", prompt="question"), "found {q}"),
    ({"q": ["x"]}, dict(response="q", prompt="q.3"), "no column 'q.3', .* found a list"),
    ({"q": 3, "a": "x"}, dict(response="a", prompt="q"), r"'prompt' must be a string, found a number \(3\)"),
  ],
)
def test_a_wrong_schema_names_file_row_column_and_what_was_found(tmp_path, row, columns, message):
  path = jsonl(tmp_path / "a.jsonl", [row])
  with pytest.raises(DataError, match=rf"a\.jsonl:1: {message}" if "found {q}" not in message else message):
    read_demonstrations(Source(str(path), columns=columns))


BAD = [
  (b'{"prompt": "p", "response": "caf\xe9"}\n', "malformed", "malformed row", ":2: byte 0xe9 is not valid UTF-8"),
  (b'{"prompt": "p", "resp\n', "malformed", "malformed row", ":2: not one JSON object"),
  (b'{"prompt": "p", "response": 3}\n', "schema", "wrong columns or types", ":2: 'response' must be a string"),
  (b'{"prompt": "p"}\n', "schema", "wrong columns or types", r":2: found columns \{prompt\}"),
  (b'{"prompt": "p", "response": ""}\n', "unusable", "empty response", ":2: empty response; .*'unusable'"),
]


@pytest.mark.parametrize(("line", "kind", "reason", "message"), BAD)
def test_rows_are_left_out_only_where_the_source_allows_it(tmp_path, line, kind, reason, message):
  good = b'{"prompt": "p", "response": "r"}\n'
  (tmp_path / "a.jsonl").write_bytes(good + line + good)
  with pytest.raises(DataError, match=message):
    read_demonstrations(Source(str(tmp_path / "a.jsonl"), skip=()))
  found, skips = read_demonstrations(Source(str(tmp_path / "a.jsonl"), skip=(kind,)))
  assert (found, skips) == ([("p", "r")] * 2, {reason: 1})


def test_duplicate_ids(tmp_path):
  rows = [{"prompt": "p", "response": str(i), "key": i % 3} for i in range(5)]
  path = str(jsonl(tmp_path / "a.jsonl", rows))
  with pytest.raises(DataError, match=r"a\.jsonl:4: the id 0 stands in a row before it"):
    read_demonstrations(Source(path, columns=dict(id="key")))
  found, skips = read_demonstrations(Source(path, columns=dict(id="key"), skip=("duplicate",)))
  assert ([d.response for d in found], skips) == (["0", "1", "2"], {"duplicate id": 2})
  assert len(read_demonstrations(path)[0]) == 5  # without columns.id no row is a duplicate


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.txt.gz", "a.tsv.gz", "a.parquet.gz"])
def test_a_truncated_gzip_stops_the_run_whatever_may_be_skipped(tmp_path, name):
  text = json.dumps(ROWS * 50) if ".json." in name else "".join(json.dumps(row) + "\n" for row in ROWS * 50)
  (tmp_path / name).write_bytes(gzip.compress(text.encode())[:-40])
  source = Source(str(tmp_path / name), skip=("malformed", "schema", "unusable", "too_long", "duplicate"))
  with pytest.raises(DataError, match="the gzip stream ends early"):
    for _ in source.open().stream(0):
      pass


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
def test_an_empty_file_is_an_error(tmp_path, name):
  (tmp_path / name).write_bytes(gzip.compress(b"\n") if name.endswith("gz") else b"\n")
  with pytest.raises(DataError, match="the file is empty"):
    read_demonstrations(Source(str(tmp_path / name)))


def test_a_damaged_parquet_file_is_an_error(tmp_path):
  write_parquet(tmp_path / "a.parquet")
  (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
  with pytest.raises(DataError, match="not a whole Parquet file"):
    list(Source(str(tmp_path / "a.parquet")).open().stream(0))


def test_a_row_of_ten_megabytes_is_read_whole(tmp_path):
  text = "\u05e9\u200b" * 2_500_000  # 10 MB
  path = jsonl(tmp_path / "a.jsonl", [{"prompt": "p", "response": text}])
  assert read_rows(path)[0][1]["response"] == text
  write = json.dumps([{"prompt": "p", "response": text}, {"prompt": "p", "response": "r"}]).encode()
  (tmp_path / "a.json").write_bytes(write)
  assert [len(row["response"]) for _, row in read_rows(tmp_path / "a.json")] == [5_000_000, 1]


def test_templates_name_the_column_that_is_missing(tmp_path):
  path = jsonl(tmp_path / "a.jsonl", [{"question": "q", "answer": "a"}, {"question": "q", "label": "a"}])
  formats = template_columns(load_templates("zero_shot"))
  with pytest.raises(DataError, match=r"a\.jsonl:2: no column 'answer', which the template names, among .question"):
    read_records(Source(str(path)), formats)
  found, skips = read_records(Source(str(path), skip=("schema",)), formats)
  assert (found, skips) == ([{"question": "q", "answer": "a"}], Counter({"wrong columns or types": 1}))


def test_language_feedback_is_read_by_naming_its_columns():
  path = Path(__file__).parents[3] / "shared" / "data" / "language_feedback" / "ilf_mbpp_surge.jsonl.gz"
  if not path.exists():
    pytest.skip("the public data set ilf_mbpp_surge is not in ../shared/data")
  names = dict(response="original_model_completion", critique="Feedback", rewrite="completion")
  found, skips = read_critiques(Source(str(path), columns=names))
  assert (len(found), skips) == (195, {})
  assert found[0].critique.startswith("There are two crucial mistakes")
