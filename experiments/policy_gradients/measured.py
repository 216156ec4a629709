"""The noise of the gradient of a policy of a run, with each baseline, from batches that its environment draws.

Nothing is trained. Each batch has 16 prompts with 4 responses; the gradient is that of PPO's objective at ratio 1, a
mean over responses of their token sums, with respect to all parameters of the policy. A variance is the trace of the
covariance, E|g|^2 - |E g|^2; the second term is the mean inner product of gradients of different batches, which is
unbiased.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from rlhf_jax.data import read_json
from rlhf_jax.objectives import gae, kl_estimate, ppo_policy_objective, shaped_rewards, token_logprobs
from rlhf_jax.pipeline.finished import open_run
from rlhf_jax.settings import parse
from rlhf_jax.train import load_policy, make_environment, make_logprobs, with_critic
from rlhf_jax.train.environment import Environment
from rlhf_jax.train.progress import StageProgress
from rlhf_jax.train.rl_metrics import explained_variance

PROMPTS, COPIES = 16, 4
SIZES = (4, 8, 16, 32, 64)  # samples of a batch, COPIES to each prompt
LAMBDAS = (0.0, 0.5, 0.9, 0.95, 1.0)
CLIP = 0.2
LOO = "leave one out"
Weigh = Callable[[np.ndarray], np.ndarray]


class Batch(NamedTuple):
  """What is kept of the gradients of one batch of N samples of G prompts."""

  returns: np.ndarray
  """Returns of the samples, f64[N]."""
  scores: np.ndarray
  """Inner products f64[N, N] of the gradients of the samples' log-probabilities."""
  groups: dict[str, np.ndarray]
  """Inner products f64[G, G] of the sums over each prompt's responses, for each way to make advantages of tokens."""


def leave_one_out(returns: np.ndarray) -> np.ndarray:
  """Advantages f64[m] of returns f64[m], COPIES to each prompt: less the mean of the prompt's other responses."""
  groups = returns.reshape(-1, COPIES)
  return ((groups - groups.mean(axis=1, keepdims=True)) * COPIES / (COPIES - 1)).ravel()


def batch_leave_one_out(returns: np.ndarray) -> np.ndarray:
  """Advantages f64[m] of returns f64[m]: less the mean of all others of the batch."""
  return (returns - returns.mean()) * len(returns) / (len(returns) - 1)


WEIGHS: dict[str, Weigh] = {LOO: leave_one_out, "leave one out of the batch": batch_leave_one_out}


def blocks(products: np.ndarray, size: int) -> np.ndarray:
  """The inner products within each run of `size` samples: f[N, N] -> f[N / size, size, size]."""
  count = len(products) // size
  cut = products.reshape(count, size, count, size)
  return np.stack([cut[n, :, n] for n in range(count)])


def squared_norms(batch: Batch) -> dict[str, dict[int, list[float]]]:
  """{what: {size: a mean over the parts of `size` samples}} of squared lengths of gradients.

  Those of a constant baseline b are a - 2 b h + b^2 c, of which a, h and c stand under "constant".
  """
  found: dict[str, dict[int, list[float]]] = {name: {} for name in ("constant", *WEIGHS, *batch.groups)}
  for size in SIZES:
    if size > len(batch.returns):
      continue
    inner, parts = blocks(batch.scores, size), batch.returns.reshape(-1, size)
    ones = np.ones_like(parts)
    found["constant"][size] = [_mean_form(inner, x, y, size) for x, y in ((parts, parts), (parts, ones), (ones, ones))]
    for name, weigh in WEIGHS.items():
      weights = np.stack([weigh(part) for part in parts])
      found[name][size] = [_mean_form(inner, weights, weights, size)]
    for name, products in batch.groups.items():
      own = blocks(products, size // COPIES)
      found[name][size] = [float(own.sum(axis=(1, 2)).mean()) / size**2]
  return found


def _mean_form(inner: np.ndarray, x: np.ndarray, y: np.ndarray, size: int) -> float:
  return float(np.einsum("ni,nij,nj->n", x, inner, y).mean()) / size**2


def cross_products(total: np.ndarray, own: np.ndarray, count: int) -> np.ndarray:
  """Mean inner products f64[K, K] of K kinds of gradients of different batches.

  total: f64[K, P], the sums over `count` batches; own: f64[K, K], the sums of the products within each batch.
  """
  return (total @ total.T - own) / (count * (count - 1))


class Point(NamedTuple):
  """A policy with what draws and judges its samples."""

  model: Any
  policy: Any
  reference: Any
  critics: dict[str, Any]
  """Parameters of value functions by name."""
  episodes: Any
  kl_coef: float
  temperature: float
  transport: Any


def open_point(run: Path, after: bool) -> Point:
  """The policy of a cell of PPO before or after its training.

  Before, there are two critics: the one that PPO starts from, and the one that it ends with. Prompts and samples are of
  a random stream of their own.
  """
  trained = open_run(run).model("policy")
  section = read_json(run / "config.json")["policy"]
  settings = {**section["environment"], "batch_size": PROMPTS, "samples_per_prompt": COPIES}
  settings["monitor"] = dict(function="", arguments={})
  environment = parse(Environment, settings, "policy.environment")
  stage = dataclasses.replace(trained.stage, name="gradients after" if after else "gradients before")
  model, tokenizer = trained.model, trained.tokenizer
  reference = load_policy(stage, section["init"], model, tokenizer)
  critics = {"trained": trained.params["value"]}
  if not after:
    start = with_critic(reference, stage, model, tokenizer, shared_trunk=False, init=section["value_init"])
    critics["at the start"] = start["value"]
  episodes = make_environment(environment, stage, model, tokenizer)
  policy = trained.policy if after else reference
  temperature = environment.sampling.temperature
  return Point(model, policy, reference, critics, episodes, section["kl_coef"], temperature, stage.transport)


def measure(run: Path, after: bool, batches: int) -> dict[str, Any]:
  """The squared lengths of gradients by baseline and size, and what their variances follow from, of one policy.

  Returns {"samples", "return": {"mean", "std"}, "explained variance": {critic: mean}, "norms": those of
  `squared_norms`, means over the batches; "kinds": names of gradients, "products": those of `cross_products`}.
  """
  point = open_point(run, after)
  vectors_of, logprobs, values_of = programs(point.model, point.temperature, point.transport)
  names = [(critic, lam) for critic in point.critics for lam in LAMBDAS]
  kinds = [LOO, *(kind(*name) for name in names)]
  total: np.ndarray | None = None
  own = np.zeros((len(kinds), len(kinds)))
  norms, returns, explained = [], [], []
  with StageProgress(f"gradients {'after' if after else 'before'}", batches) as progress:
    for index in range(batches):
      episodes = point.episodes(point.policy, index)
      tokens, mask = episodes.rollout.tokens, episodes.rollout.mask
      kl = kl_estimate(*(logprobs(p, tokens, mask) for p in (point.policy, point.reference)), kind="k1", mask=mask)
      rewards = shaped_rewards(episodes.scores, kl, mask, coef=point.kl_coef)
      whole = np.asarray(jnp.sum(rewards, axis=1), np.float64)  # [N]
      values = {name: values_of(params, tokens) for name, params in point.critics.items()}
      to_go = gae(rewards, jnp.zeros_like(rewards), mask, lam=1.0)
      explained.append({name: float(explained_variance(x, to_go, mask)) for name, x in values.items()})
      scores, first = vectors_of(point.policy, tokens, mask, jnp.ones_like(rewards), leave_one_out(whole), 1)
      groups, sums = {}, [first]
      for critic, lam in names:
        advantages = gae(rewards, values[critic], mask, lam=lam)
        inner, vector = vectors_of(point.policy, tokens, mask, advantages, np.ones(PROMPTS), COPIES)
        groups[kind(critic, lam)] = np.asarray(inner, np.float64)
        sums.append(vector)
      norms.append(squared_norms(Batch(whole, np.asarray(scores, np.float64), groups)))
      returns.append(whole)
      stacked = np.stack([np.asarray(x, np.float64) for x in sums]) / len(whole)  # [K, P]
      total = stacked if total is None else total + stacked
      own += stacked @ stacked.T
      progress.update(index + 1, {"return": float(whole.mean())})
  assert total is not None, "there is at least one batch"
  return {
    "samples": batches * PROMPTS * COPIES,
    "return": {"mean": float(np.mean(returns)), "std": float(np.std(returns))},
    "explained variance": {name: float(np.mean([x[name] for x in explained])) for name in point.critics},
    "norms": jax.tree.map(lambda *x: float(np.mean(x)), *norms),
    "kinds": kinds,
    "products": cross_products(total, own, batches).tolist(),
  }


def kind(critic: str, lam: float) -> str:
  """The name of GAE's advantages."""
  return f"{critic}, lambda {lam:g}"


@functools.lru_cache(maxsize=1)
def programs(model: Any, temperature: float, transport: Any) -> tuple[Callable[..., Any], ...]:
  """The functions of `make_vectors` and `make_logprobs`, and values(params, tokens[N, T]): compiled for all seeds."""
  logprobs = jax.jit(make_logprobs(model.apply, temperature, transport))
  return make_vectors(model, temperature), logprobs, jax.jit(lambda params, tokens: model.value(params, tokens))


def make_vectors(model: Any, temperature: float) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """`vectors(policy, tokens[N, T], mask, advantages[N, T], weights[N / copies], copies) -> (products, vector)`.

  With v_n, the gradient of the sum over `copies` neighbouring rows of PPO's objective at ratio 1: products
  f32[N / copies, N / copies] of the v_n, and f32[P], the sum of weights times v_n.
  """

  def gain(policy, tokens, mask, advantages):
    logp = token_logprobs(model.apply(policy, tokens) / temperature, tokens, mask=mask)
    objective, _ = ppo_policy_objective(logp, logp, advantages, clip=CLIP, mask=mask)
    return jnp.sum(objective)

  @functools.partial(jax.jit, static_argnums=5)
  def vectors(policy, tokens, mask, advantages, weights, copies):
    rows = [x.reshape(-1, copies, x.shape[-1]) for x in (tokens, mask, advantages)]
    found = jax.lax.map(lambda row: ravel_pytree(jax.grad(gain)(policy, *row))[0], rows)  # [N / copies, P]
    return found @ found.T, jnp.asarray(weights, found.dtype) @ found

  return vectors


def variances(found: Mapping[str, Any], size: int) -> dict[str, float]:
  """The variance of a batch of `size` samples by baseline: none, mean, optimal and the names in "norms".

  All but those of lambda below 1 have one mean, whose squared length is that of `LOO`.
  """
  products, kinds = np.array(found["products"]), found["kinds"]
  signal = float(products[0, 0])
  norms = {name: by_size[str(size)] for name, by_size in found["norms"].items()}
  square, linear, unit = norms.pop("constant")
  constants = {"none": 0.0, "mean": found["return"]["mean"], "optimal": linear / unit}
  result = {name: square - 2 * b * linear + b * b * unit - signal for name, b in constants.items()}
  for name, (norm,) in norms.items():
    place = kinds.index(name) if name in kinds else 0
    is_biased = name in kinds and not name.endswith("lambda 1") and place > 0
    result[name] = norm - (float(products[place, place]) if is_biased else signal)
  return result


def bias(found: Mapping[str, Any], name: str) -> tuple[float, float]:
  """(squared distance of the mean gradient of a kind from that of `LOO`, squared length of the latter); unbiased."""
  products, place = np.array(found["products"]), found["kinds"].index(name)
  return float(products[place, place] - 2 * products[place, 0] + products[0, 0]), float(products[0, 0])
