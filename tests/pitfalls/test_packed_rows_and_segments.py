"""Several sequences in one row must not know of each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from miniature import TRANSPORT, environment

from rlhf_jax import data, train
from rlhf_jax.algorithms import grpo, sft
from rlhf_jax.packing import Packing, pack
from rlhf_jax.positions import put_at
from rlhf_jax.reduce import token_weights
from rlhf_jax.stage import Transport
from rlhf_jax.train.mesh import using_devices
from rlhf_jax.train.metrics import to_floats
from rlhf_jax.train.workspace import with_lazy_logits
from rlhf_jax.types import Batch, Rollout

LENGTHS = np.array([4, 3, 6])
TOKENS = np.asarray(jax.random.randint(jax.random.key(4), (3, 8), 2, 13))
INSIDE = np.arange(8) < LENGTHS[:, None]
MASK = INSIDE & (np.arange(8) > 0)
PACKED = data.pack_rows({"tokens": TOKENS, "mask": MASK}, 16, 0)


def test_packed_sequences_neither_attend_nor_shift_across_their_boundary(small):
  """Attention or the shift crosses a sequence boundary. [MaxText 092c3e871; verl #5797; OpenRLHF #781; tunix #1662]"""
  assert PACKED["tokens"].shape == (1, 16)
  packed, values = jax.jit(small.model.apply_with_value)(small.params, PACKED["tokens"], PACKED["segments"])
  alone = np.asarray(small.apply(small.params, TOKENS))
  alone_values = np.asarray(small.value(small.params, TOKENS))
  np.testing.assert_allclose(packed[0, :13], alone[INSIDE], atol=1e-5)
  np.testing.assert_allclose(values[0, :13], alone_values[INSIDE], atol=1e-5)


def test_segment_ids_are_no_weights(small):
  """Segment ids used as weights. [MaxText 092c3e871; tunix #1662]"""
  loss_fn = jax.jit(sft.make_loss(small.model.apply))
  batches = Batch(TOKENS, MASK), Batch(**PACKED)
  losses = [float(loss_fn(small.params, batch, token_weights(batch.mask))[0]) for batch in batches]
  assert losses[0] == pytest.approx(losses[1], abs=1e-5)
  assert token_weights(PACKED["mask"]).sum() == pytest.approx(1) and set(np.unique(PACKED["segments"])) == {0, 1, 2, 3}


READ = np.array([5, 0, 7, 4], np.int32)  # tokens of four sequences, of which the second is a row of padding
SKIPPED = np.array([1, 0, 4, 2], np.int32)  # tokens whose predictions nobody asks for
ROWS = np.asarray(jax.random.randint(jax.random.key(5), (4, 8), 2, 13))
ASKED = (np.arange(8) > SKIPPED[:, None]) & (np.arange(8) <= READ[:, None])


def packed(read, skipped, **room):
  (packing,) = pack(read, skipped, [[np.arange(4)]], **{"width": 11, "room": 6, "size": 4, **room})
  return packing


def predictions(small, packing):
  """Logits and values of the tokens that are asked for, by rows packed as `packing` has it."""
  logits, values = jax.jit(small.model.apply_with_value)(small.params, ROWS, None, packing)
  return np.asarray(put_at(logits, packing, 8))[ASKED], np.asarray(values)[ASKED]


def alone(small):
  return np.asarray(small.apply(small.params, ROWS))[ASKED], np.asarray(small.value(small.params, ROWS))[ASKED]


def test_responses_in_packed_rows_are_predicted_as_if_alone(small):
  """Packed responses see each other, or are predicted from their neighbours. [OpenRLHF #781; verl #5797]"""
  packing = packed(READ, SKIPPED)
  assert packing.rows == 2  # 7 and 4 tokens, and 5
  for found, expected in zip(predictions(small, packing), alone(small), strict=True):
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_responses_that_share_their_prompt_see_it_and_not_each_other(small):
  """The responses of a group, read behind one prompt, see each other, or stand where the last one ended."""
  tokens = np.where(np.arange(8) < 4, ROWS[:1], ROWS)
  asked = (np.arange(8) >= 4) & (np.arange(8) < np.array([8, 5, 7, 6])[:, None])
  skipped = np.full(4, 3)
  (packing,) = pack(asked.sum(axis=1) + 3, skipped, [[np.arange(4)]], width=13, room=10, size=4, prompts=np.zeros(4))
  assert packing.rows == 1  # 3 tokens of the prompt, its last token four times, and 6 of responses
  logits = jax.jit(small.model.apply)(small.params, tokens, None, packing)
  whole = np.asarray(small.apply(small.params, tokens))
  np.testing.assert_allclose(put_at(logits, packing, 8)[asked], whole[asked], atol=1e-5)


def test_a_packed_row_has_room_for_the_answers_of_all_its_sequences(small):
  """Sequences fit into a row that has no room for what is asked of them, and one gets the answers of another."""
  packing = packed(READ, SKIPPED, room=4)  # 4, 3 and 2 answers
  assert packing.rows == 3
  for found, expected in zip(predictions(small, packing), alone(small), strict=True):
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_packed_response_is_scored_at_its_own_last_token(small):
  """The reward of a packed response is read at a neighbour's token, or before its own end."""
  params = small.model.init_head(jax.random.key(3), small.params, 0.5)
  packing = packed(READ + (READ > 0), SKIPPED, width=14, room=8)
  assert packing.rows == 2
  expected = np.asarray(jax.jit(small.model.score)(params, ROWS, ASKED))
  found = np.asarray(jax.jit(small.model.score)(params, ROWS, ASKED, packing))
  np.testing.assert_allclose(found[READ > 0], expected[READ > 0], atol=1e-5)


def test_every_pass_reads_the_packed_rows_of_its_own_minibatches(small):
  """Rows are packed for one order of the rollout and read in another: ratios are of other sequences' tokens."""
  tokens = np.asarray(jax.random.randint(jax.random.key(6), (16, 12), 2, 13))
  mask = (np.arange(12) >= 3) & (np.arange(12) < 4 + np.arange(16)[:, None] % 4)
  at = np.broadcast_to(np.arange(3, 12), (16, 9))
  sampled = Rollout(tokens, mask, np.where(mask, np.float32(-2.5), np.float32(0)), np.ones(16, bool), at=at)
  model = with_lazy_logits(small.model, 0)
  loss_fn = grpo.make_loss(model.apply, clip=(0.2, 0.2), ratio="token", kl_coef=0.1, kl_kind="k2")
  with using_devices(jax.devices()[:1]):
    update = train.make_update(loss_fn, optax.sgd(0.0), TRANSPORT)
    logprobs = train.make_logprobs(model.apply, 1.0, TRANSPORT)
  make = functools.partial(grpo.make_experience, scores=np.arange(16.0), samples_per_prompt=2)

  @train.exactly
  def experience_of(params, sampled, order):
    return train.with_logprobs(environment(), logprobs, params, params, sampled, order, make)

  def metrics(transport):
    _, experience, found = train.run_epochs(
      update, train.init_state(jax.tree.map(jnp.copy, small.params), optax.sgd(0.0)), sampled,
      lambda state, *rest: experience_of(state.params, *rest), token_weights, epochs=2, minibatches=2, seed=(0, 0),
      transport=transport,
    )  # fmt: skip
    assert isinstance(experience.at, Packing) == (transport.packing < 1)
    return to_floats(found)

  with using_devices(jax.devices()[:1]):
    found, plain = metrics(TRANSPORT), metrics(Transport("jit", 1, 1, packing=1.0))
  assert found["policy/approx_kl"] == pytest.approx(0, abs=1e-9) and found["policy/ratio_max"] == pytest.approx(1)
  for name in ("loss", "grad_norm", "policy/entropy", "kl/loss"):
    assert found[name] == pytest.approx(plain[name], rel=1e-4, abs=1e-6), name
  assert found["tokens/fill"] > 1.5 * plain["tokens/fill"]
