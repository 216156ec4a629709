"""Screening: its regression against a peer, its verdicts on labellers whose habits are known, its edges."""

import numpy as np
import pytest
from judgement_samples import records, table

from rlhf_jax.agreement.annotator_bias import first_shown_wins, habits, logistic_regression, longer_wins, timing
from rlhf_jax.agreement.consensus import noisy_bradley_terry
from rlhf_jax.agreement.screening import DEFAULT, Limits, screen
from rlhf_jax.agreement.tables import judgement_table, pairs_of
from rlhf_jax.evaluation.simulated_judgements import simulate_judgements
from rlhf_jax.world import make_labellers


def verdicts_of(given, limits=DEFAULT):
  pairs = pairs_of(given)
  found = habits(given, pairs, noisy_bradley_terry(given, pairs))
  return {verdict.annotator: verdict for verdict in screen(given, pairs, found, limits)}


STYLE = dict(ideal=0.4, terse=0.3, rambling=0.3, doubting=0.1, claiming=0.2, complying=0.3)


def checks_of(verdict):
  return {check.name: check for check in verdict.checks}


# The regression


def test_regression_equals_statsmodels():
  import statsmodels.api

  rng = np.random.default_rng(0)
  x, cluster = rng.normal(size=(300, 3)), np.repeat(np.arange(60), 5)
  y = (rng.random(300) < 1 / (1 + np.exp(-x @ [1.0, -0.5, 0.0]))).astype(float)
  slope, error = logistic_regression(x, y, cluster, prior_sd=1e4)
  peer = statsmodels.api.Logit(y, x).fit(disp=0, cov_type="cluster", cov_kwds={"groups": cluster})
  assert slope == pytest.approx(peer.params, abs=1e-6)
  correction = np.sqrt(299 / 297)  # statsmodels also corrects for the number of slopes
  assert error * correction == pytest.approx(peer.bse, rel=1e-4)


def test_regression_of_separable_data_is_finite():
  x = np.linspace(-2, 2, 40)
  y = (x > 0).astype(float)
  slope, error = logistic_regression(x[:, None], y, np.arange(40), prior_sd=2.0)
  chance = 1 / (1 + np.exp(-slope[0] * x))
  assert x @ (y - chance) == pytest.approx(slope[0] / 2.0**2, abs=1e-6)  # the posterior is flat at its top
  assert np.isfinite(error).all()


# Verdicts


@pytest.fixture(scope="module")
def simulated():
  kinds = {"ordinary": 9, "careless": 1, "length_biased": 1, "position_biased": 1, "adversarial": 1}
  people = make_labellers(kinds)
  return judgement_table(*simulate_judgements(people, num_items=390, judges=3, habits=STYLE, seed=101))


def test_everybody_is_told_apart(simulated):
  verdicts = verdicts_of(simulated)
  advice = {name: verdict.advice for name, verdict in verdicts.items()}
  assert all(advice[f"ordinary-{i}"] in ("keep", "watch") for i in range(1, 10))
  assert sum(advice[f"ordinary-{i}"] == "watch" for i in range(1, 10)) <= 2
  failed = {name: {c.name for c in verdict.checks if c.status == "fails"} for name, verdict in verdicts.items()}
  assert failed["position_biased-1"] >= {"position"} and failed["length_biased-1"] >= {"length"}
  assert {"skill"} <= failed["adversarial-1"] <= {"gold", "skill"}
  assert advice["careless-1"] in ("set aside", "watch") and "skill" in " ".join(verdicts["careless-1"].reasons)
  assert checks_of(verdicts["adversarial-1"])["skill"].estimate.value < 0


def test_evidence_has_numbers_and_limits(simulated):
  (reason,) = [r for r in verdicts_of(simulated)["position_biased-1"].reasons if r.startswith("position")]
  assert "the response shown a place earlier wins" in reason and "on 90 items; the limits are 40% and 60%" in reason


def test_a_limit_on_gold_can_be_given(simulated):
  for limit in (0.99, 0.5, 0.01):
    for verdict in verdicts_of(simulated, Limits(gold=limit)).values():
      check = checks_of(verdict)["gold"]
      if check.estimate.value is None:
        assert "items with an expert's order, fewer than 10" in check.evidence
        continue
      low = check.estimate.value < limit
      assert check.limit == limit
      assert check.status == ("fails" if check.estimate.high < limit else "in doubt" if low else "passes")
      assert (check.status == "fails") == (limit == 0.5 and verdict.annotator == "adversarial-1") or limit == 0.99


def test_too_few_items_are_never_held_against_anybody():
  def crowd(num):
    names = [f"i{n:02d}" for n in range(num)]
    sound = {f"a{i}": {name: (0, 1) for name in names} for i in range(4)}
    everybody = sound | {"liar": {name: (1, 0) for name in names}}
    orders = {(who, name): (n % 2, 1 - n % 2) for who in everybody for n, name in enumerate(names)}
    return verdicts_of(table(everybody, orders=orders, words={name: [3, 3] for name in names}))

  assert {verdict.advice for verdict in crowd(19).values()} == {"cannot say"}
  advice = {name: verdict.advice for name, verdict in crowd(20).items()}
  assert advice == {"a0": "keep", "a1": "keep", "a2": "keep", "a3": "keep", "liar": "set aside"}


def test_what_cannot_be_checked_says_why():
  alone = {who: {f"{who}{n}": (0, 1) for n in range(25)} for who in ("ann", "bob")}
  verdicts = verdicts_of(table(alone, words={f"{who}{n}": [2, 2] for who in alone for n in range(25)}))
  checks = checks_of(verdicts["ann"])
  assert {check.status for check in checks.values()} == {"undefined"} and verdicts["ann"].advice == "cannot say"
  assert "nobody else judged these items, and none of them is gold" in checks["skill"].evidence
  assert "no gold items" in checks["gold"].evidence and "one length" in checks["length"].evidence
  together = {who: {f"i{n}": (0, 1) for n in range(25)} for who in ("ann", "bob")}
  checks = checks_of(verdicts_of(table(together))["ann"])
  assert "fewer than 3 annotators to compare with" in checks["skill"].evidence


def test_a_guesser_alone_with_gold_is_not_their_own_judge():
  """Everybody's own judgements are kept out of what they are measured by."""
  given = table({"ann": {f"i{n}": (n % 2, 1 - n % 2) for n in range(25)}})
  pairs = pairs_of(given)
  found = habits(given, pairs, noisy_bradley_terry(given, pairs))
  assert np.isnan(found.slopes).all() and found.num_items.tolist() == [0]


# Habits by hand


def test_shares_by_hand():
  ranks = {"ann": {"i": (0, 1), "j": (1, 0), "k": (0, 0)}}
  orders = {("ann", "i"): (0, 1), ("ann", "j"): (0, 1), ("ann", "k"): (0, 1)}
  given = table(ranks, orders=orders, words={"i": [5, 1], "j": [5, 9], "k": [1, 2]})
  pairs = pairs_of(given)
  assert first_shown_wins(given, pairs)[0][::3] == (0.5, 2)  # the tie does not count
  assert longer_wins(given, pairs)[0][::3] == (1.0, 2)
  same = table(ranks, words={name: [4, 4] for name in "ijk"})
  assert longer_wins(same, pairs_of(same))[0].undefined == "all responses have one length"


def test_pace_by_hand():
  ranks = {who: {"i": (0, 1), "j": (0, 1)} for who in ("ann", "bob", "cat")}
  seconds = {("ann", "i"): 10.0, ("bob", "i"): 20.0, ("cat", "i"): 20.0, ("ann", "j"): 30.0, ("bob", "j"): 60.0}
  people = judgement_table(*records(ranks, seconds=seconds | {("cat", "j"): 0.0}))
  ann, _, cat = timing(people)
  assert ann.median == 20 and ann.pace == pytest.approx(0.5)
  assert cat.median == 20  # 0 is a time that is not known
  nobody = judgement_table(*records(ranks, seconds={(who, n): 0.0 for who in ranks for n in "ij"}))
  assert [time.median for time in timing(nobody)] == [None] * 3 and timing(nobody)[0].pace is None


# The simulated judgements


def test_simulated_judgements_are_what_they_say():
  people = make_labellers({"ordinary": 4, "expert": 1})
  annotators, items, judgements = simulate_judgements(people, num_items=20, judges=2, gold_share=0.25, seed=3)
  assert simulate_judgements(people, num_items=20, judges=2, gold_share=0.25, seed=3) == (annotators, items, judgements)
  assert sum(item.gold_ranks is not None for item in items) == 5 and len({item.id for item in items}) == 20
  assert all(len({response.text for response in item.responses}) == 4 for item in items)
  loads = [sum(judgement.annotator == person.id for judgement in judgements) for person in annotators]
  assert len(judgements) == 40 and max(loads) - min(loads) <= 4
  assert len({(judgement.item, judgement.annotator) for judgement in judgements}) == 40
  assert [person.expert for person in annotators] == [False] * 4 + [True]
  with pytest.raises(ValueError, match="9 of 5 labellers"):
    simulate_judgements(people, num_items=4, judges=9)
