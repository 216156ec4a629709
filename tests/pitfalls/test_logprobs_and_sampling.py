"""The log-probs that are recorded must be those that training evaluates, and draws must differ."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from miniature import ADAM, TRANSPORT, environment, measure_only, ppo_config

from rlhf_jax import data, train
from rlhf_jax.algorithms import grpo, ppo, reinforce, rloo
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.objectives import token_logprobs
from rlhf_jax.reduce import token_weights
from rlhf_jax.stage import Model
from rlhf_jax.train import Sampling, make_environment, stage_key
from rlhf_jax.train.metrics import read_metrics, to_floats
from rlhf_jax.types import Experience, Prompts, Rollout


def test_the_sampling_temperature_reaches_policy_and_reference(without_learning):
  """Sampling temperature not applied to the training log-probs, or to the reference's.

  KL is then not 0 at the start. [TRL #3029, #4159; OpenRLHF #857; NeMo-RL #316, #935; tunix]
  """
  assert ppo_config(environment=environment()).environment.sampling.temperature == 0.5
  for row in without_learning:
    assert row["kl/reference"] == pytest.approx(0, abs=1e-4)
    assert row["policy/approx_kl"] == pytest.approx(0, abs=1e-9)
    assert row["policy/clip_fraction"] == 0


def test_ratios_start_from_the_log_probs_of_the_trainer(on_one_device):
  """Ratios that start from what another program computed: clipping and KL before anything is learnt, most in bfloat16.

  [verl #6240; marin #1988] Here they start from the bits of the update.
  """
  model = language_model(DecoderConfig(96, 1, 64, 2, 1, 96, 32, dtype="bfloat16", tied=False))
  tokens = np.random.default_rng(0).integers(3, 96, (8, 16)).astype(np.int32)
  mask = np.broadcast_to(np.arange(16) > 4, tokens.shape)
  sampled = Rollout(tokens, mask, np.where(mask, np.float32(-4.5), np.float32(0)), np.ones(8, bool))
  loss_fn = grpo.make_loss(model.apply, clip=(0.2, 0.2), ratio="token", kl_coef=0.1, kl_kind="k2")
  update = train.make_update(loss_fn, optax.sgd(0.0), TRANSPORT)
  logprobs = train.make_logprobs(model.apply, 1.0, TRANSPORT)
  make = functools.partial(grpo.make_experience, scores=np.arange(8.0), samples_per_prompt=2)

  @train.exactly
  def experience_of(params, order):
    return train.with_logprobs(environment(), logprobs, params, params, sampled, order, make)

  state = train.init_state(model.init(jax.random.key(0)), optax.sgd(0.0))
  _, _, metrics = train.run_epochs(
    update, state, sampled, lambda state, _, order: experience_of(state.params, order), token_weights, minibatches=2,
    seed=(0, 0),
  )  # fmt: skip
  found = to_floats(metrics)
  assert found["policy/first_gap_max"] == 0 and found["policy/approx_kl"] == 0 and found["kl/reference"] == 0


def test_the_sampling_temperature_reaches_reinforce(workspace, on_one_device, monkeypatch):
  """The same for REINFORCE: its reference through the KL metric, its policy through the entropy of what it trains."""
  config = reinforce.Config(
    algorithm="", init="init", num_steps=1, environment=environment(), baseline="none", moving_decay=0.9, kl_coef=0.1,
    value_coef=0.0, entropy_coef=0.0, optimizer=ADAM, checkpoint_every=9,
  )  # fmt: skip
  monkeypatch.setattr(reinforce, "make_update", measure_only)
  reinforce.run(config, workspace.stage("reinforce"))
  (row,) = read_metrics(workspace.root / "reinforce" / "metrics.jsonl")
  assert row["kl/reference"] == pytest.approx(0, abs=1e-4)
  assert row["policy/approx_kl"] == pytest.approx(0, abs=1e-9)
  tokens, mask = np.ones((1, 1), np.int32), np.ones((1, 1), bool)
  batch = Experience(tokens, mask, np.zeros((1, 1)), np.zeros((1, 1)))
  loss_fn = reinforce.make_loss(
    lambda params, tokens: (params, None), value_coef=0.0, entropy_coef=0.0, temperature=0.5
  )
  _, metrics = loss_fn(jnp.log(jnp.array([[[0.75, 0.25]]])), batch, np.ones((1, 1)))
  assert metrics["policy/entropy"].compute() == pytest.approx(-0.9 * np.log(0.9) - 0.1 * np.log(0.1), abs=1e-6)


@pytest.mark.parametrize("algorithm", [rloo, grpo], ids=["rloo", "grpo"])
def test_the_sampling_temperature_reaches_rloo_and_grpo(workspace, on_one_device, monkeypatch, algorithm):
  """The same for RLOO and GRPO: nothing is learnt, so neither reference nor trained log-probs are off the policy.

  [TRL #3029, #4159]
  """
  shared = dict(
    algorithm="", init="init", num_steps=1, environment=environment(), kl_coef=0.1, epochs=1, minibatches=1,
    optimizer=ADAM, checkpoint_every=9,
  )  # fmt: skip
  variant = dict(normalize_std=True, weights="token", clip=(0.2, 0.2), ratio="token", kl_kind="k3")
  config = algorithm.Config(**shared, **(variant if algorithm is grpo else dict(clip=0.2)))
  name = algorithm.__name__.rpartition(".")[2]
  monkeypatch.setattr(algorithm, "make_update", measure_only)
  algorithm.run(config, workspace.stage(name))
  (row,) = read_metrics(workspace.root / name / "metrics.jsonl")
  assert row["kl/reference"] == pytest.approx(0, abs=1e-4)
  assert row["policy/approx_kl"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("algorithm", [ppo, reinforce, rloo, grpo], ids=["ppo", "reinforce", "rloo", "grpo"])
def test_what_truncation_leaves_is_what_is_trained(workspace, on_one_device, monkeypatch, algorithm):
  """Samples of a truncated softmax are trained under the whole one: the ratio is off before anything is learnt.

  With a constant reward REINFORCE then makes the policy ever surer. [NeMo-RL #3297; TRL #4873]
  """
  truncated = environment(sampling=Sampling(max_prompt_tokens=24, max_new_tokens=6, temperature=0.8, top_k=12))
  shared = dict(
    algorithm="", init="init", num_steps=1, environment=truncated, kl_coef=0.1, optimizer=ADAM, checkpoint_every=9
  )
  passes = dict(epochs=1, minibatches=1)
  config = {
    ppo: lambda: ppo_config(environment=truncated, num_steps=1),
    reinforce: lambda: reinforce.Config(**shared, baseline="none", moving_decay=0.9, value_coef=0.0, entropy_coef=0.0),
    rloo: lambda: rloo.Config(**shared, **passes, clip=0.2),
    grpo: lambda: grpo.Config(
      **shared, **passes, normalize_std=True, weights="token", clip=(0.2, 0.2), ratio="token", kl_kind="k2"
    ),
  }[algorithm]()
  name = f"truncated_{algorithm.__name__.rpartition('.')[2]}"
  monkeypatch.setattr(algorithm, "make_update", measure_only)
  algorithm.run(config, workspace.stage(name))
  (row,) = read_metrics(workspace.root / name / "metrics.jsonl")
  assert row["policy/approx_kl"] == pytest.approx(0, abs=1e-9)
  assert row["policy/ratio_max"] == pytest.approx(1, abs=1e-4)
  assert row["sampling/logp_gap_max"] < 1e-4  # the sampler records those of the tokens that could be drawn
  # The truncated policy is not the reference: its KL to the whole softmax is -log(share kept) a token.
  assert row["kl/reference"] > 0.1
  assert 0 < row["policy/entropy"] < np.log(12)


def test_no_dropout_while_log_probs_are_computed(draw, small):
  """Dropout active while log-probs are computed. [verl #4708; TRL #4, #1066] There is none to be switched off."""
  keys = {field.name for config in (Model, DecoderConfig, ppo.Config) for field in dataclasses.fields(config)}
  assert not [key for key in keys if "drop" in key]
  rollout = draw()
  first = np.asarray(small.apply(small.params, rollout.tokens))
  rows = np.arange(8)[::-1]
  np.testing.assert_allclose(small.apply(small.params, rollout.tokens[rows]), first[rows], atol=1e-5)


def test_the_recorded_logp_is_that_of_the_sampled_token(draw, small):
  """The recorded log-prob is not that of the sampled token, or of the truncated (top-k, top-p) distribution.

  [NeMo-RL #3297; TRL #4873]
  """
  rollout = draw(temperature=0.5)
  logits = np.asarray(small.apply(small.params, rollout.tokens)) / 0.5
  logp = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
  sampled = np.take_along_axis(logp, np.asarray(rollout.tokens)[..., None], axis=-1)[..., 0]
  np.testing.assert_allclose(rollout.logp, np.where(rollout.mask, sampled, 0), atol=1e-5)
  assert np.any(np.where(rollout.mask, logp.max(axis=-1) - sampled, 0) > 0.5), "not every draw is the likeliest"
  trained = token_logprobs(logits, rollout.tokens, mask=rollout.mask)
  np.testing.assert_allclose(rollout.logp, trained, atol=1e-5)


def test_every_row_and_token_draws_from_a_key_of_its_own(draw, small):
  """The same random key for every rollout: the responses to one prompt must differ. [tunix sampler]"""
  same = Prompts(jnp.full((8, 4), 4), jnp.full((8,), 4))
  uniform = jax.tree.map(jnp.zeros_like, small.params)  # equal logits, with which equal keys draw equal tokens
  tokens = np.asarray(draw(same, params=uniform).tokens)[:, 4:]
  assert len({tuple(row) for row in tokens.tolist()}) > 6
  assert np.mean(tokens[:, 1] == tokens[:, 0]) < 0.5


def test_parts_of_a_batch_draw_from_keys_of_their_own(small, tokenizer, on_one_device, monkeypatch):
  """Workers that share the rows of a batch start from the same random state: rows are then sampled several times.

  [NumPy's seed in PyTorch's DataLoader workers, pytorch #5059]
  """
  monkeypatch.setattr(train.sampler, "threads", lambda mesh: 2)
  model = language_model(dataclasses.replace(small.model.config, vocab_size=tokenizer.vocab_size))
  uniform = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0)))
  sample = train.make_sampler(model, tokenizer, Sampling(max_new_tokens=6, temperature=1.0), TRANSPORT)
  same = Prompts(np.full((64, 4), 4, np.int32), np.full(64, 4, np.int32))
  tokens = np.asarray(sample(uniform, same, jax.random.key(0))[0].tokens)[:, 4:]
  assert len({tuple(row) for row in tokens.tolist()}) > 48


def test_every_step_and_stage_draws_from_a_key_of_its_own(workspace, tokenizer, on_one_device):
  """The same random key for every step, or for every process: keys come from (seed, stage, step, global row).

  [tunix sampler; trlX #141]
  """
  data.write_rows(workspace.root / "one.jsonl", [{"prompt": "Who?"}])
  settings = environment(prompts="{run}/one.jsonl")
  episodes = make_environment(settings, workspace.stage("keys"), workspace.model, tokenizer)
  first, second = (np.asarray(episodes(workspace.params, index).rollout.tokens) for index in (0, 1))
  assert (first != second).any()
  key, other = (stage_key(workspace.stage(name)) for name in ("keys", "others"))
  assert (jax.random.key_data(key) != jax.random.key_data(other)).any()


def test_a_forward_of_the_positions_that_count_reads_the_state_before_each_token(small):
  """Logits of the response alone are cut out one position late: each token is then predicted from itself.

  Frameworks that ask a model for the logits of the last tokens (`logits_to_keep`) shift by hand; here it is once more
  compared with the whole forward.
  """
  tokens = np.array([[3, 9, 5, 7, 4, 8, 2, 6], [3, 4, 8, 6, 5, 2, 0, 0]], np.int32)
  at = np.array([[3, 4, 5], [1, 2, 3]])
  whole = np.asarray(small.apply(small.params, tokens))[np.arange(2)[:, None], at]
  np.testing.assert_allclose(small.apply(small.params, tokens, None, at), whole, atol=1e-5)
  values = np.asarray(small.value(small.params, tokens))[np.arange(2)[:, None], at]
  found = np.asarray(small.value(small.params, tokens, None, at))
  np.testing.assert_allclose(found[np.arange(2)[:, None], at], values, atol=1e-5)
