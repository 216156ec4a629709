"""Text and row files: they are read back as written, and the errors of damaged files name place and remedy."""

import gzip
import json
import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_jax.data import DataError, read_json, read_rows, read_text, write_json, write_rows

ROWS = [{"prompt": "caf\u00e9 \u2028 \x85 \u200b \u05e9", "n": 1}, {"prompt": "b\nc", "n": None}]


@pytest.mark.parametrize("name", ["text.txt", "text.txt.gz"])
def test_read_text(tmp_path, name):
  data = "caf\u00e9\r\n\u05e9\u200b\n".encode()
  (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
  assert read_text(tmp_path / name) == "caf\u00e9\r\n\u05e9\u200b\n"


def test_byte_order_mark_is_no_text(tmp_path):
  (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
  assert read_text(tmp_path / "a.txt") == "hello"


def test_invalid_utf8_is_located(tmp_path):
  (tmp_path / "a.txt").write_bytes(b"fine\nfine\ncaf\xe9\n")
  with pytest.raises(DataError, match=r"a\.txt:3: byte 0xe9 is not valid UTF-8; convert"):
    read_text(tmp_path / "a.txt")


@pytest.mark.parametrize("keep", [3, 12, -9, -1])
def test_truncated_gzip(tmp_path, keep):
  (tmp_path / "a.gz").write_bytes(gzip.compress(b"some text " * 100)[:keep])
  with pytest.raises(DataError, match=r"a\.gz: the gzip stream ends early"):
    read_text(tmp_path / "a.gz")


def test_damaged_gzip(tmp_path):
  data = bytearray(gzip.compress(os.urandom(1000)))
  data[500] ^= 0xFF
  (tmp_path / "a.gz").write_bytes(bytes(data))
  with pytest.raises(DataError, match=r"a\.gz: not a valid gzip file"):
    read_text(tmp_path / "a.gz")


def test_plain_text_named_gz(tmp_path):
  (tmp_path / "a.gz").write_text("plain")
  with pytest.raises(DataError, match="not a valid gzip file"):
    read_text(tmp_path / "a.gz")


@pytest.mark.parametrize(
  ("name", "data"), [("a", b""), ("a.gz", b""), ("a", b" \n\n"), ("a.gz", gzip.compress(b"", mtime=0))]
)
def test_empty_file(tmp_path, name, data):
  (tmp_path / name).write_bytes(data)
  with pytest.raises(DataError, match="the file is empty"):
    read_text(tmp_path / name)


def test_missing_file_and_folder(tmp_path):
  with pytest.raises(DataError, match="absent: cannot be read .No such file"):
    read_text(tmp_path / "absent")
  with pytest.raises(DataError, match="cannot be read .Is a directory"):
    read_text(tmp_path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_write_then_read(tmp_path, name):
  write_rows(tmp_path / "made" / name, iter(ROWS))
  assert read_rows(tmp_path / "made" / name) == [(1, ROWS[0]), (2, ROWS[1])]


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), min_size=1))
def test_write_then_read_any_text(tmp_path_factory, rows):
  path = tmp_path_factory.getbasetemp() / "any_text.jsonl"
  write_rows(path, rows)
  assert read_rows(path) == list(enumerate(rows, start=1))


def test_compressed_rows_carry_no_time(tmp_path):
  write_rows(tmp_path / "a.jsonl.gz", ROWS)
  assert (tmp_path / "a.jsonl.gz").read_bytes()[4:8] == bytes(4)  # RFC 1952: the modification time


def test_written_text_is_readable_utf8(tmp_path):
  write_rows(tmp_path / "a.jsonl", ROWS)
  assert "caf\u00e9" in (tmp_path / "a.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("bad", [{"a": object()}, {"a": float("nan")}, {"a": "\ud800"}])
def test_failed_write_leaves_the_old_file_alone(tmp_path, bad):
  path = tmp_path / "a.jsonl"
  write_rows(path, ROWS)
  with pytest.raises(DataError, match=r"a\.jsonl:2: the row cannot be written"):
    write_rows(path, [{"a": 1}, bad])
  assert [row for _, row in read_rows(path)] == ROWS
  assert os.listdir(tmp_path) == ["a.jsonl"]


def test_interrupted_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
  path = tmp_path / "a.jsonl"
  write_rows(path, ROWS)

  def killed(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, "replace", killed)
  with pytest.raises(KeyboardInterrupt):
    write_rows(path, [{"a": 1}])
  assert [row for _, row in read_rows(path)] == ROWS
  assert os.listdir(tmp_path) == ["a.jsonl"]


def test_blank_lines_and_windows_line_ends(tmp_path):
  (tmp_path / "a.jsonl").write_bytes(b'\n{"a": 1}\r\n\r\n{"a": 2}')
  assert read_rows(tmp_path / "a.jsonl") == [(2, {"a": 1}), (4, {"a": 2})]


@pytest.mark.parametrize("indent", [None, 2])
def test_array_rows_carry_their_line(tmp_path, indent):
  rows = [{"a": "x\ny", "b": 1}, {"a": "]"}, {"a": [1, 2]}]
  text = json.dumps(rows, indent=indent)
  (tmp_path / "a.json").write_text(text + "\n")
  lines = [1, 1, 1] if indent is None else [2, 6, 9]
  assert read_rows(tmp_path / "a.json") == list(zip(lines, rows, strict=True))


def test_half_a_json_line_is_located(tmp_path):
  (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a": "cut he')
  with pytest.raises(DataError, match=r"a\.jsonl:3: .*found '\{\"a\": \"cut he'; repair"):
    read_rows(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
  ("text", "line"),
  [
    ('[\n{"a": 1},\n{"a": 2', 3),
    ('[\n{"a": 1},\n{"a": 2}', 3),
    ('[\n{"a": 1}\n{"a": 2}\n]', 3),
    ('[\n{"a": 1}\n]\n{"a": 2}', 4),
    ("[", 1),
  ],
)
def test_broken_array_is_located(tmp_path, text, line):
  (tmp_path / "a.json").write_text(text)
  with pytest.raises(DataError, match=rf"a\.json:{line}: not a valid JSON array"):
    read_rows(tmp_path / "a.json")


@pytest.mark.parametrize(
  ("text", "found"),
  [
    ('{"a": 1}\n3', "2: found a number"),
    ('{"a": 1}\n"x"', "2: found a string"),
    ('[{"a": 1},\n null]', "2: found null"),
  ],
)
def test_a_row_that_is_no_object(tmp_path, text, found):
  (tmp_path / "a.jsonl").write_text(text)
  with pytest.raises(DataError, match=found):
    read_rows(tmp_path / "a.jsonl")


def test_empty_array(tmp_path):
  (tmp_path / "a.json").write_text("[ ]")
  with pytest.raises(DataError, match="holds no rows"):
    read_rows(tmp_path / "a.json")


@pytest.mark.parametrize("text", ['{"a":' + "[" * 200_000, "[" * 200_000])
def test_absurd_nesting_is_an_error_of_the_file(tmp_path, text):
  (tmp_path / "a.jsonl").write_text(text)
  with pytest.raises(DataError, match=r"a\.jsonl:1"):
    read_rows(tmp_path / "a.jsonl")


@pytest.mark.parametrize("text", [b"", b'{"a": 1', b'{"a": "\xff"}', b"[" * 100_000])
def test_a_json_file_that_is_cut_or_damaged_is_named(tmp_path, text):
  path = tmp_path / "done.json"
  path.write_bytes(text)
  with pytest.raises(DataError, match=rf"^{re.escape(str(path))} is not valid JSON \(.*\): it is cut or damaged"):
    read_json(path)
  with pytest.raises(DataError, match=r"none\.json: cannot be read"):
    read_json(tmp_path / "none.json")


def test_json_comes_back_and_leaves_no_temporary_file(tmp_path):
  write_json(tmp_path / "a.json", {"text": "é", "list": [1, None]})
  assert read_json(tmp_path / "a.json") == {"text": "é", "list": [1, None]}
  assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
