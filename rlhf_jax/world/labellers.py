"""Simulated labellers: choices on the gold reward with the blind spots, tastes, haste and fatigue of human labellers.

A labeller sees K responses side by side and orders them. What a labeller notices depends on what differs: form is on
the page, but whether a response is true is seen only where the labeller checks it. The utility of a response is

  (sign * seen + length_bias * words + style_bias * style - position_bias * position) / temperature        (in logits)

where seen is the gold reward of a response that was checked, and otherwise the gold reward it would have if all it
says were true ("apparent"). P(a before b) = sigmoid(utility_a - utility_b) (Bradley and Terry 1952). A whole order is
drawn by adding Gumbel noise to the utilities and sorting, which is Plackett-Luce (Luce 1959; Yellott 1977), whose
pairwise marginals are those Bradley-Terry probabilities. Some pages are only skimmed, and ordered at random; their
share grows with the pages judged in a session.

A labeller's order, strength, ratings and time for a page all come from one such noisy look (`perceive`). A rating is
that look on the labeller's own scale: some labellers are lenient, some use only the middle.

The strengths, and where they come from:

- Agreement: temperatures and shares of checks put the agreement of two labellers of the quickstart's mix among the
  published figures of forced choices: 72.6 +- 1.5 % and, in a second group, 77.3 +- 1.3 % (Ouyang et al. 2203.02155,
  section 3.4), 73 +- 4 % to 77 +- 2 % with researchers (Stiennon et al. 2009.01325). Labellers without training agree
  less: 66 % with the majority of three (AlpacaEval, on the data of Dubois et al. 2305.14387), 63 % with researchers
  (Bai et al. 2204.05862).
- Facts: people rate answers with factual errors above answers that are too short (Wu and Aji 2307.03025), and miss
  factual errors where the text is assertive (Hosking et al. 2309.16349). The probabilities of a check are assumptions.
- Length: of two answers of clearly different length people prefer the longer in 64 % (AlpacaEval), quality included.
  Here one kind is biased, by assumption so much that a needless word (-0.125) is welcome.
- Style: both papers above find that it sways people. Its strength, somewhat more than a missing sentence costs, is an
  assumption.
- Position and skimming: assumptions; 10 to 12 % of those who fill in a long survey are careless (Meade and Craig 2012).
- Fatigue: nine million annotations show hardly any (Hata et al. 1609.04855); it is an assumption, and small.
- Time: 0.5 s per word is reading twice at 240 words a minute (Brysbaert 2019); the time of a check is an assumption.
  The time of the prompt, of answering and of typing is added by `rlhf_jax.world.seconds`.
"""

import dataclasses
import itertools
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class Labeller:
  """A simulated labeller."""

  name: str
  """Name, unique among the labellers."""
  kind: str
  """Kind, one of `KINDS`."""
  temperature: float
  """Noise, in units of gold reward per logit."""
  checks: float = 1.0
  """Probability of checking whether a response is true, between 0 and 1, independent for each response."""
  random_share: float = 0.0
  """Share of the pages that are skimmed and ordered at random at the start of a session, between 0 and 1."""
  fatigue: float = 0.0
  """Growth of that share with each page judged in a session."""
  length_bias: float = 0.0
  """Preference for length, in units of gold reward per word."""
  style_bias: float = 0.0
  """Preference for a polished and assertive response, in units of gold reward (see `traits_of`)."""
  position_bias: float = 0.0
  """Preference for earlier places on the page, in units of gold reward per place."""
  sign: float = 1.0
  """Direction of the preference: 1 for the better response, -1 for the worse."""
  pace: float = 1.0
  """Factor on the time of a judgement; below 1 for a hasty labeller."""
  leniency: float = 0.0
  """Rating points added to every rating."""
  stretch: float = 1.0
  """Factor on a rating's distance from the middle of the scale."""

  def skimmed(self, judged: ArrayLike) -> np.ndarray:
    """Share of the pages that are skimmed after `judged` pages (any shape), of which `SESSION` make a session."""
    return np.minimum(1.0, self.random_share + self.fatigue * (np.asarray(judged) % SESSION))

  @property
  def attention(self) -> float:
    """Share of the pages of whole sessions that are not skimmed."""
    return float(1 - self.skimmed(np.arange(SESSION)).mean())


class Traits(NamedTuple):
  """What there is to see of responses, each f64[...] of one shape, usually [K] for the K responses of a page."""

  total: np.ndarray
  """Gold reward."""
  apparent: np.ndarray
  """Gold reward that the response would have if all it says were true."""
  words: np.ndarray
  """Number of words."""
  style: np.ndarray
  """Style: 1 where the response is polished and assertive, else 0."""


class Look(NamedTuple):
  """A labeller's noisy look at a page of K responses."""

  logits: np.ndarray
  """Perceived utilities with noise, in logits: f64[K]."""
  seconds: float
  """Time of reading and checking the responses, in seconds."""


def _temperature(agreement: float) -> float:
  """The temperature at which a gold difference of 1 is seen with probability `agreement`."""
  return 1 / math.log(agreement / (1 - agreement))


SESSION = 50  # pages that a labeller judges without a break
POINTS = 1.0  # rating points per unit of gold reward: -2 to 2 are 2 to 6 of 1 to 7, which leaves room for noise
STRENGTHS = (1.0, 2.5)  # logits above which a preference is no longer slight (1), and is strong (3)
SECONDS_PER_WORD = 0.5
SECONDS_PER_CHECK = 5.0
SKIMMING = 1 / 3  # time of a skimmed page as a share of the time of reading it
_USUAL_WORDS, _USUAL_STYLE = 6, 0.5  # of a response; ratings are by comparison with it
_GUMBEL_MEAN = 0.5772156649
_ORDINARY = dict(temperature=_temperature(0.99), checks=0.85, fatigue=0.001)
KINDS = MappingProxyType({
  "expert": dict(temperature=_temperature(0.998), checks=0.97, pace=1.25),
  "ordinary": _ORDINARY,
  "trusting": {**_ORDINARY, "checks": 0.1},
  "careless": {**_ORDINARY, "checks": 0.4, "random_share": 0.5, "pace": 0.6},
  "length_biased": {**_ORDINARY, "length_bias": 0.2},
  "style_biased": {**_ORDINARY, "checks": 0.5, "style_bias": 1.0},
  "position_biased": {**_ORDINARY, "position_bias": 0.5},
  "adversarial": {**_ORDINARY, "sign": -1.0},
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
  """A labeller whose scale of ratings and pace follow from the name, so that they are the same in all rounds."""
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  scale = dict(leniency=float(rng.normal(0, 0.6)), stretch=float(rng.lognormal(0, 0.25)))
  labeller = Labeller(name, kind, **KINDS[kind], **scale)
  return dataclasses.replace(labeller, pace=labeller.pace * float(rng.lognormal(0, 0.2)))


def traits_of(gold: Mapping[str, np.ndarray], responses: Sequence[str]) -> Traits:
  """The traits f64[K] of K responses.

  gold: {"total": f[K], "apparent": f[K]}, such as `gold_parts` returns; without "apparent" it is "total", so that every
  fault can be seen. A response is polished and assertive if it starts with a capital letter, ends with a full stop,
  and does not speak of the speaker ("I do not know", "I cannot help with that").
  """
  total = np.asarray(gold["total"], np.float64)
  words = np.array([len(text.split()) for text in responses], np.float64)
  style = np.array([bool(re.fullmatch(r"(?!.*\bI\b)[A-Z].*\.", text, re.DOTALL)) for text in responses], np.float64)
  return Traits(total, np.asarray(gold.get("apparent", total), np.float64), words, style)


def utilities(labeller: Labeller, page: Traits, checked: ArrayLike, positions: ArrayLike) -> np.ndarray:
  """Bradley-Terry logits f64[..., K], on the scale of a usual response in the middle of the page.

  checked: bool[..., K], whether each response was checked. positions: [..., K], places on the page, relative to its
  middle (negative for the first place).
  """
  seen = labeller.sign * np.where(checked, page.total, page.apparent)
  length = labeller.length_bias * (np.asarray(page.words) - _USUAL_WORDS)
  style = labeller.style_bias * (np.asarray(page.style) - _USUAL_STYLE)
  return (seen + length + style - labeller.position_bias * np.asarray(positions)) / labeller.temperature


def choice_probability(labeller: Labeller, a: Traits, b: Traits, *, num_shown: int = 2) -> np.ndarray:
  """Exact P(a is put before b), f64 of the broadcast shape of the traits.

  It averages over which of the two are checked, over the display orders of the `num_shown` responses on the page, and
  over the pages of whole sessions, and includes the pages that are skimmed.
  """
  gaps = np.arange(1, num_shown)  # a stands `gap` places before b, or behind
  share = 2 * (num_shown - gaps) / (num_shown * (num_shown - 1))
  shift = labeller.position_bias * gaps / labeller.temperature
  seen = np.zeros(())
  for checked_a, checked_b in itertools.product((True, False), repeat=2):
    logit = utilities(labeller, a, checked_a, 0) - utilities(labeller, b, checked_b, 0)
    chosen = 0.5 * (_sigmoid(logit[..., None] + shift) + _sigmoid(logit[..., None] - shift)) @ share
    weights = [labeller.checks if checked else 1 - labeller.checks for checked in (checked_a, checked_b)]
    seen = seen + math.prod(weights) * chosen
  return 0.5 * (1 - labeller.attention) + labeller.attention * seen


def _sigmoid(x: np.ndarray) -> np.ndarray:
  return 0.5 * (1 + np.tanh(0.5 * x))  # never overflows


def rank(labeller: Labeller, page: Traits, rng: np.random.Generator, judged: int = 0) -> np.ndarray:
  """A labeller's order of K responses with traits [K]: ranks i64[K], 0 for the best, without ties.

  The responses are shown in an order drawn at random. judged: number of pages that the labeller judged before.
  """
  return np.argsort(np.argsort(-perceive(labeller, page, rng, judged).logits))


def perceive(
  labeller: Labeller, page: Traits, rng: np.random.Generator, judged: int = 0, positions: np.ndarray | None = None
) -> Look:
  """A noisy look at K responses with traits [K]: utilities with Gumbel noise, or the noise alone on a skimmed page.

  The responses are shown at `positions` i64[K] (0 is the first place), or in an order drawn at random. The time is
  log-normal around that of reading the page and checking responses, or of skimming it. Raises ValueError unless the
  traits are all [K].
  """
  shapes = {np.shape(trait) for trait in page}
  if len(shapes) != 1 or len(next(iter(shapes))) != 1:
    raise ValueError(f"the traits of a page must all be [K], not {', '.join(str(list(s)) for s in sorted(shapes))}")
  num = len(page.total)
  positions = rng.permutation(num) if positions is None else positions
  noise, haste = rng.gumbel(size=num), rng.lognormal(0, 0.4)
  checked = rng.random(num) < labeller.checks
  skims = rng.random() < labeller.skimmed(judged)
  reading = SECONDS_PER_WORD * float(page.words.sum())
  if skims:
    return Look(noise, labeller.pace * haste * SKIMMING * reading)
  logits = noise + utilities(labeller, page, checked, positions - (num - 1) / 2)
  return Look(logits, labeller.pace * haste * (reading + SECONDS_PER_CHECK * int(checked.sum())))


def ratings(labeller: Labeller, logits: np.ndarray) -> np.ndarray:
  """Perceived logits f64[K] as ratings i64[K]: 1 the worst, 7 the best, 4 for a gold reward of 0."""
  return np.clip(np.rint(_points(labeller, logits)), 1, 7).astype(np.int64)


def accepts(labeller: Labeller, logits: np.ndarray) -> np.ndarray:
  """bool[K], yes or no to "Is this response good?": whether it would be rated above 4, the middle, before rounding."""
  return _points(labeller, logits) > 4


def _points(labeller: Labeller, logits: np.ndarray) -> np.ndarray:
  """Perceived logits f64[K] on the labeller's own scale of ratings, f64[K], neither rounded nor clipped."""
  points = POINTS * labeller.temperature * (np.asarray(logits) - _GUMBEL_MEAN)
  return 4 + labeller.leniency + labeller.stretch * points


def strength(logits: np.ndarray) -> int:
  """Strength of a preference between two responses with perceived logits f64[2]: 1 slight, 2 clear, 3 strong."""
  first, second = logits
  return 1 + int(np.searchsorted(STRENGTHS, abs(first - second)))


def ceiling(labellers: Sequence[Labeller], pages: Sequence[Traits]) -> float:
  """Expected accuracy on drawn labels of a model that knows the gold reward, over all pairs of different gold reward.

  pages: traits [K] of the responses of each page. A pair of equal gold reward has no right order and does not count.
  The labels of a page are those of a labeller drawn at random. NaN where no pair differs.
  """
  agree = []
  for page in _stacked(pages):
    gap, chosen = _pairs(labellers, page)
    right = np.where(gap > 0, chosen, 1 - chosen).mean(axis=0)
    agree.append(right[gap != 0])
  everything = np.concatenate([*agree, []])
  return float(everything.mean()) if everything.size else float("nan")


def agreement(labellers: Sequence[Labeller], pages: Sequence[Traits], *, untied: bool = False) -> float:
  """Expected share of pairs that two different labellers, drawn at random, order alike.

  pages: traits [K] of the responses of each page. As in the published figures the choice is forced, and pairs of equal
  gold reward count; with `untied` they do not. NaN without pairs. Raises ValueError for fewer than two labellers.
  """
  num = len(labellers)
  if num < 2:
    raise ValueError(f"agreement: {num} labeller; at least two are needed")
  alike = []
  for page in _stacked(pages):
    gap, chosen = _pairs(labellers, page)
    both = (chosen.sum(axis=0) ** 2 - (chosen**2).sum(axis=0)) / (num * (num - 1))  # P(both put the first before)
    alike.append((1 - 2 * chosen.mean(axis=0) + 2 * both)[(gap != 0) | (not untied)])
  everything = np.concatenate([*alike, []])
  return float(everything.mean()) if everything.size else float("nan")


def _pairs(labellers: Sequence[Labeller], page: Traits) -> tuple[np.ndarray, np.ndarray]:
  """Of the P pairs of each page the gold differences f64[..., P], and the choice probabilities f64[L, ..., P] of L
  labellers. page: traits [..., K]."""
  num = page.total.shape[-1]
  first, second = (Traits(*(trait[..., side] for trait in page)) for side in np.triu_indices(num, 1))
  chosen = [choice_probability(labeller, first, second, num_shown=num) for labeller in labellers]
  return first.total - second.total, np.stack(chosen)


def _stacked(pages: Sequence[Traits]) -> list[Traits]:
  """Traits [N, K] of the pages with K responses, for each K that occurs."""
  sizes = sorted({len(page.total) for page in pages})
  groups = [[page for page in pages if len(page.total) == size] for size in sizes]
  return [Traits(*map(np.stack, zip(*group, strict=True))) for group in groups]
