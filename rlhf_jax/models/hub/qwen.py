"""Qwen 2 and 2.5 (arXiv 2407.10671, 2412.15115) and 3 (arXiv 2505.09388): Llama's form with windows in some layers.

Qwen 2 has biases on queries, keys and values; Qwen 3 normalises queries and keys instead.
"""

from __future__ import annotations

from typing import Any

from rlhf_jax.models.config import DecoderConfig
from rlhf_jax.models.hub.config_fields import Fields, read_rope, read_windows, rope_fields, write_windows
from rlhf_jax.models.hub.family import Family, Gguf, as_it_is
from rlhf_jax.models.hub.llama import MODULES, read_shape, write_shape


def _read_qwen2(f: Fields) -> DecoderConfig:
  return DecoderConfig(family="qwen2", **_read(f), qkv_bias=True)


def _write_qwen2(c: DecoderConfig) -> dict[str, Any]:
  windows = write_windows(c)
  used = windows["sliding_window"] is not None
  return write_shape(c) | windows | {"use_sliding_window": used, "max_window_layers": c.num_layers}


def _read_qwen3(f: Fields) -> DecoderConfig:
  bias = f.take("attention_bias", bool, False)
  return DecoderConfig(
    family="qwen3", **_read(f, head_dim=128), qkv_bias=bias, attention_out_bias=bias, query_key_norm=True
  )


def _write_qwen3(c: DecoderConfig) -> dict[str, Any]:
  return _write_qwen2(c) | {"attention_bias": c.qkv_bias}


def _read(f: Fields, head_dim: int | None = None) -> dict[str, Any]:
  """The arguments of `DecoderConfig` that both generations state alike."""
  shape = read_shape(f, head_dim=head_dim)
  layers, window = shape["num_layers"], f.take("sliding_window", int, 0)
  window = window if f.take("use_sliding_window", bool, False) else 0
  first = f.take("max_window_layers", int, 28)
  windows = read_windows(f, window, [layer >= first for layer in range(layers)])
  return shape | read_rope(rope_fields(f), shape["max_length"]) | {"windows": windows}


def _complete_qwen2(values: dict[str, Any]) -> dict[str, Any]:
  # Qwen 2 has no field for them: its queries, keys and values always have a bias.
  return {name: value for name, value in values.items() if name != "attention_bias"} | {"hidden_act": "silu"}


def _complete_qwen3(values: dict[str, Any]) -> dict[str, Any]:
  return values | {"hidden_act": "silu"}


QWEN2 = Family(
  _read_qwen2,
  _write_qwen2,
  MODULES,
  language_model="Qwen2ForCausalLM",
  classifier="Qwen2ForSequenceClassification",
  gguf=Gguf("qwen2", _complete_qwen2, as_it_is),
)
QWEN3 = Family(
  _read_qwen3,
  _write_qwen3,
  MODULES,
  language_model="Qwen3ForCausalLM",
  classifier="Qwen3ForSequenceClassification",
  gguf=Gguf("qwen3", _complete_qwen3, as_it_is),
)
