"""The figures of experiments/real_annotators: on files made by hand, and to the last digit on the public sets."""

import gzip
import json

import numpy as np
import pytest
from tiny_chain import ROOT

from rlhf_jax.agreement.tables import judgement_table, pairs_of
from rlhf_jax.data import DataError
from rlhf_jax.data.vader import SOURCES, read_vader
from rlhf_jax.data.wmt import read_wmt
from rlhf_jax.settings import import_module

FOLDER = ROOT / "experiments" / "real_annotators"
DATA = ROOT.parent / "shared" / "data" / "human_ratings"
analyse = import_module(str(FOLDER / "analyse.py"))
readers = analyse.readers
SYSTEMS = ("bart", "human")
FILES = {
  "squality": "squality_human_eval.jsonl.gz",
  "wmt": "wmt23_zhen_side_by_side.jsonl.gz",
  "vader": "vader_ratings.tsv.gz",
}


def review(worker, rating, **changes):
  given = {f"{key}-rating": rating + n for n, key in enumerate(("correctness", "selection", "overall"))}
  note = {"annotation": ["too short"], "selection": "the end"}
  return {"annotations": [note], "worker_id": worker, **given, **changes}


def story(ratings, **changes):
  """ratings: {question: {worker: a rating for each system}}; overall is 2 above them."""
  questions = {
    question: {
      system: {
        "response": f"{system} says",
        "reviews": [review(worker, given[s], **changes) for worker, given in by_worker.items()],
      }
      for s, system in enumerate(SYSTEMS)
    }
    for question, by_worker in ratings.items()
  }
  return {"passage-id": "7", "questions": questions}


SEGMENT = {
  "document": "d", "segment": 1, "source": "x", "translations": {"A": "a", "B": "b", "C": "b"},
  "penalties": {"r1": {"A": 0, "B": 1, "C": 5}, "r2": {"A": 0, "B": 0, "C": 5}, "r3": {"A": 1.1, "B": 0, "C": 1.1}},
}  # fmt: skip
SNIPPETS = ["tweets\t1\t[3,2,-4]\tfine", "tweets\t2\t[0,-1]\tso so", "amazonReviewSnippets\t1\t[1,1]\tgood"]
HEADER = "source\tid\tratings\ttext"


def file(path, lines):
  with gzip.open(path, "wt", encoding="utf-8") as out:
    out.write("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
  return path


# Files made by hand


def test_squality_by_hand(tmp_path):
  rows = [story({"0": {"3": (10, 50), "6": (20, 20)}, "1": {"3": (0, 90), "6": (80, 60)}})]
  given = readers.read_squality(file(tmp_path / "a.jsonl.gz", rows))
  annotators, items, judgements = given.records
  assert [one.id for one in annotators] == ["worker 3", "worker 6"] and [item.id for item in items] == ["7/0", "7/1"]
  assert [judgement.ranks for judgement in judgements] == [(1, 0), (0, 0), (1, 0), (0, 1)]
  assert judgements[0].critiques == ("the end: too short",) * 2
  assert [response.source for response in items[0].responses] == [{"model": "bart"}, {"model": "human"}]
  figures = analyse.squality(given, 50)
  assert figures["bart correctness"][0] == 27.5 and figures["human overall"][0] == 57
  assert figures["untied agreement"][0] == 0  # the tie of question 0 does not count


def test_wmt_by_hand(tmp_path):
  records = readers.wmt_records(read_wmt(file(tmp_path / "a.jsonl.gz", [SEGMENT])))
  assert [judgement.ranks for judgement in records[2]] == [(0, 1, 2), (0, 0, 1), (1, 0, 1)]
  table = judgement_table(*records)
  pairs = pairs_of(table)
  # A, B: A, tie, B. A, C: A, A, tie. B, C: B, B, B. Untied pairs of raters: 1 + 1 + 3, of which 0 + 1 + 3 agree.
  assert analyse.untied_agreement(table, pairs).tolist() == [[4, 5]]
  assert analyse.untied_agreement(table, pairs, 2).tolist() == [[2, 3]]
  assert analyse.ties(table, pairs).tolist() == [[2, 9]]


def test_vader_by_hand(tmp_path):
  found = read_vader(file(tmp_path / "a.tsv.gz", [HEADER, *SNIPPETS]))
  assert {source: len(given) for source, given in found.items()} == {
    "movies": 0,
    "tweets": 2,
    "Amazon": 1,
    "editorials": 0,
  }
  records = readers.vader_records("tweets", found["tweets"])
  assert [(j.ratings, j.flags) for j in records[2][1:4]] == [((3,), None), ((5,), (("negative",),)), ((1,), None)]
  ratings = readers.valences(records)
  assert [x.tolist() for x in ratings] == [[3, 2, -4], [0, -1]]
  x, y, w = np.array([3, 2, -4, 0, -1]), np.array([-1, -0.5, 2.5, -1, 0]), np.array([2, 2, 2, 3, 3]) / 12
  covariance = np.cov(x, y, aweights=w)
  expected = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
  assert analyse.correlation(analyse.with_the_others(ratings).sum(0)) == pytest.approx(expected)
  means = np.repeat([1 / 3, -0.5], [3, 2])
  assert analyse.correlation(analyse.with_all(ratings).sum(0)) == pytest.approx(np.corrcoef(x, means)[0, 1])


def test_the_bootstrap_of_a_mean_is_its_standard_error():
  values = np.random.default_rng(0).normal(size=400)
  stats = np.stack([values, np.ones(400)], 1)
  value, low, high = analyse.bootstrap(stats, analyse.ratio, 2000)
  assert value == pytest.approx(values.mean())
  assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def broken_story(**changes):
  rows = story({"0": {"3": (10, 50), "6": (20, 20)}})
  rows["questions"]["0"]["human"] = {"response": "x", "reviews": [review("3", 1)], **changes}
  return rows


@pytest.mark.parametrize(
  ("lines", "message"),
  [
    (["{"], ":1: Expecting property name"),
    (["[]"], ":1: expected a JSON object"),
    ([{"passage-id": "7"}], ":1: lacks 'questions'"),
    ([broken_story()], ":1: question 7/0: worker 6 reviewed 1 of 2 answers"),
    ([broken_story(reviews=[{"worker_id": "3"}])], ":1: lacks 'correctness-rating'"),
    ([story({"0": {"3": (10, 500)}})], ":1: question 7/0: a rating of worker 3 is not between 0 and 100"),
  ],
)  # fmt: skip
def test_a_malformed_file_is_named_with_its_line(tmp_path, lines, message):
  path = file(tmp_path / "a.gz", lines)
  with pytest.raises(DataError) as error:
    readers.read_squality(path)
  assert str(error.value).startswith(f"{path}{message}")


def test_a_file_that_is_not_there_or_no_gzip_is_named(tmp_path):
  with pytest.raises(DataError, match="a.gz: cannot be read"):
    readers.read_squality(tmp_path / "a.gz")
  (tmp_path / "a.gz").write_text("plain")
  with pytest.raises(DataError, match="a.gz: cannot be read"):
    readers.read_squality(tmp_path / "a.gz")


def test_the_command_on_small_files(tmp_path, capsys):
  rng = np.random.default_rng(0)
  stories = [
    {"passage-id": str(n), "questions": story({"0": {w: rng.integers(0, 90, 2).tolist() for w in "368"}})["questions"]}
    for n in range(6)
  ]
  segments = [
    {
      **SEGMENT,
      "segment": n,
      "penalties": {f"r{k}": dict(zip("ABC", rng.integers(0, 4, 3).tolist(), strict=True)) for k in range(3)},
    }
    for n in range(6)
  ]
  snippets = [f"{source}\t{n}\t{rng.integers(-4, 5, 5).tolist()}\tx" for source in SOURCES for n in range(6)]
  for study, lines in (("squality", stories), ("wmt", segments), ("vader", [HEADER, *snippets])):
    file(tmp_path / FILES[study], lines)
  analyse.main(["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--fast"])
  result = json.loads((tmp_path / "out/results.json").read_text())
  assert result["items"] == {"squality": 6, "wmt": 6, "movies": 6, "tweets": 6, "Amazon": 6, "editorials": 6}
  assert result["figures"]["squality"]["bart overall"]["published"] == 18.1
  assert result["figures"]["wmt"]["ties"]["source"] == "recomputed"
  assert [row["advice"] for row in result["wmt"]["annotators"]] == ["cannot say"] * 3
  assert {row["model"] for row in result["squality"]["systems"]} == set(SYSTEMS)
  assert (tmp_path / "out/results.png").stat().st_size > 0
  assert "vader: editorials" in capsys.readouterr().out


# The public sets


@pytest.fixture
def public():
  if not all((DATA / name).is_file() for name in FILES.values()):
    pytest.skip("the public sets of human ratings are not in ../shared/data/human_ratings")
  return DATA


def test_squality_to_the_last_digit(public):
  given = readers.read_squality(public / FILES["squality"])
  assert [len(kind) for kind in given.records] == [4, 100, 300]
  figures = analyse.squality(given, 10)
  published = [name for name in analyse.PUBLISHED if name in figures]
  assert len(published) == 9
  for name in published:
    assert round(figures[name][0], 1) == analyse.PUBLISHED[name], name
  assert round(figures["untied agreement"][0], 3) == 0.887


def test_wmt_to_the_last_digit(public):
  records = readers.wmt_records(read_wmt(public / FILES["wmt"]))
  assert [len(kind) for kind in records] == [8, 377, 1131]
  table = judgement_table(*records)
  agree, untied = analyse.untied_agreement(table, pairs_of(table)).sum(0)
  tied, answers = analyse.ties(table, pairs_of(table)).sum(0)
  assert (agree, untied, tied, answers) == (17_898, 25_461, 16_565, 50_895)
  assert round(agree / untied, 3) == 0.703
  assert round(tied / answers, 4) == 0.3255  # 32.547 %


def test_vader_to_the_last_digit(public):
  """From the ratings of the file; that records give them back is shown on a part of them, as all take ten seconds."""
  found = read_vader(public / FILES["vader"])
  assert sum(map(len, found.values())) == 23_703
  wanted = {"movies": 0.884, "tweets": 0.86, "Amazon": 0.901, "editorials": 0.713}
  for source, given in found.items():
    ratings = [ratings for _, ratings in given.values()]
    assert round(float(analyse.correlation(analyse.with_the_others(ratings).sum(0))), 3) == wanted[source]
    if source == "tweets":
      published = analyse.PUBLISHED["tweets, own rating included"]
      assert round(float(analyse.correlation(analyse.with_all(ratings).sum(0))), 3) == published
    some = dict(list(given.items())[:100])
    for read, ratings in zip(readers.valences(readers.vader_records(source, some)), some.values(), strict=True):
      assert read.tolist() == ratings[1].tolist()
