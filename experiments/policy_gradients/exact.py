"""Variance and bias of policy gradients on a problem whose responses can all be listed: nothing is sampled.

An estimator from m samples that gives each sample a vector of its own has the variance of one sample over m. The
leave-one-out baseline makes a U-statistic of the pairs of a batch, whose variance has a closed form for each m, and the
mean of the batch is (m - 1) / m of it. A variance is the trace of a covariance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.evaluation.statistics import ratio_interval
from rlhf_jax.objectives import gae
from rlhf_jax.settings import import_module

problems = import_module(str(Path(__file__).parents[1] / "exact_gradients" / "problem.py"))

SIZES = (1, 2, 4, 8, 16, 32, 64)  # samples in a batch
LAMBDAS = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
ERRORS = {"exact": 0.0, "error 0.5": 0.5, "error 1": 1.0, "error 2": 2.0}  # in standard deviations of the values
BATCHES = (16, 64, 256, 1024)  # samples for which the best lambda is looked up

compiled_gae = jax.jit(gae)


class Responses(NamedTuple):
  """All R responses, with a gradient of D numbers."""

  chances: np.ndarray
  """Probabilities under the policy, f64[R]."""
  rewards: np.ndarray
  """Rewards, f64[R]."""
  scores: np.ndarray
  """Gradients of the log-probability of each response, f64[R, D]."""


class Moments(NamedTuple):
  """What the variance of a batch of any size follows from."""

  gradient: np.ndarray
  """Gradient of the mean reward, f64[D]."""
  baseline: float
  """Constant baseline of least variance, in units of reward."""
  single: dict[str, float]
  """Variance of one sample by baseline: none, mean (the true mean reward), optimal (the constant of least variance)."""
  pairs: float
  """Variance of the estimate from one pair of samples that are each other's baseline."""


def bandit(logits: Sequence[float], rewards: Sequence[float]) -> Responses:
  """Responses of one token in one state."""
  p = np.exp(np.asarray(logits, np.float64))
  p /= p.sum()
  return Responses(p, np.asarray(rewards, np.float64), np.eye(len(p)) - p)


def token_scores(problem: Any) -> np.ndarray:
  """Gradients of the log-probability of each token by the table of logits: f64[R, T, S * V], 0 outside the mask."""
  table = problem.policy.astype(np.float64)
  chances = np.exp(table) / np.exp(table).sum(axis=1, keepdims=True)
  found = np.zeros((*problem.tokens.shape, *table.shape))
  for row, place in zip(*np.nonzero(problem.mask), strict=True):
    state = problem.states[row, place]
    found[row, place, state] -= chances[state]
    found[row, place, state, problem.tokens[row, place]] += 1
  return found.reshape(*problem.tokens.shape, -1)


def responses_of(problem: Any, of_tokens: np.ndarray) -> Responses:
  """The responses of a problem. of_tokens: the result of `token_scores`."""
  chances = np.exp(np.asarray(jnp.sum(problems.logprobs(problem, problem.policy), axis=1), np.float64))
  return Responses(chances / chances.sum(), problem.rewards.astype(np.float64), of_tokens.sum(axis=1))


def variance(chances: np.ndarray, vectors: np.ndarray) -> float:
  """Trace of the covariance of the rows of vectors f64[R, D], drawn with their chances f64[R]."""
  return float(chances @ np.square(vectors - chances @ vectors).sum(axis=1))


def moments(responses: Responses) -> Moments:
  """The moments of REINFORCE with each baseline that is a constant, and with leave-one-out."""
  p, r, s = responses
  energy = np.square(s).sum(axis=1)  # [R]
  best = float(p @ (r * energy) / (p @ energy))
  constants = {"none": 0.0, "mean": float(p @ r), "optimal": best}
  gradient = p @ (r[:, None] * s)
  # The pair (x, y) gives (r_x - r_y) (s_x - s_y) / 2.
  distances = energy[:, None] + energy[None, :] - 2 * s @ s.T
  second = 0.25 * p @ (np.square(r[:, None] - r[None, :]) * distances) @ p
  single = {name: variance(p, (r - constant)[:, None] * s) for name, constant in constants.items()}
  return Moments(gradient, best, single, float(second - gradient @ gradient))


def batch_variance(found: Moments, baseline: str, size: int) -> float:
  """Variance of the gradient of `size` samples with a baseline of `Moments.single`, "leave one out" or "batch mean".

  NaN for leave-one-out of one sample, which has no other.
  """
  if baseline in found.single:
    return found.single[baseline] / size
  if size == 1:
    return 0.0 if baseline == "batch mean" else float("nan")
  # Hoeffding's variance of a U-statistic; the part of one sample is a quarter of the variance with the true mean.
  pairs = ((size - 2) * found.single["mean"] + 2 * found.pairs) / (size * (size - 1))
  return pairs * ((size - 1) / size) ** 2 if baseline == "batch mean" else pairs


def estimates(problem: Any, values: np.ndarray, lam: float, of_tokens: np.ndarray) -> np.ndarray:
  """The gradient that each response gives with GAE advantages of values f[R, T]: f64[R, D]."""
  mask = problem.mask
  last = mask & (np.cumsum(mask[:, ::-1], axis=1)[:, ::-1] == 1)
  rewards = np.where(last, problem.rewards[:, None], 0.0).astype(np.float32)
  advantages = np.asarray(compiled_gae(rewards, values.astype(np.float32), mask, lam=lam), np.float64)
  return np.einsum("rt,rtd->rd", advantages, of_tokens)


def wrong_values(problem: Any, chances: np.ndarray, error: float, seed: int) -> np.ndarray:
  """The true values with a normal error in each state, of `error` standard deviations of the values: f64[R, T]."""
  true = problems.values(problem).astype(np.float64)
  weights = chances[:, None] * problem.mask
  mean = (weights * true).sum() / weights.sum()
  spread = np.sqrt((weights * np.square(true - mean)).sum() / weights.sum())
  noise = np.random.default_rng([seed, 1]).normal(0, error * spread, len(problem.policy))
  return true + noise[problem.states]


def study(draws: int, depth: int) -> dict[str, Any]:
  """All figures of the exact part, over problems of seeds 0 to draws - 1 with responses of up to `depth` tokens.

  Returns {"baselines": {baseline: {size: interval}}, with variances over that without a baseline and as many samples;
  "noise": the same with variances over the squared length of the gradient; "gae": {error of the values: {lambda:
  {"bias", "deviation"}}}, lengths over that of the gradient, of one sample; "best lambda": {error: {size: lambda}}}.
  Each is a ratio of means over the problems, with its 95 % interval over them.
  """
  constant: dict[tuple[str, int], list[float]] = {}
  lengths: list[float] = []
  biases: dict[tuple[str, float], list[float]] = {}
  variances: dict[tuple[str, float], list[float]] = {}
  for seed in range(draws):
    problem = problems.make_problem(seed, 1, depth)
    of_tokens = token_scores(problem)
    responses = responses_of(problem, of_tokens)
    found = moments(responses)
    lengths.append(float(found.gradient @ found.gradient))
    for error, size_of_error in ERRORS.items():
      values = wrong_values(problem, responses.chances, size_of_error, seed)
      for lam in LAMBDAS:
        vectors = estimates(problem, values, lam, of_tokens)
        away = responses.chances @ vectors - found.gradient
        biases.setdefault((error, lam), []).append(float(away @ away))
        variances.setdefault((error, lam), []).append(variance(responses.chances, vectors))
    found.single.update({f"value, {error}": variances[error, 1.0][-1] for error in ERRORS})
    for name in (*found.single, "leave one out", "batch mean"):
      for size in SIZES:
        constant.setdefault((name, size), []).append(batch_variance(found, name, size))
  names = list(dict.fromkeys(name for name, _ in constant))
  usable = {key: values for key, values in constant.items() if np.isfinite(values).all()}
  return {
    "baselines": {
      name: {size: interval(usable[name, size], constant["none", size]) for size in SIZES if (name, size) in usable}
      for name in names
    },
    "noise": {
      name: {size: interval(usable[name, size], lengths) for size in SIZES if (name, size) in usable} for name in names
    },
    "gae": {
      error: {
        lam: {"bias": root(interval(biases[error, lam], lengths)),
              "deviation": root(interval(variances[error, lam], lengths))}
        for lam in LAMBDAS
      }
      for error in ERRORS
    },
    "best lambda": {
      error: {
        size: min(LAMBDAS, key=lambda lam: np.mean(biases[error, lam]) + np.mean(variances[error, lam]) / size)  # noqa: B023
        for size in BATCHES
      }
      for error in ERRORS
    },
  }  # fmt: skip


def interval(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, float]:
  """Sum over sum of paired values with its 95 % interval over the pairs."""
  found = ratio_interval(numerators, denominators)
  return {"mean": found.mean, "low": found.low, "high": found.high}


def root(found: Mapping[str, float]) -> dict[str, float]:
  """The square root of an interval of something that is never negative."""
  return {name: float(np.sqrt(max(value, 0.0))) for name, value in found.items()}
