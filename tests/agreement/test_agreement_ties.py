"""Ties in a consensus: every vote of three annotators by hand, and ties that are all but certain."""

import numpy as np
import pytest
from judgement_samples import table

from rlhf_jax.agreement import consensus
from rlhf_jax.agreement.agreement import agreement_with_experts
from rlhf_jax.agreement.tables import pairs_of

RANKS = {"A": (0, 1), "B": (1, 0), "=": (0, 0)}
FITS = (consensus.majority, consensus.dawid_skene, consensus.noisy_bradley_terry)
# The label with most votes; a tie where each label has one.
WINNER = {
  "AAA": "A", "AAB": "A", "AA=": "A", "ABA": "A", "ABB": "B", "AB=": "=", "A=A": "A", "A=B": "=", "A==": "=",
  "BAA": "A", "BAB": "B", "BA=": "=", "BBA": "B", "BBB": "B", "BB=": "B", "B=A": "=", "B=B": "B", "B==": "=",
  "=AA": "A", "=AB": "=", "=A=": "=", "=BA": "=", "=BB": "B", "=B=": "=", "==A": "=", "==B": "=", "===": "=",
}  # fmt: skip


def votes(*cast):
  """A table with an item for each vote, "AB=" say, of as many annotators; the responses have one length."""
  names = [f"i{n:02d}" for n in range(len(cast))]
  people = {f"p{k}": dict(zip(names, (RANKS[vote[k]] for vote in cast), strict=True)) for k in range(len(cast[0]))}
  return table(people, words={name: [3, 3] for name in names})


def decided(fit, given):
  labels = {ranks: label for label, ranks in RANKS.items()}
  return [labels[tuple(row)] for row in fit(given, pairs_of(given)).ranks.tolist()]


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.__name__)
@pytest.mark.parametrize("vote", WINNER)
def test_the_label_with_most_votes_wins(fit, vote):
  assert decided(fit, votes(vote)) == [WINNER[vote]]


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.__name__)
def test_the_label_with_most_votes_wins_among_all_votes(fit):
  """All 27 votes as items of one study, in which all annotators are alike."""
  assert len(WINNER) == 27
  assert decided(fit, votes(*WINNER)) == list(WINNER.values())


def test_a_tie_that_is_all_but_certain_is_a_tie_in_the_ranks():
  """Annotators who agree on nearly everything tie one pair: the posterior is above 0.9999, and no score is exact."""
  cast = ["AAAAA", "BBBBB", "=====", "AAAA=", "B=BBB", "A====", "BBBBB", "AAAAA", "====="] * 4
  given = votes(*cast)
  found = consensus.dawid_skene(given, pairs_of(given))
  leaning = [n for n, vote in enumerate(cast) if vote == "A===="]
  assert (found.posterior[leaning, 1] > 0.9999).all() and (found.posterior[leaning, 2] > 0).all()
  assert (found.scores[leaning, 0] != found.scores[leaning, 1]).all()
  for fit in FITS:
    assert [decided(fit, given)[n] for n in leaning] == ["="] * 4


def test_habits_do_not_break_a_tie_of_the_noisy_bradley_terry_model():
  """Who ties two responses of different length or place ties them, however their habits move the scores."""
  rng = np.random.default_rng(0)
  people = {f"p{k}": {f"i{n:02d}": (0, 1) if rng.random() < 0.8 else (1, 0) for n in range(30)} for k in range(3)}
  for own in people.values():
    own["i99"] = (0, 0)
  given = table(people, words={f"i{n:02d}": [9, 3] for n in (*range(30), 99)})
  found = consensus.noisy_bradley_terry(given, pairs_of(given))
  assert found.scores[-1, 0] != pytest.approx(found.scores[-1, 1], abs=1e-3)
  assert found.ranks[-1].tolist() == [0, 0]


def test_ties_stay_where_pairs_make_up_a_ranking():
  given = table({who: {"i": (0, 1, 1, 2), "j": (1, 0, 0, 0)} for who in ("ann", "bob", "cat")})
  for fit in FITS:
    assert fit(given, pairs_of(given)).ranks.tolist() == [[0, 1, 1, 2], [1, 0, 0, 0]]


def test_gold_ties_count_with_their_reliability():
  """Two annotators against the gold order, which weighs as three."""
  given = table({who: {"i": (0, 1)} for who in ("ann", "bob")}, gold={"i": (0, 0)}, words={"i": [3, 3]})
  for fit in (consensus.dawid_skene, consensus.noisy_bradley_terry):
    assert fit(given, pairs_of(given)).ranks.tolist() == [[0, 0]]
  assert consensus.majority(given, pairs_of(given)).ranks.tolist() == [[0, 1]]


@pytest.mark.parametrize(("experts", "right"), [("A==", None), ("AA=", 1.0), ("AB=", None), ("BB=", 0.0), ("A", 1.0)])
def test_the_majority_of_experts_may_be_a_tie(experts, right):
  """A pair that the experts tie is left out; it is no pair for A because one of three said so."""
  names = [f"e{k}" for k in range(len(experts))]
  people = {name: {"i": RANKS[label]} for name, label in zip(names, experts, strict=True)} | {"ann": {"i": (0, 1)}}
  given = table(people, experts=names)
  each, _, _ = agreement_with_experts(given, pairs_of(given))
  assert each[-1].value == right
