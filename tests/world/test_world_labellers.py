"""Simulated labellers: the probabilities by hand, and the drawn orders against them."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from rlhf_jax.settings import import_module
from rlhf_jax.world import (
  KINDS,
  Labeller,
  Traits,
  accepts,
  agreement,
  ceiling,
  choice_probability,
  demonstrate,
  gold_parts,
  make_labellers,
  make_world,
  perceive,
  rank,
  ratings,
  sample_tasks,
  training_clusters,
  traits_of,
  utilities,
)

NUM = 6_000
PLAIN = Labeller("x", "x", temperature=1 / math.log(0.85 / 0.15))  # sees a gold difference of 1 with probability 0.85


def one(kind):
  return make_labellers({kind: 1})[0]


def but(**changes):
  return dataclasses.replace(PLAIN, **changes)


def traits(total, apparent=None, words=6.0, style=0.0):
  everything = (total, total if apparent is None else apparent, words, style)
  return Traits(*(np.array(x, np.float64) for x in np.broadcast_arrays(*everything)))


def sigmoid(x):
  return 1 / (1 + math.exp(-x))


def test_the_better_response_is_preferred_by_all_but_adversaries():
  better, worse = traits(1.5), traits(0.5)
  expected = {"expert": 0.998, "ordinary": 0.99 - 0.49 * 0.0245}  # 0.0245: mean share of pages that weariness skims
  for kind in KINDS:
    p = choice_probability(one(kind), better, worse)
    assert p + choice_probability(one(kind), worse, better) == pytest.approx(1)
    assert choice_probability(one(kind), better, better) == pytest.approx(0.5)
    assert (p > 0.5) == (kind != "adversarial")
    if kind in expected:
      assert p == pytest.approx(expected[kind])


def test_an_error_is_seen_only_where_the_response_is_checked():
  right, wrong, seen = traits(2.0), traits(-1.0, apparent=2.0), sigmoid(3 * math.log(0.85 / 0.15))
  assert choice_probability(but(checks=1.0), right, wrong) == pytest.approx(seen)
  assert choice_probability(but(checks=0.0), right, wrong) == pytest.approx(0.5)
  assert choice_probability(but(checks=0.3), right, wrong) == pytest.approx(0.3 * seen + 0.7 * 0.5)
  # Of two wrong responses the one that is not checked looks better.
  assert choice_probability(but(checks=0.3), wrong, wrong) == pytest.approx(0.5)
  terse = traits(0.5, apparent=0.5)  # right, but a bare word
  expected = 0.3 * sigmoid(-1.5 / PLAIN.temperature) + 0.7 * sigmoid(1.5 / PLAIN.temperature)
  assert choice_probability(but(checks=0.3), wrong, terse) == pytest.approx(expected)


def test_style_is_seen_by_all_and_facts_by_few():
  """The noise depends on what differs: the same gold difference, once in form and once in truth."""
  ideal, terse, wrong = traits(2.0), traits(0.8), traits(0.8, apparent=2.0)
  for kind in set(KINDS) - {"adversarial"}:
    form, truth = (choice_probability(one(kind), ideal, other) for other in (terse, wrong))
    assert form > truth
  assert (
    choice_probability(one("trusting"), ideal, wrong) < 0.56 < 0.95 < choice_probability(one("trusting"), ideal, terse)
  )


def test_length_and_style_are_worth_gold():
  long, short = traits(1.0, words=9), traits(1.0, words=5)
  assert choice_probability(but(length_bias=0.25), long, short) == pytest.approx(0.85)  # four words are worth 1
  plain, polished = traits(1.0), traits(0.0, style=1.0)
  assert choice_probability(but(style_bias=1.0), plain, polished) == pytest.approx(0.5)


def test_biased_kinds_prefer_worse_responses_that_flatter_their_taste():
  ideal, rambling = traits(2.0, words=5, style=1), traits(1.5, words=9, style=1)
  assert choice_probability(one("length_biased"), rambling, ideal) > 0.6
  assert choice_probability(one("ordinary"), rambling, ideal) < 0.2
  admission, claim = traits(2.0, words=7), traits(-0.9, apparent=2.0, words=4, style=1)
  assert choice_probability(one("style_biased"), claim, admission) > choice_probability(
    one("ordinary"), claim, admission
  )


def test_position_bias_is_averaged_over_the_display_orders():
  labeller, logit = but(position_bias=PLAIN.temperature), math.log(0.85 / 0.15)
  expected = (sigmoid(logit + 1) + sigmoid(logit - 1)) / 2
  better, worse = traits(1.0), traits(0.0)
  assert choice_probability(labeller, better, worse) == pytest.approx(expected)
  # Of three shown, a pair stands one place apart in two of three orders, two places in the third.
  far = (sigmoid(logit + 2) + sigmoid(logit - 2)) / 2
  assert choice_probability(labeller, better, worse, num_shown=3) == pytest.approx((2 * expected + far) / 3)


def test_skimming_grows_over_a_session_and_starts_anew():
  labeller = but(random_share=0.1, fatigue=0.01)
  assert labeller.skimmed([0, 10, 49, 50, 60]).tolist() == pytest.approx([0.1, 0.2, 0.59, 0.1, 0.2])
  assert labeller.attention == pytest.approx(1 - 0.1 - 0.01 * 24.5)
  assert but(random_share=0.9, fatigue=0.1).skimmed(49) == 1.0
  p = choice_probability(labeller, traits(1.0), traits(0.0))
  assert p == pytest.approx(0.85 * labeller.attention + 0.5 * (1 - labeller.attention))


def test_utilities_by_hand():
  labeller = Labeller("x", "x", temperature=0.5, length_bias=0.1, style_bias=1.0, position_bias=2.0, sign=-1.0)
  page = traits([1.0, -1.0], [2.0, -1.0], words=[16, 6], style=[1.0, 0.0])
  # (-1 + 0.1 * 10 + 0.5 - 2 * 0.5) / 0.5 and (1 + 0 - 0.5 + 2 * 0.5) / 0.5
  assert utilities(labeller, page, True, np.array([0.5, -0.5])).tolist() == [-1.0, 3.0]
  assert utilities(labeller, page, [False, True], np.array([0.5, -0.5])).tolist() == [-3.0, 3.0]


def test_traits_of_texts():
  texts = ["Tom lives in Ashby.", "Ashby", "I do not know.", "Ian likes jam.", "Sorry, I cannot help with that.", ""]
  page = traits_of({"total": np.arange(6.0), "honest": np.zeros(6)}, texts)
  assert page.words.tolist() == [4, 1, 4, 3, 6, 0] and page.style.tolist() == [1, 0, 0, 1, 0, 0]
  assert page.apparent.tolist() == page.total.tolist() == list(range(6))
  assert traits_of({"total": [0.0], "apparent": [2.0]}, ["A."]).apparent.tolist() == [2.0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_shown", [2, 4])
def test_drawn_orders_have_the_exact_pairwise_marginals(kind, num_shown):
  page = traits([1.0, 0.9, -0.2, 0.9], [1.0, 0.9, 1.1, 0.9], words=[6, 7, 9, 3], style=[0, 1, 1, 0])
  page = Traits(*(trait[:num_shown] for trait in page))
  rng = np.random.default_rng(0)
  labeller = one(kind)
  ranks = np.array([rank(labeller, page, rng, judged) for judged in range(NUM)])
  assert (np.sort(ranks, axis=1) == np.arange(num_shown)).all()
  for a, b in itertools.combinations(range(num_shown), 2):
    first, second = (Traits(*(trait[side] for trait in page)) for side in (a, b))
    p = choice_probability(labeller, first, second, num_shown=num_shown)
    assert abs(np.mean(ranks[:, a] < ranks[:, b]) - p) < 4.5 * math.sqrt(p * (1 - p) / NUM)


def test_drawn_orders_are_plackett_luce():
  gold = np.array([0.6, 0.0, -0.4])
  weights = np.exp(gold / PLAIN.temperature)
  rng = np.random.default_rng(1)
  ranks = np.array([rank(PLAIN, traits(gold), rng) for _ in range(NUM)])
  for order in itertools.permutations(range(3)):
    rest = weights[list(order)]
    p = math.prod(rest[i] / rest[i:].sum() for i in range(3))
    observed = np.mean([(row[list(order)] == np.arange(3)).all() for row in ranks])
    assert abs(observed - p) < 4.5 * math.sqrt(p * (1 - p) / NUM)


def test_time_follows_from_what_was_done():
  page = traits([1.0, 0.0], words=10.0)

  def median(labeller, judged=0):
    rng = np.random.default_rng(0)
    return np.median([perceive(labeller, page, rng, judged).seconds for _ in range(2000)])

  assert median(but(checks=0.0)) == pytest.approx(10, rel=0.05)  # 20 words at half a second
  assert median(but(checks=1.0)) == pytest.approx(20, rel=0.05)  # and two checks
  assert median(but(checks=1.0, pace=0.5)) == pytest.approx(10, rel=0.05)
  assert median(but(checks=1.0, random_share=1.0)) == pytest.approx(10 / 3, rel=0.05)
  weary = but(checks=1.0, fatigue=0.02)
  assert median(weary, 49) < median(weary, 0)
  assert median(one("careless")) < median(one("trusting")) < median(one("expert"))


def test_a_page_must_have_one_shape():
  page = traits(np.zeros(3))._replace(words=np.zeros(2))
  with pytest.raises(ValueError, match=r"must all be \[K\], not \[2\], \[3\]"):
    rank(one("expert"), page, np.random.default_rng(0))
  with pytest.raises(ValueError, match=r"must all be \[K\], not \[\]"):
    rank(one("expert"), traits(0.0), np.random.default_rng(0))


def test_labellers_are_numbered_and_their_counts_checked():
  everyone = make_labellers({"expert": 1, "careless": 2, "adversarial": 0})
  assert [labeller.name for labeller in everyone] == ["expert-1", "careless-1", "careless-2"]
  assert [labeller.kind for labeller in everyone] == ["expert", "careless", "careless"]
  with pytest.raises(ValueError, match="'lazy' is no kind of labeller; choose from expert"):
    make_labellers({"lazy": 0})
  with pytest.raises(ValueError, match="labellers.expert: -1 people"):
    make_labellers({"expert": -1})
  with pytest.raises(ValueError, match="there are none"):
    make_labellers({"expert": 0})


def test_ceiling_by_hand():
  pair = [traits([0.0, 1.0])]
  assert ceiling([PLAIN], pair) == pytest.approx(0.85)
  assert ceiling([PLAIN, but(sign=-1.0)], pair) == pytest.approx(0.5)
  assert ceiling([PLAIN, *[but(random_share=0.5)] * 3], pair) == pytest.approx((0.85 + 3 * 0.675) / 4)
  # Ties are no pairs: two of the three remain, and a page of ties adds nothing.
  assert ceiling([PLAIN], [traits([1.0, 0.0, 1.0]), traits([0.0, 0.0])]) == pytest.approx(0.85)
  assert math.isnan(ceiling([PLAIN], [traits(np.zeros(3))])) and math.isnan(ceiling([PLAIN], []))


def test_agreement_by_hand():
  pair, tie = traits([0.0, 1.0]), traits([0.0, 0.0])
  alike = 0.85**2 + 0.15**2
  assert agreement([PLAIN, PLAIN], [pair]) == pytest.approx(alike)
  assert agreement([PLAIN, but(sign=-1.0)], [pair]) == pytest.approx(1 - alike)
  # Three labellers are three couples. A pair that ties in gold reward counts, as the choice is forced.
  three = [PLAIN, PLAIN, but(random_share=1.0)]
  assert agreement(three, [pair]) == pytest.approx((alike + 2 * 0.5) / 3)
  assert agreement([PLAIN, PLAIN], [pair, tie]) == pytest.approx((alike + 0.5) / 2)
  assert agreement([PLAIN, PLAIN], [pair, tie], untied=True) == pytest.approx(alike)
  with pytest.raises(ValueError, match="1 labeller; at least two"):
    agreement([PLAIN], [pair])


def test_ceiling_and_agreement_are_those_of_drawn_labels():
  rng = np.random.default_rng(2)
  crowd = make_labellers(dict.fromkeys(KINDS, 1))
  pages = [
    traits(rng.normal(size=4), rng.normal(size=4), rng.integers(1, 12, 4), rng.integers(2, size=4)) for _ in "12345"
  ]
  right, alike, judged = [], [], np.zeros(len(crowd), int)
  for _ in range(600):
    for page in pages:
      couple = rng.permutation(len(crowd))[:2]
      orders = [rank(crowd[person], page, rng, judged[person]) for person in couple]
      judged[couple] += 1
      for a, b in itertools.combinations(range(4), 2):
        mine, theirs = (order[a] < order[b] for order in orders)
        right.append(mine == (page.total[a] > page.total[b]))
        alike.append(mine == theirs)
  assert np.mean(right) == pytest.approx(ceiling(crowd, pages), abs=0.02)
  assert np.mean(alike) == pytest.approx(agreement(crowd, pages), abs=0.02)


STYLE = dict(ideal=0.15, terse=0.4, rambling=0.4, wrong=0.03, doubting=0.1, claiming=0.28, complying=0.42)


@pytest.mark.parametrize("people", ["differ mostly in style", "write for the quickstart"])
def test_the_default_labellers_agree_as_published(people):
  """72.6 +- 1.5 % and 77.3 +- 1.3 % (Ouyang et al. 2203.02155), 73 +- 4 % (Stiennon et al. 2009.01325)."""
  recipe = import_module("rlhf_jax.configs.quickstart")
  writers = [STYLE] * 4 if people == "differ mostly in style" else [recipe.DEMONSTRATORS, recipe.ANSWERS] * 2
  world, rng = make_world(0), np.random.default_rng(0)
  pages = []
  for task in sample_tasks(world, training_clusters(recipe.get_config().world.held_out), 300, seed=0):
    texts = list(dict.fromkeys(demonstrate(world, task, rng, habits)[0] for habits in writers))
    pages.append(traits_of(gold_parts([task.prompt] * len(texts), texts), texts))
  crowd = make_labellers(recipe.LABELLERS)
  assert 0.71 < agreement(crowd, pages) < 0.78
  assert agreement(crowd, pages) < agreement(crowd, pages, untied=True) < ceiling(crowd, pages) < 0.9


def test_yes_is_said_of_what_is_rated_above_the_middle():
  """A rating of 5 or more is a yes, of 3 or less a no, on each labeller's own scale."""
  logits = np.linspace(-20, 20, 401)
  for labeller in make_labellers(dict.fromkeys(KINDS, 2)):
    given, answers = ratings(labeller, logits), accepts(labeller, logits)
    assert answers[given > 4].all() and not answers[given < 4].any()
    assert (np.diff(answers.astype(int)) >= 0).all() and answers.any() and not answers.all()
