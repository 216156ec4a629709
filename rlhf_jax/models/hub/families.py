"""The families by the model_type of their config.json, and that file <-> DecoderConfig.

What a config.json says and this project does not understand is refused by name, never ignored.
"""

from __future__ import annotations

from typing import Any

from rlhf_jax.models.config import DecoderConfig, FamilyName, UnsupportedModelError
from rlhf_jax.models.hub.config_fields import Fields, Json
from rlhf_jax.models.hub.family import Family
from rlhf_jax.models.hub.gemma import GEMMA2, GEMMA3
from rlhf_jax.models.hub.gpt2 import GPT2
from rlhf_jax.models.hub.gpt_neox import GPT_NEOX
from rlhf_jax.models.hub.llama import LLAMA, MISTRAL
from rlhf_jax.models.hub.qwen import QWEN2, QWEN3

FAMILIES: dict[FamilyName, Family] = {
  "llama": LLAMA,
  "mistral": MISTRAL,
  "qwen2": QWEN2,
  "qwen3": QWEN3,
  "gemma2": GEMMA2,
  "gemma3_text": GEMMA3,
  "gpt2": GPT2,
  "gpt_neox": GPT_NEOX,
}

# Fields supported with one value only; their absence means the same value.
_FIXED = {
  "is_encoder_decoder": False,
  "add_cross_attention": False,
  "scale_attn_by_inverse_layer_idx": False,
  "rope_interleaved": False,
  "use_mrope": False,
  "use_bidirectional_attention": False,
}


def read_config(values: Json, where: str = "config.json") -> DecoderConfig:
  """The decoder that a config.json describes; `where` is the name of the file for messages.

  Raises:
    UnsupportedModelError: a field is missing, or a field or its value is unknown or not supported.
  """
  fields = Fields(values, where)
  name = fields.take("model_type", str)
  if name not in FAMILIES:
    raise UnsupportedModelError(f"{where}: model_type={name!r} is not supported. Known: {', '.join(FAMILIES)}.")
  for field, only in _FIXED.items():
    fields.only(field, only)
  try:
    config = FAMILIES[name].read(fields)
  except UnsupportedModelError:
    raise
  except ValueError as error:  # DecoderConfig checks its own values
    raise UnsupportedModelError(f"{where}: {error}") from error
  fields.finish()
  return config


def write_config(config: DecoderConfig) -> dict[str, Any]:
  """The fields of config.json for a decoder, without names and token ids.

  Raises:
    UnsupportedModelError: the family's config.json has no words for a variant of this config.
  """
  values = {"model_type": config.family, **FAMILIES[config.family].write(config)}
  there = read_config(values, f"a {config.family} of this shape")
  said, meant = there.describe(), config.describe()
  lost = sorted(name for name in {*said, *meant} - {"dtype"} if said.get(name) != meant.get(name))
  if lost:
    raise UnsupportedModelError(
      f"{config.family} cannot be written with {lost[0]}={getattr(config, lost[0])!r}: its config.json means "
      f"{getattr(there, lost[0])!r}"
    )
  return values
