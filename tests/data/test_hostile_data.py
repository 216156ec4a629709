"""Data files and tokenizers made to crash a reader, to loop or to fill memory: each is one error with its file."""

import gzip
import json

import pytest
from hostile import MEGABYTES, SECONDS, measure

from rlhf_jax.data import train_tokenizer

BIG = "9" * 5000
ROWS = {  # name -> (reader, content, the error)
  "a number of 5,000 digits": ("read_rows", f'{{"a": {BIG}}}\n', "not one JSON object"),
  "such a number in an array": ("read_rows", f'[{{"a": 1}},\n{{"a": {BIG}}}]', "2: the row is not valid JSON"),
  "a rating of 400 digits": ("read_ratings", f'{{"prompt": "p", "response": "r", "rating": {BIG[:400]}}}\n', ""),
  "ranks of 400 digits": (
    "read_comparisons", f'{{"prompt": "p", "responses": ["a", "b"], "ranks": [0, {BIG[:400]}]}}\n', "",
  ),
  "60,000 brackets": ("read_rows", "[" * 60_000, "nested too deeply"),
  "60,000 brackets in a row": ("read_rows", '{"a": ' + "[" * 60_000, "not one JSON object"),
  "an object without end": ("read_rows", "[" + '{"a": "' + "x" * (1 << 20), "not a valid JSON array"),
}  # fmt: skip
BOMBS = {  # name -> (reader, block of the unpacked content, number of blocks)
  "a bomb of zeros": ("read_text", b"\0" * (1 << 20), 1000),
  "a bomb that is one line": ("read_rows", b"x" * (1 << 20), 1000),
  "a bomb of rows": ("read_rows", b"{}\n" * (1 << 18), 1200),
  "a bomb of blank lines": ("read_rows", b"\n" * (1 << 20), 1000),
  "a bomb in an array": ("read_rows", b" " * (1 << 20), 1000),
}
SPECIALS = ["<pad>", "<bos>", "<eos>"]


def edited(change):
  """A change of tokenizer.json, as a writer of files."""

  def write(path):
    tokenizer = train_tokenizer(["a b c"] * 3, 264)
    content = json.loads(tokenizer.backend.to_str())
    content = change(content) or content
    (path / "tokenizer.json").write_text(content if isinstance(content, str) else json.dumps(content))
    names = zip(("pad_token", "bos_token", "eos_token"), SPECIALS, strict=True)
    (path / "tokenizer_config.json").write_text(json.dumps(dict(names)))

  return write


def configured(text):
  """A text of tokenizer_config.json, as a writer of files."""

  def write(path):
    edited(lambda content: None)(path)
    (path / "tokenizer_config.json").write_text(text)

  return write


def templated(template):
  """A chat template, as a writer of files."""

  def write(path):
    edited(lambda content: None)(path)
    (path / "chat_template.jinja").write_text(template)

  return write


LOOP = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
DOUBLED = "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"
TOKENIZERS = {  # name -> (reader, writer, the error)
  "no JSON": ("load_tokenizer", edited(lambda content: "{"), "not a tokenizer.json"),
  "brackets": ("load_tokenizer", edited(lambda content: "[" * 100_000), "not a tokenizer.json"),
  "no model": ("load_tokenizer", edited(lambda content: content.pop("model") and None), "not a tokenizer.json"),
  "no merges": ("load_tokenizer", edited(lambda content: content["model"].pop("merges") and None), ""),
  "one id twice": (
    "load_tokenizer", edited(lambda content: content["model"]["vocab"].update(a=content["model"]["vocab"]["b"])),
    "the tokens 'a' and 'b' have one id",
  ),
  "a huge id": (
    "load_tokenizer", edited(lambda content: content["model"]["vocab"].update(a=4294967295)), "has the id 4294967295",
  ),
  "config: no JSON": ("load_tokenizer", configured("{"), "cannot be read as JSON"),
  "config: brackets": ("load_tokenizer", configured("[" * 100_000), "nested too deeply"),
  "config: a list": ("load_tokenizer", configured("[]"), "holds no JSON object"),
  "config: a key twice": ("load_tokenizer", configured('{"a": 1, "a": 2}'), "'a' stands twice"),
  "config: 5,000 digits": ("load_tokenizer", configured(f'{{"a": {BIG}}}'), "cannot be read as JSON"),
  "config: 20 MB": ("load_tokenizer", configured('{"a": "' + "x" * (20 << 20)), "larger than 16 MB"),
  "config: a number for a token": ("load_tokenizer", configured('{"eos_token": 3}'), "eos_token must be a text"),
  "config: an odd template": (
    "load_tokenizer", configured('{"eos_token": "<eos>", "chat_template": {"a": 1}}'), "chat_template must be a text",
  ),
  "config: a template of 2 MB": (
    "load_tokenizer", configured(json.dumps({"eos_token": "<eos>", "chat_template": "x" * (2 << 20)})),
    "chat_template must be a text of at most",
  ),
  "template: 1/0": ("prompt", templated("{{ 1/0 }}"), "ZeroDivisionError: division by zero"),
  "template: a long text": ("prompt", templated("{{ 'a' * 10**8 }}"), "takes over 256 MB"),
  "template: 3 MB": ("prompt", templated("{{ 'a' * 3000000 }}"), "gives more than 1000000 characters"),
  "template: a text beyond memory": ("prompt", templated("{{ 'a' * 10**12 }}"), "takes over 256 MB"),
  "template: a doubled text": ("prompt", templated(DOUBLED), "takes over 256 MB"),
  "template: a padded text": ("prompt", templated("{{ '%1000000000d' % 1 }}"), "takes over 256 MB"),
  "template: loops": ("prompt", templated(LOOP), "it takes over 1 s"),
  "template: a power": ("prompt", templated("{{ 10 ** (10 ** 8) }}"), "it takes over 1 s"),
  "template: recursion": ("prompt", templated("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), "RecursionError"),
  "template: brackets": ("prompt", templated("{{ " + "(" * 50_000), "chat template cannot be used"),
  "template: no Jinja": ("prompt", templated("{% for %}"), "chat template cannot be used"),
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
  cases = {}
  for name, (reader, content, _) in ROWS.items():
    cases[name] = reader, tmp_path_factory.mktemp("rows") / "rows.jsonl"
    cases[name][1].write_text(content)
  for name, (reader, block, count) in BOMBS.items():
    cases[name] = reader, tmp_path_factory.mktemp("bomb") / "rows.jsonl.gz"
    start = gzip.compress(b"[") if name == "a bomb in an array" else b""
    cases[name][1].write_bytes(start + gzip.compress(block) * count)  # a gzip file may have many parts
  for name, (reader, write, _) in TOKENIZERS.items():
    cases[name] = reader, tmp_path_factory.mktemp("tokenizer")
    write(cases[name][1])
  return cases, measure({name: (reader, str(path)) for name, (reader, path) in cases.items()})


MESSAGES = {
  **{name: message for name, (_, _, message) in {**ROWS, **TOKENIZERS}.items()},
  **dict.fromkeys(BOMBS, "rows.jsonl.gz: unpacks to more than 100 times its size"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_hostile_file_is_one_error_that_names_it(outcomes, name):
  cases, found = outcomes
  error, named, seconds, megabytes = found[name]
  assert named and error, error
  assert MESSAGES[name] in error and (cases[name][1].name in error or "chat template" in error)
  assert "\n" not in error and len(error) < 1000
  assert seconds < SECONDS and megabytes < MEGABYTES


def test_the_process_of_templates_goes_on_after_a_failure(tmp_path):
  from rlhf_jax.data.chat_templates import TemplateFailure, render

  for _ in range(2):
    with pytest.raises(TemplateFailure, match="it takes over 1 s"):
      render(LOOP)
    assert render("{{ a }} b", a="\u2028é") == "\u2028é b"


def test_repetitive_data_unpack_where_they_are_small_or_of_a_usual_ratio(tmp_path):
  from rlhf_jax.data import read_rows

  for number, rows in enumerate((b'{"a": 1}\n' * 100_000, b"".join(b'{"a": %d}\n' % n for n in range(300_000)))):
    (tmp_path / f"{number}.jsonl.gz").write_bytes(gzip.compress(rows))
    assert len(read_rows(tmp_path / f"{number}.jsonl.gz")) == rows.count(b"\n")
