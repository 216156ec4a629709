"""Rows that a config asks for: a file, a pattern, a source with its columns, several sources with their shares."""

import collections
import dataclasses
import typing

import pyarrow
import pyarrow.parquet
import pytest
from tiny_chain import a_stage

from rlhf_jax import data
from rlhf_jax.algorithms import dpo, reward_model, sft
from rlhf_jax.data.mixture import Mixture, Sources, mix
from rlhf_jax.data.row_formats import COMPARISONS, DEMONSTRATIONS, PROMPTS
from rlhf_jax.data.sources import Source
from rlhf_jax.evaluation.questions import question_formats
from rlhf_jax.evaluation.reward_models import CONTRASTS
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.stages import evaluate, few_shot, preferences
from rlhf_jax.train.environment import Environment
from rlhf_jax.train.row_sources import PromptRows, read_given, read_text

FORMATS = {  # (what is read, a row of it, that row in a file with other columns, how these are named)
  "prompts": (PROMPTS, {"prompt": "Who?"}, {"question": "Who?", "more": 1}, dict(prompt="question")),
  "demonstrations": (
    DEMONSTRATIONS,
    {"prompt": "Who?", "response": "Tom."},
    {"question": "Who?", "answers": {"text": ["Tom.", "Ann."]}},
    dict(prompt="question", response="answers.text.0"),
  ),
  "comparisons": (
    COMPARISONS,
    {"prompt": "Who?", "chosen": "Tom.", "rejected": "I."},
    {"asked": "Who?", "best": "Tom.", "worst": "I."},
    dict(prompt="asked", chosen="best", rejected="worst"),
  ),
  "rankings": (
    COMPARISONS,
    {"prompt": "Who?", "responses": ["Tom.", "I."], "ranks": [0, 1]},
    {"prompt": "Who?", "texts": ["Tom.", "I."], "places": [0, 1]},
    dict(responses="texts", ranks="places"),
  ),
  "questions": (
    question_formats(False),
    {"prompt": "Who?", "answer": "Tom"},
    {"asked": "Who?", "gold": {"text": "Tom"}},
    dict(prompt="asked", answer="gold.text"),
  ),
  "contrasts": (
    CONTRASTS,
    {"prompt": "Who?", "chosen": "Tom.", "rejected": "I.", "kind": "wrong"},
    {"prompt": "Who?", "chosen": "Tom.", "rejected": "I.", "subset": "wrong"},
    dict(kind="subset"),
  ),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_of_row_comes_from_a_file_a_pattern_a_source_and_several(kind, tmp_path):
  formats, row, other, columns = FORMATS[kind]
  stage = a_stage(tmp_path)
  data.write_rows(tmp_path / "rows.jsonl", [row])
  (expected,) = read_given("{run}/rows.jsonl", stage, formats)
  data.write_rows(tmp_path / "part-1.jsonl", [row, row])
  data.write_rows(tmp_path / "part-2.jsonl", [row])
  assert read_given(f"{tmp_path}/part-*.jsonl", stage, formats) == [expected] * 3
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist([other]), tmp_path / "other.parquet")
  renamed = Source("{run}/other.parquet", columns=columns)
  assert read_given(renamed, stage, formats) == [expected]
  both = Sources({"own": Source("{run}/part-*.jsonl"), "other": renamed})
  assert read_given(both, stage, formats) == [expected] * 4


@pytest.mark.parametrize("kind", FORMATS)
def test_a_faulty_row_is_named_or_skipped_as_its_source_says(kind, tmp_path, capsys):
  formats, row, _, _ = FORMATS[kind]
  (tmp_path / "rows.jsonl").write_text('{"nothing": 1}\n')
  data.write_rows(tmp_path / "good.jsonl", [row])
  given = Sources({"bad": Source("{run}/rows.jsonl"), "good": Source("{run}/good.jsonl")})
  with pytest.raises(data.DataError, match=r"rows\.jsonl:1: "):
    read_given(given, a_stage(tmp_path), formats)
  with open(tmp_path / "rows.jsonl", "ab") as file:
    file.write((tmp_path / "good.jsonl").read_bytes())
  skipping = Source("{run}/rows.jsonl", skip=("schema",))
  assert len(read_given(skipping, a_stage(tmp_path), formats)) == 1
  assert "skipped 1 of 2 rows: wrong columns or types" in capsys.readouterr().out


def sources(**settings):
  return {name: Source(name, **settings.pop(name, {})) for name in ("a", "b")}, settings


def mixed(sizes, **settings):
  named, rest = sources(**settings)
  records = {name: [f"{name}{i}" for i in range(size)] for name, size in zip("ab", sizes, strict=True)}
  return mix(Sources(named, **rest), records, seed=0)


def counts(found):
  return dict(collections.Counter(record[0] for record in found))


def test_without_weights_every_record_comes_once_and_in_its_order():
  found = mixed((40, 10))
  assert sorted(found) == sorted([f"a{i}" for i in range(40)] + [f"b{i}" for i in range(10)])
  assert [record for record in found if record[0] == "b"] == [f"b{i}" for i in range(10)]
  assert counts(found[:25]) == {"a": 20, "b": 5}  # the shares hold at every place


def test_a_cap_keeps_a_random_part():
  found = mixed((400, 10), cap=10)
  assert counts(found) == {"a": 10, "b": 10}
  part = [int(record[1:]) for record in found if record[0] == "a"]
  assert part == sorted(set(part)) and max(part) > 50


def test_a_larger_part_holds_the_smaller_ones():
  parts = [set(mix(Sources({"a": Source("x")}, cap=cap), {"a": range(400)}, seed=3)) for cap in (10, 20, 160, 400)]
  assert [len(part) for part in parts] == [10, 20, 160, 400]
  assert all(part < larger for part, larger in zip(parts, parts[1:], strict=False))


def test_a_weight_repeats_a_source_as_a_whole():
  found = mixed((30, 10), b=dict(weight=3.0))  # 30 x 1 and 10 x 3: half of 40 each
  assert counts(found) == {"a": 20, "b": 20}
  assert collections.Counter(found)["b3"] == 2
  assert counts(mixed((30, 10), mixing="weights", b=dict(weight=3.0))) == {"a": 10, "b": 30}


def test_the_draw_depends_on_the_seed_and_the_name_alone():
  records = {"a": list(range(100)), "b": list(range(100, 110))}
  named = Sources(sources()[0], cap=20)
  first = [record for record in mix(named, records, 0) if record < 100]
  assert first == [record for record in mix(named, {**records, "b": [200]}, 0) if record < 100][: len(first)]
  assert first != [record for record in mix(named, records, 1) if record < 100]


def test_templates_write_prompts_and_demonstrations(tmp_path):
  data.write_rows(tmp_path / "sums.jsonl", [{"left": i, "answer": f"{i + 1}"} for i in range(9)])
  source = Source("{run}/sums.jsonl", templates=(("Add 1 to {left}.", "{answer}"),))
  found = read_given(source, a_stage(tmp_path), DEMONSTRATIONS)
  assert sorted(found) == [data.Demonstration(f"Add 1 to {i}.", f"{i + 1}") for i in range(9)]
  assert sorted(read_given(source, a_stage(tmp_path), PROMPTS)) == [f"Add 1 to {i}." for i in range(9)]
  with pytest.raises(data.DataError, match=r"sums\.jsonl: templates and shots write demonstrations and prompts"):
    read_given(source, a_stage(tmp_path), COMPARISONS)


def test_texts_come_from_plain_text_from_rows_and_from_several(tmp_path):
  (tmp_path / "plain.txt").write_text("Plain.\n")
  data.write_rows(tmp_path / "rows.jsonl", [{"text": "Rows.\n"}, {"text": " Two."}])
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"body": "Table."}]), tmp_path / "table.parquet")
  stage, table = a_stage(tmp_path), Source("{run}/table.parquet", columns=dict(text="body"))
  assert read_text("{run}/plain.txt", stage) == "Plain.\n"
  assert read_text("{run}/rows.jsonl", stage) == "Rows.\n Two."
  assert read_text(table, stage) == "Table."
  assert read_text(Sources({"rows": Source("{run}/rows.jsonl"), "table": table}), stage) == "Rows.\nTable. Two."


@pytest.mark.parametrize(
  ("config", "field"),
  [
    (Environment, "prompts"),
    (sft.Config, "demonstrations"),
    (reward_model.Config, "comparisons"),
    (reward_model.Config, "normalize_prompts"),
    (dpo.Config, "comparisons"),
    (preferences.Config, "prompts"),
    (evaluate.Config, "contrasts"),
    (few_shot.QuestionSet, "file"),
  ],
)
def test_a_config_takes_a_path_a_source_or_several(config, field):
  lone = {"path": "rows.jsonl", "columns": {"prompt": "question"}}
  several = {"sources": {"own": lone}, "cap": 9}
  kind = Mixture if config is sft.Config else Sources
  for given, expected in (
    ("rows.jsonl", "rows.jsonl"),
    (lone, Source(**lone)),
    (several, kind({"own": Source(**lone)}, cap=9)),
  ):
    found = parse_field(typing.get_type_hints(config, include_extras=True)[field], given)
    assert found == expected and type(found) is type(expected)


def parse_field(hint, given):
  """What a field of this type makes of a value of a config."""
  holder = dataclasses.make_dataclass("Holder", [("rows", hint)], frozen=True)
  return parse(holder, {"rows": given}, "stage").rows


def test_what_is_wrong_in_a_source_is_named_by_its_place():
  for given, told in (
    ({"path": "x", "colums": {}}, "config.stage.rows has no key 'colums'. Did you mean 'columns'?"),
    ({"sources": {"a": {"pth": "x"}}}, "config.stage.rows.sources.a has no key 'pth'. Did you mean 'path'?"),
    ({"sources": {}}, "config.stage.rows: sources is empty; name at least one"),
  ):
    with pytest.raises(ConfigError) as error:
      parse_field(PromptRows, given)
    assert str(error.value) == told
