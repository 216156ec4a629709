"""Rollouts and groups of responses in packed rows: when, in how many, and with the numbers of rows of their own."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.algorithms import reward_model
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.packing import Packing
from rlhf_jax.positions import positions_of, put_at
from rlhf_jax.stage import Transport
from rlhf_jax.train.mesh import using_devices
from rlhf_jax.train.packed_rows import fill, pack_groups, pack_passes, stretches
from rlhf_jax.types import Preferences

pytestmark = pytest.mark.usefixtures("unoptimised")
ONE = Transport("jit", 1, 1)
MODEL = language_model(DecoderConfig(32, 2, 16, 4, 2, 24, 16, tied=False))


@pytest.fixture(autouse=True)
def one_device():
  with using_devices(jax.devices()[:1]):
    yield


def groups(num=12, responses=3, length=16, absent=True):
  """The rows of groups of responses of up to 5 tokens to prompts of 3 to 6, of which some are absent."""
  rng = np.random.default_rng(0)
  prompts = rng.integers(3, 7, (num, 1, 1))
  ends = prompts + rng.integers(1, 6, (num, responses, 1))
  index = np.arange(length)
  tokens = np.where(
    index < prompts, rng.integers(3, 32, (num, 1, length)), rng.integers(3, 32, (num, responses, length))
  )
  ranks = np.broadcast_to(np.arange(responses), (num, responses)).astype(np.int32)
  ranks = np.where((np.arange(num)[:, None] % 3 == 0) & (np.arange(responses) == 2), -1, ranks) if absent else ranks
  present = (ranks >= 0)[..., None]
  mask = (index >= prompts) & (index < ends) & present
  rows = {"tokens": np.where((index < ends) & present, tokens, 0).astype(np.int32), "mask": mask, "ranks": ranks}
  return {**rows, "at": positions_of(mask)}


def packer(rows, transport=ONE, batch_size=4, num_steps=6, predictions=True):
  stage = SimpleNamespace(transport=transport, stage_seed=3)
  return pack_groups(rows, batch_size, num_steps, stage, predictions=predictions)


def batch_of(rows, chosen):
  return Preferences(**{name: array[chosen] for name, array in rows.items()})


def test_stretches_of_a_mask():
  mask = np.array([[0, 0, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]) > 0
  first, end = stretches(mask)
  assert first.tolist() == [2, 1, 0, 4] and end.tolist() == [4, 2, 0, 5]
  assert fill(mask, None) == 11 / 20


def test_a_rollout_is_packed_for_every_pass_in_one_shape():
  rng = np.random.default_rng(1)
  tokens = rng.integers(3, 32, (16, 13))
  mask = (np.arange(13) >= 3) & (np.arange(13) < 4 + np.arange(16)[:, None] % 3)
  orders = [rng.permutation(16).reshape(2, 8) for _ in range(3)]
  packings = pack_passes(tokens, mask, orders, 9, ONE)
  assert len(packings) == 3 and len({(p.rows, p.width, p.room, p.size, p.shares) for p in packings}) == 1
  assert packings[0].size == 8 and packings[0].width == 12 and not packings[0].shares
  for order, packing in zip(orders, packings, strict=True):
    for rows in order:
      part = jax.tree.map(lambda x, rows=rows: x[rows], packing)
      packed = np.asarray(part.lay_out(tokens[rows]).tokens)
      assert (packed > 0).sum() == stretches(mask[rows])[1].sum() - 8  # nothing is asked of a last token
  assert fill(mask, packings[0]) == (stretches(mask)[1].sum() - 16) / (2 * packings[0].rows * 12)
  assert pack_passes(tokens, mask, orders, 9, Transport("jit", 1, 1, packing=1.0)) is None
  assert pack_passes(tokens, mask, orders, 9, Transport("jit", 1, 8)) is None  # a row at a time
  assert pack_passes(tokens, np.ones_like(mask), orders, 13, ONE) is None  # a prompt of no token
  assert pack_passes(tokens, mask, orders, 9, Transport("jit", 1, 1, packing=0.75))[0].rows == 6


def test_responses_to_one_prompt_share_it_where_there_are_enough():
  tokens = np.repeat(np.random.default_rng(2).integers(3, 32, (4, 16)), 4, axis=0)
  mask = (np.arange(16) >= 8) & (np.arange(16) < 10 + np.arange(16)[:, None] % 3)
  order = np.arange(16)[None]
  (shared,) = pack_passes(tokens, mask, [order], 8, ONE)
  assert shared.shares and np.unique(shared.head).size < 16
  few = (np.arange(16) >= 4) & (np.arange(16) < 6 + np.arange(16)[:, None] % 3)
  (apart,) = pack_passes(tokens, few, [order], 8, Transport("jit", 1, 1, attention="splash"))
  assert not apart.shares
  assert pack_passes(tokens, few, [order], 8, Transport("jit", 1, 1, attention="cudnn")) is None
  assert pack_passes(np.arange(256).reshape(16, 16), mask, [order], 8, ONE) is None  # 9 to 11 of 15 tokens each


def test_responses_of_full_length_share_their_prompt_in_wider_rows():
  tokens = np.repeat(np.random.default_rng(2).integers(3, 32, (4, 16)), 4, axis=0)
  order = np.arange(16)[None]
  (packing,) = pack_passes(tokens, np.tile(np.arange(16) >= 8, (16, 1)), [order], 8, ONE)
  assert (packing.rows, packing.width, packing.room) == (4, 15 + 3 * 8, 4 * 8)
  assert fill(np.tile(np.arange(16) >= 8, (16, 1)), packing) == 16 * 15 / (4 * 39)
  pairs = groups(responses=2, absent=False)
  pairs["mask"] = (np.arange(16) >= 6) & (pairs["mask"] | True)
  for predictions, answers in ((True, 2 * (16 + 1)), (False, 2 * 4)):
    pairs["at"] = positions_of(pairs["mask"])
    pairs["tokens"][..., :6] = pairs["tokens"][:, :1, :6]
    packing = packer(pairs, predictions=predictions)(batch_of(pairs, np.arange(4)), np.arange(4))[0].at
    own = 11 if predictions else 10  # the last token of a prompt predicts the first of a response
    assert (packing.rows, packing.width) == (4, 16 + own) and packing.room <= answers


@pytest.mark.parametrize("likelihood", [0.0, 0.5])
@pytest.mark.parametrize("attention", ["xla", "splash"], ids=["shared", "apart"])
def test_a_packed_step_of_a_reward_model_is_that_of_its_rows(likelihood, attention):
  rows, chosen = groups(), np.array([5, 0, 9, 3])
  packed = packer(rows, Transport("jit", 1, 1, attention=attention), predictions=likelihood > 0)
  batch, counts = packed(batch_of(rows, chosen), chosen)
  assert isinstance(batch.at, Packing) and batch.at.shares == (attention == "xla")
  assert np.shape(batch.at.count) == (4, 3) and batch.at.rows < 12
  params = jax.tree.map(lambda x: 2 * x, MODEL.init_head(jax.random.key(1), MODEL.init(jax.random.key(0)), likelihood))
  weights = {"ranks": np.full(4, 0.25, np.float32)}
  loss_fn = reward_model.make_loss(MODEL.score, centring=0.1)
  step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
  found, expected = (step(params, x, weights) for x in (batch, batch_of(rows, chosen)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), found[0][0], expected[0][0])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), found[1], expected[1])
  assert counts["tokens/trained"] == stretches(rows["mask"][chosen].reshape(12, 16))[1].sum()


def test_one_number_of_rows_is_enough_for_all_batches():
  rows = groups()
  packed = packer(rows)
  shapes = {packed(batch_of(rows, chosen), chosen)[0].at.rows for chosen in np.arange(12).reshape(3, 4)}
  assert len(shapes) == 1
  whole = packer(rows, Transport("jit", 1, 1, packing=1.0))
  batch, counts = whole(batch_of(rows, np.arange(4)), np.arange(4))
  assert batch.at.shape == (4, 3, rows["at"].shape[-1]) and counts["tokens/fill"] == fill(rows["mask"][:4], None)


def test_a_group_whose_prompts_differ_shares_nothing():
  rows = groups(absent=False)
  rows["tokens"][1, 2, 0] += 1
  chosen = np.arange(4)
  packing = packer(rows)(batch_of(rows, chosen), chosen)[0].at
  owners = packing.owner.reshape(4, 3)
  assert owners[1, 2] == 5 and (owners != np.arange(12).reshape(4, 3)).any()
  flat = jax.tree.map(lambda x: x.reshape(-1), packing)
  logits = jax.jit(MODEL.apply)(MODEL.init(jax.random.key(0)), rows["tokens"][:4].reshape(12, 16), None, flat)
  whole = jax.jit(MODEL.apply)(MODEL.init(jax.random.key(0)), rows["tokens"][:4].reshape(12, 16))
  mask = rows["mask"][:4].reshape(12, 16)
  np.testing.assert_allclose(put_at(logits, flat, 16)[mask], jnp.asarray(whole)[mask], atol=1e-5)
