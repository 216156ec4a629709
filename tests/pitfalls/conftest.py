"""One tiny model, one tiny tokenizer and one tiny run, which all the tests of this folder share.

Each test here is named after a bug that a widely used RLHF library had, and cites where. `mutations.py` puts every one
of these bugs into a copy of the package and checks that its test goes red.
"""

import contextlib
import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import optax
import pytest
from miniature import DEMONSTRATIONS, EOS, PAD, SHAPE, TRANSPORT, environment, measure_only, ppo_config, sharper

from rlhf_jax import data
from rlhf_jax.algorithms import ppo
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.sampling import generate
from rlhf_jax.stage import Model, Stage
from rlhf_jax.train import identity, init_state
from rlhf_jax.train.checkpoint import open_checkpoints, save
from rlhf_jax.train.mesh import using_devices
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.types import Mean, Prompts


@contextlib.contextmanager
def compiled_quickly():
  """Programs here run once or twice: they are not optimised."""
  before = jax.config.read("jax_disable_most_optimizations")
  jax.config.update("jax_disable_most_optimizations", True)
  try:
    yield
  finally:
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
  """For the tests; a fixture of the session may be set up before this one, and says so itself."""
  with compiled_quickly():
    yield


@pytest.fixture(scope="session")
def small():
  """A model of 13 words with its parameters, and its functions compiled."""
  model = language_model(DecoderConfig(13, max_length=16, **SHAPE))
  with compiled_quickly():
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
  """`draw(prompts, temperature=1.0, seed=0, params) -> Rollout` of six new tokens at most."""

  @functools.partial(jax.jit, static_argnames="temperature")
  def compiled(params, prompts, key, temperature):
    return generate(
      small.model, params, prompts, key, max_new_tokens=6, temperature=temperature, eos_id=EOS, pad_id=PAD
    )

  return lambda prompts=small.prompts, temperature=1.0, seed=0, params=small.params: compiled(
    params, prompts, jax.random.key(seed), temperature
  )


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
    return Stage(name, root, 0, str(tokenizer_path), shape, TRANSPORT, "print")

  tokenizer_path = root / "tokenizer.json"
  with compiled_quickly():
    state = init_state(sharper(jax.jit(model.init)(jax.random.key(0))), optax.identity())
  with open_checkpoints(root / "init" / "checkpoints") as checkpoints:
    save(checkpoints, state, identity(stage("init"), model, tokenizer))
  return SimpleNamespace(root=root, stage=stage, model=model, params=state.params)


@contextlib.contextmanager
def one_device():
  """What a whole run computes is the same on one device, and its programs compile in a third of the time."""
  with pytest.MonkeyPatch.context() as patch, using_devices(jax.devices()[:1]):
    yield patch


@pytest.fixture
def on_one_device():
  with one_device():
    yield


@pytest.fixture(scope="session")
def without_learning(workspace):
  """The metrics of two steps of PPO that learn nothing, at temperature 0.5, four minibatches each."""
  with one_device() as patch, compiled_quickly():
    patch.setattr(ppo, "make_update", measure_only)
    ppo.run(ppo_config(kl_coef=0.1, environment=environment()), workspace.stage("no_learning"))
  return read_metrics(workspace.root / "no_learning" / "metrics.jsonl")


@pytest.fixture(scope="session")
def scripted(workspace):
  """Two steps of PPO whose updates and KL are a script: the metrics, and what the controller was fed.

  The n-th of the eight minibatches reports "call" n and an approximate KL of 7; the sequence KLs are all 2.
  """
  calls, fed, make_experience = [], [], ppo.make_experience

  def make_update(loss_fn, optimizer, transport):
    def update(state, batch, weights):
      calls.append(Mean(jnp.float32(len(calls)), jnp.float32(1)))
      return state, {"call": calls[-1], "policy/approx_kl": Mean(jnp.float32(7), jnp.float32(1))}

    return update

  def with_kl(*arguments):
    experience, metrics = make_experience(*arguments)
    return experience, {**metrics, "kl/reference": Mean(jnp.full(16, 2.0), jnp.ones(16))}

  def adaptive_kl_coef(coef, kl, num_samples, *, target, horizon):
    jax.debug.callback(lambda *given: fed.append((*map(float, given), num_samples, target, horizon)), coef, kl)
    return 2 * coef

  with one_device() as patch, compiled_quickly():
    patch.setattr(ppo, "make_update", make_update)
    patch.setattr(ppo, "make_experience", with_kl)
    patch.setattr(ppo, "adaptive_kl_coef", adaptive_kl_coef)
    config = ppo_config(kl_coef=0.1, kl_target=3.0, kl_horizon=100.0, environment=environment())
    ppo.run(config, workspace.stage("scripted"))
    jax.effects_barrier()
  return read_metrics(workspace.root / "scripted" / "metrics.jsonl"), fed
