"""GRPO with dynamic sampling and several parts of a reward: it goes on bit for bit where it stopped, compiled once."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from rlhf_jax import data
from rlhf_jax.algorithms import grpo, ppo
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.train import Environment, Function, Optimizer, Reward, Sampling, identity, init_state
from rlhf_jax.train.checkpoint import open_checkpoints, save
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.train.parameters import load_params
from rlhf_jax.train.rewards import FunctionPart

pytestmark = pytest.mark.usefixtures("unoptimised")
OWN = """
import os

def score(prompts, responses, rows, token_ids, step, calls, stop=""):  # prompts without an answer teach nothing
  with open(calls, "a") as file:
    file.write(f"{step} ")
  if step == 2 and os.path.exists(stop):
    raise KeyboardInterrupt
  parts = [sum(ids) % 7 if row["answer"] else 0 for ids, row in zip(token_ids, rows)]
  return {"sum": parts, "half": [0.5] * len(parts)}

def dense(prompts, responses, token_ids):
  return [[float(token % 3) for token in ids] for ids in token_ids]
"""
STEPS = 4
ADAM = Optimizer(1e-2, 0.0, "constant", 0.9, 0.999, 1e-5, False, 0.0, 1.0)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
  """`stage(root)` of a run with a tokenizer, eight prompts and a checkpoint, all in `start.root`."""
  root = tmp_path_factory.mktemp("start")
  (root / "own.py").write_text(OWN)
  tokenizer = data.train_tokenizer(["Where does Tom live? In Oakford. What is 2 plus 2? 4."], 300)
  tokenizer.save(root / "tokenizer.json")
  data.write_rows(root / "prompts.jsonl", [{"prompt": f"What is {n}?", "answer": n % 4} for n in range(8)])
  shape = Model(num_layers=1, d_model=16, num_heads=2, num_kv_heads=1, d_ff=16, max_length=64)

  def stage(place):
    return Stage("rl", place, 0, f"{root}/tokenizer.json", shape, Transport("jit", 1, 1), "print", ())

  model = language_model(DecoderConfig(tokenizer.vocab_size, **dataclasses.asdict(shape)))
  params = jax.jit(model.init)(jax.random.key(0))
  with open_checkpoints(root / "init" / "checkpoints") as checkpoints:
    save(checkpoints, init_state(params, optax.identity()), identity(stage(root), model, tokenizer))
  stage.root = root
  return stage


def environment(start, place, stop="", function="score", **changes):
  arguments = dict(calls=f"{place}/calls.txt", stop=stop) if function == "score" else {}
  short = FunctionPart("rlhf_jax.train.shaping:overlong", dict(max_length=8, cache=4), weight=0.1)
  reward = Reward("", 0.0, f"{start.root}/own.py:{function}", 1.0, arguments, parts={"short": short})
  sampling = Sampling(max_prompt_tokens=40, max_new_tokens=8, temperature=1.0)
  prompts = f"{start.root}/prompts.jsonl"
  return Environment(prompts, 2, 2, sampling, reward, None, Function(""), **changes)


def run_grpo(start, place, stop="", **changes):
  place.mkdir(exist_ok=True)
  config = grpo.Config(
    "rlhf_jax.algorithms.grpo", f"{start.root}/init", STEPS, environment(start, place, stop, **changes), ADAM, 1,
    normalize_std=True, weights="token", clip=(0.2, 0.2), ratio="token", kl_coef=0.1, kl_kind="k3", epochs=1,
    minibatches=1,
  )  # fmt: skip
  grpo.run(config, start(place))
  return read_metrics(place / "rl" / "metrics.jsonl")


def test_an_interrupted_run_with_refills_goes_on_bit_for_bit(start, tmp_path, compilations):
  rows = run_grpo(start, tmp_path / "whole", max_refills=2)
  assert compilations["jit(update)"] == compilations["jit(experience_of)"] == compilations["jit(sampler)"] == 1
  rounds = [row["refill/rounds"] for row in rows]
  assert 0 in rounds and max(rounds) > 0  # steps of several kinds, with the same programs
  assert len((tmp_path / "whole" / "calls.txt").read_text().split()) == STEPS + sum(rounds)
  assert all(row["reward/half"] == 0.5 and row["reward/proxy"] != 0 for row in rows)
  assert {"reward/function", "reward/short", "reward/sum", "refill/dropped", "refill/missing"} <= set(rows[0])
  cut, stop = tmp_path / "cut", tmp_path / "stop"
  stop.touch()
  with pytest.raises(KeyboardInterrupt):
    run_grpo(start, cut, str(stop), max_refills=2)
  stop.unlink()
  assert run_grpo(start, cut, max_refills=2) == rows
  whole, resumed = (load_params(place / "rl" / "checkpoints", {}) for place in (tmp_path / "whole", cut))
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_ppo_learns_from_scores_of_single_tokens(start, tmp_path):
  """The function gives every token a reward: the first step's returns are not those of the sum on the last token."""
  found, make_experience = {}, ppo.make_experience
  for function in ("dense", "sums"):
    place = tmp_path / function
    place.mkdir()
    settings = environment(start, place, function="dense")
    config = ppo.Config(
      "rlhf_jax.algorithms.ppo", f"{start.root}/init", 1, settings, ADAM, 1, kl_coef=0.0, kl_target=0.0, kl_horizon=1.0,
      discount=1.0, lam=1.0, clip=0.2, value_clip=0.2, value_coef=0.1, entropy_coef=0.0, epochs=1, minibatches=1,
      whiten_rewards=False, whiten_advantages=False, shared_trunk=True, value_init="",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
      if function == "sums":
        patch.setattr(ppo, "make_experience", lambda *given: make_experience(*given[:-1]))
      ppo.run(config, start(place))
    (found[function],) = read_metrics(place / "rl" / "metrics.jsonl")
  assert found["dense"]["reward/proxy"] == found["sums"]["reward/proxy"] > 0
  # With discount and lambda 1 a token's return is what follows it: less than the whole but for the first token.
  assert found["dense"]["advantage/mean"] < found["sums"]["advantage/mean"]
