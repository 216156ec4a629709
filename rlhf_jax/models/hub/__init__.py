"""Published models: reads the files of transformers and llama.cpp, writes those of transformers and PEFT."""

from rlhf_jax.models.hub.export import FileDtype, export_model
from rlhf_jax.models.hub.export_peft import export_adapters
from rlhf_jax.models.hub.families import read_config, write_config
from rlhf_jax.models.hub.pretrained import Pretrained, load_pretrained, local_path, open_pretrained

__all__ = [
  "FileDtype",
  "Pretrained",
  "export_adapters",
  "export_model",
  "load_pretrained",
  "local_path",
  "open_pretrained",
  "read_config",
  "write_config",
]
