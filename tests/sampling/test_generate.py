"""Sampling: its log-probs are the training forward's, its layout has no gaps, its rows are independent."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.objectives import token_logprobs, truncated_logits
from rlhf_jax.sampling import before_stop, generate, stop_table, truncate
from rlhf_jax.types import Prompts

pytestmark = pytest.mark.usefixtures("unoptimised")
EOS, PAD = 1, 0
MODEL = language_model(DecoderConfig(11, 2, 32, 4, 2, 48, 24))
PARAMS = MODEL.init(jax.random.key(0))
WORDS = jax.tree.map(lambda x: x / 10, PARAMS["decoder"]["embedding"])  # else the last word is said again and again
PARAMS = {"decoder": {**jax.tree.map(lambda x: 2 * x, PARAMS["decoder"]), "embedding": WORDS}}  # sharper than at first
APPLY = jax.jit(MODEL.apply)
LENGTHS = np.array([5, 2, 7, 1, 4, 6, 3, 7])
PROMPTS = Prompts(jax.random.randint(jax.random.key(1), (8, 7), 2, 11), jnp.array(LENGTHS))


class History:
  """A quick model of 11 words: its logits are a fixed function of all tokens so far, as its cache remembers them.

  It notes how many rows each forward had when it was carried out.
  """

  table = jax.random.normal(jax.random.key(3), (97, 11)) * 2

  def __init__(self):
    self.prefilled, self.decoded = [], []

  def init_cache(self, batch, length):
    return jnp.full((batch, 1, length, 1), 1000)  # of which no row may see anything

  def prefill(self, params, tokens, last):
    jax.debug.callback(lambda: self.prefilled.append(tokens.shape[0]))
    sums = jnp.cumsum(tokens * (1 + jnp.arange(tokens.shape[1])), axis=1)
    return sums[jnp.arange(last.shape[0]), last][:, None], tokens[:, None, :, None]

  def extend(self, params, tokens, positions, cache):
    jax.debug.callback(lambda: self.decoded.append(tokens.shape[0]))
    cache = cache.at[jnp.arange(tokens.shape[0])[:, None], 0, positions, 0].set(tokens)
    index = jnp.arange(cache.shape[2])
    return jnp.sum(jnp.where(index <= positions, cache[:, 0, :, 0] * (1 + index), 0), axis=1)[:, None, None], cache

  def unembed(self, params, hidden):
    return self.table[hidden[..., 0] % 97]


@functools.lru_cache
def compiled(model, **settings):
  fixed = dict(max_new_tokens=12, eos_id=EOS, pad_id=PAD) | settings
  return jax.jit(lambda params, prompts, key, arrays: generate(model, params, prompts, key, **fixed, **arrays))


def sample(prompts=PROMPTS, key=0, arrays=None, model=MODEL, params=PARAMS, **settings):
  key = jax.random.key(key) if isinstance(key, int) else key
  return compiled(model, **settings)(params if model is MODEL else None, prompts, key, arrays or {})


@pytest.mark.parametrize(
  "settings", [dict(temperature=0.5), dict(temperature=1.7, top_k=8, top_p=0.9, min_p=0.05, slots=3)], ids=str
)
def test_recorded_logp_is_the_training_forwards(settings):
  """Of the whole softmax at the sampling temperature, also where the draw was from a part of it."""
  params = jax.tree.map(lambda x: x / 1.5, PARAMS)  # logits of a usual size: 1e-5 is some five roundings of them
  rollout = sample(params=params, **settings)
  logits = APPLY(params, rollout.tokens) / settings["temperature"]
  logp = token_logprobs(logits, rollout.tokens, mask=rollout.mask)
  assert rollout.mask.any(axis=1).all()
  np.testing.assert_allclose(rollout.logp, logp, atol=1e-5)


def test_layout_prompt_then_response_then_padding():
  rollout = sample()
  ends = []
  for tokens, mask, prompt, length, finished in zip(
    *map(np.asarray, (rollout.tokens, rollout.mask, PROMPTS.tokens, LENGTHS, rollout.finished)), strict=True
  ):
    np.testing.assert_array_equal(tokens[:length], prompt[:length])
    index = np.flatnonzero(mask)
    np.testing.assert_array_equal(index, np.arange(length, length + len(index)))
    assert (tokens[index[-1] + 1 :] == PAD).all()
    assert finished == (tokens[index[-1]] == EOS) and EOS not in tokens[index[:-1]]
    assert finished or len(index) == 12
    ends.append(finished)
  assert any(ends) and not all(ends), "the case needs both rows that end and rows that do not"


def test_a_row_does_not_depend_on_the_others_or_on_padding():
  whole = sample()
  wider = Prompts(jnp.pad(PROMPTS.tokens, [(0, 0), (0, 4)], constant_values=9), PROMPTS.lengths)
  padded = sample(wider)
  changed = sample(Prompts(PROMPTS.tokens.at[1:].set(3), PROMPTS.lengths))
  np.testing.assert_array_equal(whole.tokens[:, :12], padded.tokens[:, :12])
  np.testing.assert_array_equal(whole.tokens[0], changed.tokens[0])


def test_rows_and_keys_draw_differently():
  same = Prompts(jnp.full((64, 3), 4), jnp.full((64,), 3))
  first = sample(same)
  assert len({tuple(row) for row in np.asarray(first.tokens).tolist()}) > 32
  assert (first.tokens != sample(same, key=1).tokens).any()
  np.testing.assert_array_equal(first.tokens, sample(same).tokens)


def test_first_token_frequencies_match_the_softmax():
  same = Prompts(jnp.full((4000, 2), 4), jnp.full((4000,), 2))
  rollout = sample(same, max_new_tokens=1, temperature=0.8)
  frequency = np.bincount(np.asarray(rollout.tokens[:, 2]), minlength=11) / 4000
  logits = APPLY(PARAMS, jnp.array([[4, 4, 0]]))[0, 2] / 0.8
  np.testing.assert_allclose(frequency, jax.nn.softmax(logits), atol=0.03)


def test_temperature_zero_is_greedy():
  rollout = sample(temperature=0.0)
  best = APPLY(PARAMS, rollout.tokens).argmax(axis=-1)
  np.testing.assert_array_equal(np.where(rollout.mask, rollout.tokens, 0), np.where(rollout.mask, best, 0))


def assert_same(first, second):
  np.testing.assert_array_equal(first.tokens, second.tokens)
  np.testing.assert_array_equal(first.mask, second.mask)
  np.testing.assert_array_equal(first.finished, second.finished)
  np.testing.assert_allclose(first.logp, second.logp, atol=1e-5)


def test_a_rollout_of_the_decoder_does_not_depend_on_its_slots():
  """Whichever slot a row gets, whenever it starts and whatever was in the cache before: the same tokens."""
  together = sample()
  assert len({int(n) for n in together.mask.sum(axis=1)}) > 3, "the rows must free their slots at different times"
  assert_same(together, sample(slots=3, refill=2))


@pytest.mark.parametrize("slots, refill", [(1, 0), (5, 5), (7, 3), (2, 0)])
def test_a_rollout_does_not_depend_on_the_number_of_slots(slots, refill):
  together = sample(model=HISTORY, samples_per_prompt=3)
  assert_same(together, sample(model=HISTORY, samples_per_prompt=3, slots=slots, refill=refill))


def test_samples_of_a_prompt_are_those_of_the_prompt_repeated():
  repeated = jax.tree.map(lambda x: jnp.repeat(x, 3, axis=0), PROMPTS)
  assert_same(sample(model=HISTORY, samples_per_prompt=3), sample(repeated, model=HISTORY))


def test_a_rollout_does_not_depend_on_the_batch_a_prompt_is_in():
  keys, order = jax.random.split(jax.random.key(7), 8), jnp.array([6, 1, 4])
  whole = sample(key=keys)
  part = sample(jax.tree.map(lambda x: x[order], PROMPTS), key=keys[order])
  assert_same(jax.tree.map(lambda x: x[order], whole), part)


def test_each_row_has_its_own_limit():
  limits = jnp.array([0, 1, 12, 5, 0, 3, 2, 12])
  free, limited = sample(model=HISTORY), sample(model=HISTORY, arrays={"limits": limits})
  kept = free.mask & (jnp.cumsum(free.mask, axis=1) <= limits[:, None])
  assert (kept.sum(axis=1) < free.mask.sum(axis=1)).sum() > 3
  np.testing.assert_array_equal(limited.mask, kept)
  np.testing.assert_array_equal(limited.tokens, jnp.where(free.mask & ~kept, PAD, free.tokens))
  np.testing.assert_array_equal(limited.finished, free.finished & (free.mask == kept).all(axis=1))
  assert_same(limited, sample(model=HISTORY, arrays={"limits": limits}, slots=3))


def test_several_tokens_may_end_a_response():
  rollout = sample(model=HISTORY, eos_id=(EOS, 5, 7))
  last = jnp.take_along_axis(rollout.tokens, (LENGTHS + rollout.mask.sum(axis=1) - 1)[:, None], axis=1)[:, 0]
  ended = np.isin(rollout.tokens, (EOS, 5, 7)) & np.asarray(rollout.mask)
  np.testing.assert_array_equal(ended.sum(axis=1), rollout.finished)
  np.testing.assert_array_equal(np.isin(last, (EOS, 5, 7)), rollout.finished)
  assert len(set(np.asarray(last)[np.asarray(rollout.finished)])) > 1


@pytest.mark.parametrize("slots", [0, 3])
def test_stop_strings_end_a_response_wherever_tokens_cut_them(slots):
  pieces = [b"", b"", b"a", b"b", b"ab", b"ba", b"abc", b"c", b"d", b"da", b"cab"]
  stops = ("bda", "cc")
  free = sample(model=HISTORY, eos_id=-1)
  arrays = {"stop_table": jnp.asarray(stop_table(pieces, stops))}
  rollout = sample(model=HISTORY, eos_id=-1, slots=slots, arrays=arrays)
  assert 0 < rollout.finished.sum() < 8
  for row in range(8):
    tokens = np.asarray(free.tokens[row])[np.asarray(free.mask[row])]
    texts = [b"".join(pieces[token] for token in tokens[: n + 1]).decode() for n in range(12)]
    length = next((n + 1 for n in range(12) if any(stop in texts[n] for stop in stops)), 12)
    assert rollout.mask[row].sum() == length
    assert rollout.finished[row] == any(stop in texts[length - 1] for stop in stops)
    if rollout.finished[row]:
      assert before_stop(texts[length - 1], stops) == before_stop(texts[-1], stops)


def forwards(limits, **settings):
  """(rows of each prefill, rows of each decoding step)."""
  model = History()
  sample(model=model, eos_id=-1, arrays={"limits": jnp.array(limits)}, **settings).tokens.block_until_ready()
  jax.effects_barrier()
  return model.prefilled, model.decoded


def test_the_loop_ends_with_the_longest_row():
  assert forwards([2, 5, 1, 1, 3, 0, 2, 1]) == ([8], [8] * 4), "the first token comes from the prefill"


def test_waiting_rows_take_the_slots_of_those_that_ended():
  """Row 0 takes 7 steps; beside it row 2 takes 2, row 3 one, row 6 two and row 7 one, and rows 1, 4 and 5 none."""
  assert forwards([8, 1, 3, 2, 1, 1, 3, 2], slots=2, refill=1) == ([1] * 8, [2] * 7)


def test_samples_of_a_prompt_share_its_prefill():
  limits = [3] * 24
  assert forwards(limits, samples_per_prompt=3)[0] == [8]
  assert forwards(limits, samples_per_prompt=3, slots=6, refill=6)[0] == [2] * 4
  assert forwards(limits, samples_per_prompt=3, slots=4)[0] == [1] * 8


def test_vmapped_over_models_each_samples_as_alone():
  """One predicate stops the loop of all lanes: a lane that is done waits, and writes nothing more."""
  eager = {"decoder": jax.tree.map(lambda x: 0.3 * x, PARAMS["decoder"])}  # nearly uniform: ends at other times
  members = jax.tree.map(lambda *leaves: jnp.stack(leaves), PARAMS, eager)
  keys = jnp.stack([jax.random.key(7), jax.random.key(8)])
  one = PROMPTS.replace(tokens=PROMPTS.tokens[:2], lengths=PROMPTS.lengths[:2])

  def draw(params, key):
    return generate(MODEL, params, one, key, max_new_tokens=12, eos_id=EOS, pad_id=PAD)

  together = jax.jit(jax.vmap(draw))(members, keys)
  widths = []
  for number, params in enumerate((PARAMS, eager)):
    alone = jax.jit(draw)(params, keys[number])
    widths.append(int(alone.mask.sum(axis=1).max()))
    for name in ("tokens", "mask", "finished"):
      np.testing.assert_array_equal(getattr(together, name)[number], getattr(alone, name))
    np.testing.assert_allclose(together.logp[number], alone.logp, atol=1e-5)
  assert 0 < widths[0] != widths[1] < 12


@pytest.mark.parametrize(
  "settings, slots",
  [(dict(top_k=3), 0), (dict(top_p=0.6), 3), (dict(min_p=0.3, top_k=5), 0), (dict(min_p=0.3, top_k=5), 3)],
  ids=str,
)
def test_the_support_is_recorded_and_the_log_probs_are_of_what_it_leaves(settings, slots):
  rollout = sample(temperature=0.7, slots=slots, record_support=True, **settings)
  plain = sample(temperature=0.7, slots=slots, **settings)
  np.testing.assert_array_equal(rollout.tokens, plain.tokens)  # to record changes no draw
  logits = APPLY(PARAMS, rollout.tokens) / 0.7
  weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True)).reshape(-1, 11)
  left = np.asarray(truncate(weights, **settings) > 0).reshape(logits.shape)
  assert rollout.support.shape == (*rollout.tokens.shape, 2) and plain.support is None
  bits = np.unpackbits(np.asarray(rollout.support), axis=-1, count=11) > 0
  np.testing.assert_array_equal(bits, left & np.asarray(rollout.mask)[..., None])
  assert left.sum(axis=-1)[rollout.mask].min() < 11
  trained = token_logprobs(truncated_logits(logits, rollout.support), rollout.tokens, mask=rollout.mask)
  np.testing.assert_allclose(rollout.logp, trained, atol=1e-5)
  assert np.all(np.asarray(rollout.logp)[rollout.mask] >= np.asarray(plain.logp)[rollout.mask] - 1e-6)


HISTORY = History()
