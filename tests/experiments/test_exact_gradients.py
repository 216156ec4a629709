"""The experiment of exact gradients: what is exact is so to rounding, and the record has the figures of its results."""

import functools
import json
import re

import numpy as np
import pytest
from tiny_chain import ROOT

from rlhf_jax.settings import import_module

FOLDER = ROOT / "experiments" / "exact_gradients"
analysis = import_module(f"{FOLDER}/analyse.py")
pytestmark = pytest.mark.usefixtures("unoptimised")
EXACT = (
  "k1 as a reward", "k2 as a loss, of the response's sum", "REINFORCE, no baseline", "REINFORCE, leave one out (RLOO)",
  "REINFORCE, score of the greedy response (ReMax)",
  "REINFORCE, perfect value function", "GAE of lambda 0.95, perfect value function", "a ratio for the response (RLOO)",
)  # fmt: skip
SCALED = {"REINFORCE, mean of the batch": 1 / 2, "centred, constant (Dr. GRPO)": 1 / 2 / 3}  # (K - 1) / K; and 1 / T


@functools.cache
def small():
  """The rows by name, of batches of two responses of another draw than the record's."""
  found = analysis.tables(analysis.problems.make_problem(seed=3, group=2))
  return {row.name: row for rows in found.values() for row in rows}


def test_all_responses_are_listed_once():
  problem = analysis.problems.make_problem(seed=3, group=2)
  different = {(*row, size) for row, size in zip(problem.tokens.tolist(), problem.mask.sum(axis=1), strict=True)}
  assert len(problem.tokens) == len(different) == 15
  assert np.exp(analysis.logprobs(problem, problem.policy).sum(axis=1)).sum() == pytest.approx(1, rel=1e-5)
  assert problem.policy.shape == (7, 3)


@pytest.mark.parametrize("name", EXACT)
def test_what_is_unbiased_is_exact(name):
  row = small()[name]
  assert (row.cosine, row.length) == pytest.approx((1, 1), abs=1e-4)


@pytest.mark.parametrize("name", SCALED)
def test_what_is_scaled_keeps_its_direction(name):
  row = small()[name]
  assert (row.cosine, row.length) == pytest.approx((1, SCALED[name]), abs=1e-4)


def test_what_is_biased_is_told_as_such():
  rows = small()
  assert rows["k1 as a loss"].length < 1e-5 and np.isnan(rows["k1 as a loss"].cosine)
  token, state = rows["k2 as a loss, of each token"], rows["the exact KL of each state as a loss"]
  assert (token.cosine, token.length) == pytest.approx((state.cosine, state.length), abs=1e-4)
  straight, k2 = rows["k3+ as a loss, of each token"], rows["k2 as a loss, of each token"]
  assert (straight.cosine, straight.length) == pytest.approx((k2.cosine, k2.length), abs=1e-5)
  biased = ("k3 as a reward", "k2 as a loss, of each token", "k3 as a loss, of each token (GRPO)",
            "REINFORCE, mean weighted by length (OPO)",
            "GRPO: standardised, 1 / length", "a ratio for each token, clip 0.2 (PPO)")  # fmt: skip
  assert all(rows[name].cosine < 0.999 for name in biased)
  better = ("REINFORCE, no baseline", "REINFORCE, perfect value function")
  assert rows[better[0]].deviation > rows[better[1]].deviation


def test_the_record_has_the_figures_of_its_results():
  results = json.loads((FOLDER / "results.json").read_text())
  told = re.findall(r"^\| ([^|]+) \| *([\d.]*) *\| ([\d.]+) \| ([\d.]+) \|$", (FOLDER / "README.md").read_text(), re.M)
  rows = [analysis.Row(**row) for rows in results.values() for row in rows]
  assert len(told) == len(rows) == 33
  for (name, cosine, length, deviation), row in zip(told, rows, strict=True):
    assert name == row.name and cosine == ("" if np.isnan(row.cosine) else f"{row.cosine:.3f}"), name
    assert (length, deviation) == (f"{row.length:.3f}", f"{row.deviation:.2f}"), name
