"""The experiment on own and held-out raters: its figures by hand, and the whole command with a tiny model."""

import gzip
import json

import jax
import numpy as np
import pytest
from rated_texts import write_ratings
from tiny_chain import ROOT

from rlhf_jax import data
from rlhf_jax.data.wmt import Segment
from rlhf_jax.settings import import_module
from rlhf_jax.train.mesh import using_devices

pytest.importorskip("vaderSentiment", reason="needs the extra sentiment")
pytestmark = pytest.mark.usefixtures("unoptimised")

FOLDER = ROOT / "experiments" / "held_out_raters"
DATA = ROOT.parent / "shared" / "data" / "human_ratings"
analyse = import_module(str(FOLDER / "analyse.py"))
wmt, ratings = analyse.wmt, analyse.ratings


def segment(document, number, penalties, systems="ABC"):
  """penalties: {rater: points in the order of the systems}."""
  texts = {system: f"{system} {document} {number}" for system in systems}
  points = np.array(list(penalties.values()), float)
  return Segment(document, f"{document}/{number}", "x", texts, tuple(penalties), points)


def taste_study(num_raters=8, documents=10, segments=3):
  """Raters of which each has a taste: it likes the feature of its own number, and half of them read a segment."""
  rng = np.random.default_rng(0)
  features = rng.normal(size=(documents * segments, 4, num_raters))
  found = []
  for n in range(documents * segments):
    readers = range(n % 2, num_raters, 2)
    said = {f"r{r}": 10 - features[n, :, r] for r in readers}
    found.append(segment(f"d{n // segments}", n, said, "ABCD"))
  return wmt.make_study(found), features.reshape(-1, num_raters)


# WMT


def test_a_study_has_the_systems_in_one_order():
  swapped = segment("d", 2, {"r2": (5, 0, 1)}, "CAB")
  study = wmt.make_study([segment("c", 1, {"r1": (0, 1, 5), "r2": (1, 1, 0)}), swapped])
  assert study.systems == ("A", "B", "C") and study.raters == ("r1", "r2")
  assert study.texts[3:] == ["A d 2", "B d 2", "C d 2"]
  assert study.penalties.tolist() == [[0, 1, 5], [1, 1, 0], [0, 1, 5]]
  assert (study.segment.tolist(), study.rater.tolist(), study.document.tolist()) == ([0, 0, 1], [0, 1, 1], [0, 1])
  assert study.orders.tolist() == [[1, 1, 1], [0, -1, -1], [1, 1, 1]] and study.untied.tolist() == [3, 2, 3]
  with pytest.raises(data.DataError, match="segment d/3 has other systems than c/1"):
    wmt.make_study([segment("c", 1, {"r1": (0, 1, 5)}), segment("d", 3, {"r1": (0, 1)}, "AB")])


def test_pairs_that_the_rater_ties_do_not_count_and_ties_of_the_other_count_half():
  given, orders = np.array([[1, 0, -1], [1, 1, 0]]), np.array([[1, 1, 0], [-1, 0, 0]])
  assert wmt.agreements(given, orders).tolist() == [1.5, 0]


def test_people_by_hand():
  study = wmt.make_study([segment("d", 1, {"r1": (0, 1, 5), "r2": (0, 0, 5), "r3": (1.1, 0, 1.1)})])
  # A, B: A, tie, B. A, C: A, A, tie. B, C: B, B, B. Untied pairs of raters: 1 + 1 + 3, of which 0 + 1 + 3 agree.
  found = wmt.people(study)
  assert found["another rater, where neither ties"]["mean"] == 0.8
  # The others of r1 add up to (1.1, 0, 6.1): B, A, B. Of r2 to (1.1, 1, 6.1): B, A, B. Of r3 to (0, 1, 10): A, A, B.
  # r1 says A, A, B: 2 of 3. r2 says -, A, B: 2 of 2. r3 says B, -, B: 1 of 2.
  assert found["mean of the others, a tie as half"]["mean"] == pytest.approx(5 / 7, abs=1e-4)
  assert found["mean of the others, where it does not tie"]["mean"] == pytest.approx(5 / 7, abs=1e-4)


def test_every_judgement_is_tested_by_models_that_did_not_see_its_document():
  study, _ = taste_study()
  seen = []

  def fit(judgements, seed):
    seen.append(judgements)
    return np.zeros((len(study.document), 4))

  tested = wmt.cross_test(study, fit, 0)
  assert tested.right.tolist() == [(study.untied / 2).tolist()] * wmt.RATER_GROUPS  # equal scores count half
  assert (tested.held_out.sum(0) == 1).all()
  assert len(seen) == wmt.RATER_GROUPS * wmt.DOCUMENT_FOLDS
  for number, judgements in enumerate(seen):
    assert not tested.held_out[number // wmt.DOCUMENT_FOLDS, judgements].any()
    assert len(set(study.rater[judgements])) == 6 and len(set(study.document[study.segment[judgements]])) == 8


def test_a_head_that_learns_tastes_is_better_on_own_raters():
  study, features = taste_study(documents=20)
  tests = [wmt.cross_test(study, wmt.head_fit(study, features, (0.1, 1.0)), 0)]
  found = wmt.summary(study, tests)
  assert found[wmt.OWN]["mean"] > 0.58 and found[wmt.HELD_OUT]["mean"] < 0.55
  assert found[wmt.GAP]["low"] > 0
  assert found[wmt.GAP]["mean"] == pytest.approx(found[wmt.OWN]["mean"] - found[wmt.HELD_OUT]["mean"], abs=2e-4)
  assert found["with each seed"] == [pytest.approx(found[wmt.GAP]["mean"], abs=2e-4)]
  assert set(found["raters"]) == {f"r{n}" for n in range(8)}
  assert wmt.advantage(study, tests, tests)["mean"] == 0


def test_shares_of_own_and_held_out_raters_by_hand():
  study = wmt.make_study([segment(d, 1, {"r1": (0, 1, 2), "r2": (2, 1, 0)}) for d in "cd"])
  right = np.array([[3, 2, 3, 0], [0, 1, 3, 3]])
  held_out = np.array([[True, False, True, False], [False, True, False, True]])
  found = wmt.summary(study, [wmt.Tested(right, held_out)] * 2)
  assert found[wmt.OWN]["mean"] == pytest.approx((0 + 2 + 3 + 0) / 12, abs=1e-4)
  assert found[wmt.HELD_OUT]["mean"] == pytest.approx((3 + 1 + 3 + 3) / 12, abs=1e-4)
  assert found["raters"]["r2"][wmt.HELD_OUT]["mean"] == pytest.approx(4 / 6, abs=1e-4)


def test_baselines_of_translations():
  study = wmt.make_study([segment(d, n, {"r1": (0, 1, 5), "r2": (0, 0, 5)}) for d in "cde" for n in range(2)])
  fits = wmt.methods(study, np.tile([[1.0], [2.0], [3.0]], (6, 1)), (1.0,))
  everyone = np.arange(12)
  assert fits[wmt.SYSTEM](everyone, 0).tolist() == [[1.5, 0.5, -2.0]] * 6
  assert fits[wmt.LIKELIER](everyone, 0)[0].tolist() == [1, 2, 3]
  assert fits[wmt.LONGER](everyone, 0)[0].tolist() == [5, 5, 5]
  assert (np.diff(fits[wmt.WORDS](everyone, 0), axis=1) < 0).all()  # the words "a", "b" and "c"
  assert (np.diff(fits[wmt.HEAD](everyone, 0), axis=1) < 0).all()


# Ratings


def test_texts_are_drawn_once():
  snippets = {str(n): (text, np.arange(2.0 + n)) for n, text in enumerate("abca")}
  study = ratings.make_study(snippets, 9)
  assert sorted(study.texts) == ["a", "b", "c"] and study.ratings.shape == (3, 5)
  assert np.isnan(study.ratings[study.texts.index("b")]).tolist() == [False] * 3 + [True] * 2
  assert len(set(ratings.make_study(snippets, 2).texts)) == 2


def test_ratings_are_shuffled_within_their_text():
  study = ratings.Study(["a", "b"], np.array([[1.0, 2, 3], [4, -4, np.nan]]))
  drawn = ratings.shuffled(study.ratings, np.random.default_rng(0))
  assert sorted(drawn[0]) == [1, 2, 3] and sorted(drawn[1, :2]) == [-4, 4] and np.isnan(drawn[1, 2])
  assert ratings.last_ratings(drawn).tolist() == [drawn[0, 2], drawn[1, 1]]
  firsts = {ratings.shuffled(study.ratings, np.random.default_rng(seed))[0, 0] for seed in range(20)}
  assert firsts == {1, 2, 3}


def test_the_order_of_pairs_by_hand():
  # Pairs with different values: (0, 1), (0, 2), (1, 2) less the tie of 1 and 2.
  assert ratings.order_accuracy(np.array([1.0, 2.0, 0.0]), np.array([0.0, 1.0, 1.0])) == 0.5
  assert ratings.order_accuracy(np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0])) == 0.75  # equal scores are half


def test_measures_of_people_by_hand():
  drawn = np.array([[0.0, 1, 1], [2, 2, 4], [1, 0, np.nan]])
  found = ratings.people(drawn, (1, 2, ratings.ALL))
  assert found["1"][ratings.ORDER] == pytest.approx(2 / 3)  # by one rating 1 > 0, by the others 0 < 1
  assert found["2"][ratings.ORDER] == 1  # of the two texts with a third rating
  assert found["mean of the others"][ratings.SINGLE] == pytest.approx(2 / 3)
  assert ratings.measure(np.array([1.0, 3.0, 2.0]), drawn)[ratings.ORDER] == pytest.approx(2 / 3)


@pytest.fixture(scope="module")
def rated():
  """60 texts of one of three words, whose ratings lie around the word's, with features that tell it."""
  rng = np.random.default_rng(0)
  values = rng.integers(-1, 2, 60) * 2.0
  table = np.clip(np.round(values[:, None] + rng.normal(0, 1.5, (60, 6))), -4, 4)
  texts = [{-2: "bad", 0: "plain", 2: "good"}[value] + f" film {n}" for n, value in enumerate(values)]
  features = np.stack([values + rng.normal(size=60), *rng.normal(size=(3, 60))], axis=1)
  return ratings.Study(texts, table), features


def test_ratings_from_end_to_end(rated):
  study, features = rated
  sizes = ratings.Sizes(48, 2, (1, 2, 4, ratings.ALL), 3, (0.03, 0.3, 1.0))
  fits = {ratings.HEAD: ratings.head_fit(features, sizes.priors), ratings.WORDS: ratings.word_fit(study.texts)}
  fixed = {ratings.PROGRAM: study.ratings.mean(axis=1)}
  seeds = [ratings.run_seed(study, fits, fixed, sizes, seed) for seed in range(3)]
  found = ratings.results(study, json.loads(json.dumps(seeds)), sizes)
  assert (found["texts"], found["ratings"]) == (60, 360)
  assert found["fixed"][ratings.PROGRAM][ratings.ORDER] == {"mean": 1, "low": 1, "high": 1, "num": 3}
  assert list(found["grid"][ratings.HEAD]) == ["12", "24", "48"]
  assert list(found["people"]) == ["1", "2", "4", "mean of the others"]
  assert found["grid"][ratings.WORDS]["48"]["all"][ratings.ORDER]["mean"] > 0.7
  assert list(found["budgets"][ratings.HEAD]) == ["48"]  # 48 x 1, 24 x 2, 12 x 4
  cells = found["grid"][ratings.HEAD]
  gain = cells["48"]["1"][ratings.ORDER]["mean"] - cells["12"]["1"][ratings.ORDER]["mean"]
  assert found["doublings"][ratings.HEAD]["1"]["mean"]["mean"] == pytest.approx(gain / 2, abs=2e-4)
  budget = found["budgets"][ratings.HEAD]["48"]["4"]
  assert budget[ratings.ORDER] == cells["12"]["4"][ratings.ORDER]
  assert [row["ratings"] for row in found["seen"]] == [1, 2, 4] * 2


def test_a_study_without_enough_texts_is_refused(rated):
  study, _ = rated
  with pytest.raises(ValueError, match="48 texts are left to learn from, fewer than 50"):
    ratings.run_seed(study, {}, {}, ratings.Sizes(50, 1, (1,), 3, (1.0,)), 0)


# The whole command


def test_what_a_seed_found_is_kept_until_it_is_made_from_something_else(tmp_path):
  found = [analyse.kept_seed(tmp_path / "a_0.json", made, lambda n=n: {"n": n}) for n, made in enumerate("xxy")]
  assert found == [{"n": 0}, {"n": 0}, {"n": 2}]


def write_wmt(directory):
  rng = np.random.default_rng(0)
  rows = []
  for n in range(30):
    readers = rng.choice(8, 3, replace=False)
    said = {f"rater{r}": {s: int(rng.integers(0, 6)) for s in "ABCD"} for r in readers}
    texts = {s: f"Translation {s} of number {rng.integers(100)}" for s in "ABCD"}
    rows.append({"document": f"d{n // 3}", "segment": n, "source": "x", "translations": texts, "penalties": said})
  with gzip.open(directory / "wmt23_zhen_side_by_side.jsonl.gz", "wt") as file:
    file.write("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.mark.slow
def test_the_command_on_files_by_hand(tmp_path, capsys):
  write_ratings(tmp_path, 90)
  write_wmt(tmp_path)
  arguments = ["--data", str(tmp_path), "--run", str(tmp_path / "run"), "--fast"]
  with using_devices(jax.devices()[:1]):
    analyse.main([*arguments, "--out", str(tmp_path / "out")])
  told = capsys.readouterr().out
  result = data.read_json(tmp_path / "out" / "results.json")
  assert result["wmt"]["segments"] == 30 and result["wmt"]["documents"] == 10
  assert set(result["wmt"]["methods"]) == {wmt.HEAD, wmt.WORDS, wmt.SYSTEM, wmt.LIKELIER, wmt.LONGER}
  assert result["movies"]["texts"] == 90 and list(result["movies"]["grid"][ratings.HEAD]) == ["16", "32", "64"]
  assert "| InstructGPT, published | 72.4 | 69.6 | 2.8 | – |" in told and "wmt_0.json" in told
  assert (tmp_path / "out" / "results.png").stat().st_size > 0
  with using_devices(jax.devices()[:1]):  # nothing is made anew
    analyse.main([*arguments, "--out", str(tmp_path / "out")])
  assert data.read_json(tmp_path / "out" / "results.json") == result and "wmt_0.json" not in capsys.readouterr().out


# The public sets


@pytest.mark.skipif(not DATA.is_dir(), reason="the public sets of human ratings are not in ../shared/data")
def test_people_of_the_public_sets():
  segments, texts = analyse.read_studies(DATA, fast=False)
  assert (len(segments.document), segments.document.max() + 1, len(segments.segment)) == (377, 38, 1131)
  assert len(texts.texts) == 5600 and ratings.counts(texts.ratings).min() == 15
  assert round(wmt.people(segments)["another rater, where neither ties"]["mean"], 3) == 0.703
  drawn = ratings.shuffled(texts.ratings, np.random.default_rng(0))[::2]
  assert ratings.people(drawn, (1,))["mean of the others"][ratings.SINGLE] == pytest.approx(0.884, abs=0.005)
