"""From prompts to text: any shape from few programs, stop strings, and slots on several devices."""

import dataclasses

import jax
import numpy as np
import pytest

from rlhf_jax import data
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.objectives import token_logprobs
from rlhf_jax.stage import Transport
from rlhf_jax.train import Sampling, encode_prompts, make_sampler
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
  sample = make_sampler(model, TOKENIZER, SETTINGS, TRANSPORT, any_shape=True)
  for count in range(1, 5):
    for width in (7, 17, 31, 32):
      found = PROMPTS.take(range(count))[1]
      batch = Prompts(found.tokens[:, :width], found.lengths.clip(max=width))
      rollout, texts = sample(PARAMS, batch, jax.random.key(0))
      assert rollout.tokens.shape == (count, width + 9) and len(texts) == count
  longer = make_sampler(model, TOKENIZER, dataclasses.replace(SETTINGS, max_new_tokens=16), TRANSPORT, any_shape=True)
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


@pytest.mark.parametrize("changes", [{"top_k": -1}, {"top_p": 0.0}, {"min_p": 2.0}, {"slots": -2}, {"stop": ("",)}])
def test_impossible_settings_are_refused(changes):
  with pytest.raises(ValueError, match=next(iter(changes))):
    dataclasses.replace(SETTINGS, **changes)
