"""Language models as pure functions over plain parameter trees: the only home of flax.linen."""

from rlhf_jax.models.config import DecoderConfig, RopeScaling
from rlhf_jax.models.export import export_model
from rlhf_jax.models.export_lora import export_adapters
from rlhf_jax.models.families import read_config, write_config
from rlhf_jax.models.fields import UnsupportedModelError
from rlhf_jax.models.fused_attention import PLATFORM
from rlhf_jax.models.language_model import LanguageModel, language_model
from rlhf_jax.models.lora import ATTENTION, add_lora, fold_lora, init_lora, join_lora, merge_lora, split_lora
from rlhf_jax.models.pretrained import Pretrained, load_pretrained, local_path, open_pretrained

__all__ = [
  "ATTENTION",
  "DecoderConfig",
  "PLATFORM",
  "LanguageModel",
  "Pretrained",
  "RopeScaling",
  "UnsupportedModelError",
  "add_lora",
  "export_adapters",
  "export_model",
  "fold_lora",
  "init_lora",
  "join_lora",
  "language_model",
  "load_pretrained",
  "local_path",
  "merge_lora",
  "open_pretrained",
  "read_config",
  "split_lora",
  "write_config",
]
