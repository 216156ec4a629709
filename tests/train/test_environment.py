"""Episodes of RL: their metrics, from a sampler and a reward that are made up."""

import jax
import numpy as np
import pytest

from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.train import environment
from rlhf_jax.train.environment import Environment, make_environment
from rlhf_jax.train.functions import Function
from rlhf_jax.train.reward_functions import Scored
from rlhf_jax.train.rewards import Part, Reward
from rlhf_jax.train.sampler import Sampling
from rlhf_jax.types import Rollout


@pytest.fixture
def respond(tmp_path, monkeypatch):
  """`respond(scores, copies, **settings)`: the metrics of episodes with these scores."""

  def metrics_of(scores, copies, **settings):
    mask = np.tile([False, True, True], (len(scores), 1))
    rollout = Rollout(np.zeros(mask.shape, np.int32), mask, np.zeros(mask.shape, np.float32), mask[:, 1])
    monkeypatch.setattr(environment, "load_prompts", lambda *_: None)
    monkeypatch.setattr(environment, "make_sampler", lambda *_, **__: lambda *_: (rollout, ["a"] * len(scores)))
    part = Part(1.0, lambda _: Scored(np.asarray(scores, np.float32)))
    monkeypatch.setattr(environment, "make_parts", lambda *_, **__: {"function": part})
    given = {"missing_eos_score": None, **settings}
    reward = Reward("", 0.0, "own.py:f", 1.0)
    sampling = Sampling(max_prompt_tokens=1, max_new_tokens=2, temperature=1.0)
    chosen = Environment("", 2, copies, sampling, reward, monitor=Function(""), **given)
    stage = Stage("rl", tmp_path, 0, "", Model(1, 2, 1, 1, 2, 4), Transport("jit", 1, 1), "print", ())
    texts = ["?"] * (len(scores) // copies)
    return make_environment(chosen, stage, None, None).respond(None, texts, None, jax.random.key(0), copies).metrics

  return metrics_of


def test_int8_without_its_library_is_refused(respond, monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(
    ValueError, match=r"frozen_dtype='int8': install the package qwix: pip install 'rlhf_jax\[int8\]'"
  ):
    respond([1, 2], 2, frozen_dtype="int8")


def test_groups_whose_scores_are_alike_are_counted_for_every_algorithm(respond):
  assert respond([1, 2, 3, 7, 7, 7, 1, 1, 2], 3)["reward/groups_alike"].compute() == pytest.approx(1 / 3)
  assert respond([1, 2, 2, 1], 2)["reward/groups_alike"].compute() == 0
  assert "reward/groups_alike" not in respond([1, 1, 1], 1)  # a group of one has nothing to compare


def test_a_gold_reward_of_two_sources_is_refused():
  sampling = Sampling(max_prompt_tokens=1, max_new_tokens=2, temperature=1.0)
  reward = Reward("judge", 1.0, "", 0.0)
  with pytest.raises(ValueError, match="monitor.function and monitor_checkpoint are both given"):
    Environment("", 2, 1, sampling, reward, None, Function("own.py:gold"), monitor_checkpoint="another")
