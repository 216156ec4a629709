"""The ends of a turn, refusals of a template as skips of their rows, and what templates may use beside messages."""

import datetime
import json
from collections import Counter

import numpy as np
import pytest
from chat_models import publish

from rlhf_jax.data import (
  Comparison,
  DataError,
  Demonstration,
  Message,
  Source,
  comparison_rows,
  demonstration_rows,
  load_tokenizer,
  prompt_rows,
)
from rlhf_jax.data.chat_templates import Rendered, TemplateFailure, TemplateRefusal, render, render_all
from rlhf_jax.data.encoding import REJOINED, encode_demonstrations
from rlhf_jax.data.mixture import Mixture
from rlhf_jax.data.stream import Stream

REFUSED = "the chat template refuses it: roles must alternate user/assistant/user/..."
TWICE = (Message("user", "Hi"), Message("user", "Tom?"))


def test_one_refused_dialogue_is_the_skip_of_its_row(tmp_path):
  tokenizer = load_tokenizer(publish(tmp_path, "gemma 2"))
  rows, skips = demonstration_rows(tokenizer, [Demonstration("Hi", "Hello"), Demonstration(TWICE, "Yes")], 64)
  assert len(rows["tokens"]) == 1 and skips == {REFUSED: 1}
  pairs = [Comparison(TWICE, ("a", "b"), (0, 1)), Comparison("Hi", ("a", "b"), (0, 1))]
  _, kept, skips = comparison_rows(tokenizer, pairs, 64)
  assert kept == [1] and skips == {REFUSED: 1}
  system = (Message("system", "Be brief."), Message("user", "Hi"))
  _, kept, skips = prompt_rows(tokenizer, [TWICE, "Hi", system], 64)
  assert kept == [1] and set(skips.values()) == {1} and "System role not supported" in " ".join(skips)


def test_a_stream_counts_or_names_what_the_template_refuses(tmp_path):
  tokenizer = load_tokenizer(publish(tmp_path, "gemma 2"))
  turns = [{"role": "user", "content": "Hi"}] * 2
  lines = [{"prompt": turns, "response": "x"}] + [{"prompt": f"Hi {i}", "response": "Hello"} for i in range(4)]
  (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  settings = dict(length=32, batch_size=2, seed=0)
  stream = Stream(Mixture({"a": Source(str(tmp_path / "a.jsonl"))}), tokenizer, **settings)
  stream.batch_at(stream.start)
  assert set(stream.skips()[0][1]) == {REFUSED}
  strict = Stream(Mixture({"a": Source(str(tmp_path / "a.jsonl"), skip=())}), tokenizer, **settings)
  with pytest.raises(DataError, match=r"a\.jsonl:1: the chat template refuses it: roles must alternate"):
    strict.batch_at(strict.start)


def test_a_template_that_answers_otherwise_than_it_asks_is_counted(tmp_path):
  tokenizer = load_tokenizer(publish(tmp_path, "thinking"))
  notes = Counter()
  rows, skips = demonstration_rows(tokenizer, [Demonstration("Hi", "Hello, Tom.")], 64, notes)
  assert notes == {REJOINED: 1} and not skips
  assert tokenizer.backend.decode(rows["tokens"][0][rows["mask"][0]], skip_special_tokens=False) == "Hello, Tom.</s>"


def test_a_template_without_an_end_gets_eos(tmp_path):
  tokenizer = load_tokenizer(publish(tmp_path, "gpt-2", "{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}"))
  assert tokenizer.end_ids == (tokenizer.eos_id,)
  ((ids, mask),) = encode_demonstrations(tokenizer, [Demonstration("Hi", "Hello")], "last")
  assert ids[-1] == tokenizer.eos_id and mask[-1]


@pytest.mark.parametrize("listed", ["x", [1.5], [-1], {}])
def test_a_damaged_generation_config_is_named(tmp_path, listed):
  (publish(tmp_path, "llama 3") / "generation_config.json").write_text(json.dumps({"eos_token_id": listed}))
  with pytest.raises(DataError, match=r"generation_config\.json: eos_token_id must be an id or a list of ids"):
    load_tokenizer(tmp_path)


def test_ends_are_left_out_of_decoded_texts(tmp_path):
  tokenizer = load_tokenizer(publish(tmp_path, "gemma 2"))
  ((ids, mask),) = encode_demonstrations(tokenizer, [Demonstration("Hi", "Hello")], "last")
  assert tokenizer.decode(ids[mask]) == "Hello" and int(ids[np.flatnonzero(mask)[-1]]) == tokenizer.end_ids[1]


@pytest.mark.parametrize("family", ["llama 3", "mistral 0.1", "gemma 2", "zephyr", "tagged", "gpt-2"])
@pytest.mark.parametrize("silent", [1, 3])
def test_a_turn_of_weight_0_is_masked_with_its_end_and_nothing_else(tmp_path, family, silent):
  tokenizer = load_tokenizer(publish(tmp_path, family))
  turns = [
    Message(("user", "assistant")[i % 2], text) for i, text in enumerate(["Hi", "Hello, Tom", "Where?", "In Oakford"])
  ]
  turns += [Message("user", "1 + 1?")]
  weighted = [Message(t.role, t.content, '{"weight": 0}') if i == silent else t for i, t in enumerate(turns)]

  def counted(messages, loss):
    ((ids, mask),) = encode_demonstrations(tokenizer, [Demonstration(tuple(messages), "It is 2")], loss)
    return ids, mask

  ids, whole = counted(turns, "all")
  same, left = counted(weighted, "all")
  np.testing.assert_array_equal(ids, same)
  lost = whole & ~left
  assert (
    (left <= whole).all() and turns[silent].content in tokenizer.backend.decode(ids[lost]) and lost.sum() < whole.sum()
  )
  assert not any(turns[other].content in tokenizer.backend.decode(ids[lost]) for other in (1, 3) if other != silent)
  everything = counted(weighted, "everything")[1]
  np.testing.assert_array_equal(everything[1:], ~lost[1:])
  np.testing.assert_array_equal(counted(weighted, "last")[1], counted(turns, "last")[1])


def test_templates_have_what_transformers_gives_them():
  now = datetime.datetime.now()
  assert render("{{ strftime_now('%Y') }}") in (str(now.year), str(now.year + 1))
  assert render("{{ date_string is defined }}{{ tools is none }}", tools=None) == "FalseTrue"
  assert render("{% for i in [1, 2] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "1"
  assert render("{{ x | tojson(indent=1) }}", x={"b": "\u00e9<", "a": 1}) == '{\n "b": "\u00e9<",\n "a": 1\n}'
  tagged = "a{% generation %}b{{ x }}{% endgeneration %}c{% generation %}d{% endgeneration %}"
  assert render_all(tagged, [{"x": "\u00e9"}, {"x": ""}]) == [
    Rendered("ab\u00e9cd", ((1, 3), (4, 5))),
    Rendered("abcd", ((1, 2), (3, 4))),
  ]


def test_refusals_are_of_rows_and_faults_of_the_template():
  found = render_all("{% if x %}{{ raise_exception('no') }}{% endif %}y", [{"x": 1}, {"x": 0}, {"x": 1}])
  assert [str(one) if isinstance(one, TemplateRefusal) else one.text for one in found] == ["no", "y", "no"]
  with pytest.raises(TemplateFailure, match="TemplateSyntaxError"):
    render_all("{% if %}", [{}])
  with pytest.raises(TemplateFailure, match="more than 1000000 characters"):
    render_all("{{ 'x' * n }}", [{"n": 1}, {"n": 2_000_000}, {"n": 1}])
  assert render("{{ 'x' * n }}", n=2) == "xx"  # replies stay in step after a failure
