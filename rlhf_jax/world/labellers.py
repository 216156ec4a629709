"""Simulated labellers: Bradley-Terry choices on the gold reward, with the noise and the habits of human labellers.

A labeller sees K responses side by side and orders them. The utility of a response is

  sign * gold / temperature + length_bias * words - position_bias * position        (in logits)

and P(a before b) = sigmoid(utility_a - utility_b) (Bradley and Terry 1952). A whole order is drawn by adding Gumbel
noise to the utilities and sorting, which is Plackett-Luce (Luce 1959; Yellott 1977), whose pairwise marginals are
those Bradley-Terry probabilities. A share of the orders is given at random, without looking.

A labeller's order, strength and ratings of the responses on a page all come from one such noisy look (`perceive`). A
rating is that look on the labeller's own scale: some labellers are lenient, some use only the middle.
"""

import dataclasses
import math
import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np


@dataclasses.dataclass(frozen=True)
class Labeller:
  """A simulated labeller."""

  name: str
  """Name, unique among the labellers."""
  kind: str
  """Kind, one of `KINDS`."""
  temperature: float
  """Noise, in units of gold reward per logit."""
  random_share: float = 0.0
  """Share of the orders that are drawn at random, between 0 and 1."""
  length_bias: float = 0.0
  """Preference for length, in logits per word."""
  position_bias: float = 0.0
  """Preference for earlier places on the page, in logits per place."""
  sign: float = 1.0
  """Direction of the preference: 1 for the better response, -1 for the worse."""
  leniency: float = 0.0
  """Rating points added to every rating."""
  stretch: float = 1.0
  """Factor on a rating's distance from the middle of the scale."""


def _temperature(agreement: float) -> float:
  """The temperature at which a gold difference of 1 is seen with probability `agreement`."""
  return 1 / math.log(agreement / (1 - agreement))


_ORDINARY = _temperature(0.85)
POINTS = 1.5  # rating points, on a scale from 1 to 7, per unit of gold reward, which lies between -2 and 2
STRENGTHS = (1.0, 2.5)  # logits above which a preference is no longer slight (1), and is strong (3)
_GUMBEL_MEAN = 0.5772156649
KINDS = MappingProxyType({
  "expert": dict(temperature=_temperature(0.95)),
  "ordinary": dict(temperature=_ORDINARY),
  "careless": dict(temperature=_ORDINARY, random_share=0.5),
  "length_biased": dict(temperature=_ORDINARY, length_bias=0.25),
  "position_biased": dict(temperature=_ORDINARY, position_bias=1.0),
  "adversarial": dict(temperature=_ORDINARY, sign=-1.0),
})  # fmt: skip


def make_labellers(counts: Mapping[str, int]) -> list[Labeller]:
  """Labellers in the given numbers of each kind (`KINDS`), named "KIND-1", "KIND-2" and so on.

  Raises ValueError for an unknown kind, a count below 0, or no labellers at all.
  """
  everyone = []
  for kind, count in counts.items():
    if kind not in KINDS:
      raise ValueError(f"labellers: {kind!r} is no kind of labeller; choose from {', '.join(KINDS)}")
    if count < 0:
      raise ValueError(f"labellers.{kind}: {count} people; the number cannot be below 0")
    everyone += [_labeller(f"{kind}-{i + 1}", kind) for i in range(count)]
  if not everyone:
    raise ValueError("labellers: there are none; give at least one kind a number above 0")
  return everyone


def _labeller(name: str, kind: str) -> Labeller:
  """A labeller whose scale of ratings follows from the name, so that it is the same in all rounds."""
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  scale = dict(leniency=float(rng.normal(0, 0.8)), stretch=float(rng.lognormal(0, 0.3)))
  return Labeller(name, kind, **KINDS[kind], **scale)


def utilities(labeller: Labeller, gold: np.ndarray, num_words: np.ndarray, positions: np.ndarray) -> np.ndarray:
  """Bradley-Terry logits f64[..., K] of responses shown at `positions` (0 is the first place)."""
  gold, num_words, positions = (np.asarray(x, np.float64) for x in (gold, num_words, positions))
  seen = labeller.sign * gold / labeller.temperature
  return seen + labeller.length_bias * num_words - labeller.position_bias * positions


def choice_probability(
  labeller: Labeller,
  gold_a: np.ndarray,
  gold_b: np.ndarray,
  words_a: np.ndarray,
  words_b: np.ndarray,
  *,
  num_shown: int = 2,
) -> np.ndarray:
  """Exact P(a is put before b), f64 of the broadcast shape of the arguments.

  It averages over the display orders of the `num_shown` responses on the page, and includes the random orders.
  """
  gaps = np.arange(1, num_shown)  # a stands `gap` places before b, or behind
  share = 2 * (num_shown - gaps) / (num_shown * (num_shown - 1))
  zero = np.zeros(())
  logit = utilities(labeller, gold_a, words_a, zero) - utilities(labeller, gold_b, words_b, zero)
  shift = labeller.position_bias * gaps
  seen = 0.5 * (_sigmoid(logit[..., None] + shift) + _sigmoid(logit[..., None] - shift)) @ share
  return labeller.random_share * 0.5 + (1 - labeller.random_share) * seen


def _sigmoid(x: np.ndarray) -> np.ndarray:
  return 0.5 * (1 + np.tanh(0.5 * x))  # never overflows


def rank(labeller: Labeller, gold: np.ndarray, num_words: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """A labeller's order of K responses: ranks i64[K], 0 for the best, without ties.

  The responses are shown in an order drawn at random. Raises ValueError unless gold and num_words are both [K].
  """
  return np.argsort(np.argsort(-perceive(labeller, gold, num_words, rng)))


def perceive(
  labeller: Labeller,
  gold: np.ndarray,
  num_words: np.ndarray,
  rng: np.random.Generator,
  positions: np.ndarray | None = None,
) -> np.ndarray:
  """A noisy look at K responses: f64[K] in logits, the utilities with Gumbel noise, or the noise alone.

  The responses are shown at `positions` i64[K], or in an order drawn at random. Raises ValueError unless gold and
  num_words are both [K].
  """
  gold, num_words = np.asarray(gold), np.asarray(num_words)
  if gold.ndim != 1 or gold.shape != num_words.shape:
    raise ValueError(f"gold and num_words must both be [K], not {list(gold.shape)} and {list(num_words.shape)}")
  positions = rng.permutation(len(gold)) if positions is None else positions
  noise = rng.gumbel(size=len(gold))
  at_random = rng.random() < labeller.random_share
  return noise if at_random else noise + utilities(labeller, gold, num_words, positions)


def ratings(labeller: Labeller, perceived: np.ndarray) -> np.ndarray:
  """Perceived logits f64[K] as ratings i64[K]: 1 the worst, 7 the best, 4 for a gold reward of 0."""
  points = POINTS * labeller.temperature * (np.asarray(perceived) - _GUMBEL_MEAN)
  return np.clip(np.rint(4 + labeller.leniency + labeller.stretch * points), 1, 7).astype(np.int64)


def strength(perceived: np.ndarray) -> int:
  """Strength of a preference between two responses with perceived logits f64[2]: 1 slight, 2 clear, 3 strong."""
  first, second = perceived
  return 1 + int(np.searchsorted(STRENGTHS, abs(first - second)))


def ceiling(labellers: Sequence[Labeller], gold: np.ndarray, num_words: np.ndarray) -> float:
  """Expected share of labels that agree with the gold order, over labellers and pairs of different gold reward.

  gold, num_words: [..., K], the K responses of a group shown together. The share is the accuracy, on noisy labels, of a
  model that knows the gold reward; NaN where no pair differs.
  """
  gold, num_words = np.asarray(gold, np.float64), np.asarray(num_words, np.float64)
  first, second = np.triu_indices(gold.shape[-1], 1)
  gap = gold[..., first] - gold[..., second]  # [..., pairs]
  agree = np.mean(
    [
      choice_probability(
        labeller, gold[..., first], gold[..., second], num_words[..., first], num_words[..., second],
        num_shown=gold.shape[-1],
      )
      for labeller in labellers
    ],
    axis=0,
  )  # fmt: skip
  agree = np.where(gap > 0, agree, 1 - agree)[gap != 0]
  return float(agree.mean()) if agree.size else float("nan")
