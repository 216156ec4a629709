"""What a step of PPO moves between host and devices."""

import jax
import numpy as np
import optax
import pytest
from miniature import environment, ppo_config

from rlhf_jax.algorithms import ppo
from rlhf_jax.train import Reward, identity, init_state
from rlhf_jax.train.checkpoint import open_checkpoints, save
from rlhf_jax.train.mesh import using_devices


@pytest.fixture
def fetched(monkeypatch):
  """The arrays that have been fetched to the host since the list was cleared, each once."""
  found, asarray, get = [], np.asarray, jax.device_get

  def record(array):
    if isinstance(array, jax.Array) and not any(array is other for other in found):
      found.append(array)

  def asarray_recorded(x, *args, **settings):
    record(x)
    return asarray(x, *args, **settings)

  def get_recorded(tree):
    jax.tree.map(record, tree)
    return get(tree)

  monkeypatch.setattr(np, "asarray", asarray_recorded)
  monkeypatch.setattr(jax, "device_get", get_recorded)
  return found


@pytest.fixture
def step(workspace, tokenizer, monkeypatch):
  """`step(state, index)` of PPO with a reward model and a reward function, and its first state."""
  stage, model = workspace.stage("transfers"), workspace.model
  judge = init_state(model.init_head(jax.random.key(3), workspace.params), optax.identity())
  with open_checkpoints(workspace.root / "judge" / "checkpoints") as checkpoints:
    save(checkpoints, judge, identity(workspace.stage("judge"), model, tokenizer))
  caught = []
  monkeypatch.setattr(ppo, "run_steps", lambda stage, state, step, *_, **__: caught.extend((state, step)))
  reward = Reward("judge", 1.0, "miniature:constant", 0.5, {"value": 0.5})
  with using_devices(jax.devices()[:1]):
    ppo.run(ppo_config(kl_target=3.0, environment=environment(reward=reward)), stage)
  return caught


def test_a_step_of_ppo_fetches_tokens_and_sends_prompts_and_scores(step, fetched):
  """Rollouts pass through the host, or every metric of every minibatch is fetched as it comes.

  [big_vision's trainers run under a guard against hidden transfers]
  """
  state, take = step
  state, _ = take(state, 0)
  fetched.clear()
  with jax.transfer_guard_host_to_device("disallow_explicit"):
    state, metrics = take(state, 1)
  tokens, mask, finished = (16, 30), (16, 30), (16,)
  expected = [(finished, "bool"), (mask, "bool"), (tokens, "int32")]
  assert sorted((array.shape, str(array.dtype)) for array in fetched) == expected
  assert {"reward/model", "reward/function", "loss"} <= metrics.keys()
