"""Token arrays position by position, and the row choice that makes resuming exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_jax.data import (
  Comparison,
  Demonstration,
  Message,
  arrays,
  batch_indices,
  comparison_rows,
  demonstration_rows,
  language_model_rows,
  pack_rows,
  parse_prompt_text,
  prompt_rows,
  split_prompts,
  take,
  train_tokenizer,
)

PAD, BOS, EOS = 0, 1, 2
TOKENIZER = train_tokenizer(["\n\nHuman: Where does Tom live?\n\nAssistant: Tom lives in Oakford." * 9], 300)
# Runs of whitespace are tokens here, so that a cut inside one shows.
WHITESPACE = train_tokenizer(["a\n\n\nb \n \n\na\t\t\r\n\r\n  1\n\n \n\n\n\n"] * 9, 300)


def encode(text: str) -> list[int]:
  return TOKENIZER.encode(text)


def padded(row: list[int], length: int) -> list[int]:
  return row + [PAD] * (length - len(row))


def test_language_model_rows():
  text = "Tom lives\nhere"
  stream = encode(text)
  length = len(stream) - 1  # one token short of one row: two rows, the second with two tokens
  rows = language_model_rows(TOKENIZER, text, length)
  assert rows["tokens"].tolist() == [[BOS, *stream[:-2]], padded([BOS, *stream[-2:]], length)]
  first, last = [False] + [True] * (length - 1), [False, True, True] + [False] * (length - 3)
  assert rows["mask"].tolist() == [first, last]
  assert (rows["tokens"].dtype, rows["mask"].dtype) == (np.int32, bool)


def test_language_model_row_that_is_exactly_full():
  stream = encode("Tom lives")
  rows = language_model_rows(TOKENIZER, "Tom lives", len(stream) + 1)
  assert rows["tokens"].tolist() == [[BOS, *stream]]
  assert rows["mask"].tolist() == [[False] + [True] * len(stream)]


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab1' \t\r\n\x0b\x1c\x85\u00a0\u2028\u200b,"), max_size=60))
def test_tokenising_in_pieces_changes_no_token(text):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(arrays, "_PIECE", 1)
    rows = language_model_rows(WHITESPACE, text, 8)
  assert rows["tokens"][rows["mask"]].tolist() == WHITESPACE.encode(text)


def test_long_text_is_tokenised_in_pieces(monkeypatch):
  monkeypatch.setattr(arrays, "_PIECE", 100)
  text = " = Title = \n\n Tom lives in Oakford . \n" * 50
  pieces = list(arrays._pieces(text))
  assert "".join(pieces) == text
  assert len(pieces) > 10 and max(map(len, pieces)) < 150
  assert sum((encode(piece) for piece in pieces), []) == encode(text)


def test_length_without_room_for_text_is_refused():
  with pytest.raises(ValueError, match="at least 2"):
    language_model_rows(TOKENIZER, "Tom", 1)


def test_demonstration_rows():
  # The stop token is inside the mask, and PAD is not: otherwise the model never learns to stop.
  prompt = encode("\n\nHuman: Where does Tom live?\n\nAssistant:")
  response = encode(" Oakford.")
  length = 1 + len(prompt) + len(response) + 1 + 3
  rows, skips = demonstration_rows(TOKENIZER, [Demonstration("Where does Tom live?", " Oakford.\n")], length)
  assert rows["tokens"].tolist() == [padded([BOS, *prompt, *response, EOS], length)]
  assert rows["mask"].tolist() == [[False] * (1 + len(prompt)) + [True] * (len(response) + 1) + [False] * 3]
  assert (rows["tokens"].dtype, rows["mask"].dtype, skips) == (np.int32, bool, {})


def test_prompt_alone_is_the_beginning_of_prompt_and_response():
  # Tokenised together, the boundary could merge: the policy would then never sample what it was trained on.
  prompts, _, _ = prompt_rows(TOKENIZER, ["Hi", "Hi"], 40)
  answered = [Demonstration("Hi", "1"), Demonstration("Hi", "Tom")]
  demonstrations, _ = demonstration_rows(TOKENIZER, answered, 40)
  start = prompts["lengths"][0]
  assert demonstrations["tokens"][:, :start].tolist() == prompts["tokens"][:, :start].tolist()
  assert demonstrations["mask"].argmax(axis=1).tolist() == [start, start]


def test_demonstrations_too_long_are_counted_never_cut():
  fits, long = Demonstration("Hi", "Tom"), Demonstration("Hi", "Tom lives")
  length = 1 + len(encode("\n\nHuman: Hi\n\nAssistant:")) + len(encode(" Tom")) + 1
  rows, skips = demonstration_rows(TOKENIZER, [long, fits, long], length)
  assert skips == {f"longer than {length} tokens": 2}
  assert rows["tokens"].shape == (1, length)
  assert rows["tokens"][0, -1] == EOS and rows["mask"][0, -1]


def test_control_tokens_in_user_text_stay_text():
  rows, _ = demonstration_rows(TOKENIZER, [Demonstration("<eos><pad>", "a<eos>b<pad>")], 80)
  tokens = rows["tokens"][0]
  real = tokens[: np.flatnonzero(rows["mask"][0])[-1] + 1]
  assert [int((real == token).sum()) for token in (PAD, BOS, EOS)] == [0, 1, 1]
  assert TOKENIZER.decode(tokens) == "\n\nHuman: <eos><pad>\n\nAssistant: a<eos>b<pad>"


def test_nothing_fits():
  rows, skips = demonstration_rows(TOKENIZER, [Demonstration("Hi", "Tom")], 4)
  assert rows["tokens"].shape == rows["mask"].shape == (0, 4)
  assert skips == {"longer than 4 tokens": 1}


def test_comparison_rows():
  prompt = [BOS, *encode("\n\nHuman: Hi\n\nAssistant:")]
  comparisons = [
    Comparison("Hi", ("Tom", "Oakford lives", "x"), (1, 0, -1)),
    Comparison("Hi", ("Tom", "a b c d e f g h i j k l m n o p q r s t u v w x y z"), (0, 1)),
    Comparison("Hi", ("in", "Tom"), (0, 1)),
  ]
  length = len(prompt) + len(encode(" Oakford lives")) + 1
  rows, kept, skips = comparison_rows(TOKENIZER, comparisons, length)
  tom, oakford, inside = (prompt + encode(text) + [EOS] for text in (" Tom", " Oakford lives", " in"))
  expected = [[tom, oakford, []], [inside, tom, []]]
  assert rows["tokens"].tolist() == [[padded(row, length) for row in group] for group in expected]
  for mask, row in zip(rows["mask"].reshape(-1, length), (row for group in expected for row in group), strict=True):
    assert np.flatnonzero(mask).tolist() == list(range(len(prompt), len(row)))  # the response and its end
  assert rows["ranks"].tolist() == [[1, 0, -1], [0, 1, -1]]
  assert kept == [0, 2]
  assert skips == {f"longer than {length} tokens": 1}
  assert [rows[name].dtype for name in ("tokens", "mask", "ranks")] == [np.int32, bool, np.int32]


def test_absent_response_may_be_long():
  rows, kept, skips = comparison_rows(TOKENIZER, [Comparison("Hi", ("a", "b", "c " * 99), (0, 1, -1))], 40)
  assert (kept, skips) == ([0], {})
  assert not rows["mask"][0, 2].any()


def test_num_responses_sets_the_slots():
  pair = Comparison("Hi", ("a", "b"), (0, 1))
  triple = Comparison("Hi", ("a", "b", "c"), (0, 1, 2))
  rows, kept, skips = comparison_rows(TOKENIZER, [triple, pair], 40, num_responses=2)
  assert (rows["tokens"].shape, kept, skips) == ((1, 2, 40), [1], {"more than 2 responses": 1})
  rows, _, _ = comparison_rows(TOKENIZER, [pair], 40, num_responses=4)
  assert rows["ranks"].tolist() == [[0, 1, -1, -1]]


def test_prompt_rows():
  dialogue = parse_prompt_text("\n\nHuman: Hi\n\nAssistant: Tom\n\nHuman: live\n\nAssistant:")
  bare = [BOS, *encode("\n\nHuman: Hi\n\nAssistant:")]
  tom = [*encode(" Tom"), EOS]  # a turn of the assistant ends in <eos> wherever it stands
  whole = [BOS, *bare[1:], *tom, *encode("\n\nHuman: live\n\nAssistant:")]
  length = len(whole)
  rows, kept, skips = prompt_rows(TOKENIZER, ["Hi", "x" * 99, dialogue], length)
  assert rows["tokens"].tolist() == [padded(bare, length), whole]
  assert rows["lengths"].tolist() == [len(bare), length]
  assert (kept, skips) == ([0, 2], {f"longer than {length} tokens": 1})
  assert (rows["tokens"].dtype, rows["lengths"].dtype) == (np.int32, np.int32)


def test_take():
  chosen = take({"a": np.arange(5), "b": np.arange(10).reshape(5, 2)}, [3, 0, 3])
  assert chosen["a"].tolist() == [3, 0, 3]
  assert chosen["b"].tolist() == [[6, 7], [0, 1], [6, 7]]


@pytest.mark.parametrize(("num_rows", "batch_size"), [(10, 3), (10, 5), (7, 7), (3, 8), (1, 4)])
def test_every_epoch_uses_every_row_once(num_rows, batch_size):
  stream = np.concatenate([batch_indices(num_rows, batch_size, step, seed=4) for step in range(3 * num_rows)])
  epochs = stream.reshape(-1, num_rows)  # 3 * batch_size epochs
  assert (np.sort(epochs, axis=1) == np.arange(num_rows)).all()
  if num_rows > 3:
    assert len({tuple(epoch) for epoch in epochs}) > 1  # a new order each epoch


def test_batches_depend_on_seed_and_step_alone():
  first = [batch_indices(20, 6, step, seed=1) for step in range(10)]
  arrays._permutation.cache_clear()
  resumed = [batch_indices(20, 6, step, seed=1) for step in range(7, 10)]
  assert np.array_equal(first[7:], resumed)
  assert not np.array_equal(first, [batch_indices(20, 6, step, seed=2) for step in range(10)])


def test_a_batch_is_the_caller_s_own():
  batch_indices(5, 5, 0, seed=0)[:] = -1
  assert sorted(batch_indices(5, 5, 0, seed=0)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("wrong", [{"num_rows": 0}, {"batch_size": 0}, {"step": -1}, {"seed": -1}])
def test_batch_out_of_range_is_refused(wrong):
  with pytest.raises(ValueError, match="at least"):
    batch_indices(**{"num_rows": 4, "batch_size": 2, "step": 0, "seed": 0, **wrong})


def test_split_prompts_keeps_equal_prompts_together():
  names = [f"prompt {i % 500}" for i in range(1500)]
  prompts = [(Message("user", name), Message("assistant", "Hm?")) if int(name[7:]) % 3 else name for name in names]
  train, held_out = split_prompts(prompts, 0.2, seed=3)
  assert sorted([*train, *held_out]) == list(range(1500))
  train_names, held_out_names = {names[i] for i in train}, {names[i] for i in held_out}
  assert not train_names & held_out_names
  assert 0.13 < len(held_out_names) / 500 < 0.27  # 0.2 within four standard deviations


def test_split_prompts_is_stable_under_additions_and_changes_with_the_seed():
  prompts = [f"prompt {i}" for i in range(200)]
  held_out = split_prompts(prompts, 0.5, seed=0)[1].tolist()
  more = split_prompts([*prompts, "another", "prompt"], 0.5, seed=0)[1].tolist()
  assert [i for i in more if i < 200] == held_out
  assert split_prompts(prompts, 0.5, seed=1)[1].tolist() != held_out


def test_split_prompts_at_the_ends():
  assert [len(side) for side in split_prompts(["a", "b"], 0.0, seed=0)] == [2, 0]
  assert [len(side) for side in split_prompts(["a", "b"], 1.0, seed=0)] == [0, 2]
  assert [len(side) for side in split_prompts([], 0.5, seed=0)] == [0, 0]
  with pytest.raises(ValueError, match="between 0 and 1"):
    split_prompts(["a"], 1.5, seed=0)


def test_packing_keeps_every_row_whole_and_apart():
  rng = np.random.default_rng(0)
  lengths = rng.integers(2, 13, size=60)
  tokens = np.where(np.arange(12) < lengths[:, None], rng.integers(3, 50, size=(60, 12)), 0).astype(np.int32)
  mask = (np.arange(12) >= 1) & (np.arange(12) < lengths[:, None])
  packed = pack_rows({"tokens": tokens, "mask": mask}, 32, 0)
  found = []
  for row, kept, segments in zip(packed["tokens"], packed["mask"], packed["segments"], strict=True):
    assert (row[segments == 0] == 0).all() and not kept[segments == 0].any()
    for segment in range(1, segments.max() + 1):
      here = segments == segment
      index = np.flatnonzero(here)
      np.testing.assert_array_equal(index, np.arange(index[0], index[-1] + 1))
      assert not kept[index[0]], "the first token of a row has no prediction of its own"
      found.append((tuple(row[here]), tuple(kept[here])))
  given = [(tuple(t[:n]), tuple(m[:n])) for t, m, n in zip(tokens, mask, lengths, strict=True)]
  assert sorted(found) == sorted(given)
  assert (packed["segments"] > 0).mean() > 0.9
  with pytest.raises(ValueError, match="12 tokens does not fit in length 8"):
    pack_rows({"tokens": tokens, "mask": mask}, 8, 0)


def test_packing_nothing_gives_no_rows():
  packed = pack_rows({"tokens": np.zeros((0, 5), np.int32), "mask": np.zeros((0, 5), bool)}, 8, 0)
  assert packed["tokens"].shape == (0, 8)
