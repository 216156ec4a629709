"""One tiny model, one tiny tokenizer and one tiny run, which all the tests of this folder share.

Each test here is named after a bug that a widely used RLHF library had, and cites where. `mutations.py` puts every one
of these bugs into a copy of the package and checks that its test goes red.
"""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import optax
import pytest
from miniature import ADAM, DEMONSTRATIONS, EOS, PAD, SHAPE, TRANSPORT, environment, ppo_config, sharper

from rlhf_jax import data
from rlhf_jax.algorithms import ppo
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.sampling import generate
from rlhf_jax.stage import Model, Stage
from rlhf_jax.train import identity, init_state
from rlhf_jax.train.checkpoint import open_checkpoints, save
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.types import Prompts


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
  """Each program here runs once or twice, so optimising it costs more than it saves."""
  before = jax.config.read("jax_disable_most_optimizations")
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def small():
  """A model of 13 words with its parameters, and its functions compiled."""
  model = language_model(DecoderConfig(13, max_length=16, **SHAPE))
  params = sharper(model.init_head(jax.random.key(1), jax.jit(model.init)(jax.random.key(0))))
  return SimpleNamespace(
    model=model,
    params=params,
    apply=jax.jit(model.apply),
    value=jax.jit(model.value),
    score=jax.jit(model.score),
    prompts=Prompts(jax.random.randint(jax.random.key(2), (8, 4), 2, 13), jnp.array([4, 2, 1, 3, 4, 1, 2, 3])),
  )


@pytest.fixture(scope="session")
def draw(small):
  """`draw(prompts, temperature=1.0, seed=0) -> Rollout` of six new tokens at most."""

  @functools.partial(jax.jit, static_argnames="temperature")
  def compiled(prompts, key, temperature):
    return generate(
      small.model, small.params, prompts, key, max_new_tokens=6, temperature=temperature, eos_id=EOS, pad_id=PAD
    )

  return lambda prompts=small.prompts, temperature=1.0, seed=0: compiled(prompts, jax.random.key(seed), temperature)


@pytest.fixture(scope="session")
def tokenizer():
  return data.train_tokenizer([data.render_prompt(prompt) + " " + response for prompt, response in DEMONSTRATIONS], 300)


@pytest.fixture(scope="session")
def demonstrations():
  return [data.Demonstration(*pair) for pair in DEMONSTRATIONS]


@pytest.fixture(scope="session")
def workspace(tmp_path_factory, tokenizer):
  """A run directory with a tokenizer, prompts, demonstrations and a checkpoint "init"; `stage(name)` of that run."""
  root = tmp_path_factory.mktemp("run")
  tokenizer.save(root / "tokenizer.json")
  data.write_rows(root / "prompts.jsonl", [{"prompt": "Who?"}, {"prompt": "Count."}])
  rows = [{"prompt": f"{prompt} {i}", "response": response} for i in range(3) for prompt, response in DEMONSTRATIONS]
  data.write_rows(root / "demonstrations.jsonl", rows)
  shape = Model(max_length=64, **SHAPE)
  model = language_model(DecoderConfig(tokenizer.vocab_size, **dataclasses.asdict(shape)))

  def stage(name, root=root):
    return Stage(name, root, 0, "{run}/tokenizer.json", shape, TRANSPORT, "print")

  state = init_state(sharper(jax.jit(model.init)(jax.random.key(0))), optax.identity())
  with open_checkpoints(root / "init" / "checkpoints") as checkpoints:
    save(checkpoints, state, identity(stage("init"), model, tokenizer))
  return SimpleNamespace(root=root, stage=stage, model=model, params=state.params)


@pytest.fixture(scope="session")
def without_learning(workspace):
  """The metrics of two steps of PPO at learning rate 0 and temperature 0.5, four minibatches each."""
  optimizer = dataclasses.replace(ADAM, learning_rate=0.0)
  episodes = environment(batch_size=8, samples_per_prompt=2)
  ppo.run(ppo_config(optimizer=optimizer, kl_coef=0.1, environment=episodes), workspace.stage("without_learning"))
  return read_metrics(workspace.root / "without_learning" / "metrics.jsonl")
