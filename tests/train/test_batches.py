"""SFT on a mixture: a killed run continues bit by bit, packing changes no loss, another template is refused."""

import dataclasses
import json
import re

import jax
import numpy as np
import optax
import pytest
from tiny_chain import recipe

from rlhf_jax import data
from rlhf_jax.algorithms import dpo, pretrain, reward_model, sft
from rlhf_jax.data.mixture import Mixture
from rlhf_jax.data.stream import Stream
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.reduce import token_weights
from rlhf_jax.settings import parse
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.train import CheckpointError, identity, init_state, load_policy
from rlhf_jax.train.batches import load_texts
from rlhf_jax.train.checkpoint import open_checkpoints, save
from rlhf_jax.train.comparisons import split_by_prompt
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.train.parameters import load_params
from rlhf_jax.types import Batch

pytestmark = pytest.mark.usefixtures("unoptimised")
SHAPE = Model(num_layers=1, d_model=16, num_heads=2, num_kv_heads=1, d_ff=24, max_length=64)
SETTINGS = dict(
  algorithm="rlhf_jax.algorithms.sft", init="init", eval_fraction=0.2, num_epochs=3, batch_size=8, length=64,
  optimizer=dict(
    learning_rate=1e-2, warmup=0.0, decay="linear", beta1=0.9, beta2=0.98, eps=1e-8, tensorflow_eps=False,
    weight_decay=0.0, clip_norm=1.0,
  ),
  evaluate_every=0, checkpoint_every=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """Two sources, a tokenizer and the stage "init"."""
  root = tmp_path_factory.mktemp("batches")
  rows = [
    dict(question=f"What is {i} plus {i}?", answer=f"{2 * i}", rationale=f"{i} twice." * (i % 4)) for i in range(90)
  ]
  data.write_rows(root / "sums.jsonl.gz", rows)
  data.write_rows(root / "talk.jsonl", [{"prompt": f"Say {i}.", "response": f"It is {i}."} for i in range(30)])
  tokenizer = data.train_tokenizer([f"{row['question']} {row['answer']}" for row in rows], 300)
  tokenizer.save(root / "tokenizer.json")
  model = language_model(DecoderConfig(tokenizer.vocab_size, **dataclasses.asdict(SHAPE)))
  state = init_state(jax.jit(model.init)(jax.random.key(0)), optax.identity())
  with open_checkpoints(root / "init" / "checkpoints") as checkpoints:
    save(checkpoints, state, identity(stage(root, "init"), model, tokenizer))
  return root


def stage(root, name, tokenizer="tokenizer.json"):
  return Stage(name, root, 0, str(root / tokenizer), SHAPE, Transport("jit", 1, 1), "print")


def mixture():
  return dict(
    sources=dict(
      sums=dict(path="{run}/sums.jsonl.gz", templates="chain_of_thought", shots=[0, 1]),
      talk=dict(path="{run}/talk.jsonl", weight=2.0),
    ),
    cap=60,
    window=16,
  )


def run(root, name):
  sft.run(parse(sft.Config, dict(SETTINGS, demonstrations=mixture()), name), stage(root, name))
  return load_params(root / name / "checkpoints", {}), read_metrics(root / name / "metrics.jsonl")


def test_a_killed_run_on_a_mixture_continues_bit_by_bit(root, monkeypatch, capsys):
  monkeypatch.setattr(data.stream, "BLOCK", 32)
  monkeypatch.setattr(jax, "device_count", lambda: 1)
  whole, metrics = run(root, "sft")
  out = capsys.readouterr().out
  assert "sums  90 rows (capped at 60), 50.0%: 135 examples, 1.50 passes" in out
  assert "% full" in out
  steps = len(metrics)
  assert steps > 7 and metrics[-1]["loss"] < metrics[0]["loss"] and metrics[-1]["eval/loss"] > 0
  batch_at, calls = Stream.batch_at, []

  def killed(stream, position):
    calls.append(position)
    if len(calls) == 6:
      raise RuntimeError("killed")
    return batch_at(stream, position)

  # The data of a stage follow the run's seed and the sources' names, so that a stage of another name has them too; its
  # steps have no other randomness.
  with monkeypatch.context() as patch:
    patch.setattr(Stream, "batch_at", killed)
    with pytest.raises(RuntimeError, match="killed"):
      run(root, "again")
  assert len(read_metrics(root / "again" / "metrics.jsonl")) == 5
  resumed, again = run(root, "again")
  assert jax.tree.all(jax.tree.map(np.array_equal, whole, resumed))
  assert [row["loss"] for row in again] == [row["loss"] for row in metrics]


def test_pretraining_takes_a_mixture_of_texts_and_demonstrations(root, monkeypatch, capsys):
  monkeypatch.setattr(data.stream, "BLOCK", 16)
  (root / "text.txt").write_text("What is 3 plus 3? It is 6.\n" * 400)
  sources = dict(text=dict(path="{run}/text.txt"), talk=dict(path="{run}/talk.jsonl"))
  settings = dict(
    algorithm="rlhf_jax.algorithms.pretrain", text=dict(sources=sources, loss="everything"),
    eval_text="{run}/text.txt", eval_rows=4, num_steps=3, batch_size=8, length=64, z_loss=0.0,
    optimizer=SETTINGS["optimizer"], evaluate_every=0, checkpoint_every=3,
  )  # fmt: skip
  config = parse(pretrain.Config, settings, "pretrain")
  tokenizer = data.load_tokenizer(root / "tokenizer.json")
  names = dict(eval_rows=4, length=64, batch_size=8, num_steps=3)
  feed = load_texts(config.text, stage(root, "pretrain"), tokenizer, eval_text=config.eval_text, **names)
  assert "talk  30 rows" in capsys.readouterr().out
  batch, position = feed.take(feed.start, 0)
  assert batch.tokens.shape == (8, 64) and position.sharding == feed.start.sharding
  assert feed.held_out["tokens"].shape == (4, 64)
  following, _ = feed.take(position, 1)
  assert not np.array_equal(batch.tokens, following.tokens)
  np.testing.assert_array_equal(feed.take(feed.start, 5)[0].tokens, batch.tokens)  # the position says all


@pytest.mark.parametrize("source", ["file", "mixture"])
def test_one_row_is_trained_on_without_an_evaluation(root, monkeypatch, source):
  monkeypatch.setattr(data.stream, "BLOCK", 8)
  data.write_rows(root / "one.jsonl", [{"prompt": "Say 3.", "response": "It is 3."}])
  given = "{run}/one.jsonl" if source == "file" else dict(sources=dict(one=dict(path="{run}/one.jsonl")))
  settings = dict(SETTINGS, demonstrations=given, eval_fraction=0.0, num_epochs=1, batch_size=2)
  sft.run(parse(sft.Config, settings, "sft"), stage(root, f"one_{source}"))
  (row,) = read_metrics(root / f"one_{source}" / "metrics.jsonl")
  assert np.isfinite(row["loss"]) and not [name for name in row if name.startswith("eval/")]
  message = "holds out none of the 1 rows" if source == "file" else "no example of one is held out .* or 0 to train on"
  with pytest.raises(data.DataError, match=message):
    sft.run(parse(sft.Config, dict(settings, eval_fraction=0.01), "sft"), stage(root, f"two_{source}"))


def test_a_text_of_one_row_is_trained_on_without_an_evaluation(root):
  (root / "short.txt").write_text("What is 3 plus 3? It is 6.\n")
  settings = dict(
    algorithm="rlhf_jax.algorithms.pretrain", text="{run}/short.txt", eval_text="", eval_rows=0, num_steps=1,
    batch_size=2, length=64, z_loss=0.0, optimizer=SETTINGS["optimizer"], evaluate_every=0, checkpoint_every=1,
  )  # fmt: skip
  pretrain.run(parse(pretrain.Config, settings, "pretrain"), stage(root, "short"))
  (row,) = read_metrics(root / "short" / "metrics.jsonl")
  assert np.isfinite(row["loss"]) and "eval/loss" not in row
  with pytest.raises(data.DataError, match="gives 1 rows of 64 tokens, which eval_rows=1 uses up; lower eval_rows"):
    pretrain.run(parse(pretrain.Config, dict(settings, eval_rows=1), "pretrain"), stage(root, "shorter"))


@pytest.mark.parametrize(
  ("num", "fraction", "message"),
  [
    (1, 0.01, "holds out none of the 1 rows that fit (1 different prompts); make it greater, add rows, or set it to 0"),
    (1, 1.0, "eval_fraction=1.0 holds out all of the 1 rows that fit (1 different prompts); make it smaller, or 0"),
    (9, 1e-9, "eval_fraction=1e-09 holds out none of the 9 rows that fit (3 different prompts)"),
  ],
)
def test_a_side_without_rows_is_told_in_the_right_words(num, fraction, message):
  with pytest.raises(data.DataError, match=re.escape(message)):
    split_by_prompt([f"p{i % 3}" for i in range(num)], fraction, 0, "pairs.jsonl")
  with pytest.raises(data.DataError, match=r"pairs\.jsonl: no row fits in the length"):
    split_by_prompt([], fraction, 0, "pairs.jsonl")


@pytest.mark.parametrize("name", ["dpo", "kto", "reward_model"])
def test_one_comparison_is_trained_on_without_an_evaluation(root, name):
  data.write_rows(root / "pair.jsonl", [{"prompt": "Say 3.", "chosen": "It is 3.", "rejected": "No."}])
  module = reward_model if name == "reward_model" else dpo
  config = recipe("quickstart")[name] if name == "reward_model" else recipe("dpo", name)[name]
  changes = dict(init="init", comparisons="{run}/pair.jsonl", eval_fraction=0.0, num_epochs=1, batch_size=2, length=64)
  if name == "reward_model":
    sampling = {**config["sampling"], "max_prompt_tokens": 40, "max_new_tokens": 8}
    changes |= dict(normalize_prompts="{run}/talk.jsonl", normalize_count=8, sampling=sampling)
  module.run(parse(module.Config, {**config, **changes}, name), stage(root, f"one_{name}"))
  (row,) = read_metrics(root / f"one_{name}" / "metrics.jsonl")
  assert np.isfinite(row["loss"]) and not [key for key in row if key.startswith("eval/")]


def test_packed_and_unpacked_training_have_the_same_loss(root, monkeypatch):
  monkeypatch.setattr(data.stream, "BLOCK", 32)
  tokenizer = data.load_tokenizer(root / "tokenizer.json")
  shape = dataclasses.replace(SHAPE, max_length=160)
  model = language_model(DecoderConfig(tokenizer.vocab_size, **dataclasses.asdict(shape)))
  params = load_params(root / "init" / "checkpoints", {})
  source = data.Source(str(root / "sums.jsonl.gz"), templates="zero_shot")
  loss_of = jax.jit(jax.value_and_grad(lambda p, b, w: sft.make_loss(model.apply)(p, b, w)[0]))

  def block(layout):
    """All the examples of the first block, in one batch."""
    feed = Stream(Mixture({"a": source}, layout=layout), tokenizer, length=160, batch_size=1, seed=0)
    rows, position = [], feed.start
    while not len(rows) or position[0]:
      batch, position = feed.batch_at(position)
      rows.append({name: np.pad(x, ((0, 0), (0, 160 - x.shape[1]))) for name, x in batch.items()})
    return Batch(**{name: np.concatenate([row[name] for row in rows]) for name in rows[0]})

  batches = {layout: block(layout) for layout in ("packed", "padded", "bucketed")}
  found = {layout: loss_of(params, batch, token_weights(batch.mask)) for layout, batch in batches.items()}
  assert len(batches["packed"].tokens) < len(batches["padded"].tokens) / 1.5
  for layout in ("packed", "bucketed"):
    assert float(found[layout][0]) == pytest.approx(float(found["padded"][0]), abs=1e-5)
    pairs = jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-5), found[layout][1], found["padded"][1])
    assert jax.tree.all(pairs)


def test_a_checkpoint_of_another_chat_template_is_refused(root):
  own = data.load_tokenizer(root / "tokenizer.json")
  model = language_model(DecoderConfig(own.vocab_size, **dataclasses.asdict(SHAPE)))
  load_policy(stage(root, "next"), "init", model, own)
  own.save(root / "other" / "tokenizer.json")
  names = dict(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", chat_template="{{ messages[0]['content'] }}")
  (root / "other" / "tokenizer_config.json").write_text(json.dumps(names))
  other = data.load_tokenizer(root / "other")
  assert other.encode("What is 1?") == own.encode("What is 1?")
  with pytest.raises(CheckpointError, match="belongs to another tokenizer"):
    load_policy(stage(root, "next"), "init", model, other)
