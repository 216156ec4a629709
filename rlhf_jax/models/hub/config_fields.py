"""The fields of a config.json, each taken once, and those that several families share: rotary positions, windows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rlhf_jax.models.config import DecoderConfig, RopeScaling, UnsupportedModelError

Json = Mapping[str, Any]


# These say nothing about the logits: settings of training and generation, bookkeeping, dropout (never applied here).
_IRRELEVANT = frozenset(
  "_name_or_path _commit_hash transformers_version transformers.js_config architectures torch_dtype dtype use_cache "
  "initializer_range attention_dropout hidden_dropout classifier_dropout resid_pdrop embd_pdrop attn_pdrop "
  "bos_token_id eos_token_id pad_token_id id2label label2id num_labels problem_type return_dict output_hidden_states "
  "output_attentions chunk_size_feed_forward cache_implementation pretraining_tp is_llama_config score_bias "
  "summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout "
  "task_specific_params n_ctx reorder_and_upcast_attn is_decoder gradient_checkpointing _sliding_window_pattern "
  "_attn_implementation_autoset attn_implementation tokenizer_class max_length do_sample unsloth_fixed".split()
)
_ACTIVATIONS = {
  "silu": "silu",
  "swish": "silu",
  "gelu": "gelu",
  "gelu_new": "gelu_tanh",
  "gelu_fast": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
}
_SLIDING, _FULL = "sliding_attention", "full_attention"


class Fields:
  """The fields of a config.json, each to be taken once."""

  def __init__(self, values: Json, where: str):
    self.left = dict(values)
    self.where = where

  def take(self, name: str, kind: type, default: Any = ...) -> Any:
    """The value of a field; null and absence give the default."""
    value = self.left.pop(name, None)
    if value is None:
      if default is ...:
        raise UnsupportedModelError(f"{self.where} lacks the field {name!r}")
      return default
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
      return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
      raise UnsupportedModelError(f"{self.where}: {name} must be {kind.__name__}, not {value!r}")
    return value

  def stated(self, name: str, kind: type) -> Any:
    """The value of a field that must be there, 0 where it is null: its absence would mean another number."""
    if name not in self.left:
      raise UnsupportedModelError(f"{self.where} lacks the field {name!r}")
    return self.take(name, kind, 0)

  def only(self, name: str, value: Any) -> None:
    """Takes a field that must be null, absent or `value`."""
    found = self.left.pop(name, None)
    if found is not None and found != value:
      raise UnsupportedModelError(f"{self.where}: {name}={found!r} is not supported, only {value!r}")

  def activation(self, name: str, default: Any = ...) -> str:
    found = self.take(name, str, default)
    if found not in _ACTIVATIONS:
      raise UnsupportedModelError(f"{self.where}: {name}={found!r} is not supported. Known: {', '.join(_ACTIVATIONS)}.")
    return _ACTIVATIONS[found]

  def finish(self) -> None:
    """Refuses what nobody took."""
    unknown = sorted(set(self.left) - _IRRELEVANT)
    if unknown:
      raise UnsupportedModelError(
        f"{self.where}: the field {unknown[0]}={self.left[unknown[0]]!r} is not supported: its effect on the model is "
        "unknown here"
      )


def activation_name(c: DecoderConfig) -> str:
  """The activation as a config.json spells it."""
  if c.activation == "gelu_tanh":
    return "gelu_new" if c.family == "gpt2" else "gelu_pytorch_tanh"
  return c.activation


def read_windows(f: Fields, family: str, layers: int) -> dict[str, Any]:
  """`windows`: Mistral's are everywhere, the others' are where layer_types or an older pattern puts them."""
  if family == "llama":
    return {}
  window = f.take("sliding_window", int, 0) if family.startswith("qwen") else f.stated("sliding_window", int)
  if family == "mistral":
    return {"windows": (window,) * layers} if window else {}
  if family.startswith("qwen"):
    window = window if f.take("use_sliding_window", bool, False) else 0
    first = f.take("max_window_layers", int, 28)
    slides = [i >= first for i in range(layers)]
  else:
    period = f.take("sliding_window_pattern", int, 6) if family == "gemma3_text" else 2
    slides = [(i + 1) % period != 0 for i in range(layers)]
  types = f.take("layer_types", list, None)
  if types is not None:
    if len(types) != layers or not set(types) <= {_SLIDING, _FULL}:
      raise UnsupportedModelError(
        f"{f.where}: layer_types={types!r} must be {_SLIDING!r} or {_FULL!r} for each of {layers} layers"
      )
    slides = [kind == _SLIDING for kind in types]
  return {"windows": tuple(window * slide for slide in slides)} if window and any(slides) else {}


def write_windows(c: DecoderConfig) -> dict[str, Any]:
  """The fields of config.json that say which layers see a window of how many tokens; {} for Llama, which has none."""
  if c.family == "llama":
    return {}
  window = max(c.windows, default=0) or None
  if c.family == "mistral":
    return {"sliding_window": window}
  types = [_SLIDING if size else _FULL for size in c.windows or (0,) * c.num_layers]
  values = {"sliding_window": window, "layer_types": types}
  if c.family.startswith("qwen"):
    values |= {"use_sliding_window": window is not None, "max_window_layers": c.num_layers}
  return values


def read_rope(f: Fields, family: str, max_length: int, head_dim: int) -> dict[str, Any]:
  """The rotary fields, in their older form (rope_theta beside rope_scaling) or in one dictionary, rope_parameters."""
  neox, gemma3 = family == "gpt_neox", family == "gemma3_text"
  parameters = dict(f.take("rope_parameters", dict, {}))
  if not parameters:
    parameters = dict(f.take("rope_scaling", dict, {}))
    base = f.take("rotary_emb_base" if neox else "rope_theta", float, None)
    parameters |= {"rope_theta": base} if base else {}
    parameters |= {"partial_rotary_factor": f.take("rotary_pct", float, 0.25)} if neox else {}
    local = f.take("rope_local_base_freq", float, 10000.0) if gemma3 else 0.0
  else:
    local = 0.0
    for name, repeated in (("rope_scaling", dict(parameters)), ("rope_theta", parameters.get("rope_theta"))):
      f.only(name, repeated)
  if gemma3 and (_FULL in parameters or _SLIDING in parameters):  # a dictionary for each kind of layer
    sliding = Fields(parameters.pop(_SLIDING, None) or {}, f"{f.where}: rope_parameters.{_SLIDING}")
    sliding.only("rope_type", "default")
    local = sliding.take("rope_theta", float, 10000.0)
    sliding.finish()
    parameters = {**(parameters.pop(_FULL, None) or {}), **parameters}
  rope = Fields(parameters, f"{f.where}: rope_parameters")
  found = dict(rope_theta=rope.take("rope_theta", float, 1e6 if gemma3 else 10000.0), window_rope_theta=local)
  if neox:
    rotary_dim = int(head_dim * rope.take("partial_rotary_factor", float, 1.0))
    found |= {"rotary_dim": rotary_dim} if rotary_dim != head_dim else {}
  found["rope_scaling"] = _read_scaling(rope, max_length)
  rope.finish()
  return found


def _read_scaling(rope: Fields, max_length: int) -> RopeScaling | None:
  older = rope.take("type", str, "default")
  kind = rope.take("rope_type", str, older)
  if kind == "default":
    return None
  if kind not in ("linear", "llama3", "yarn"):
    raise UnsupportedModelError(f"{rope.where}: rope_type={kind!r} is not supported. Known: linear, llama3, yarn.")
  factor = rope.take("factor", float)
  if kind == "linear":
    return RopeScaling("linear", factor)
  length = rope.take("original_max_position_embeddings", int, max_length)
  if kind == "llama3":
    return RopeScaling(kind, factor, length, rope.take("low_freq_factor", float), rope.take("high_freq_factor", float))
  low, high = rope.take("beta_slow", float, 1.0), rope.take("beta_fast", float, 32.0)
  scale, all_dims = rope.take("mscale", float, 0.0), rope.take("mscale_all_dim", float, 0.0)

  def grown(by):
    return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0

  magnitude = rope.take("attention_factor", float, grown(scale) / grown(all_dims) if scale and all_dims else grown(1.0))
  return RopeScaling(kind, factor, length, low, high, magnitude, rope.take("truncate", bool, True))


def write_rope(c: DecoderConfig) -> dict[str, Any]:
  """In the older form where it can say the same: that one is read by older versions of every library too."""
  values: dict[str, Any] = {"rope_theta": c.rope_theta}
  if c.window_rope_theta:
    values["rope_local_base_freq"] = c.window_rope_theta
  if scaling := c.rope_scaling:
    written = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
      written["original_max_position_embeddings"] = scaling.original_length
    if scaling.kind == "llama3":
      written |= {"low_freq_factor": scaling.low, "high_freq_factor": scaling.high}
    if scaling.kind == "yarn":
      written |= {"beta_slow": scaling.low, "beta_fast": scaling.high, "attention_factor": scaling.magnitude}
      written |= {} if scaling.truncate else {"truncate": False}
    values["rope_scaling"] = written
  return values
