"""Judgements of people in a run: what their page asks, who judges an item, and what the run waits for."""

import pytest
from tiny_chain import recipe

from rlhf_jax.feedback.project import current_questions
from rlhf_jax.feedback.queue import Answer, next_assignment, submit
from rlhf_jax.feedback.records import Annotator, Response, make_item
from rlhf_jax.feedback.store import add_records, opened
from rlhf_jax.feedback.store_settings import read_settings
from rlhf_jax.pipeline.first_rows import check_file
from rlhf_jax.settings import ConfigError, parse
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.stages import judgements

ASKED = 'ask = ["comparison", "ranking", "yes_no"]\n'
RULE = dict(judges=2, agreeing=2, at_most=2)


def made(tmp_path, asked="", **changes):
  """A round of online:page so changed, with the questions of a file."""
  if asked:
    (tmp_path / "q.toml").write_text(asked)
    changes["questions"] = "{run}/q.toml"
  section = {**recipe("online", "page")["page_judgements_1"], **changes}
  config = parse(judgements.Config, section, "page")
  return config, Stage("page", tmp_path, 0, "", Model(1, 8, 1, 1, 8, 8), Transport("jit", 1, 1))


def test_the_page_of_a_run_asks_what_the_config_says_and_an_expert_settles_what_is_disputed(tmp_path):
  config, stage = made(tmp_path, ASKED, **RULE)
  path = stage.directory / "feedback.db"
  judgements._store(config, stage, path, [make_item("p", [Response("a"), Response("b")])], None)
  with opened(path) as store:
    found = read_settings(store)
    assert (found.judgements_per_item, found.agreeing, found.at_most, found.gold_every) == (2, 2, 2, 0)
    assert current_questions(store).ask == ("comparison", "ranking", "yes_no")
    add_records(store, ([Annotator("ann"), Annotator("bob"), Annotator("eve", expert=True)], [], []))
  with pytest.raises(judgements.Unanswered, match="1 of 1 items wait for 2 judgements each, 0 more for an expert"):
    judgements.run(config, stage)
  with opened(path) as store:
    for name, best in (("ann", 0), ("bob", 1)):
      assigned = next_assignment(store, name, 0.0)
      ranks = [int(index != best) for index in assigned.order]
      submit(store, name, assigned.lease, Answer(ranks=ranks), "", 0.0)
  with pytest.raises(judgements.Unanswered, match="0 of 1 items .* 1 more for an expert.*--experts NAME`"):
    judgements.run(config, stage)
  with opened(path) as store:
    assigned = next_assignment(store, "eve", 0.0)
    assert submit(store, "eve", assigned.lease, Answer(ranks=(0, 0)), "", 0.0).final
  judgements.run(config, stage)


@pytest.mark.parametrize(
  "asked, changes, message",
  [
    ('ask = ["rating"]', {}, "config.page.kinds has 'ranks', but {run}/q.toml does not ask for comparison and ranking"),
    ('ask = ["comparison"]', {}, "does not ask for ranking: change what it asks, or leave 'ranks' out"),
    ('ask = ["comparison"]', dict(responses=2, num_written=0), ""),
    ("", dict(kinds=("ranks", "ratings")), ""),
    ("", dict(kinds=("yes_no",)), "but the default page does not ask for yes_no"),
    ('ask = ["rating"]\nrating = {overall = false, aspects = ["kind"]}', dict(kinds=("ratings",)),
     "does not ask for rating with overall = true"),
  ],
)  # fmt: skip
def test_a_page_that_does_not_ask_what_is_learnt_from_is_named_before_anything_runs(asked, changes, message, tmp_path):
  config, stage = made(tmp_path, asked, **changes)
  if not message:
    judgements.check(config, stage)
    return
  with pytest.raises(ConfigError) as error:
    judgements.check(config, stage)
  assert message in str(error.value)


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(agreeing=3, at_most=2), "agreeing must be 0, or 2 to at_most"),
    (dict(at_most=2), "at_most goes with agreeing"),
    (dict(labellers={"expert": 1}, agreeing=2, at_most=2), "questions, agreeing and at_most are for people"),
  ],
)
def test_a_rule_that_makes_no_sense_is_refused(changes, message, tmp_path):
  gold = dict(gold=dict(function="rlhf_jax.world:gold_parts", arguments={}))
  with pytest.raises(ConfigError, match=message):
    made(tmp_path, **gold, **changes)


def test_a_mistake_in_the_questions_is_found_by_the_check_of_files(tmp_path):
  path = tmp_path / "q.toml"
  path.write_text('ask = ["stars"]')
  with pytest.raises(ConfigError, match="q.toml: questions.ask"):
    check_file(path, "page file")
