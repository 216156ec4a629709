"""The batches of a mixture: complete, in the right shares, and a function of their position alone."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rlhf_jax.data import (
  DataError,
  Source,
  encode_demonstrations,
  is_held_out,
  read_demonstrations,
  stream,
  train_tokenizer,
  write_rows,
)
from rlhf_jax.data.mixture import Mixture, describe_shares, mixture_shares, next_sources
from rlhf_jax.data.readers import Rows, open_rows
from rlhf_jax.data.source_stream import Cursor, SourceStream
from rlhf_jax.data.stream import Stream

ROOT = Path(__file__).parents[2]
ALPACA = ROOT / "../shared/data/demonstrations/alpaca_en_demo.json.gz"
TOKENIZER = train_tokenizer(["Question: what is 1 plus 2? Answer: one two three four five six seven"] * 9, 300)
WORDS = ("one", "two three", "four five six seven")
LENGTH = 48


@pytest.fixture
def files(tmp_path, monkeypatch):
  """Three sources of 40, 11 and 5 rows, every row with a different text; blocks of 16 examples."""
  monkeypatch.setattr(stream, "BLOCK", 16)
  for name, count in dict(a=40, b=11, c=5).items():
    names = [f"{name}{i}" for i in range(count)]
    rows = [dict(prompt=n, response=WORDS[i % 3], question=n, answer="x") for i, n in enumerate(names)]
    write_rows(tmp_path / f"{name}.jsonl", rows)
  return {name: Source(str(tmp_path / f"{name}.jsonl")) for name in "abc"}


def open_stream(sources, batch_size=4, seed=3, eval_fraction=0.0, length=LENGTH, **changes):
  mixture = Mixture(sources, **{"window": 8, **changes})
  return Stream(mixture, TOKENIZER, length=length, batch_size=batch_size, seed=seed, eval_fraction=eval_fraction)


def batches(feed, count, position=None):
  position, found = feed.start if position is None else position, []
  for _ in range(count):
    batch, position = feed.batch_at(position)
    found.append((batch, position))
  return found


def texts(batch):
  """The examples of a batch, as texts."""
  found = []
  for row, tokens in enumerate(batch["tokens"]):
    segments = batch["segments"][row] if "segments" in batch else (tokens != TOKENIZER.pad_id).astype(int)
    found += [TOKENIZER.decode(tokens[segments == s]) for s in range(1, segments.max() + 1)]
  return found


def assert_equal(one, other):
  assert one.keys() == other.keys()
  for name, array in one.items():
    np.testing.assert_array_equal(array, other[name])
    assert array.dtype == other[name].dtype


def test_shares_are_proportional_to_capped_rows():
  """Raffel et al. 2019, section 3.5.2: 100, 30 and 10 rows with the cap 60 have the weights 60, 30, 10."""
  sources = {name: Source(name) for name in "abc"}
  of = lambda **settings: [round(s.fraction, 4) for s in mixture_shares(Mixture(sources, **settings), (100, 30, 10))]  # noqa: E731
  assert of(cap=60) == [0.6, 0.3, 0.1]
  assert of() == [round(n / 140, 4) for n in (100, 30, 10)]
  assert of(temperature=2.0) == [round(n**0.5 / (10 + 30**0.5 + 10**0.5), 4) for n in (100, 30, 10)]
  assert of(mixing="weights") == [0.3333] * 3
  sources["c"] = Source("c", weight=4.0)
  assert of(cap=60) == [round(n / 130, 4) for n in (60, 30, 40)]
  assert of(mixing="weights") == [0.1667, 0.1667, 0.6667]
  with pytest.raises(DataError, match="'b' holds no rows"):
    mixture_shares(Mixture(sources), (1, 0, 1))


def test_counts_are_told_before_training():
  shares = mixture_shares(Mixture({"qa": Source("x"), "nli": Source("y")}, cap=500), (1500, 500))
  assert describe_shares(shares, 2000) == [
    "qa   1,500 rows (capped at 500), 50.0%: 1,000 examples, 0.67 passes",
    "nli  500 rows, 50.0%: 1,000 examples, 2.00 passes",
  ]


def test_the_order_of_sources_is_never_a_whole_example_off_its_shares():
  fractions = np.array([0.61, 0.3, 0.09])
  order = next_sources(fractions, np.zeros(3, int), 400)
  counts = np.cumsum(order[:, None] == np.arange(3), axis=0)
  assert np.abs(counts - np.arange(1, 401)[:, None] * fractions).max() < 1
  np.testing.assert_array_equal(next_sources(fractions, counts[136], 263), order[137:])


@pytest.mark.parametrize("layout", ["packed", "bucketed", "padded"])
def test_every_pass_has_every_example_once(files, layout):
  feed = open_stream({"b": files["b"], "c": files["c"]}, layout=layout)
  expected = Counter(f"{n}{i}" for n, count in (("b", 11), ("c", 5)) for i in range(count))
  seen = Counter()
  position = feed.start
  while True:  # blocks of 16 are passes over 11 + 5 rows
    batch, position = feed.batch_at(position)
    seen.update(text.split("Human: ")[1].split("\n")[0] for text in texts(batch))
    if position[0] == 0:
      break
  blocks = (position[1] + position[5]) // 16
  assert seen == Counter({text: blocks * count for text, count in expected.items()})


def test_examples_are_tokenised_as_everywhere_else(files):
  feed = open_stream({"a": files["a"]}, layout="padded")
  batch, _ = feed.batch_at(feed.start)
  demonstrations = dict(read_demonstrations(files["a"])[0])
  for tokens, mask, text in zip(batch["tokens"], batch["mask"], texts(batch), strict=True):
    prompt = text.split("Human: ")[1].split("\n")[0]
    ids, counts = encode_demonstrations(TOKENIZER, [(prompt, demonstrations[prompt])], "last")[0]
    np.testing.assert_array_equal(tokens, np.pad(ids, (0, LENGTH - len(ids)), constant_values=TOKENIZER.pad_id))
    np.testing.assert_array_equal(mask, np.pad(counts, (0, LENGTH - len(ids))))


@pytest.mark.parametrize("layout", ["packed", "bucketed", "padded"])
def test_from_any_position_the_stream_goes_on_bit_by_bit(files, layout):
  sources = files | {"b": Source(files["b"].path, templates="zero_shot", shots=(0, 1, 2))}
  whole = batches(open_stream(sources, layout=layout, eval_fraction=0.2), 30)
  for start in (0, 7, 19, 28):
    resumed = open_stream(sources, layout=layout, eval_fraction=0.2)
    position = whole[start][1]
    assert position.dtype == np.int32 and position.shape == (1 + 4 * 3,)
    following = whole[start + 1 : start + 4]
    for (batch, after), (expected, end) in zip(batches(resumed, 3, position), following, strict=False):
      assert_equal(batch, expected)
      np.testing.assert_array_equal(after, end)


def test_every_block_is_made_once(files, monkeypatch):
  made, make = [], Stream._make
  monkeypatch.setattr(Stream, "_make", lambda self, start: made.append(start.tobytes()) or make(self, start))
  batches(open_stream({"a": files["a"]}, layout="padded"), 12)  # blocks of four batches, and one made ahead
  assert len(made) == len(set(made)) <= 4


def test_the_order_changes_with_the_seed_and_with_the_pass(files):
  feed = open_stream({"a": files["a"]}, window=40, layout="padded", length=32)
  whole = [text for batch, _ in batches(feed, 20) for text in texts(batch)]
  first, second = whole[:40], whole[40:]
  assert sorted(first) == sorted(second) and first != second
  other = open_stream({"a": files["a"]}, window=40, layout="padded", length=32, seed=4)
  assert [t for batch, _ in batches(other, 10) for t in texts(batch)] != first


def test_another_process_makes_the_same_batches(files):
  feed = open_stream(files)
  expected = batches(feed, 5)[-1]
  code = f"""
import sys; sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
from test_data_stream import *
stream.BLOCK = 16
feed = open_stream({{name: Source(path) for name, path in {[(n, s.path) for n, s in files.items()]}}})
batch, position = batches(feed, 5)[-1]
print(batch["tokens"].tolist(), position.tolist())
"""
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert result.stdout.strip() == f"{expected[0]['tokens'].tolist()} {expected[1].tolist()}"


def test_nothing_held_out_is_trained_on_in_any_phrasing(files):
  sources = {n: Source(s.path, templates="zero_shot", shots=(0, 2)) for n, s in files.items()}
  feed = open_stream(sources, eval_fraction=0.3, length=128)
  names = {f"{n}{i}" for n, count in dict(a=40, b=11, c=5).items() for i in range(count)}
  held_out = {name for name in names if is_held_out(name, 0.3, 3)}
  assert 8 < len(held_out) < 30
  trained = {name for batch, _ in batches(feed, 60) for text in texts(batch) for name in re.findall(r"[abc]\d+", text)}
  assert trained == names - held_out
  asked = [re.findall(r"[abc]\d+", text) for text in texts(feed.held_out())]
  assert asked and {question for *_, question in asked} <= held_out
  assert not {name for *shown, _ in asked for name in shown} & held_out


def test_shots_are_other_rows_in_the_same_phrasing(files):
  source = Source(files["b"].path, templates=(("Q: {question}", "{answer}"), ("{question}?", "{answer}!")), shots=(2,))
  opened = SourceStream("b", source, seed=0, window=100, is_held_out=lambda prompt: False)
  examples, last = opened.window_examples(0, 0)
  assert last and len(examples) == 11
  kinds = set()
  for (prompt, response), _, _ in examples:
    parts = prompt.split("\n\n")
    assert len(parts) == 3 and len({part.split("\n")[0] for part in parts}) == 3
    kinds.add((response, *(part.split("\n")[1] for part in parts[:2])))
  assert kinds == {("x", "x", "x"), ("x!", "x!", "x!")}
  again, _ = SourceStream("b", source, seed=0, window=100, is_held_out=lambda prompt: False).window_examples(0, 0)
  assert again == examples != opened.window_examples(1, 0)[0]
  few = SourceStream("b", source, seed=0, window=2, is_held_out=lambda prompt: False)
  with pytest.raises(DataError, match="shots=2 needs as many other rows to train on, found 1"):
    few.window_examples(0, 0)


def test_cursors_pass_over_windows_and_epochs(files):
  opened = SourceStream("b", files["b"], seed=0, window=4, is_held_out=lambda prompt: False)
  whole, cursor = opened.next_examples(Cursor(), 30)
  assert cursor == (2, 1, 4)  # 30 = 2 passes of 11, and 8 of the third
  parts, cursor = [], Cursor()
  for count in (1, 3, 4, 5, 0, 9, 8):
    again = SourceStream("b", files["b"], seed=0, window=4, is_held_out=lambda prompt: False)
    part, cursor = again.next_examples(cursor, count)
    parts += part
  assert parts == whole
  assert Counter(example.record for example in whole[:11]) == Counter(read_demonstrations(files["b"])[0])


def test_buckets_hold_examples_of_like_length(tmp_path, monkeypatch):
  monkeypatch.setattr(stream, "BLOCK", 64)
  rows = [{"prompt": "a", "response": "one " * (1 + 5 * (i % 8))} for i in range(64)]
  write_rows(tmp_path / "a.jsonl", rows)
  feed = open_stream({"a": Source(str(tmp_path / "a.jsonl"))}, layout="bucketed", length=128, window=64)
  found = [batch for batch, _ in batches(feed, 16)]
  widths = {batch["tokens"].shape[1] for batch in found}
  assert widths == {32, 64} or widths == {16, 32, 64} or len(widths) >= 2 and widths <= {16, 32, 64, 128}
  for batch in found:
    width = batch["tokens"].shape[1]
    longest = (np.arange(width) * batch["mask"]).max() + 1
    assert longest <= width and (width == 16 or longest > width // 2)
  padding = sum((batch["tokens"] == TOKENIZER.pad_id).sum() for batch in found) / sum(b["tokens"].size for b in found)
  assert padding < 0.4 < 1 - sum((b["tokens"] != TOKENIZER.pad_id).sum() for b in found) / (64 * 128)


def test_what_is_too_long_is_left_out_where_allowed_and_never_tokenised_whole(tmp_path, monkeypatch):
  monkeypatch.setattr(stream, "BLOCK", 1)
  rows = [{"prompt": "p", "response": "one"}, {"prompt": "q", "response": "\u05e9\u200b" * 2_500_000}]  # 10 MB
  write_rows(tmp_path / "a.jsonl", rows)
  feed = open_stream({"a": Source(str(tmp_path / "a.jsonl"))}, batch_size=1)
  assert {text for batch, _ in batches(feed, 2) for text in texts(batch)} == {"\n\nHuman: p\n\nAssistant: one"}
  ((path, skips, num_read),) = feed.skips()
  assert path == str(tmp_path / "a.jsonl") and 0 < skips["longer than 48 tokens"] < num_read
  strict = open_stream({"a": Source(str(tmp_path / "a.jsonl"), skip=("unusable",))}, batch_size=1)
  with pytest.raises(DataError, match=r"a\.jsonl:2: longer than 48 tokens; .*'too_long'"):
    batches(strict, 2)


def test_a_source_of_which_nothing_is_left_is_an_error(tmp_path, monkeypatch):
  monkeypatch.setattr(stream, "BLOCK", 8)
  write_rows(tmp_path / "a.jsonl", [{"prompt": "p", "response": ""}] * 3)
  feed = open_stream({"a": Source(str(tmp_path / "a.jsonl"))})
  with pytest.raises(DataError, match="none of its rows is usable .empty response"):
    feed.batch_at(feed.start)
  write_rows(tmp_path / "a.jsonl", [{"prompt": "p", "response": "one two " * 99}] * 3)
  feed = open_stream({"a": Source(str(tmp_path / "a.jsonl"))})
  with pytest.raises(DataError, match="a can be trained on .longer than 48 tokens"):
    feed.batch_at(feed.start)


def test_a_turn_with_the_weight_0_is_counted_by_no_loss(tmp_path, monkeypatch):
  monkeypatch.setattr(stream, "BLOCK", 8)
  said = [("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four")]
  rows = [{"role": role, "content": content} for role, content in said]
  rows[1]["weight"] = 0
  write_rows(tmp_path / "a.jsonl", [{"messages": rows}])
  for loss, counted in (("last", {"four"}), ("all", {"four"}), ("everything", {"one", "three", "four"})):
    feed = open_stream(dict(a=Source(str(tmp_path / "a.jsonl"))), loss=loss)
    batch, _ = feed.batch_at(feed.start)
    ids = batch["tokens"][0][batch["mask"][0]]
    assert {word for word in ("one", "two", "three", "four") if word in TOKENIZER.decode(ids)} == counted


def test_texts_are_cut_into_rows_and_nothing_is_lost(tmp_path, monkeypatch):
  monkeypatch.setattr(stream, "BLOCK", 4)
  rows = [{"text": f"four {i} five six seven " * (1 + 4 * i)} for i in range(4)]
  write_rows(tmp_path / "a.jsonl", rows)
  feed = open_stream({"a": Source(str(tmp_path / "a.jsonl"))}, length=16, batch_size=1)
  found, position = Counter(), feed.start
  while not found or position[0]:  # the first block is a pass: it has at least four rows of four texts
    batch, position = feed.batch_at(position)
    (tokens,), (mask,), (segments,) = (batch[key] for key in ("tokens", "mask", "segments"))
    for s in range(1, segments.max() + 1):
      assert mask[segments == s].tolist() == [False] + [True] * (sum(segments == s) - 1)
      found[tuple(tokens[segments == s].tolist())] += 1
  ids = [TOKENIZER.encode(row["text"]) for row in rows]
  assert found == Counter((TOKENIZER.bos_id, *x[i : i + 15]) for x in ids for i in range(0, len(x), 15))


def test_packing_fills_rows_of_512_tokens_to_95_percent():
  if not ALPACA.exists():
    pytest.skip("the public data set alpaca_en_demo is not in ../shared/data")
  source = Source(str(ALPACA))
  texts = [text for pair in read_demonstrations(source)[0][:200] for text in pair]
  tokenizer = train_tokenizer(texts, 1000)
  feed = Stream(Mixture({"alpaca": source}), tokenizer, length=512, batch_size=8, seed=0)
  found = [feed.batch_at(feed.start)]
  while found[-1][1][0]:
    found.append(feed.batch_at(found[-1][1]))
  assert np.mean([batch["segments"] > 0 for batch, _ in found]) > 0.95
  assert feed.describe(1)[-1].endswith("% full")


def test_a_source_with_an_unknown_number_of_rows_asks_for_it(files, monkeypatch):
  monkeypatch.setattr(Source, "open", lambda self: Rows(open_rows(self.path).stream, lambda: None))
  with pytest.raises(DataError, match=r"b\.jsonl: its number of rows is not known; give rows=N in the source 'b'"):
    open_stream({"b": files["b"]})
  known = open_stream({"b": Source(files["b"].path, rows=11)})
  assert known.examples_per_pass() == 11


def test_a_program_without_mixtures_does_not_load_them():
  code = "import sys, rlhf_jax.data; print(*(name for name in sys.modules if name.startswith('rlhf_jax.data.')))"
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
  loaded = {name.rpartition(".")[2] for name in result.stdout.split()}
  assert "sources" in loaded and not loaded & {"mixture", "stream", "source_stream", "templates"}
