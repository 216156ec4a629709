"""The study of policy gradients: closed forms, enumerations, hand-made numbers, and the whole command at tiny sizes."""

import itertools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_chain import ROOT

from rlhf_jax import data
from rlhf_jax.settings import import_module
from rlhf_jax.train.mesh import using_devices

pytestmark = pytest.mark.usefixtures("unoptimised")

FOLDER = ROOT / "experiments" / "policy_gradients"
analyse = import_module(str(FOLDER / "analyse.py"))
exact, measured = analyse.exact, analyse.measured
BANDIT = exact.bandit((0.5, -0.2, 0.1), (1, 0, 2))


def test_reinforce_has_the_moments_of_its_closed_form():
  found = exact.moments(BANDIT)
  assert BANDIT.chances @ BANDIT.rewards == pytest.approx(1.0801764332983426, rel=1e-9)
  np.testing.assert_allclose(found.gradient, (-0.0370004316, -0.2475418423, 0.2845422739), rtol=1e-8)
  assert found.single["none"] == pytest.approx(0.9773624165968747, rel=1e-9)
  assert found.single["mean"] == pytest.approx(0.2934328149387461, rel=1e-9)
  assert found.baseline == pytest.approx(1.0356639935550636, rel=1e-9)
  assert found.single["optimal"] == pytest.approx(0.29216708971563204, rel=1e-9)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_variance_of_a_batch_is_that_of_all_batches(size):
  p, r, s = BANDIT
  found = exact.moments(BANDIT)
  batches = [list(batch) for batch in itertools.product(range(3), repeat=size)]
  chances = np.array([p[batch].prod() for batch in batches])
  makers = {
    "none": lambda x: x,
    "batch mean": lambda x: x - x.mean(),
    "leave one out": lambda x: (x - x.mean()) * size / (size - 1),
  }
  for name, weigh in makers.items():
    gradients = np.array([weigh(r[batch]) @ s[batch] / size for batch in batches])
    scale = (size - 1) / size if name == "batch mean" else 1
    np.testing.assert_allclose(chances @ gradients, scale * found.gradient, atol=1e-12)
    assert exact.variance(chances, gradients) == pytest.approx(exact.batch_variance(found, name, size), rel=1e-9), name


def test_one_sample_has_no_other():
  found = exact.moments(BANDIT)
  assert np.isnan(exact.batch_variance(found, "leave one out", 1)) and exact.batch_variance(found, "batch mean", 1) == 0


def test_the_closed_forms_are_those_of_the_enumerated_objectives():
  """`experiments/exact_gradients` lists all batches of four responses to the same problem."""
  rows = json.loads((ROOT / "experiments" / "exact_gradients" / "results.json").read_text())["reward"]
  deviations = {row["name"]: row["deviation"] for row in rows}
  problem = exact.problems.make_problem(0, 4)
  of_tokens = exact.token_scores(problem)
  responses = exact.responses_of(problem, of_tokens)
  found = exact.moments(responses)
  length = np.linalg.norm(found.gradient)
  listed = {"none": "REINFORCE, no baseline", "batch mean": "REINFORCE, mean of the batch",
            "leave one out": "REINFORCE, leave one out (RLOO)"}  # fmt: skip
  for name, row in listed.items():
    assert np.sqrt(exact.batch_variance(found, name, 4)) / length == pytest.approx(deviations[row], rel=1e-4), name
  values = exact.problems.values(problem)
  for lam, row in ((1.0, "REINFORCE, perfect value function"), (0.95, "GAE of lambda 0.95, perfect value function")):
    vectors = exact.estimates(problem, values, lam, of_tokens)
    np.testing.assert_allclose(responses.chances @ vectors, found.gradient, atol=1e-5)
    deviation = np.sqrt(exact.variance(responses.chances, vectors) / 4) / length
    assert deviation == pytest.approx(deviations[row], rel=1e-4), row


def test_wrong_values_bias_lambda_below_1_alone():
  found = exact.study(draws=3, depth=3)["gae"]
  assert all(x["bias"]["mean"] < 1e-3 for x in found["exact"].values())
  wrong = [x["bias"]["mean"] for x in found["error 1"].values()]
  assert wrong[-1] < 1e-3 and wrong == sorted(wrong, reverse=True) and wrong[0] > 0.1


def batch_of(vectors: np.ndarray, returns: np.ndarray):
  """A batch of samples whose gradients of log-probabilities are f[N, D], with the returns as advantages of a group."""
  weighted = (returns[:, None] * vectors).reshape(-1, measured.COPIES, vectors.shape[1]).sum(axis=1)
  return measured.Batch(returns, vectors @ vectors.T, {"own, lambda 1": weighted @ weighted.T})


def test_squared_lengths_are_those_of_the_gradients():
  rng = np.random.default_rng(0)
  vectors, returns = rng.normal(size=(16, 5)), rng.normal(size=16)
  found = measured.squared_norms(batch_of(vectors, returns))
  assert list(found["constant"]) == [4, 8, 16]
  for size in (4, 8, 16):
    parts = [slice(start, start + size) for start in range(0, 16, size)]

    def norm(weigh, parts=parts, size=size):
      gradients = [weigh(returns[part]) @ vectors[part] / size for part in parts]
      return np.mean([gradient @ gradient for gradient in gradients])

    a, h, c = found["constant"][size]
    assert a - 2 * 0.7 * h + 0.49 * c == pytest.approx(norm(lambda x: x - 0.7))
    assert found["own, lambda 1"][size][0] == pytest.approx(norm(lambda x: x))
    assert found["leave one out of the batch"][size][0] == pytest.approx(
      norm(lambda x: np.array([x[i] - np.delete(x, i).mean() for i in range(len(x))]))
    )
  by_prompt = np.concatenate([[x[i] - np.delete(x, i).mean() for i in range(4)] for x in returns.reshape(4, 4)])
  whole = by_prompt @ vectors / 16
  assert found[measured.LOO][16][0] == pytest.approx(whole @ whole)


def test_products_of_different_batches_leave_out_each_with_itself():
  rng = np.random.default_rng(1)
  gradients = rng.normal(size=(6, 2, 4))  # 6 batches, 2 kinds
  own = sum(x @ x.T for x in gradients)
  found = measured.cross_products(gradients.sum(axis=0), own, 6)
  wanted = np.mean([x @ y.T for x, y in itertools.permutations(gradients, 2)], axis=0)
  np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_variances_and_biases_follow_from_lengths_and_products():
  point = {
    "return": {"mean": 2.0},
    "norms": {"constant": {"4": [10.0, 3.0, 1.0]}, measured.LOO: {"4": [4.0]}, "v, lambda 0": {"4": [3.0]},
              "v, lambda 1": {"4": [3.5]}},
    "kinds": [measured.LOO, "v, lambda 0", "v, lambda 1"],
    "products": [[0.5, 0.4, 0.5], [0.4, 0.6, 0.4], [0.5, 0.4, 0.45]],
  }  # fmt: skip
  found = measured.variances(point, 4)
  assert found == pytest.approx({
    "none": 9.5, "mean": 10 - 12 + 4 - 0.5, "optimal": 10 - 18 + 9 - 0.5, measured.LOO: 3.5, "v, lambda 0": 2.4,
    "v, lambda 1": 3.0,
  })  # fmt: skip
  assert measured.bias(point, "v, lambda 0") == pytest.approx((0.6 - 0.8 + 0.5, 0.5))


def test_vectors_are_gradients_of_the_policy_gradient():
  rng = np.random.default_rng(2)
  policy = {"table": rng.normal(size=(5, 5)).astype(np.float32)}
  model = types.SimpleNamespace(apply=lambda params, tokens: params["table"][tokens])
  tokens = rng.integers(5, size=(4, 3))
  mask = np.array([[0, 1, 1], [0, 1, 0], [1, 1, 1], [0, 0, 1]]) > 0
  advantages = rng.normal(size=(4, 3)).astype(np.float32)

  def logp(params, row):
    found = jax.nn.log_softmax(params["table"][tokens[row]] / 0.7)[jnp.arange(3), tokens[row]]
    return jnp.sum(jnp.where(mask[row], advantages[row] * found, 0))

  each = np.array([jax.grad(logp)(policy, row)["table"].ravel() for row in range(4)])
  pairs = each.reshape(2, 2, -1).sum(axis=1)
  weights = np.array([0.5, -1.0])
  products, vector = measured.make_vectors(model, 0.7)(policy, tokens, mask, advantages, weights, 2)
  np.testing.assert_allclose(products, pairs @ pairs.T, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(vector, weights @ pairs, rtol=1e-4, atol=1e-5)


def test_samples_to_reach_a_reward_are_of_two_evaluations_in_a_row():
  curve = {256: 0.7, 512: 1.0, 768: 0.9, 1024: 1.1}
  assert analyse.samples_to_reach(curve, 0.85) == 512
  assert analyse.samples_to_reach(curve, 1.0) == 1024
  assert analyse.samples_to_reach(curve, 1.2) == float("inf")
  found = analyse.reached({0: curve, 1: curve, 2: {256: 0.1, 512: 0.2}}, 1.0)
  assert found == {"seeds": 3, "reached": 2, "median": 1024, "first": 1024, "last": None}


def test_seeds_are_paired_and_failures_counted():
  def own(gold, before):
    return {"gold": gold, "sft gold": before, "kl": 1.0}

  found = analyse.training({
    "ppo": {0: own(1.0, 0.6), 1: own(1.2, 0.7)},
    "rloo": {0: own(1.1, 0.6), 1: own(1.3, 0.7)},
    "reinforce, none": {0: own(0.5, 0.6), 1: own(1.2, 0.7)},
  })  # fmt: skip
  assert found["rloo"]["difference to ppo"]["mean"] == pytest.approx(0.1)
  assert found["reinforce, none"]["failures"] == 1 and found["rloo"]["failures"] == 0
  assert found["reinforce, none"]["worst"] == {"seed": 0, "gold": 0.5}
  assert found["ppo"]["gain"]["mean"] == pytest.approx(0.45) and "difference to ppo" not in found["ppo"]


def test_the_sweep_has_all_seeds_of_the_algorithms_and_few_of_the_factors():
  counts: dict[str, int] = {}
  configs = []

  def add(config, **labels):
    counts[labels["setting"]] = counts.get(labels["setting"], 0) + 1
    configs.append(config.to_json(sort_keys=True))

  analyse.cells.sweep(add)
  assert counts["ppo"] == counts["dpo"] == counts["reinforce, none"] == 8 and counts[analyse.cells.SAME_CHAIN] == 7
  assert all(counts[name] == 3 for name in analyse.cells.FACTORS) and set(analyse.PUBLISHED) < set(counts)
  assert len(set(configs)) == len(configs)


def test_the_tables_and_the_figure_show_every_part(tmp_path):
  rng = np.random.default_rng(3)
  kinds = [measured.LOO, *(measured.kind("trained", lam) for lam in measured.LAMBDAS)]
  points = []
  for _ in range(3):
    vectors, returns = rng.normal(size=(64, 20)), 1 + rng.normal(size=64)
    products = batch_of(vectors, returns).groups["own, lambda 1"]
    norms = measured.squared_norms(measured.Batch(returns, vectors @ vectors.T, dict.fromkeys(kinds[1:], products)))
    norms = {name: {str(size): norm for size, norm in by_size.items()} for name, by_size in norms.items()}
    signal = np.full((len(kinds), len(kinds)), 0.1 + rng.random()).tolist()
    points.append({"samples": 64, "return": {"mean": 1.0}, "explained variance": {"trained": 0.5}, "norms": norms,
                   "kinds": kinds, "products": signal})  # fmt: skip
  own = {"gold": 1.0, "sft gold": 0.6, "win_rate": 0.7, "kl": 1.5, "seconds": 40.0}
  finals = {name: {seed: {**own, "gold": 1 + seed / 10} for seed in range(3)} for name in ("ppo", "ppo, lambda 0")}
  curves = {name: {seed: {256: 0.8, 512: 1.1} for seed in range(3)} for name in finals}
  result = {
    "exact": {"3 tokens": exact.study(2, 3)},
    "measured": {"before": analyse.noise(points), "after": analyse.noise(points[:1])},
    "training": analyse.training(finals),
    "curves": curves,
    "samples to reach": {
      name: {target: analyse.reached(found, target) for target in analyse.TARGETS} for name, found in curves.items()
    },
  }
  told = analyse.tables(result)
  assert (
    "| ppo, lambda 0 | 3 | 1.10 [0.85, 1.35] | 0.00 [0.00, 0.00] | 0.700 [0.700, 0.700] | 1.50 [1.50, 1.50] |" in told
  )
  assert "| 1.00 (seed 0) | 0 | 512 (512 to 512; 3 of 3) | never (never to never; 0 of 3) | 40 |" in told
  assert "| trained, lambda 0.95 | 0.00 [0.00, 0.00] |" in told and "| leave one out |  |" in told
  json.dumps(analyse.rounded(result), allow_nan=False)  # the interval of one seed has no bounds
  analyse.draw(result, tmp_path / "results.png")
  assert (tmp_path / "results.png").stat().st_size > 0


@pytest.mark.slow
def test_the_command_at_tiny_sizes(tmp_path, capsys):
  arguments = ["--run", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--fast"]
  with using_devices(jax.devices()[:1]):
    analyse.main(arguments)
  told = capsys.readouterr().out
  result = data.read_json(tmp_path / "out" / "results.json")
  assert set(result["training"]) == {*analyse.cells.FAST, analyse.cells.SAME_CHAIN}
  assert set(result["curves"]) == {"ppo", "ppo, lambda 0"}
  for name, found in result["measured"].items():
    assert found["samples"] == 128 and found["variance"]["none"]["64"]["mean"] == 1.0, name
  assert "| ppo, lambda 0 | 1 |" in told and (tmp_path / "out" / "results.png").stat().st_size > 0
  with using_devices(jax.devices()[:1]):  # what is there is read, and nothing is made anew
    analyse.main(arguments)
  assert data.read_json(tmp_path / "out" / "results.json") == result
