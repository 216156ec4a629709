"""Agreement: the published worked examples, small sets by hand, the edges, and the command."""

import itertools
import json

import numpy as np
import pytest
import scipy.stats
from judgement_samples import item, judgement, records, table, write

from rlhf_jax.agreement import agreement, coefficients
from rlhf_jax.agreement.tables import judgement_table, pairs_of
from rlhf_jax.feedback.records import UNDONE, Annotator

FLEISS = [
  [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
  [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip
X = np.nan
KRIPPENDORFF = np.array([
  [X, X, X, X, X, 3, 4, 1, 2, 1, 1, 3, 3, X, 3],
  [1, X, 2, 1, 3, 3, 4, 3, X, X, X, X, X, X, X],
  [X, X, 2, 1, 3, 4, 4, X, 2, 1, 1, 3, 3, X, 4],
])  # fmt: skip


# The worked examples


@pytest.mark.parametrize(
  ("counts", "kappa"), [((20, 5, 10, 15), 0.4), ((45, 15, 25, 15), 3 / 23), ((25, 35, 5, 35), 0.14 / 0.54)]
)
def test_cohen_worked_examples(counts, kappa):
  estimate = coefficients.cohen_kappa(np.reshape(counts, (2, 2)))
  assert estimate.value == pytest.approx(kappa, abs=1e-9)
  assert estimate.low < kappa < estimate.high


def test_fleiss_worked_example():
  assert coefficients.fleiss_kappa(FLEISS).value == pytest.approx(0.20993070442195522, abs=1e-12)


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.691358), ("interval", 0.810845)])
def test_krippendorff_worked_example(level, alpha):
  estimate = coefficients.krippendorff_alpha(KRIPPENDORFF, level)
  assert estimate.value == pytest.approx(alpha, abs=1e-6)
  assert estimate.num == 12  # of 15 units, three have fewer than two values


def test_krippendorff_ordinal_by_definition():
  """1 - observed / expected disagreement over all pairable values, with the squared number of values between two."""
  units = [[v for v in column if not np.isnan(v)] for column in KRIPPENDORFF.T]
  units = [unit for unit in units if len(unit) > 1]
  values = [v for unit in units for v in unit]
  count = {v: values.count(v) for v in set(values)}

  def distance(a, b):
    low, high = min(a, b), max(a, b)
    return (sum(n for v, n in count.items() if low <= v <= high) - (count[a] + count[b]) / 2) ** 2

  observed = sum(distance(a, b) / (len(unit) - 1) for unit in units for a, b in itertools.permutations(unit, 2))
  expected = sum(distance(a, b) for a, b in itertools.permutations(values, 2)) / (len(values) - 1)
  alpha = coefficients.krippendorff_alpha(KRIPPENDORFF, "ordinal").value
  assert alpha == pytest.approx(1 - observed / expected, abs=1e-9)


def test_wilson_by_hand():
  """(8 + z^2/2) / (10 + z^2) -+ z / (10 + z^2) sqrt(1.6 + z^2/4), z = 1.959964."""
  assert coefficients.wilson(8, 10)[:3] == pytest.approx((0.8, 0.490162, 0.943318), abs=1e-6)
  assert coefficients.wilson(0, 10)[:3] == pytest.approx((0, 0, 0.277533), abs=1e-6)


def test_pairs_of_one_ranking_are_not_independent():
  eight_of_ten = np.repeat([1.0] * 8 + [0.0] * 2, 6)  # ten items whose six pairs agree together
  together = coefficients.clustered_wilson(eight_of_ten, np.repeat(np.arange(10), 6))
  assert together[1:3] == pytest.approx(coefficients.wilson(8, 10)[1:3])
  alone = coefficients.clustered_wilson(eight_of_ten, np.arange(60))
  assert alone[1:3] == pytest.approx(coefficients.wilson(48, 60)[1:3], abs=5e-3)
  perfect = coefficients.clustered_wilson(np.ones(60), np.repeat(np.arange(10), 6))
  assert perfect[:3] == pytest.approx(coefficients.wilson(10, 10)[:3])


def test_rank_correlations_equal_scipy():
  rng = np.random.default_rng(0)
  a, b = rng.integers(0, 4, (2, 60, 5))
  a[:10, 2], b[5:15, 4] = -1, -1
  a[20], b[21] = 1, 0  # all tied on one side
  rho, tau = coefficients.rank_correlations(a, b)
  assert np.isnan(rho[20:22]).all() and np.isnan(tau[20:22]).all()
  for i in set(range(60)) - {20, 21}:
    both = (a[i] >= 0) & (b[i] >= 0)
    x, y = a[i][both], b[i][both]
    if len(set(x)) == 1 or len(set(y)) == 1:
      assert np.isnan(rho[i]) and np.isnan(tau[i])
      continue
    assert rho[i] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert tau[i] == pytest.approx(scipy.stats.kendalltau(x, y).statistic)


# Edges: what is undefined says why


def test_undefined_says_why():
  same = coefficients.cohen_kappa([[7, 0], [0, 0]])
  assert same.value is None and same.text() == "undefined: both gave the same answer to everything"
  assert "nothing in common" in coefficients.cohen_kappa(np.zeros((3, 3))).text()
  assert "the same answer to everything" in coefficients.fleiss_kappa([[3, 0], [3, 0]]).text()
  assert "no unit has two raters" in coefficients.fleiss_kappa(np.zeros((0, 3))).text()
  assert "no unit has two raters" in coefficients.krippendorff_alpha(np.array([[1, X], [X, 2]]), "nominal").text()
  assert "the same answer to everything" in coefficients.krippendorff_alpha(np.ones((2, 4)), "interval").text()
  assert "nothing was compared" in coefficients.wilson(0, 0).text()
  assert coefficients.cohen_kappa([[5, 0], [0, 5]]).value == 1


def test_unequal_numbers_of_raters_are_refused():
  with pytest.raises(ValueError, match="equally many raters for every unit, not 2 to 3"):
    coefficients.fleiss_kappa([[2, 0], [1, 2]])


def test_annotators_without_overlap():
  given = table({"ann": {"i1": (0, 1)}, "bob": {"i2": (1, 0)}})
  pairs = pairs_of(given)
  assert agreement.pairwise(given, pairs) == []
  assert {e.undefined for e in agreement.agreement_with_others(given, pairs)} == {"nobody else judged the items"}
  assert all(e.value is None for e in agreement.group_agreement(given, pairs).values())
  assert np.isnan(agreement.item_disagreement(given, pairs)).all()
  each, everyone, source = agreement.agreement_with_experts(given, pairs)
  assert source == "nobody" and everyone.value is None and all("no gold items" in e.undefined for e in each)


def test_all_tied():
  given = table({"ann": {"i1": (0, 0), "i2": (0, 0)}, "bob": {"i1": (0, 0), "i2": (0, 0)}})
  (two,) = agreement.pairwise(given, pairs_of(given))
  assert two.raw.value == 1 and "the same answer to everything" in two.kappa.undefined
  assert "an order on both sides" in two.spearman.undefined


# Small sets by hand


def test_two_annotators_by_hand():
  """Four pairs: equal on three, one tie against a win. In both orientations p(better) = p(worse) = 1/2 for ann, and
  3/8 each with 1/4 ties for bob: kappa = (3/4 - 3/8) / (1 - 3/8) = 0.6."""
  given = table(
    {
      "ann": {"i1": (0, 1), "i2": (1, 0), "i3": (0, 1), "i4": (0, 1)},
      "bob": {"i1": (0, 1), "i2": (1, 0), "i3": (0, 1), "i4": (0, 0)},
    }
  )
  pairs = pairs_of(given)
  (two,) = agreement.pairwise(given, pairs)
  assert two.raw.value == 0.75 and two.kappa.value == pytest.approx(0.6) and two.kappa.num == 4
  assert two.spearman.value == 1 and two.spearman.num == 3  # one item is tied throughout
  assert agreement.item_disagreement(given, pairs).tolist() == [0, 0, 0, 1]
  assert [e.value for e in agreement.agreement_with_others(given, pairs)] == [0.75, 0.75]


def test_gold_by_hand():
  given = table(
    {"ann": {"g": (0, 2, 1), "i": (0, 1, 2)}, "bob": {"g": (0, 0, 1)}, "cat": {"i": (0, 1, 2)}},
    gold={"g": (0, 1, 2)},
  )
  each, everyone, source = agreement.agreement_with_experts(given, pairs_of(given))
  assert source == "gold items"
  assert each[0].value == pytest.approx(2 / 3) and each[1].value == pytest.approx(2.5 / 3)
  assert each[2].undefined == "judged no gold item"
  assert everyone.value == pytest.approx(4.5 / 6)


def test_gold_ties_do_not_count():
  given = table({"ann": {"g": (1, 0, 2)}}, gold={"g": (0, 0, 1)})
  each, _, _ = agreement.agreement_with_experts(given, pairs_of(given))
  assert each[0].value == 1 and each[0].num == 2


def test_experts_stand_in_for_gold():
  given = table({"eve": {"i": (0, 1)}, "ann": {"i": (0, 1)}, "bob": {"i": (1, 0)}}, experts=("eve",))
  each, everyone, source = agreement.agreement_with_experts(given, pairs_of(given))
  assert source == "experts" and [e.value for e in each] == [None, 1, 0]  # eve is not held against herself
  assert everyone.value == 0.5


def test_fleiss_takes_the_usual_number_of_raters():
  ranks = {who: {f"i{n}": (0, 1) if (n + i) % 3 else (1, 0) for n in range(6)} for i, who in enumerate("abc")}
  del ranks["c"]["i5"]
  given = table(ranks)
  group = agreement.group_agreement(given, pairs_of(given))
  assert group["Fleiss' kappa"].num == 5 and group["Krippendorff's alpha, nominal"].num == 6


def test_nothing_depends_on_which_response_is_stored_first():
  rng = np.random.default_rng(1)
  ranks = {who: {f"i{n}": tuple(rng.integers(0, 3, 3).tolist()) for n in range(12)} for who in "abc"}
  turned = {who: {name: given[::-1] for name, given in own.items()} for who, own in ranks.items()}
  results = []
  for own in (ranks, turned):
    given = table(own)
    pairs = pairs_of(given)
    twos = [(t.raw, t.kappa, t.spearman, t.kendall) for t in agreement.pairwise(given, pairs)]
    everything = [*itertools.chain(*twos), *agreement.group_agreement(given, pairs).values()]
    results.append([e.value for e in everything])
  assert results[0] == pytest.approx(results[1])


# Tables


def test_what_counts():
  people = [Annotator("ann"), Annotator("bob")]
  items = [item("i1"), item("i2"), item("i3", 3)]
  judgements = [
    judgement("old", "i1", "ann", (0, 1)),
    judgement("new", "i1", "ann", (1, 0), supersedes="old"),
    judgement("withdrawn", "i2", "ann", (1, 0)),
    judgement("undo", "i2", "ann", order=(0, 1), skipped=UNDONE, supersedes="withdrawn"),
    judgement("skip", "i2", "bob", order=(0, 1), skipped="too hard"),
    judgement("first", "i1", "bob", (0, 1), created=1.0e9),
    judgement("again", "i1", "bob", (0, 0), created=1.1e9),
    judgement("rated", "i3", "ann", ratings=(3, None, 7), order=(2, 0, 1)),
    judgement("words", "i3", "bob", order=(0, 1, 2), critiques=("why?", "", "")),
  ]
  given = judgement_table(people, items, judgements)
  assert given.ranks.tolist() == [[1, 0, -1], [0, 0, -1], [1, -1, 0]]
  assert given.places[2].tolist() == [1, 2, 0]
  assert given.num_skips.tolist() == [0, 1]
  assert [note.split()[0] for note in given.left_out] == ["2", "1", "1"]
  pairs = pairs_of(given)
  assert pairs.outcome.tolist() == [0, 0.5, 0] and pairs.earlier.tolist() == [1, 1, -1]
  assert pairs.longer.tolist() == [-1, -1, -2] and pairs.share.tolist() == [1, 1, 1]


def test_an_import_without_an_order_of_display_has_no_places():
  people, items = [Annotator("ann")], [item("i1")]
  given = judgement_table(people, items, [judgement("j", "i1", "ann", (0, 1), created=0.0)])
  assert given.places.tolist() == [[-1, -1]] and np.isnan(pairs_of(given).earlier).all()


def test_unknown_names_are_named():
  with pytest.raises(ValueError, match="judgement 'j': item 'i9' is not among"):
    judgement_table([Annotator("ann")], [item("i1")], [judgement("j", "i9", "ann", (0, 1))])


# The command


def everyone_ranks(num=12):
  rng = np.random.default_rng(2)
  sound = {who: {f"i{n}": tuple(rng.permutation(3).tolist()) for n in range(num)} for who in ("[red]ann", "$b$", "cat")}
  return records(sound, gold={"i0": (0, 1, 2)})


def test_the_command_writes_files_that_are_the_same_twice(tmp_path, capsys):
  from rlhf_jax.cli import main

  file = write(tmp_path / "judged.jsonl", everyone_ranks())
  outs = [tmp_path / "a", tmp_path / "b"]
  for out in outs:
    assert main(["agreement", str(file), "--out", str(out)]) == 0
  shown = capsys.readouterr().out
  assert "[red]ann" in shown and "Krippendorff's alpha, ordinal (ranks)" in shown and "nan" not in shown
  for name in ("agreement.json", "consensus.jsonl"):
    assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()
  found = json.loads((outs[0] / "agreement.json").read_text())
  assert found["judgements"] == 36 and len(found["annotators"]) == 3 and len(found["pairs"]) == 3
  assert {person["advice"] for person in found["annotators"]} == {"cannot say"}
  assert len((outs[0] / "consensus.jsonl").read_text().splitlines()) == 12
  assert {path.name for path in outs[0].glob("*.png")} == {"annotators.png", "pairs.png", "items.png"}


def test_comparisons_of_a_run_can_be_read(tmp_path, capsys):
  from rlhf_jax.cli import main

  rows = [
    {"prompt": f"p{n}", "responses": ["a", "b b"], "ranks": [n % 2, 1 - n % 2], "annotator": "ann", "gold": [1.0, 0.5]}
    for n in range(4)
  ]
  file = tmp_path / "comparisons.jsonl"
  file.write_text("".join(json.dumps(row) + "\n" for row in rows))
  assert main(["agreement", str(file)]) == 0
  shown = capsys.readouterr().out
  assert "the order of display is not recorded" in shown and "No two annotators judged the same item." in shown


def test_mistakes_of_a_user(tmp_path, capsys):
  from rlhf_jax.cli import main

  people, items, _ = everyone_ranks()
  file = write(tmp_path / "empty.jsonl", (people, items, []))
  assert main(["agreement", str(file)]) == 2
  assert "none of the 0 independent judgements orders two responses" in capsys.readouterr().err
  assert main(["agreement", str(file), "--threshold", "70"]) == 2
  assert "--threshold 70.0 must be a share between 0 and 1" in capsys.readouterr().err
