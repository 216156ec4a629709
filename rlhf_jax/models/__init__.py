"""Language models as pure functions over plain parameter trees: the only home of flax.linen."""

from rlhf_jax.models.config import DecoderConfig, RopeScaling
from rlhf_jax.models.export import export_model
from rlhf_jax.models.families import read_config, write_config
from rlhf_jax.models.fields import UnsupportedModelError
from rlhf_jax.models.language_model import LanguageModel, language_model
from rlhf_jax.models.lora import init_lora, merge_lora
from rlhf_jax.models.pretrained import Pretrained, load_pretrained, local_path, open_pretrained

__all__ = [
  "DecoderConfig",
  "LanguageModel",
  "Pretrained",
  "RopeScaling",
  "UnsupportedModelError",
  "export_model",
  "init_lora",
  "language_model",
  "load_pretrained",
  "local_path",
  "merge_lora",
  "open_pretrained",
  "read_config",
  "write_config",
]
