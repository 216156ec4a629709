"""Who won: win rates of the models that gave the responses, and a Bradley-Terry board with ties.

Two responses of different models that a judgement ranks are one battle; a text that two models gave alike is a tie of
the two. With s the strength of a model, in logits, Davidson's model (1970) is

  d = s_i - s_j + position * (places earlier) + length * tanh(words longer / typical words)
  P(i beats j) = exp(d / 2) / Z,   P(tie) = nu / Z,   P(j beats i) = exp(-d / 2) / Z
  Z = exp(d / 2) + nu + exp(-d / 2)

and Bradley and Terry's (1952) where nothing ties. A rating is on Elo's scale, 400 / ln 10 points a logit, with a mean
of 1000: 400 points are odds of 10 to 1. The *raw* board has no position and no length. The *controlled* board has both,
and its win rates are those of responses of one length shown in one place, which is the length control of AlpacaEval 2
(Dubois et al. 2404.04475) with the place on the page beside it. Intervals are percentiles of a bootstrap over items, so
that the pairs of a ranking and the judgements of one item stay together.
"""

from __future__ import annotations

import dataclasses
import itertools
import os

import numpy as np

from rlhf_jax.agreement.coefficients import LEVEL, Estimate, clustered_wilson, undefined
from rlhf_jax.agreement.tables import Pairs, Table

ELO = 400 / np.log(10)  # points of a logit
MEAN_RATING = 1000.0
# Standard deviation of the prior of every parameter, in logits: keeps a model finite that won all of its battles.
PRIOR_SD = 5.0
RESAMPLES = 200
MIN_ITEMS = 5  # items below which no interval of a rating is given


@dataclasses.dataclass(frozen=True)
class Battles:
  """B comparisons of responses of two models."""

  models: tuple[str, ...]
  """Names of the models: [M]."""
  first: np.ndarray
  """Index of the model of one response: i64[B]."""
  second: np.ndarray
  """Index of the model of the other response: i64[B]."""
  outcome: np.ndarray
  """Outcome: f64[B], 1 where the first one's response is better, 0.5 for a tie, 0 where it is worse."""
  item: np.ndarray
  """Index of the item: i64[B]."""
  earlier: np.ndarray
  """Places by which the first one's response was shown earlier: f64[B], 0 where unknown."""
  longer: np.ndarray
  """Words by which the first one's response is longer: f64[B]."""
  weight: np.ndarray
  """Weight: f64[B], 2 / (responses ranked) as `Pairs.share`."""

  def where(self, chosen: np.ndarray) -> Battles:
    """The battles chosen by bool[B] alone, of the models that are in them."""
    arrays = {f.name: getattr(self, f.name)[chosen] for f in dataclasses.fields(self) if f.name != "models"}
    present, numbers = np.unique(np.concatenate([arrays["first"], arrays["second"]]), return_inverse=True)
    first, second = np.split(numbers, 2)
    return Battles(tuple(self.models[i] for i in present), **(arrays | {"first": first, "second": second}))


@dataclasses.dataclass(frozen=True)
class Standing:
  """What a model has won."""

  model: str
  """Name of the model."""
  wins: int
  """Number of battles won."""
  ties: int
  """Number of battles tied."""
  losses: int
  """Number of battles lost."""
  win_rate: Estimate
  """Share of its battles that the model won, a tie counting half, with an interval clustered by item."""
  rating: Estimate
  """Rating on the raw board, in Elo points."""
  controlled: Estimate
  """Rating on the controlled board, in Elo points."""
  controlled_win_rate: Estimate
  """Mean share that the controlled board expects the model to win against each of the others, a tie counting half."""


@dataclasses.dataclass(frozen=True)
class Board:
  """The models of a set of battles."""

  standings: list[Standing]
  """Standing of each model, the best on the raw board first."""
  head_to_head: list[tuple[str, str, Estimate]]
  """Share that the first model won of its battles with the second, a tie counting half, by their names."""
  tie: float
  """Davidson's nu of the raw board: two equal models tie with probability nu / (2 + nu); 0 where nothing ties."""
  position: Estimate
  """Logits for a place earlier on the page."""
  length: Estimate
  """Logits for a response that is longer by far; one longer by `typical_words` gets 0.76 of them."""
  typical_words: float
  """Typical difference in words between the two responses, the root mean square."""


@dataclasses.dataclass(frozen=True)
class Winners:
  """The boards of a set of judgements."""

  overall: Board
  """Board of all prompts."""
  clusters: dict[str, Board]
  """Board of each cluster of prompts with battles, by name; {} where no prompt names its cluster."""


def winners(table: Table, pairs: Pairs) -> Winners | None:
  """The boards of a table; None where no judgement compares two models that are known."""
  battles = battles_of(table, pairs)
  if not len(battles.outcome):
    return None
  named = sorted({table.clusters[i] for i in np.unique(battles.item)} - {""})
  of_item = np.array(table.clusters)
  clusters = {name: board(battles.where(of_item[battles.item] == name)) for name in named}
  return Winners(board(battles), clusters)


def battles_of(table: Table, pairs: Pairs) -> Battles:
  """The battles of a table. Names lose the directories that all of them share."""
  names = sorted({name for item in table.models for response in item for name in response})
  number = {name: i for i, name in enumerate(names)}
  rows: list[tuple[float, ...]] = []  # first, second, outcome, item, earlier, longer, weight
  earlier = np.nan_to_num(pairs.earlier)
  for p, (item, i, j) in enumerate(zip(pairs.item, pairs.first, pairs.second, strict=True)):
    for a, b in itertools.product(table.models[item][i], table.models[item][j]):
      if a != b:
        rest = (pairs.outcome[p], item, earlier[p], pairs.longer[p], pairs.share[p])
        rows.append((number[a], number[b], *rest))
  for judged, item in enumerate(table.item):
    ranked = np.flatnonzero(table.ranks[judged] >= 0)
    for k in ranked if len(ranked) > 1 else ():
      for a, b in itertools.combinations(table.models[item][k], 2):
        rows.append((number[a], number[b], 0.5, item, 0.0, 0.0, 2 / len(ranked)))
  columns = np.array(rows, np.float64).reshape(-1, 7).T
  first, second, item = (columns[k].astype(np.int64) for k in (0, 1, 3))
  return Battles(_short(names), first, second, columns[2], item, *columns[4:]).where(np.ones(len(rows), bool))


def board(battles: Battles, *, resamples: int = RESAMPLES, seed: int = 0) -> Board:
  """The standings of the models in some battles."""
  num = len(battles.models)
  raw_x, full_x, typical = _designs(battles)
  raw, full = fit_davidson(raw_x, battles), fit_davidson(full_x, battles)
  items, number = np.unique(battles.item, return_inverse=True)
  drawn: dict[str, list[np.ndarray]] = {"raw": [], "full": []}
  rng = np.random.default_rng(seed)
  for _ in range(resamples if len(items) >= MIN_ITEMS else 0):
    again = rng.multinomial(len(items), np.full(len(items), 1 / len(items)))[number]
    for name, x, start in (("raw", raw_x, raw), ("full", full_x, full)):
      drawn[name].append(fit_davidson(x, battles, weight=battles.weight * again, start=start))

  def spread(name: str, value: float, function) -> Estimate:
    if not drawn[name]:
      return Estimate(value, num=len(items))
    low, high = np.quantile([function(theta) for theta in drawn[name]], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if high - low < 1e-6:  # the same in every resample, as of a model that won everything: the data bound nothing
      return Estimate(value, num=len(items))
    return Estimate(value, float(low), float(high), len(items))

  def estimate(name: str, function) -> Estimate:
    return spread(name, float(function({"raw": raw, "full": full}[name])), function)

  def slope(column: int, reason: str) -> Estimate:
    return estimate("full", lambda theta: theta[column]) if full_x[:, column].any() else undefined(reason)

  standings = []
  for i, model in enumerate(battles.models):
    own = np.concatenate([battles.outcome[battles.first == i], 1 - battles.outcome[battles.second == i]])
    of_item = np.concatenate([battles.item[battles.first == i], battles.item[battles.second == i]])
    wins, ties, losses = (int((own == outcome).sum()) for outcome in (1.0, 0.5, 0.0))
    standings.append(
      Standing(
        model, wins, ties, losses,
        win_rate=clustered_wilson(own, of_item),
        rating=estimate("raw", lambda theta, i=i: _ratings(theta, num)[i]),
        controlled=estimate("full", lambda theta, i=i: _ratings(theta, num)[i]),
        controlled_win_rate=estimate("full", lambda theta, i=i: _expected(theta, num)[i]),
      )
    )  # fmt: skip
  position = slope(num, "the order of display is not recorded")
  length = slope(num + 1, "all responses have one length")
  standings.sort(key=lambda standing: -(standing.rating.value or 0.0))
  return Board(standings, _head_to_head(battles, standings), float(np.exp(raw[-1])), position, length, typical)


def fit_davidson(
  x: np.ndarray, battles: Battles, *, weight: np.ndarray | None = None, start: np.ndarray | None = None
) -> np.ndarray:
  """(slopes of d on x f64[B, D], log nu): f64[D + 1], the maximum a posteriori under N(0, PRIOR_SD^2), by Newton.

  weight: of the battles, f64[B]; their own by default. start: where the search begins. Where nothing ties, log nu is
  -inf.
  """
  weight = battles.weight if weight is None else weight
  won, tied = battles.outcome - 0.5, battles.outcome == 0.5
  ties = bool(tied.any())
  theta = np.zeros(x.shape[1] + 1)
  if start is not None:
    theta[:] = np.where(np.isfinite(start), start, 0.0)
  precision = np.eye(len(theta)) / PRIOR_SD**2
  for _ in range(100):
    half, nu = 0.5 * (x @ theta[:-1]), np.exp(theta[-1]) if ties else 0.0
    top = np.abs(half)
    win, lose, tie = np.exp(half - top), np.exp(-half - top), nu * np.exp(-top)
    total = win + lose + tie
    lead, equal = (win - lose) / total, tie / total  # P(win) - P(loss), P(tie)
    score = np.append(x.T @ (weight * (won - 0.5 * lead)), weight @ (tied - equal) if ties else 0.0)
    cross = x.T @ (weight * -0.5 * equal * lead)
    information = precision.copy()
    information[:-1, :-1] += (x * (weight * 0.25 * (1 - equal - lead**2))[:, None]).T @ x
    information[:-1, -1] += cross
    information[-1, :-1] += cross
    information[-1, -1] += weight @ (equal * (1 - equal))
    step = np.linalg.solve(information, score - precision @ theta)
    theta = theta + step / max(1.0, np.abs(step).max())
    if np.abs(step).max() < 1e-6:
      break
  return theta if ties else np.append(theta[:-1], -np.inf)


def _designs(battles: Battles) -> tuple[np.ndarray, np.ndarray, float]:
  """Of the raw board f64[B, M] and of the controlled one f64[B, M + 2], and the typical difference in words."""
  rows = np.arange(len(battles.outcome))
  raw = np.zeros((len(rows), len(battles.models)))
  raw[rows, battles.first] += 1.0
  raw[rows, battles.second] -= 1.0
  typical = float(np.sqrt(np.mean(battles.longer**2)))
  return raw, np.column_stack([raw, battles.earlier, np.tanh(battles.longer / (typical or 1.0))]), typical


def _ratings(theta: np.ndarray, num: int) -> np.ndarray:
  return MEAN_RATING + ELO * (theta[:num] - theta[:num].mean())


def _expected(theta: np.ndarray, num: int) -> np.ndarray:
  """The mean share f64[M] that each model is expected to win against each of the others, a tie counting half."""
  d = theta[:num, None] - theta[None, :num]
  nu = np.exp(theta[-1])
  share = (np.exp(d / 2) + nu / 2) / (np.exp(d / 2) + nu + np.exp(-d / 2))
  return (share.sum(1) - 0.5) / (num - 1)


def _head_to_head(battles: Battles, standings: list[Standing]) -> list[tuple[str, str, Estimate]]:
  order = [battles.models.index(standing.model) for standing in standings]
  found = []
  for a, b in itertools.combinations(order, 2):
    ahead, behind = ((battles.first == x) & (battles.second == y) for x, y in ((a, b), (b, a)))
    share = np.where(ahead, battles.outcome, 1 - battles.outcome)[ahead | behind]
    if len(share):
      estimate = clustered_wilson(share, battles.item[ahead | behind])
      found.append((battles.models[a], battles.models[b], estimate))
  return found


def _short(names: list[str]) -> tuple[str, ...]:
  """The names without the directories that all of them share."""
  shared = os.path.commonprefix([name[: name.rfind("/") + 1] for name in names]) if len(names) > 1 else ""
  cut = shared.rfind("/") + 1
  return tuple(name[cut:] for name in names)
