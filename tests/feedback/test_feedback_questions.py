"""A questions file says what is asked; its mistakes are named before anything starts, and answers are checked."""

import tomllib

import pytest

from rlhf_jax.cli import main
from rlhf_jax.feedback.collect import collect
from rlhf_jax.feedback.project import current_questions
from rlhf_jax.feedback.questions import Questions, parse_questions, read_questions
from rlhf_jax.feedback.records import Response, make_item
from rlhf_jax.feedback.store import opened
from rlhf_jax.settings import ConfigError

FILE = """
ask = ["comparison", "yes_no", "rating", "flags", "text", "spans"]
required = ["comparison", "yes_no"]
[comparison]
strengths = 1
tie = false
both_bad = true
[yes_no]
question = "Would you send this answer?"
[rating]
points = 5
labels = ["useless", "poor", "fair", "good", "perfect"]
overall = false
aspects = ["helpful", "honest", "harmless"]
[flags]
labels = ["false"]
[text]
fields = ["critique"]
[spans]
labels = ["false", "rude"]
[skip]
reasons = ["I cannot tell"]
other = false
"""


@pytest.fixture
def asked(tmp_path):
  (tmp_path / "q.toml").write_text(FILE)
  return read_questions(tmp_path / "q.toml")


def test_the_file_is_read_and_what_it_leaves_out_is_as_in_the_default_page(asked):
  assert asked.rating.aspects == ("helpful", "honest", "harmless") and asked.rating.points == 5
  assert asked.yes_no.question == "Would you send this answer?" and not asked.skip.other
  default = parse_questions({}, "here")
  assert default == Questions() and default.version == "" and asked.version
  assert default.ask == ("rating", "comparison", "ranking", "flags", "text")
  assert default.flags.labels[0] == "harmful" and default.skip.reasons[0] == "I cannot tell"


@pytest.mark.parametrize(
  "text, message",
  [
    ("ask = [comparison]", "is no TOML"),
    ('ask = ["compare"]', "questions.ask[0] is 'compare'. Did you mean 'comparison'?"),
    ("ask = []", "ask=[] must name at least one kind"),
    ('ask = ["rating", "rating"]', "must name at least one kind, each once"),
    ('asks = ["rating"]', "questions has no key 'asks'. Did you mean 'ask'?"),
    ('ask = ["rating"]\nrequired = ["spans"]', "required names 'spans', which is not asked; add it to ask"),
    ("[rating]\npoint = 5", "questions.rating has no key 'point'. Did you mean 'points'?"),
    ("[rating]\npoints = 5.0", "questions.rating.points must be int, not 5.0"),
    ("[rating]\npoints = 8", "rating.points=8 must be 2 to 7"),
    ('[rating]\nlabels = ["a", "b"]', "rating.labels has 2 words for 7 points; give all"),
    ("[rating]\noverall = false", "nothing is rated; take it out of ask"),
    ("[comparison]\nstrengths = 4", "comparison.strengths=4 must be 1 to 3"),
    ('ask = ["yes_no"]\n[yes_no]\nquestion = " "', "yes_no.question is empty"),
    ("[text]\nfields = []", "text.fields is empty"),
    ("[flags]\nlabels = []", "flags.labels=[] must be 1 to 9 different texts"),
    ('[skip]\nreasons = ["a", "a"]', "skip.reasons=['a', 'a'] must be 0 to 9 different texts"),
    ('[spans]\nlabels = ["a\\nb"]', "'spans.labels' must be 1 to 200 printable characters"),
  ],
)
def test_a_mistake_is_named_before_the_server_starts(text, message, tmp_path, capsys):
  path = tmp_path / "q.toml"
  path.write_text(text)
  with pytest.raises(ConfigError) as error:
    read_questions(path)
  assert str(error.value).startswith(f"{path}: ") and message in str(error.value)
  assert main(["annotate", str(tmp_path / "a.db"), "--questions", str(path)]) == 2
  told = capsys.readouterr().err
  assert message in told and str(path) in told and "config.questions" not in told


GOOD = {"order": [0, 1], "ranks": [0, 1], "yes_no": [True, False]}


@pytest.mark.parametrize(
  "change, message",
  [
    ({"ranks": None}, "the answer lacks 'comparison', which is required"),
    ({"yes_no": [True, None]}, "the answer lacks 'yes_no', which is required"),
    ({"ranks": [0, 0]}, "a tie is not an answer here"),
    ({"strength": 2}, "'strength' is 2, and at most 1 here"),
    ({"ratings": [1, 2]}, "only aspects are rated"),
    ({"aspects": {"funny": [1, 2]}}, "'aspects' has 'funny', and must be of helpful, honest, harmless"),
    ({"aspects": {"honest": [6, 2]}}, "rating 6 is above the scale's 5 points"),
    ({"flags": [["rude"], []]}, "'flags' has 'rude', and must be of false"),
    ({"spans": [[[0, 1, "wrong"]], []]}, "'spans' has 'wrong', and must be of false, rude"),
    ({"rewrites": ["better", ""]}, "'rewrites' is given, but rewrite is not asked"),
    ({"skipped": "lunch"}, "'skipped' must be one of I cannot tell"),
    ({"ranks": None, "skipped": "I cannot tell", "flags": [["rude"], []]}, "'flags' has 'rude'"),
    ({"order": [0, 1, 2], "ranks": [0, 1, 2], "yes_no": [True] * 3}, "'ranks' is given, but ranking is not asked"),
  ],
)
def test_an_answer_that_was_not_asked_for_is_refused(change, message, asked):
  with pytest.raises(ValueError) as error:
    asked.check({**GOOD, **change})
  assert message in str(error.value)


def test_an_answer_that_was_asked_for_is_taken(asked):
  marks = {"spans": [[[0, 1, "rude"]], []], "flags": [["false"], []], "critiques": ["so", ""]}
  asked.check({**GOOD, **marks, "aspects": {"helpful": [5, None]}})
  asked.check({**GOOD, "ranks": [0, 0], "all_bad": True})
  asked.check({"order": [0, 1], "skipped": "I cannot tell"})
  with pytest.raises(ValueError, match="'all_bad' is given, but not asked"):
    Questions().check({**GOOD, "yes_no": None, "ranks": [0, 0], "all_bad": True})


@pytest.mark.parametrize("kind, fields", [
  ("rating", {"ratings": [1, 7], "aspects": {"kind": [1, 2]}}), ("flags", {"flags": [["harmful"], []]}),
  ("text", {"critiques": ["so", ""]}), ("spans", {"spans": [[], []]}),
])  # fmt: skip
def test_every_kind_can_be_required(kind, fields):
  """And half an answer is none: of the ratings, one aspect of one response is taken out."""
  questions = parse_questions({"ask": [kind], "required": [kind], "rating": {"aspects": ["kind"]}}, "here")
  questions.check({"order": [0, 1], **fields})
  less = {"ratings": [1, 7], "aspects": {"kind": [1, None]}} if kind == "rating" else dict.fromkeys(fields)
  with pytest.raises(ValueError, match=f"the answer lacks '{kind}'"):
    questions.check({"order": [0, 1], **less})


def test_a_config_says_the_same_as_a_file(asked, tmp_path, capsys):
  collect(tmp_path / "a.db", [make_item("p", [Response("a"), Response("b")])])
  (tmp_path / "q.py").write_text(
    f"from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({tomllib.loads(FILE)!r})\n"
  )
  command = ["collect", "--out", str(tmp_path / "a.db"), "--questions"]
  assert main([*command, str(tmp_path / "q.py")]) == 0
  with opened(tmp_path / "a.db") as store:
    assert current_questions(store) == asked
  assert main([*command, str(tmp_path / "q.toml")]) == 0
  assert "asks for comparison, yes_no, rating, flags, text, spans, as before" in capsys.readouterr().out
  (tmp_path / "q.py").write_text("def get_config(): return {'ask': 3}\n")
  assert main([*command, str(tmp_path / "q.py")]) == 2
  assert main([*command, "q.yaml"]) == 2
  assert "--questions q.yaml: must be a file in TOML (.toml), or a config (.py)" in capsys.readouterr().err
