"""The ends of sequences: what stops a response, what stands behind it, what a mask may leave out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from miniature import ADAM, DEMONSTRATIONS, EOS, PAD, TRANSPORT

from rlhf_jax import data, sampling
from rlhf_jax.algorithms import sft
from rlhf_jax.data import Comparison
from rlhf_jax.reduce import token_weights
from rlhf_jax.train import init_state, make_optimizer, make_update, place, run_steps
from rlhf_jax.types import Batch, Prompts

LENGTH = 48


def test_pad_is_not_eos(tokenizer, demonstrations, tmp_path):
  """PAD := EOS, then mask = (token != PAD): the model never learns to stop.

  [tunix tokenizer adapter; TRL #3200, #6357, #1623]
  """
  assert len({tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id}) == 3
  rows, _ = data.demonstration_rows(tokenizer, demonstrations, LENGTH)
  assert (rows["tokens"][rows["mask"]] != tokenizer.pad_id).all()
  backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
  backend.enable_padding(pad_id=tokenizer.eos_id, pad_token="<eos>")
  backend.save(str(tmp_path / "tokenizer.json"))
  with pytest.raises(data.DataError, match="distinct"):
    data.load_tokenizer(tmp_path / "tokenizer.json")


def test_the_stop_token_is_inside_the_loss_mask(tokenizer, demonstrations):
  """The stop token falls outside the loss mask. [TRL #5988]"""
  rows, _ = data.demonstration_rows(tokenizer, demonstrations, LENGTH)
  packed = data.pack_rows(rows, LENGTH, tokenizer.pad_id)
  for arrays in (rows, packed):
    assert (arrays["tokens"][arrays["mask"]] == tokenizer.eos_id).sum() == len(demonstrations)


def test_the_sampled_stop_token_is_inside_the_mask(draw):
  """The same in a rollout, where the decision to stop is an action like any other. [TRL #5988]"""
  rollout = draw()
  tokens, mask, finished = map(np.asarray, (rollout.tokens, rollout.mask, rollout.finished))
  assert finished.any() and not finished.all()
  np.testing.assert_array_equal(((tokens == EOS) & mask).sum(axis=1), finished)


def test_the_first_response_token_counts_and_labels_are_shifted_once(small, tokenizer, demonstrations):
  """The first response token is masked, or labels are shifted twice. [verl #3287; open-instruct #1549; trlX #509]"""
  rows, _ = data.demonstration_rows(tokenizer, demonstrations[2:3], LENGTH)
  prompt, _, _ = data.prompt_rows(tokenizer, [demonstrations[2].prompt], LENGTH)
  start, end = int(prompt["lengths"][0]), int(np.flatnonzero(rows["tokens"][0] == tokenizer.eos_id)[0])
  np.testing.assert_array_equal(np.flatnonzero(rows["mask"][0]), np.arange(start, end + 1))
  # The loss by the chain rule, token after token, from the unshifted primitives alone.
  tokens = np.asarray(jax.random.randint(jax.random.key(5), (1, 6), 2, 13))
  mask = np.arange(6)[None] >= 3
  read = jax.jit(small.model.extend)
  hidden, _ = read(small.params, tokens, np.arange(6)[None], small.model.init_cache(1, 6))
  logp = np.asarray(jax.nn.log_softmax(small.model.unembed(small.params, hidden)))[0]
  expected = -np.mean([logp[t - 1, tokens[0, t]] for t in (3, 4, 5)])
  loss, _ = jax.jit(sft.make_loss(small.model.apply))(small.params, Batch(tokens, mask), token_weights(mask))
  assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_positions_do_not_depend_on_padding(draw, small, tokenizer):
  """Position ids wrong under left padding. [OpenRLHF #217; TRL #469, #6800]

  There is no left padding here: every row starts with <bos>, and a response follows its prompt without a gap.
  """
  rows, _, _ = data.prompt_rows(tokenizer, [prompt for prompt, _ in DEMONSTRATIONS], LENGTH)
  assert (rows["tokens"][:, 0] == tokenizer.bos_id).all() and len(set(rows["lengths"])) > 1
  narrow, wide = (draw(padded(small.prompts, width)) for width in (4, 9))
  np.testing.assert_array_equal(narrow.tokens, wide.tokens[:, :10])
  np.testing.assert_allclose(narrow.logp, wide.logp[:, :10], atol=1e-5)
  np.testing.assert_array_equal(np.argmax(wide.mask, axis=1), small.prompts.lengths)


def padded(prompts, width, fill=PAD):
  tokens = jnp.where(jnp.arange(prompts.tokens.shape[1]) < prompts.lengths[:, None], prompts.tokens, fill)
  return Prompts(jnp.pad(tokens, [(0, 0), (0, width - tokens.shape[1])], constant_values=fill), prompts.lengths)


def test_padding_is_not_attended_to(draw, small):
  """Padding is attended to. [MaxText 17665dd6f; TRL #2708; verl #1411, #213]"""
  tokens, lengths = small.prompts.tokens, small.prompts.lengths
  keep = np.arange(4) < np.asarray(lengths)[:, None]
  logits = [np.asarray(small.apply(small.params, np.where(keep, tokens, fill)))[keep] for fill in (PAD, 12)]
  np.testing.assert_allclose(*logits, atol=1e-5)
  # In the cache of the sampler too, where the padding of a prompt stands in slots the response has yet to reach.
  first, second = (draw(padded(small.prompts, 9, fill)) for fill in (PAD, 12))
  np.testing.assert_array_equal(first.tokens, second.tokens)
  np.testing.assert_allclose(first.logp, second.logp, atol=1e-5)


def test_a_prompt_behind_a_shared_prefix_ends_where_it_ends(small, monkeypatch):
  """The beginning that prompts share is computed once, and the rest of each as if all were of one length."""
  monkeypatch.setattr(sampling.buckets, "PREFIX", 2)
  tokens = jnp.array([[3, 4, 5, 6, 7, 8]] * 3)  # behind its end a prompt may hold anything
  prompts = Prompts(tokens, jnp.array([6, 4, 3]))

  def draw(prefix):
    settings = dict(max_new_tokens=6, eos_id=EOS, pad_id=PAD, prefix=prefix)
    return jax.jit(lambda: sampling.generate(small.model, small.params, prompts, jax.random.key(0), **settings))()

  found, expected = draw(sampling.common_prefix(prompts)), draw(0)
  np.testing.assert_array_equal(found.tokens, expected.tokens)
  np.testing.assert_allclose(found.logp, expected.logp, atol=1e-5)


@pytest.fixture(scope="module")
def greedy_tokenizer(tmp_path_factory):
  """A tokenizer whose tokens span words, so that ": 1" is one token where prompt and response meet."""
  backend = tokenizers.Tokenizer(tokenizers.models.BPE())
  backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  backend.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=320,
    special_tokens=["<pad>", "<bos>", "<eos>"],
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  backend.train_from_iterator(["Assistant: 1", "Assistant: 1 2 3"] * 4, trainer=trainer)
  path = tmp_path_factory.mktemp("greedy") / "tokenizer.json"
  backend.save(str(path))
  return data.load_tokenizer(path)


def test_training_sees_the_boundary_that_sampling_makes(greedy_tokenizer):
  """Prompt tokenised alone differs from prompt + response tokenised together at the boundary. [TRL #4147, #6105]"""
  prompt, response = "Count.", "1 2 3"
  alone = greedy_tokenizer.encode(data.render_prompt(prompt))
  together = greedy_tokenizer.encode(data.render_prompt(prompt) + data.render_response(response))
  assert together[: len(alone)] != alone, "the case needs a tokenizer that merges across the boundary"
  prompts, _, _ = data.prompt_rows(greedy_tokenizer, [prompt], 64)
  length = prompts["lengths"][0]
  rows, _ = data.demonstration_rows(greedy_tokenizer, [data.Demonstration(prompt, response)], 64)
  pairs, _, _ = data.comparison_rows(greedy_tokenizer, [Comparison(prompt, (response, "1"), (0, 1))], 64)
  for tokens in (rows["tokens"][0], pairs["tokens"][0, 0], pairs["tokens"][0, 1]):
    np.testing.assert_array_equal(tokens[:length], prompts["tokens"][0, :length])
  np.testing.assert_array_equal(rows["tokens"][0], pairs["tokens"][0, 0])
  text = data.render_prompt(prompt) + data.render_response(response)
  assert greedy_tokenizer.decode(rows["tokens"][0]) == text, "nothing of the conversation is lost at the boundary"


def test_a_mask_is_never_silently_all_ones_or_all_zeros(small, tokenizer, demonstrations, workspace, on_one_device):
  """A silent all-ones or all-zeros mask. [Megatron-Bridge #3359]"""
  rows, _ = data.demonstration_rows(tokenizer, demonstrations, LENGTH)
  assert rows["mask"].any(axis=1).all() and not rows["mask"].all(axis=1).any()
  assert not rows["mask"][:, :5].any(), "the prompt is not learned"
  tokens, mask = np.full((8, 6), 3), np.zeros((8, 6), bool)
  optimizer = make_optimizer(ADAM, 1)
  update = make_update(sft.make_loss(small.model.apply), optimizer, TRANSPORT)
  # Nothing to learn from has no mean loss: 0 would look like a perfect fit.
  with pytest.raises(FloatingPointError, match="step 1: loss is nan"):
    run_steps(
      workspace.stage("all_zeros"),
      place(init_state(small.params, optimizer), TRANSPORT),
      lambda state, index: update(state, Batch(tokens, mask), token_weights(mask)),
      1,
      identity={},
      checkpoint_every=1,
    )


def test_nothing_is_truncated(tokenizer, demonstrations):
  """Truncation that silently drops the end of the response or of the prompt."""
  whole = [tokenizer.encode(data.render_prompt(p) + data.render_response(r)) for p, r in demonstrations]
  length = sorted(len(row) + 2 for row in whole)[1]  # two of the four fit, with <bos> and <eos>
  rows, skips = data.demonstration_rows(tokenizer, demonstrations, length)
  fits = [row for row in whole if len(row) + 2 <= length]
  assert 0 < len(fits) < 4 and sum(skips.values()) == 4 - len(fits)
  assert [[x for x in row.tolist() if x > tokenizer.eos_id] for row in rows["tokens"]] == fits
  comparisons = [Comparison(p, (r, r + " No."), (0, 1)) for p, r in demonstrations]
  pairs, kept, skips = data.comparison_rows(tokenizer, comparisons, length)
  assert sum(skips.values()) == 4 - len(kept) > 0
  assert (np.sum(pairs["tokens"] == tokenizer.eos_id, axis=-1) == 1).all()
  texts = [prompt for prompt, _ in demonstrations]
  prompts, kept, skips = data.prompt_rows(tokenizer, texts, length - 6)
  assert 0 < len(kept) < 4 and sum(skips.values()) == 4 - len(kept)
  decoded = [tokenizer.decode(row[:n]) for row, n in zip(prompts["tokens"], prompts["lengths"], strict=True)]
  assert decoded == [data.render_prompt(texts[i]) for i in kept]
