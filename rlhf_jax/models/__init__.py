"""Language models as pure functions over plain parameter trees: the only home of flax.linen."""

from rlhf_jax.models.config import DecoderConfig, RopeScaling, UnsupportedModelError
from rlhf_jax.models.fused_attention import PLATFORM
from rlhf_jax.models.language_model import LanguageModel, language_model
from rlhf_jax.models.lora import ATTENTION, add_lora, fold_lora, init_lora, join_lora, merge_lora, split_lora

__all__ = [
  "ATTENTION",
  "DecoderConfig",
  "PLATFORM",
  "LanguageModel",
  "RopeScaling",
  "UnsupportedModelError",
  "add_lora",
  "fold_lora",
  "init_lora",
  "join_lora",
  "language_model",
  "merge_lora",
  "split_lora",
]
