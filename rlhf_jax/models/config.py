"""The shape of a decoder: one configuration for every family of models this project reads and writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

FamilyName = Literal["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt2", "gpt_neox"]
Activation = Literal["silu", "gelu", "gelu_tanh"]


class UnsupportedModelError(ValueError):
  """A file of a model that this project cannot represent: the message names the file and the field."""


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """Stretching of rotary frequencies beyond the length that a model was first trained on.

  "linear" divides all frequencies by `factor`. "llama3" (arXiv 2407.21783) divides the slow ones only. "yarn" (arXiv
  2309.00071) does the same by dimension rather than by frequency, and multiplies queries and keys by `magnitude`.
  """

  kind: Literal["linear", "llama3", "yarn"]
  """Name of the method."""
  factor: float
  """Ratio of the new length to the original one."""
  original_length: int = 0
  """Length of the first training in tokens; unused by "linear"."""
  low: float = 1.0
  """Turns over the original length below which a frequency is divided by the factor; unused by "linear"."""
  high: float = 4.0
  """Turns over the original length above which a frequency is kept; between low and high the two are blended."""
  magnitude: float = 1.0
  """Factor of queries and of keys, which sharpens attention over long texts."""
  truncate: bool = True
  """Rounding outward, to whole dimensions, of the bounds that low and high set for "yarn"; False for none."""


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """The shape of a decoder. The fields after `dtype` are variants of published families; by default they are off."""

  vocab_size: int
  """Number of tokens in the vocabulary."""
  num_layers: int
  """Number of layers."""
  d_model: int
  """Width of the hidden states."""
  num_heads: int
  """Number of query heads in a layer."""
  num_kv_heads: int
  """Number of key and value heads in a layer, a divisor of num_heads (grouped-query attention, arXiv 2305.13245)."""
  d_ff: int
  """Width of the mlp between its matrices."""
  max_length: int
  """Length of the longest sequence in tokens, prompt and response together."""
  rope_theta: float = 10000.0
  """Base of the rotary frequencies (arXiv 2104.09864)."""
  norm_eps: float = 1e-6
  """Number added to the mean square or the variance in a norm."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Type of the activations; parameters are float32."""

  family: FamilyName = "llama"
  """Family whose file format an export takes, by the model_type of its config.json."""
  head_size: int = 0
  """Features of a head; 0 for d_model / num_heads."""
  learned_positions: int = 0
  """Rows of a learned table of positions; 0 for rotary positions."""
  rotary_dim: int = 0
  """Features of a head that rotate, the first ones; 0 for all."""
  rope_scaling: RopeScaling | None = None
  """Stretching of the rotary frequencies; None for none."""
  windows: tuple[int, ...] = ()
  """Tokens that each layer sees, the querying token included, 0 for all; an empty tuple for all in every layer."""
  window_rope_theta: float = 0.0
  """Base of the rotary frequencies in layers with a window, which rope_scaling leaves alone; 0 for rope_theta."""
  query_scale: float = 0.0
  """Factor of queries before their products with keys; 0 for 1 / sqrt(features of a head)."""
  attention_softcap: float = 0.0
  """Bound c of attention scores, which become c tanh(score / c) (arXiv 2408.00118); 0 for none."""
  logit_softcap: float = 0.0
  """Bound c of logits, which become c tanh(logit / c); 0 for none."""
  embedding_scale: float = 1.0
  """Factor of the embeddings of tokens."""
  norm: Literal["rms", "zero_centered", "layer"] = "rms"
  """Norm of hidden states: RMSNorm, RMSNorm times (1 + scale), or LayerNorm."""
  query_key_norm: bool = False
  """Norms of queries and keys within a head; False for none."""
  post_norms: bool = False
  """Norms of the outputs of attention and mlp before they are added to the hidden state; False for none."""
  parallel_residual: bool = False
  """Order of a layer: True where attention and mlp read the same hidden state, False for the mlp after attention."""
  qkv_bias: bool = False
  """Biases of queries, keys and values; False for none."""
  attention_out_bias: bool = False
  """Bias of the output matrix of attention; False for none."""
  mlp_bias: bool = False
  """Biases of the matrices of the mlp; False for none."""
  gated: bool = True
  """Form of the mlp: True for out(activation(gate x) * up x) (arXiv 2002.05202), False for out(activation(up x))."""
  activation: Activation = "silu"
  """Activation of the mlp; "gelu_tanh" is the approximation of "gelu" by tanh."""
  tied: bool = True
  """Matrix that makes logits: True for the embedding matrix, False for a matrix of its own."""
  ids_without_token: tuple[tuple[int, int], ...] = ()
  """Ranges [first, last + 1) of ids that the tokenizer has no token for, as in a vocabulary that was padded: their
  logits are -inf. () for none. `describe` leaves them out, since the tokenizer says them."""

  def __post_init__(self) -> None:
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
    """The fields as a checkpoint stores them; variants that are off are left out, as older checkpoints have none."""
    unset = {field.name: field.default for field in dataclasses.fields(self)}
    values = dataclasses.asdict(self)
    del values["ids_without_token"]
    described = {name: value for name, value in values.items() if name in _SHAPE or value != unset[name]}
    if "windows" in described:
      described["windows"] = list(self.windows)  # JSON has no tuples
    return described

  @classmethod
  def from_description(cls, described: Mapping[str, Any]) -> DecoderConfig:
    """The config whose fields `describe` gave, but for `ids_without_token`."""
    values = dict(described)
    if "windows" in values:
      values["windows"] = tuple(values["windows"])
    if values.get("rope_scaling"):
      values["rope_scaling"] = RopeScaling(**values["rope_scaling"])
    return cls(**values)


# Fields that every checkpoint stores: those up to `dtype`.
_SHAPE = [field.name for field in dataclasses.fields(DecoderConfig)][:10]
