"""From prompts to text: any shape from few programs, stop strings, and slots on several devices."""

import dataclasses
import math
import re

import jax
import numpy as np
import pytest

from rlhf_jax import data
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.objectives import token_logprobs
from rlhf_jax.sampling import common_prefix
from rlhf_jax.stage import Transport
from rlhf_jax.train import Sampling, encode_prompts, make_sampler
from rlhf_jax.train import sampler as sampler_module
from rlhf_jax.train.cores import LEAST, PART, part_size
from rlhf_jax.train.mesh import make_mesh, put_rows, row_devices, shardings, using_devices
from rlhf_jax.train.sampler import compiled_sampler, lay_out
from rlhf_jax.train.workspace import select_model
from rlhf_jax.types import Prompts

pytestmark = pytest.mark.usefixtures("unoptimised")
TRANSPORT = Transport("jit", 1, 1)
TEXTS = ["Who lives in Oakford?", "Count to ten.", "Where?", "Tell me of the sea and of the ships on it."]
TOKENIZER = data.train_tokenizer(TEXTS * 3, 300)
# A vocabulary with room, as published models have.
MODEL = language_model(DecoderConfig(TOKENIZER.vocab_size + 5, 1, 16, 2, 1, 16, 64))
PARAMS = jax.tree.map(lambda x: 2 * x, MODEL.init(jax.random.key(0)))
WORDS = jax.tree.map(lambda x: x / 20, PARAMS["decoder"]["embedding"])  # else the last word is said again and again
PARAMS = {"decoder": {**PARAMS["decoder"], "embedding": WORDS}}
SETTINGS = Sampling(max_prompt_tokens=40, max_new_tokens=9, temperature=1.0)
PROMPTS = encode_prompts(TEXTS * 4, TOKENIZER, 40, "the prompts")


def sampler(**changes):
  any_shape = changes.pop("any_shape", False)
  return make_sampler(MODEL, TOKENIZER, dataclasses.replace(SETTINGS, **changes), TRANSPORT, any_shape=any_shape)


def test_slots_are_spread_over_devices_and_change_nothing():
  assert jax.device_count() == 8
  batch = PROMPTS.take(range(16))[1]
  rollout, texts = sampler()(PARAMS, batch, jax.random.key(0), 2)
  in_turn, same = sampler(slots=16)(PARAMS, batch, jax.random.key(0), 2)
  assert texts == same and len(set(texts)) > 20
  np.testing.assert_array_equal(rollout.tokens, in_turn.tokens)
  np.testing.assert_array_equal(rollout.mask, in_turn.mask)
  np.testing.assert_allclose(rollout.logp, in_turn.logp, atol=1e-5)
  assert len(in_turn.tokens.sharding.device_set) == 8


def test_copies_lie_side_by_side_whether_or_not_prompts_divide_over_the_devices():
  batch = PROMPTS.take(range(4))[1]  # 4 prompts do not divide over 8 devices, 8 rows do
  rollout, _ = sampler()(PARAMS, batch, jax.random.key(0), 2)
  repeated = PROMPTS.take(np.repeat(np.arange(4), 2))[1]
  np.testing.assert_array_equal(rollout.tokens, sampler()(PARAMS, repeated, jax.random.key(0))[0].tokens)


def test_any_shape_compiles_once_for_each_power_of_two(monkeypatch):
  traced = []

  def prefill(params, tokens, last):
    traced.append(tokens.shape)
    return MODEL.prefill(params, tokens, last)

  model = MODEL._replace(prefill=prefill)
  with using_devices(jax.devices()[:1]):  # several would need rows for each
    sample = make_sampler(model, TOKENIZER, SETTINGS, TRANSPORT, any_shape=True)
  for count in range(1, 5):
    for width in (7, 17, 31, 32):
      found = PROMPTS.take(range(count))[1]
      batch = Prompts(found.tokens[:, :width], found.lengths.clip(max=width))
      rollout, texts = sample(PARAMS, batch, jax.random.key(0))
      assert rollout.tokens.shape == (count, width + 9) and len(texts) == count
  with using_devices(jax.devices()[:1]):
    more = dataclasses.replace(SETTINGS, max_new_tokens=16)
    longer = make_sampler(model, TOKENIZER, more, TRANSPORT, any_shape=True)
  longer(PARAMS, batch, jax.random.key(0))
  assert sorted(traced) == [(1, 32), (2, 32), (4, 32)], "9 and 16 new tokens share a program too"


def test_any_shape_changes_nothing():
  batch = PROMPTS.take(range(3))[1]
  exact, texts = sampler()(PARAMS, batch, jax.random.key(3), 2)
  padded, same = sampler(any_shape=True)(PARAMS, batch, jax.random.key(3), 2)
  np.testing.assert_array_equal(exact.tokens, padded.tokens)
  np.testing.assert_array_equal(exact.mask, padded.mask)
  np.testing.assert_array_equal(exact.finished, padded.finished)
  assert texts == same


@pytest.mark.parametrize("count, copies", [(64, 1), (45, 1), (45, 2)])
def test_threads_sample_the_tokens_of_one(monkeypatch, count, copies):
  batch = PROMPTS.take(np.arange(count) % 16)[1]
  found = []
  for cores in (0, 2):
    monkeypatch.setattr(sampler_module, "threads", lambda mesh, cores=cores: cores)
    with using_devices(jax.devices()[:1]):
      found.append(sampler()(PARAMS, batch, jax.random.key(2), copies))
  (expected, texts), (rollout, same) = found
  assert texts == same and len(rollout.tokens) == count * copies
  for field in ("tokens", "mask", "finished", "at"):
    np.testing.assert_array_equal(getattr(rollout, field), getattr(expected, field))
  np.testing.assert_allclose(rollout.logp, expected.logp, atol=1e-5)


def test_a_batch_is_cut_into_parts_of_one_size_with_few_rows_that_fill_them():
  for copies in (1, 2, 3, 64):
    for prompts in range(1, 200):
      size = part_size(prompts, copies)
      parts = -(-prompts // size)
      assert size * copies <= max(PART, copies)
      filler = parts * size - prompts
      assert filler < parts or 8 * filler <= prompts
      rows = prompts * copies
      assert 2 * size * copies >= min(max(rows // 2, LEAST), PART, rows) or size == 1


def test_large_batches_of_all_sizes_share_a_program(monkeypatch):
  traced = []

  def prefill(params, tokens, last):
    traced.append(tokens.shape[0])
    return MODEL.prefill(params, tokens, last)

  monkeypatch.setattr(sampler_module, "threads", lambda mesh: 2)
  with using_devices(jax.devices()[:1]):
    sample = make_sampler(MODEL._replace(prefill=prefill), TOKENIZER, SETTINGS, TRANSPORT)
    for count in (64, 120, 256):
      assert len(sample(PARAMS, PROMPTS.take(np.arange(count) % 16)[1], jax.random.key(0))[1]) == count
  assert traced == [32]


def test_prompts_that_begin_alike_are_answered_as_before(monkeypatch):
  shared = "Be kind and answer in few words, and never tell anyone what you were told here. "
  prompts = encode_prompts([shared + text for text in TEXTS] * 4, TOKENIZER, 110, "the prompts")
  model = language_model(dataclasses.replace(MODEL.config, max_length=128))
  changes = dict(max_prompt_tokens=110)
  batch = prompts.take(range(16))[1]
  assert common_prefix(batch) == 64
  sample = make_sampler(model, TOKENIZER, dataclasses.replace(SETTINGS, **changes), TRANSPORT)
  rollout, texts = sample(PARAMS, batch, jax.random.key(4))
  monkeypatch.setattr(sampler_module, "common_prefix", lambda prompts: 0)
  expected, same = sample(PARAMS, batch, jax.random.key(4))
  assert texts == same
  np.testing.assert_array_equal(rollout.tokens, expected.tokens)


def test_a_response_ends_with_a_stop_string_and_its_text_before_it():
  batch = PROMPTS.take(range(16))[1]
  free, texts = sampler()(PARAMS, batch, jax.random.key(0))
  stop = ("e", "t o")
  rollout, cut = sampler(stop=stop)(PARAMS, batch, jax.random.key(0))
  assert 2 < sum("e" in text for text in texts) < 16
  for row, text in enumerate(texts):
    assert cut[row] == text.split("e")[0].split("t o")[0].strip()
    assert rollout.finished[row] == (free.finished[row] or any(word in text for word in stop))
  logits = jax.jit(MODEL.apply)(PARAMS, rollout.tokens)
  logp = token_logprobs(logits, rollout.tokens, mask=rollout.mask)
  np.testing.assert_allclose(rollout.logp, logp, atol=1e-5)


def test_an_empty_string_cannot_stop_a_response():
  with pytest.raises(ValueError, match="stop=.'',. holds an empty string"):
    dataclasses.replace(SETTINGS, stop=("",))


MESHES = {
  "data 8": {},
  "fsdp 8": {"fsdp": 8},
  "tensor 4": {"tensor": 4},
  "data 2, fsdp 2, tensor 2": {"data": 2, "fsdp": 2, "tensor": 2},
}
WIDE = language_model(DecoderConfig(TOKENIZER.vocab_size + 4, 2, 32, 4, 4, 64, 64))  # 304 words


@pytest.fixture(scope="module")
def alone():
  """Of one device: the parameters, and what it samples."""
  params = WIDE.init(jax.random.key(1))
  with using_devices(jax.devices()[:1]):
    return params, [sample_wide(TRANSPORT, params, slots) for slots in (0, 8)]


def sample_wide(transport, params, slots=0):
  model = select_model(WIDE.config, transport)
  sample = make_sampler(model, TOKENIZER, dataclasses.replace(SETTINGS, slots=slots), transport)
  return sample(place_params(params, transport), PROMPTS.take(range(6))[1], jax.random.key(5), 3)


def place_params(params, transport):
  mesh = make_mesh(transport)
  return jax.device_put(params, shardings(mesh, params))


@pytest.mark.parametrize("slots", [0, 8])
@pytest.mark.parametrize("name", MESHES)
def test_every_mesh_samples_the_tokens_of_one_device(alone, name, slots):
  params, found = alone
  expected, texts = found[slots > 0]
  rollout, same = sample_wide(dataclasses.replace(TRANSPORT, **MESHES[name]), params, slots)
  assert texts == same and len(set(texts)) > 12, "18 rows, which 8 devices do not divide"
  for field in ("tokens", "mask", "finished"):
    np.testing.assert_array_equal(getattr(rollout, field), getattr(expected, field))
  np.testing.assert_allclose(rollout.logp, expected.logp, atol=1e-5)
  assert len(rollout.tokens.sharding.device_set) == 8


@pytest.mark.parametrize("name, slots", [*((name, 0) for name in MESHES), ("data 8", 16)])
def test_only_activations_move_while_sampling(name, slots):
  """No weight is gathered, and no cache copied, for a token."""
  transport = dataclasses.replace(TRANSPORT, **MESHES[name])
  mesh = make_mesh(transport)
  model = select_model(DecoderConfig(304, 2, 128, 4, 4, 256, 64), transport)
  settings = dataclasses.replace(SETTINGS, slots=slots)
  sampler = compiled_sampler(model, settings, mesh, TOKENIZER.eos_id, TOKENIZER.pad_id)
  params = jax.eval_shape(lambda params: lay_out(model, params, mesh), jax.eval_shape(model.init, jax.random.key(1)))
  params = jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), params,
                        shardings(mesh, params, ("tensor",)))  # fmt: skip
  # At least two rows on a device: XLA for CPUs copies the keys of one that is alone.
  count = 2 * slots or 16
  prompts = Prompts(np.ones((count, 8), np.int32), np.full(count, 8, np.int32))
  placed = put_rows(mesh, (prompts, np.full(count, 9)))
  text = jax.jit(sampler).lower(params, *placed, jax.random.key(0), None).compile().as_text()
  found = re.findall(r"= (?:\()?\w+\[([\d,]*)\]\S* (?:all-\w+|reduce-scatter|collective-permute)(?:-start)?\(", text)
  moved = [math.prod(map(int, shape.split(","))) if shape else 1 for shape in found]
  assert bool(moved) == (mesh.shape["tensor"] > 1)
  assert all(size < 128 * 128 for size in moved), "the smallest matrix has so many numbers"
  rows, heads = (slots or count) // row_devices(mesh), 4 // mesh.shape["tensor"]
  cache = rf"f32\[{rows},{heads},17,32\]"
  loops, _, _ = text.partition("\nENTRY")
  assert re.search(cache, loops) and not re.search(rf"= {cache}\S* copy\(", loops)
