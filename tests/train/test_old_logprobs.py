"""Before the first update each ratio is 1 and the approximate KL 0, to the last bit; what a sampler is off by."""

import functools
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from decoder_families import FAMILIES, config_of, shallow_of

from rlhf_jax.algorithms import grpo
from rlhf_jax.models import add_lora, stack_layers
from rlhf_jax.objectives import importance_weights
from rlhf_jax.packing import Packing
from rlhf_jax.reduce import token_weights
from rlhf_jax.stage import Transport
from rlhf_jax.train import (
  ImportanceWeights,
  exactly,
  frozen,
  init_state,
  make_logprobs,
  make_update,
  place,
  run_epochs,
  with_logprobs,
)
from rlhf_jax.train.mesh import make_mesh, shardings, using_devices
from rlhf_jax.train.metrics import to_floats
from rlhf_jax.train.workspace import select_model
from rlhf_jax.types import Rollout

ONE = Transport("jit", 1, 1)
LENGTHS = np.array([2, 7, 1, 9, 4, 6, 3, 8, 5, 9, 2, 4])
TRAINER, SAMPLER = (SimpleNamespace(logp=logp, importance=None) for logp in ("trainer", "sampler"))
needs_devices = pytest.mark.skipif(jax.device_count() != 8, reason="needs eight devices")


def rollout(rows=12, length=14, words=17, lengths=LENGTHS):
  tokens = np.random.default_rng(0).integers(3, words, (rows, length)).astype(np.int32)
  mask = (np.arange(length) >= 4) & (np.arange(length) < 4 + np.resize(lengths, (rows, 1)))
  at = np.broadcast_to(np.arange(4, length), (rows, length - 4))  # as a sampler records them
  return Rollout(tokens, mask, np.where(mask, np.float32(-2.5), np.float32(0)), np.ones(rows, bool), at=at)


def support_of(sampled, words):
  """The sampled token and half of the others, as bits."""
  on = np.random.default_rng(1).random((*sampled.tokens.shape, words)) < 0.5
  np.put_along_axis(on, sampled.tokens[..., None], True, axis=-1)
  return np.packbits(on & sampled.mask[..., None], axis=-1)


def on_one_device(*arguments, **settings):
  with using_devices(jax.devices()[:1]):
    return first_step(*arguments, **settings)


def first_step(config, transport=ONE, settings=TRAINER, *, minibatches=3, temperature=0.7, form=lambda x: x, rows=12,
  truncates=False, packs=False, shares=False,
):  # fmt: skip
  """The metrics of a step of GRPO whose policy is its reference, one epoch at a learning rate of 0.

  packs: whether responses are so short that two sequences at least stand in every row that the models read. shares:
  whether all prompts are the same one.
  """
  model = select_model(config, transport)
  # The operations of many configs are the same: without a program of its own each is compiled once for all of them.
  init = model.init if transport is ONE else jax.jit(model.init)
  params = jax.tree.map(lambda x: x * (2.0 if x.ndim > 1 else 1.0), init(jax.random.key(0)))
  sampled = rollout(rows, words=config.vocab_size, lengths=1 + LENGTHS % 3 if packs else LENGTHS)
  if shares:
    sampled = sampled.replace(tokens=np.where(np.arange(14) < 4, sampled.tokens[:1], sampled.tokens))
  if truncates:
    sampled = sampled.replace(support=support_of(sampled, config.vocab_size))
  loss_fn = grpo.make_loss(
    model.apply, clip=(0.2, 0.2), ratio="token", kl_coef=0.1, kl_kind="k2", temperature=temperature
  )
  update = make_update(loss_fn, optax.sgd(0.0), transport)
  logprobs = make_logprobs(model.apply, temperature, transport)
  make = functools.partial(grpo.make_experience, scores=jnp.arange(rows) % 5 / 4.0, samples_per_prompt=2)

  @exactly
  def experience_of(policy, reference, sampled, order):
    return with_logprobs(settings, logprobs, policy, reference, sampled, order, make)

  policy = form(params)
  reference = frozen(model, jax.device_put(params, shardings(make_mesh(transport), params)))
  state = place(init_state(policy, optax.sgd(0.0)), transport)
  _, experience, metrics = run_epochs(
    update, state, sampled, lambda state, *rest: experience_of(state.params, reference, *rest), token_weights,
    minibatches=minibatches, seed=(0, 0), transport=transport if packs else None,
  )  # fmt: skip
  assert isinstance(experience.at, Packing) == packs and (not packs or experience.at.shares == shares)
  return to_floats(metrics), experience


def is_exact(metrics):
  found = [metrics[name] for name in ("policy/ratio_mean", "policy/ratio_max", "policy/approx_kl", "kl/reference")]
  assert found == [1.0, 1.0, 0.0, 0.0] and metrics["policy/first_gap_max"] == 0.0
  assert metrics["sampling/logp_gap"] > 0.1 and metrics["sampling/logp_equal"] < 1  # the sampler's are made up


DTYPES = ("float32", "bfloat16")
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
  "family, dtype",
  [
    pytest.param(family, dtype, marks=() if dtype == DTYPES[n % 2] else SLOW)
    for n, family in enumerate(FAMILIES)
    for dtype in DTYPES
  ],
)
def test_every_family_starts_from_a_ratio_of_one(family, dtype):
  is_exact(on_one_device(shallow_of(family, dtype=dtype))[0])


@pytest.mark.parametrize(
  "family, dtype",
  [
    pytest.param(family, DTYPES[1 - n % 2], marks=() if family in ("llama", "qwen2", "gemma3_text", "gpt2") else SLOW)
    for n, family in enumerate(FAMILIES)
  ],
)
def test_every_family_starts_from_a_ratio_of_one_in_packed_rows(family, dtype):
  is_exact(on_one_device(shallow_of(family, dtype=dtype), packs=True)[0])


ON_EIGHT = {
  "fsdp": dict(fsdp=8, data=1), "fsdp and tensor": dict(fsdp=2, tensor=2), "microbatches": dict(fsdp=1, microbatches=2),
  "remat": dict(fsdp=8, data=1, remat="full"), "chunks": dict(fsdp=4, logits_chunk=5),
  "pmap": dict(fsdp=1, kind="pmap"),
}  # fmt: skip


def on_eight(name, packs, dtype):
  """A case of the test below; packed rows are cut like other rows, so that half of them is slow."""
  quick = dtype == "float32" and (not packs or name in ("fsdp and tensor", "microbatches", "chunks"))
  return pytest.param(name, packs, dtype, marks=() if quick else SLOW)


@needs_devices
@pytest.mark.parametrize(
  "name, packs, dtype", [on_eight(*case) for case in itertools.product(ON_EIGHT, (False, True), DTYPES)]
)
def test_on_eight_devices(name, packs, dtype):
  settings = ON_EIGHT[name]
  if packs and dtype == "bfloat16" and not settings.get("microbatches"):
    pytest.skip("packed rows in bfloat16 are those of the test of families")
  if dtype == "bfloat16" and (settings.get("kind") == "pmap" or settings.get("tensor")):
    pytest.skip("pmap takes no options of the compiler; XLA on CPUs cannot sum bfloat16 along tensor")
  # A product of few rows or columns may become part of another kernel, which rounds otherwise: these are none.
  larger = {"logits_chunk": 16} if packs and "logits_chunk" in settings else {}
  transport = Transport(**{"kind": "jit", "microbatches": 1} | settings | larger)
  config = config_of("llama", dtype=dtype, d_model=64, vocab_size=96, tied=False)
  is_exact(first_step(config, transport, minibatches=1, packs=packs, rows=32 if packs else 12)[0])


@pytest.mark.parametrize(
  "rows, minibatches, temperature", [(2, 1, 1.0), (12, 1, 0.3), (12, 6, 1.0), (12, 12, 0.3), (10, 5, 1.0)]
)
def test_every_number_of_rows(rows, minibatches, temperature):
  is_exact(on_one_device(shallow_of("qwen3"), rows=rows, minibatches=minibatches, temperature=temperature)[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_responses_behind_one_prompt(dtype):
  is_exact(on_one_device(shallow_of("llama", dtype=dtype), packs=True, shares=True)[0])
  if jax.device_count() == 8:
    transport = Transport("jit", 8, 1, data=1)
    config = config_of("llama", dtype=dtype, d_model=64, vocab_size=96, tied=False)
    is_exact(first_step(config, transport, minibatches=1, packs=True, shares=True, rows=32)[0])


def test_adapters_and_a_truncated_softmax():
  """Adapters are not merged while training, and the support of a truncated policy is that of its samples."""
  config = shallow_of("llama", dtype="bfloat16")

  def adapted(params):
    with_lora = add_lora(jax.random.key(3), params, rank=2, alpha=4.0, targets=("query", "up"))
    return {**with_lora, "lora": jax.tree.map(lambda x: x + 0.1, with_lora["lora"])}

  metrics, _ = on_one_device(config, form=adapted)
  assert metrics["policy/ratio_max"] == 1 and metrics["policy/approx_kl"] == 0
  assert metrics["kl/reference"] != 0  # the reference is the base
  is_exact(on_one_device(config, form=stack_layers)[0])
  is_exact(on_one_device(config, form=stack_layers, packs=True)[0])
  for packs in (True, False):
    metrics, experience = on_one_device(config, truncates=True, packs=packs)
    assert metrics["policy/ratio_max"] == 1 and metrics["policy/approx_kl"] == 0
  whole = on_one_device(config)[1]
  left_out = (experience.logp - whole.logp)[
    np.asarray(experience.mask)
  ]  # -log of the share of the tokens that are left
  assert np.mean(left_out) > 0.1


def test_the_samplers_log_probs_stay_and_their_gap_is_told():
  metrics, experience = on_one_device(shallow_of("llama"), settings=SAMPLER)
  mask = np.asarray(experience.mask)
  assert np.all(np.asarray(experience.logp)[mask] == -2.5)
  _, trained = on_one_device(shallow_of("llama"))
  first = np.random.default_rng((0, 0, 0)).permutation(12)[:4]  # the first minibatch
  gap = np.abs(np.asarray(trained.logp) + 2.5)
  assert metrics["sampling/logp_gap"] == pytest.approx(gap[first][mask[first]].mean(), rel=1e-5)
  assert metrics["policy/first_gap_max"] == pytest.approx(gap[first][mask[first]].max(), rel=1e-5)
  assert metrics["policy/ratio_max"] != 1


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_advantages_are_weighed_from_the_sampler_to_the_trainer(level):
  """With probabilities of a trainer and a sampler, by enumeration: the weighed mean is the trainer's, up to the cap."""
  importance = ImportanceWeights(level, 100.0)
  metrics, experience = on_one_device(
    shallow_of("llama"), settings=SimpleNamespace(logp="trainer", importance=importance)
  )
  _, plain = on_one_device(shallow_of("llama"))
  mask, logp = np.asarray(plain.mask), np.asarray(plain.logp)
  ratio = np.exp(np.where(mask, logp + 2.5, 0.0))
  weights = np.minimum(ratio if level == "token" else np.prod(ratio, axis=1, keepdims=True), 100.0)
  found = np.asarray(experience.advantages)
  np.testing.assert_allclose(found[mask], (np.asarray(plain.advantages) * weights)[mask], rtol=2e-5, atol=1e-7)
  assert metrics["sampling/importance_weight"] == pytest.approx(
    np.broadcast_to(weights, mask.shape)[mask].mean(), rel=1e-5
  )


def test_truncated_importance_sampling_by_enumeration():
  """Over two tokens of three words: the mean of f under the sampler times the weights is that under the trainer."""
  trainer, sampler = (jax.nn.log_softmax(jnp.array(x)) for x in ([0.3, -0.2, 1.0], [0.5, 0.1, 0.2]))
  f = np.arange(9.0).reshape(3, 3) ** 2
  pairs = (trainer[:, None] + trainer[None, :], sampler[:, None] + sampler[None, :])
  weights = importance_weights(*pairs, cap=1e3)
  expected = float((np.exp(pairs[0]) * f).sum())
  assert float((np.exp(pairs[1]) * weights * f).sum()) == pytest.approx(expected, rel=1e-6)
  capped = importance_weights(*pairs, cap=1.2)
  assert float(capped.max()) == pytest.approx(1.2)
  assert float((np.exp(pairs[1]) * capped * f).sum()) < expected  # the price of the cap: f is positive
  assert not np.any(jax.grad(lambda x: importance_weights(x, pairs[1], cap=1e3).sum())(pairs[0]))


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_what_lies_outside_of_the_bounds_teaches_nothing(level):
  _, plain = on_one_device(shallow_of("llama"))
  mask = np.asarray(plain.mask)
  ratio = np.exp(np.where(mask, np.asarray(plain.logp) + 2.5, 0.0))
  ratio = ratio if level == "token" else np.broadcast_to(np.prod(ratio, axis=1, keepdims=True), mask.shape)
  low, high = (float(x) for x in np.quantile(ratio[mask], (0.3, 0.8)))
  masked = SimpleNamespace(logp="trainer", importance=ImportanceWeights(level, 1.001 * high, "0", 0.999 * low))
  _, experience = on_one_device(shallow_of("llama"), settings=masked)
  weights = np.where((ratio >= 0.999 * low) & (ratio <= 1.001 * high), ratio, 0.0)[mask]
  assert 0 < np.mean(weights == 0) < 1
  found = np.asarray(experience.advantages)[mask]
  np.testing.assert_allclose(found, np.asarray(plain.advantages)[mask] * weights, rtol=2e-5, atol=1e-7)
  with pytest.raises(ValueError, match="low=0.5 has no effect"):
    ImportanceWeights(level, 2.0, "cap", 0.5)
