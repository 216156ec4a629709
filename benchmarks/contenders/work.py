"""The work that all contenders share: a tokenizer, a small Llama, a reward model, and rows of equal lengths.

There are as many rows as a batch has, so that every step of supervised learning reads all of them, in whatever order a
library shuffles: losses of the same step can be compared to rounding.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

SIZES = "CONTENDER_SIZES"  # environment variable: "PROMPT,RESPONSE,BATCH", for others than these
# Tokens of a prompt and of a response; rows of a step of supervised learning, or episodes of an iteration of RL.
PROMPT, RESPONSE, BATCH = (int(size) for size in os.environ.get(SIZES, "32,32,16").split(","))
SAMPLED = 32  # prompts of the samplers
GROUP = 4  # responses to a prompt in GRPO and RLOO
EPOCHS = 4  # of PPO
BETA, KL_COEF = 0.1, 0.05
TRUNCATED = {"top_k": 50, "top_p": 0.9}
# In RL the steps are so small that the lengths of responses stay what they are.
LEARNING_RATE, RL_LEARNING_RATE = 1e-4, 1e-6
# Tunix 0.1.7 has this base of rotary frequencies, whatever its config says.
SHAPE = dict(
  vocab_size=8192, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4,
  num_key_value_heads=4, max_position_embeddings=256, tie_word_embeddings=False, rms_norm_eps=1e-6,
  rope_theta=1e6, dtype="float32", pad_token_id=0, eos_token_id=1, bos_token_id=2,
)  # fmt: skip
TINY = {**SHAPE, "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
MAX_WORDS = 8192  # tokens of the tokenizer, where a vocabulary has more
ONE_LABEL = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
SPECIALS = ["<pad>", "<eos>", "<bos>"]


def make_work(directory: Path, shape: Mapping[str, Any]) -> None:
  """Writes the tokenizer, the model as transformers has it, the rows, and files of them in this project's forms.

  shape: settings of transformers' LlamaConfig, such as `SHAPE`.
  """
  directory.mkdir(parents=True, exist_ok=True)
  (directory / "shape.json").write_text(json.dumps(shape))
  _make_model(directory / "model", shape)
  words = _make_tokenizer(directory, min(shape["vocab_size"], MAX_WORDS))
  rows = _make_rows(directory, words)
  (directory / "rows.json").write_text(json.dumps(rows))
  _write(directory, "demonstrations", rows[:BATCH], {"prompt": "prompt", "response": "chosen"})
  _write(directory, "comparisons", rows[:BATCH], {key: key for key in ("prompt", "chosen", "rejected")})
  _write(directory, "prompts", rows, {"prompt": "prompt"})


def make_reward_model(directory: Path, head: np.ndarray) -> None:
  """Writes `directory`/reward_model, a classifier of transformers: the model with a head f32[d]."""
  weights = load_file(directory / "model" / "model.safetensors")
  weights.pop("lm_head.weight", None)
  weights["score.weight"] = head[None]
  settings = {**read_shape(directory), **ONE_LABEL}
  _save(directory / "reward_model", "LlamaForSequenceClassification", settings, weights)


def read_shape(directory: Path) -> dict[str, Any]:
  """The settings of transformers' LlamaConfig."""
  return json.loads((directory / "shape.json").read_text())


def rows(directory: Path) -> list[dict[str, Any]]:
  """The rows: {"prompt", "chosen", "rejected": texts, "prompt_ids", "chosen_ids", "rejected_ids": ids}."""
  return json.loads((directory / "rows.json").read_text())


def distinct_characters(completions, **_: Any) -> list[float]:
  """The reward of GRPO and RLOO, of texts."""
  return [float(len(set(text))) for text in completions]


def score(prompts, responses) -> list[float]:
  """`distinct_characters` as this project calls a reward function."""
  return distinct_characters(responses)


def _make_model(directory: Path, settings: dict[str, Any]) -> None:
  """Writes a Llama with normal weights, of standard deviation 0.02, in float32."""
  draw = np.random.default_rng(0)
  width, inner, vocabulary = (settings[key] for key in ("hidden_size", "intermediate_size", "vocab_size"))
  keys = width // settings["num_attention_heads"] * settings["num_key_value_heads"]
  matrices = {"model.embed_tokens": (vocabulary, width)}
  matrices |= {} if settings["tie_word_embeddings"] else {"lm_head": (vocabulary, width)}
  norms = ["model.norm"]
  for layer in range(settings["num_hidden_layers"]):
    name = f"model.layers.{layer}"
    matrices |= {f"{name}.self_attn.{part}_proj": (width, width) for part in "qo"}
    matrices |= {f"{name}.self_attn.{part}_proj": (keys, width) for part in "kv"}
    matrices |= {f"{name}.mlp.{part}_proj": (inner, width) for part in ("gate", "up")}
    matrices |= {f"{name}.mlp.down_proj": (width, inner)}
    norms += [f"{name}.input_layernorm", f"{name}.post_attention_layernorm"]
  weights = {f"{name}.weight": 0.02 * draw.standard_normal(shape, np.float32) for name, shape in matrices.items()}
  weights |= {f"{name}.weight": np.ones(width, np.float32) for name in norms}
  _save(directory, "LlamaForCausalLM", settings, weights)


def _save(directory: Path, architecture: str, settings: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
  directory.mkdir(exist_ok=True)
  family = dict(model_type="llama", hidden_act="silu")
  (directory / "config.json").write_text(json.dumps({"architectures": [architecture], **family, **settings}))
  weights = {name: np.ascontiguousarray(x) for name, x in weights.items()}
  save_file(weights, directory / "model.safetensors", {"format": "pt"})


def _make_tokenizer(directory: Path, vocab_size: int) -> list[str]:
  """A byte-level BPE of invented words; returns words that are one token with a space before them."""
  from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

  draw = random.Random(0)
  syllables = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
  invented = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(vocab_size)]
  weights = [1 / (rank + 10) for rank in range(len(invented))]

  def words(shares=None) -> str:
    return " ".join(draw.choices(invented, shares, k=40))

  text = [f"\n\nHuman: {words(weights)}\n\nAssistant: {words()}" for _ in range(vocab_size // 2)]
  tokenizer = Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.train_from_iterator(
    text,
    trainers.BpeTrainer(
      vocab_size=vocab_size,
      special_tokens=SPECIALS,
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    ),
  )
  if tokenizer.get_vocab_size() != vocab_size:
    raise RuntimeError(f"the tokenizer has {tokenizer.get_vocab_size()} tokens instead of {vocab_size}")
  tokenizer.save(str(directory / "tokenizer.json"))
  vocabulary = sorted(tokenizer.get_vocab())
  return [word[1:] for word in vocabulary if word[0] == "Ġ" and word[1:].isalpha() and word[1:].isascii()]


def _make_rows(directory: Path, words: list[str]) -> list[dict[str, Any]]:
  """Rows whose prompts and responses have PROMPT and RESPONSE tokens as this project reads them."""
  from rlhf_jax import data

  tokenizer, draw = data.load_tokenizer(directory / "tokenizer.json"), random.Random(1)

  def text(length, ids_of) -> tuple[str, list[int]]:
    found = ""
    while len(ids := ids_of(found)) < length:
      found = f"{found} {draw.choice(words)}".strip()
    if len(ids) != length:
      raise RuntimeError(f"{found!r} has {len(ids)} tokens instead of {length}")
    return found, ids

  made = []
  for _ in range(4 * BATCH):
    prompt, prompt_ids = text(PROMPT, lambda text: data.prompt_ids(tokenizer, text))
    answers = [text(RESPONSE, lambda text: data.response_ids(tokenizer, prompt, text)) for _ in range(2)]  # noqa: B023
    (chosen, chosen_ids), (rejected, rejected_ids) = answers
    made.append(
      dict(
        prompt=prompt, chosen=chosen, rejected=rejected, prompt_ids=prompt_ids, chosen_ids=chosen_ids,
        rejected_ids=rejected_ids,
      )
    )  # fmt: skip
  return made


def _write(directory: Path, name: str, rows: list[dict[str, Any]], columns: dict[str, str]) -> None:
  """Writes a file of rows; columns: {its key: that of `rows`}."""
  lines = (json.dumps({key: row[column] for key, column in columns.items()}) for row in rows)
  (directory / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
