"""Language models as pure functions over plain parameter trees: the only home of flax.linen."""

from rlhf_jax.models.config import DecoderConfig, RopeScaling, UnsupportedModelError
from rlhf_jax.models.fused_attention import PLATFORM, Attention
from rlhf_jax.models.int8 import quantize
from rlhf_jax.models.language_model import LanguageModel, language_model, only_scored, shares_tokens
from rlhf_jax.models.lora import ATTENTION, add_lora, fold_lora, init_lora, join_lora, merge_lora, split_lora
from rlhf_jax.models.stacked import is_stacked, stack_layers, unstack_layers

__all__ = [
  "ATTENTION",
  "Attention",
  "DecoderConfig",
  "PLATFORM",
  "LanguageModel",
  "RopeScaling",
  "UnsupportedModelError",
  "add_lora",
  "fold_lora",
  "init_lora",
  "is_stacked",
  "join_lora",
  "language_model",
  "merge_lora",
  "only_scored",
  "quantize",
  "shares_tokens",
  "split_lora",
  "stack_layers",
  "unstack_layers",
]
