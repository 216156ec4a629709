"""The shape of a decoder: one configuration for every family of models this project reads and writes."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal


class UnsupportedModelError(ValueError):
  """A file of a model that this project cannot represent: the message names the file and the field."""


FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt2", "gpt_neox")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """How rotary frequencies are stretched beyond the length a model was first trained on.

  kind: "linear" divides all of them by `factor`; "llama3" (arXiv 2407.21783) only the slow ones, blended between
  original_length / low and original_length / high tokens a turn; "yarn" (arXiv 2309.00071) blends between the
  dimensions that make `high` and `low` turns over original_length, rounded outward where `truncate`, and multiplies
  queries and keys by `magnitude`.
  """

  kind: Literal["linear", "llama3", "yarn"]
  factor: float
  original_length: int = 0
  low: float = 1.0
  high: float = 4.0
  magnitude: float = 1.0
  truncate: bool = True


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """The shape of a decoder; what stands after `dtype` are the variants of published families, off by default.

  max_length is the longest sequence in tokens, prompt and response together; num_kv_heads divides num_heads; dtype is
  that of the activations (parameters are float32).

  family: whose file format the weights take. head_size: of a head; 0 is d_model / num_heads. learned_positions: rows of
  a learned table; 0 is rotary. rotary_dim: features of a head that rotate; 0 is all. windows: per layer, how many
  tokens back it sees, itself included; 0 is all, () is 0 everywhere. window_rope_theta: of layers with a window, which
  then are not scaled; 0 is as the others. query_scale: 0 is 1 / sqrt(head_dim). *_softcap: c * tanh(x / c); 0 is
  none. post_norms: a norm after attention and mlp too. parallel_residual: attention and mlp read the same x.
  "zero_centered": RMSNorm times (1 + scale).
  """

  vocab_size: int
  num_layers: int
  d_model: int
  num_heads: int
  num_kv_heads: int
  d_ff: int
  max_length: int
  rope_theta: float = 10000.0
  norm_eps: float = 1e-6
  dtype: Literal["float32", "bfloat16"] = "float32"

  family: Literal[FAMILIES] = "llama"
  head_size: int = 0
  learned_positions: int = 0
  rotary_dim: int = 0
  rope_scaling: RopeScaling | None = None
  windows: tuple[int, ...] = ()
  window_rope_theta: float = 0.0
  query_scale: float = 0.0
  attention_softcap: float = 0.0
  logit_softcap: float = 0.0
  embedding_scale: float = 1.0
  norm: Literal["rms", "zero_centered", "layer"] = "rms"
  query_key_norm: bool = False
  post_norms: bool = False
  parallel_residual: bool = False
  qkv_bias: bool = False
  attention_out_bias: bool = False
  mlp_bias: bool = False
  gated: bool = True
  activation: Literal["silu", "gelu", "gelu_tanh"] = "silu"
  tied: bool = True

  def __post_init__(self):
    if not self.head_size and self.d_model % self.num_heads:
      raise ValueError(f"d_model={self.d_model} must be num_heads={self.num_heads} times an even head size")
    rotating = 0 if self.learned_positions else self.rotary_dim or self.head_dim
    if rotating % 2:
      raise ValueError(f"d_model={self.d_model} and num_heads={self.num_heads} must leave an even head size to rotate")
    if self.num_heads % self.num_kv_heads:
      raise ValueError(f"num_kv_heads={self.num_kv_heads} must divide num_heads={self.num_heads}")
    if self.windows and len(self.windows) != self.num_layers:
      raise ValueError(f"windows={self.windows} must have an entry for each of num_layers={self.num_layers}")

  @property
  def head_dim(self) -> int:
    """Features of a head."""
    return self.head_size or self.d_model // self.num_heads

  def describe(self) -> dict[str, Any]:
    """What a checkpoint says of its model. Variants that are off are left out: older checkpoints did not know them."""
    unset = {field.name: field.default for field in dataclasses.fields(self)}
    values = dataclasses.asdict(self)
    described = {name: value for name, value in values.items() if name in _SHAPE or value != unset[name]}
    if "windows" in described:
      described["windows"] = list(self.windows)  # as JSON gives it back
    return described


_SHAPE = [field.name for field in dataclasses.fields(DecoderConfig)][:10]
