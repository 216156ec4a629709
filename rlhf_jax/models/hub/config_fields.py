"""The fields of a config.json, each taken once, and those that several families share: rotary positions, windows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import EllipsisType
from typing import Any, TypeVar

from rlhf_jax.models.config import Activation, DecoderConfig, RopeScaling, UnsupportedModelError

T = TypeVar("T")
Number = TypeVar("Number", int, float)
Json = Mapping[str, Any]

# Fields without a say in the logits: settings of training and generation, bookkeeping, dropout (never applied here).
_IRRELEVANT = frozenset(
  "_name_or_path _commit_hash transformers_version transformers.js_config architectures torch_dtype dtype use_cache "
  "initializer_range attention_dropout hidden_dropout classifier_dropout resid_pdrop embd_pdrop attn_pdrop "
  "bos_token_id eos_token_id pad_token_id id2label label2id num_labels problem_type return_dict output_hidden_states "
  "output_attentions chunk_size_feed_forward cache_implementation pretraining_tp is_llama_config score_bias "
  "summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout "
  "task_specific_params n_ctx reorder_and_upcast_attn is_decoder gradient_checkpointing _sliding_window_pattern "
  "_attn_implementation_autoset attn_implementation tokenizer_class max_length do_sample unsloth_fixed".split()
)
_ACTIVATIONS: dict[str, Activation] = {
  "silu": "silu",
  "swish": "silu",
  "gelu": "gelu",
  "gelu_new": "gelu_tanh",
  "gelu_fast": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
}
MAX_SIZE, MAX_LAYERS = 1 << 24, 1 << 12  # of any axis of a matrix and of positions; of layers
SLIDING, FULL = "sliding_attention", "full_attention"  # kinds of layers: with a window, and without


class Fields:
  """The fields of a config.json, each to be taken once; `where` names the file in messages."""

  def __init__(self, values: Json, where: str):
    self.left = dict(values)
    self.where = where

  def has(self, name: str) -> bool:
    """Whether a field is left that is neither null nor empty."""
    return bool(self.left.get(name))

  def take(self, name: str, kind: type[T], default: T | EllipsisType = ...) -> T:
    """The value of a field, removed; null and absence give the default.

    Raises:
      UnsupportedModelError: the value is not of this kind (an int passes for a float), or is absent without a default.
    """
    value = self.left.pop(name, None)
    if value is None:
      if isinstance(default, EllipsisType):
        raise UnsupportedModelError(f"{self.where} lacks the field {name!r}")
      return default
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
      value = float(value) if abs(value) < 1e300 else math.inf
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
      raise UnsupportedModelError(f"{self.where}: {name} must be {kind.__name__}, not {value!r:.80}")
    if isinstance(value, float) and not math.isfinite(value):
      raise UnsupportedModelError(f"{self.where}: {name} must be a finite number, not {value}")
    return value

  def size(self, name: str, default: int | EllipsisType = ..., most: int = MAX_SIZE) -> int:
    """The value of a field that counts something: a whole number from 1 to `most`. Raises as `take`."""
    value = self.take(name, int, default)
    if not 1 <= value <= most:
      raise UnsupportedModelError(f"{self.where}: {name} must be 1 to {most}, not {value}")
    return value

  def positive(self, name: str, default: float | EllipsisType = ...) -> float:
    """The value of a field that is a number above 0. Raises as `take`."""
    value = self.take(name, float, default)
    if value <= 0:
      raise UnsupportedModelError(f"{self.where}: {name} must be above 0, not {value}")
    return value

  def stated(self, name: str, kind: type[Number]) -> Number:
    """The value of a field that must be there, 0 where it is null: its absence would mean another number."""
    if name not in self.left:
      raise UnsupportedModelError(f"{self.where} lacks the field {name!r}")
    value = self.take(name, kind, kind(0))
    if value < 0:
      raise UnsupportedModelError(f"{self.where}: {name} must not be negative, and is {value}")
    return value

  def only(self, name: str, value: Any) -> None:
    """Removes a field that must be null, absent or `value`."""
    found = self.left.pop(name, None)
    if found is not None and found != value:
      raise UnsupportedModelError(f"{self.where}: {name}={found!r:.80} is not supported, only {value!r}")

  def activation(self, name: str, default: str | EllipsisType = ...) -> Activation:
    """Our name of the activation that a field names."""
    found = self.take(name, str, default)
    if found not in _ACTIVATIONS:
      raise UnsupportedModelError(f"{self.where}: {name}={found!r} is not supported. Known: {', '.join(_ACTIVATIONS)}.")
    return _ACTIVATIONS[found]

  def finish(self) -> None:
    """Refuses a field that has not been taken, unless it has no say in the logits."""
    unknown = sorted(set(self.left) - _IRRELEVANT)
    if unknown:
      raise UnsupportedModelError(
        f"{self.where}: the field {unknown[0]}={self.left[unknown[0]]!r:.80} is not supported: its effect on the model "
        "is unknown here"
      )


def activation_name(activation: Activation, gelu_tanh: str = "gelu_pytorch_tanh") -> str:
  """The activation as a config.json spells it."""
  return gelu_tanh if activation == "gelu_tanh" else activation


def read_windows(f: Fields, window: int, slides: Sequence[bool]) -> tuple[int, ...]:
  """`DecoderConfig.windows`: `window` tokens for the layers that layer_types names, or `slides` where it is absent."""
  if window < 0:
    raise UnsupportedModelError(f"{f.where}: sliding_window must not be negative, and is {window}")
  layers, types = len(slides), f.take("layer_types", list, None)
  if types is not None:
    if len(types) != layers or not all(kind in (SLIDING, FULL) for kind in types):
      raise UnsupportedModelError(
        f"{f.where}: layer_types={types!r:.80} must be {SLIDING!r} or {FULL!r} for each of {layers} layers"
      )
    slides = [kind == SLIDING for kind in types]
  return tuple(window * slide for slide in slides) if window and any(slides) else ()


def write_windows(c: DecoderConfig) -> dict[str, Any]:
  """sliding_window, the width of a window in tokens, and layer_types, the layers that have a window."""
  types = [SLIDING if window else FULL for window in c.windows or (0,) * c.num_layers]
  return {"sliding_window": max(c.windows, default=0) or None, "layer_types": types}


def rope_fields(f: Fields, theta: str = "rope_theta") -> Fields:
  """The rotary fields as they stand in the dictionary rope_parameters.

  In the older form they are the dictionary rope_scaling and, beside it, the base in the field `theta`.
  """
  parameters = dict(f.take("rope_parameters", dict, {}))
  if parameters:
    f.only("rope_scaling", parameters)
    f.only("rope_theta", parameters.get("rope_theta"))
  else:
    parameters = dict(f.take("rope_scaling", dict, {}))
    base = f.take(theta, float, None)
    parameters |= {} if base is None else {"rope_theta": base}
  return Fields(parameters, f"{f.where}: rope_parameters")


def read_rope(rope: Fields, max_length: int, theta: float = 10000.0) -> dict[str, Any]:
  """rope_theta and rope_scaling of `DecoderConfig`; `theta` is the base where the fields state none."""
  found = {"rope_theta": rope.positive("rope_theta", theta), "rope_scaling": _read_scaling(rope, max_length)}
  rope.finish()
  return found


def _read_scaling(rope: Fields, max_length: int) -> RopeScaling | None:
  older = rope.take("type", str, "default")
  kind = rope.take("rope_type", str, older)
  if kind == "default":
    return None
  if kind not in ("linear", "llama3", "yarn"):
    raise UnsupportedModelError(f"{rope.where}: rope_type={kind!r} is not supported. Known: linear, llama3, yarn.")
  factor = rope.positive("factor")
  if kind == "linear":
    return RopeScaling("linear", factor)
  length = rope.size("original_max_position_embeddings", max_length)
  if kind == "llama3":
    return RopeScaling(
      "llama3", factor, length, rope.take("low_freq_factor", float), rope.take("high_freq_factor", float)
    )
  low, high = rope.take("beta_slow", float, 1.0), rope.take("beta_fast", float, 32.0)
  scale, all_dims = rope.take("mscale", float, 0.0), rope.take("mscale_all_dim", float, 0.0)

  def grown(by: float) -> float:  # YaRN, section 3.4
    return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0

  magnitude = rope.take("attention_factor", float, grown(scale) / grown(all_dims) if scale and all_dims else grown(1.0))
  return RopeScaling("yarn", factor, length, low, high, magnitude, rope.take("truncate", bool, True))


def write_rope(c: DecoderConfig) -> dict[str, Any]:
  """The rotary fields in their older form: every version of every library reads it."""
  values: dict[str, Any] = {"rope_theta": c.rope_theta}
  if scaling := c.rope_scaling:
    written: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
      written["original_max_position_embeddings"] = scaling.original_length
    if scaling.kind == "llama3":
      written |= {"low_freq_factor": scaling.low, "high_freq_factor": scaling.high}
    if scaling.kind == "yarn":
      written |= {"beta_slow": scaling.low, "beta_fast": scaling.high, "attention_factor": scaling.magnitude}
      written |= {} if scaling.truncate else {"truncate": False}
    values["rope_scaling"] = written
  return values
