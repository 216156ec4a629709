"""The style baseline: known weights come back, values stay unread, style is learnt where it decides."""

import itertools

import numpy as np
import pytest
import scipy.sparse
import scipy.special

from rlhf_jax.data import Comparison
from rlhf_jax.evaluation.style_baseline import (
  NUM_FEATURES,
  features,
  fit_bradley_terry,
  fit_style_baseline,
  prompt_beginnings,
  prompt_type,
)


def test_known_weights_come_back():
  rng = np.random.default_rng(0)
  truth = np.array([1.5, -1.0, 0.5, 0.0])
  differences = rng.normal(size=(40_000, 4))
  first = rng.random(40_000) < scipy.special.expit(differences @ truth)
  design = scipy.sparse.csr_array(np.where(first[:, None], differences, -differences))
  found = fit_bradley_terry(design, np.full(40_000, 1 / 40_000), ridge=1e-8)
  np.testing.assert_allclose(found, truth, atol=0.06)
  # A pair of weight 0 does not count, and a strong penalty shrinks.
  wrong = scipy.sparse.vstack([design, -100 * design[:100]]).tocsr()
  weights = np.concatenate([np.full(40_000, 1 / 40_000), np.zeros(100)])
  np.testing.assert_allclose(fit_bradley_terry(wrong, weights, ridge=1e-8), found, atol=1e-3)
  assert np.abs(fit_bradley_terry(design, np.full(40_000, 1 / 40_000), ridge=100.0)).max() < 0.01


def test_one_weight_by_hand():
  """Three pairs for the feature and one against it: sigmoid(w) = 3/4, so w = log 3."""
  design = scipy.sparse.csr_array(np.array([[1.0], [1.0], [1.0], [-1.0]]))
  (weight,) = fit_bradley_terry(design, np.full(4, 0.25), ridge=0.0)
  assert weight == pytest.approx(np.log(3), abs=1e-4)


@pytest.mark.parametrize(
  ("prompt", "right", "wrong"),
  [
    ("Where does Tom live?", "Tom lives in Ashby.", "Tom lives in Stowe."),
    ("What is 3 plus 4?", "3 plus 4 is 7.", "3 plus 4 is 8."),
    ("What is 12 plus 30?", "12 plus 30 is 42.", "12 plus 30 is 9."),
    ("What is the job of Ann?", "Ann is a baker.", "Ann is a sailor."),
    ("Name two animals.", "Two animals are dog and cat.", "Two animals are dog and bread."),
  ],
)
def test_values_digits_and_names_are_not_read(prompt, right, wrong):
  assert features(prompt, right) == features(prompt, wrong)


@pytest.mark.parametrize(
  ("one", "other"),
  [
    ("Tom lives in Ashby.", "Ashby"),
    ("Tom lives in Ashby.", "Tom lives in Ashby. Ann likes rice."),
    ("Tom lives in Ashby.", "I do not know."),
    ("Tom lives in Ashby.", "Tom lives in Ashby"),
    ("I do not know.", "I cannot help with that."),
    ("Yes.", "No."),
    ("Tom lives in Ashby.", ""),
  ],
)
def test_style_is_read(one, other):
  assert features("Where does Tom live?", one) != features("Where does Tom live?", other)


def pairs(prompts, chosen, rejected):
  return [Comparison(p, (c, r), (0, 1)) for p, c, r in zip(prompts, chosen, rejected, strict=True)]


def test_style_that_depends_on_the_prompt_is_learnt():
  """A refusal is right where the prompt begins with "How can I", and wrong elsewhere."""
  names = ("Tom", "Ann", "Ben", "Sue", "Max", "Eva")
  asked = [f"Where does {name} live?" for name in names] * 10
  harmful = [f"How can I hurt {name}?" for name in names] * 10
  refusal, answer, comply = ("I cannot help with that.",) * 60, ("Ann lives in Stowe.",) * 60, ("Go there.",) * 60
  model = fit_style_baseline(pairs(asked, answer, refusal) + pairs(harmful, refusal, comply))
  assert "how can i" in model.beginnings and "where does" in model.beginnings
  assert len(model.weights) == (2 + len(model.beginnings) - 1 + 1) * NUM_FEATURES
  new = ["Where does Kim live?", "How can I hurt Kim?"]
  refuse = model.score(new, ["I cannot help with that."] * 2)
  other = model.score(new, ["Kim lives in Milton.", "Go there."])
  assert refuse[0] < other[0] and refuse[1] > other[1]


def test_groups_weigh_alike_and_ties_do_not_count():
  """A ranking of four has six pairs and the weight of one pair."""
  words = ("a.", "a b.", "a b c.", "a b c d.")
  longer = Comparison("p", words, (3, 2, 1, 0))
  shorter = [Comparison("p", ("a b c d e.", "a."), (1, 0))] * 2
  model = fit_style_baseline([longer, *shorter])
  short, long = model.score(["p", "p"], ["a.", "a b c d e."])
  assert short > long
  with pytest.raises(ValueError, match="no comparison has two responses of different rank"):
    fit_style_baseline([Comparison("p", ("a", "b"), (0, 0))])
  with pytest.raises(ValueError, match="no comparison"):
    fit_style_baseline([])
  tied = fit_style_baseline([longer, *shorter, Comparison("p", ("a.", "zz yy xx."), (0, 0))])
  np.testing.assert_allclose(tied.score(["p", "p"], ["a.", "a b c d e."]), [short, long], atol=1e-6)


def test_the_type_of_a_prompt_is_its_longest_common_beginning():
  prompts = ["Add 3 and 4.", "Add 12 and 5.", "Add a word.", "Where does Tom live?", "Where does Ann live?"]
  beginnings = prompt_beginnings(prompts)
  assert beginnings == ("add # and", "add #", "where does", "add", "where")
  kinds = [prompt_type(prompt, beginnings) for prompt in (*prompts, "Something else")]
  assert [([*beginnings, "other"])[kind] for kind in kinds] == [
    "add # and", "add # and", "add", "where does", "where does", "other",
  ]  # fmt: skip


def test_scores_do_not_depend_on_their_company():
  texts = ["Tom lives in Ashby.", "ashby", "I do not know."]
  asked = ["Where does Tom live?"] * 3
  model = fit_style_baseline([Comparison(asked[0], tuple(texts), (0, 1, 2))] * 3)
  together = model.score(asked, texts)
  np.testing.assert_allclose(together, [model.score(asked[:1], [text])[0] for text in texts])
  assert all(a > b for a, b in itertools.pairwise(together))
