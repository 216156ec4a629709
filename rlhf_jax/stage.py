"""A stage of a run, as plain data: where it lives, what it may read, and the settings all stages share.

A stage is a module with a frozen dataclass `Config` and a function `run(config, stage)`; the pipeline calls it and
marks it done when it returns. What a stage reads follows from its config: a field that names another stage is a
`StageName`, and a path "{run}/STAGE/..." may stand in any text. `WRITES`, where the module has it, are the files that
others may read, so that a wrong path is found before anything runs.
"""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Annotated, Literal

StageName = Annotated[str, "stage"]  # of this run, or the path of a stage's directory in another; "" for none


@dataclasses.dataclass(frozen=True)
class Model:
  """The decoder's shape but for its vocabulary, which is the tokenizer's. See `rlhf_jax.models.DecoderConfig`."""

  num_layers: int
  d_model: int
  num_heads: int
  num_kv_heads: int
  d_ff: int
  max_length: int
  rope_theta: float = 10000.0
  norm_eps: float = 1e-6
  dtype: Literal["float32", "bfloat16"] = "float32"


@dataclasses.dataclass(frozen=True)
class ImportedModel:
  """A published model instead of a shape: its stage is `rlhf_jax.stages.import_model`, others start from that.

  path: a directory with config.json and safetensors, a .gguf file, or owner/name on the Hugging Face hub. dtype: of the
  activations.
  """

  path: str
  dtype: Literal["float32", "bfloat16"] = "float32"


@dataclasses.dataclass(frozen=True)
class Transport:
  """How computation is spread over devices and kept within their memory; the numbers are the same to rounding.

  kind: "jit" over a mesh of data x fsdp devices, "pmap" or "shard_map" over data. fsdp: devices that share one copy
  of the parameters (jit only). microbatches: parts a batch is cut into, one after the other, to save memory.
  logits_chunk: positions of each row whose logits exist at once, 0 is all. remat: what a backward pass computes anew
  of each layer: nothing, everything ("full"), or all but the products with weights ("dots"). attention: "xla"
  everywhere, "cudnn" on GPUs, "splash" on one TPU; sampling always uses "xla".
  """

  kind: Literal["jit", "pmap", "shard_map"]
  fsdp: int
  microbatches: int
  logits_chunk: int = 0
  remat: Literal["none", "full", "dots"] = "none"
  attention: Literal["xla", "cudnn", "splash"] = "xla"

  def __post_init__(self):
    if self.fsdp < 1 or self.microbatches < 1:
      raise ValueError(f"fsdp={self.fsdp} and microbatches={self.microbatches} must be at least 1")
    if self.logits_chunk < 0:
      raise ValueError(f"logits_chunk={self.logits_chunk} must be at least 0")
    if self.fsdp > 1 and self.kind != "jit":
      raise ValueError(f"fsdp={self.fsdp} needs kind='jit', not {self.kind!r}")


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage of the run in directory `root`.

  tokenizer: a path, in which `{model}` stands for the local copy of an imported model. fingerprint: of the stage's
  config and of all that was upstream of it.
  """

  name: str
  root: Path
  seed: int
  tokenizer: str
  model: Model | ImportedModel
  transport: Transport
  fingerprint: str = ""

  @property
  def directory(self) -> Path:
    """The stage's own directory."""
    return self.root / self.name

  def path(self, name: str) -> Path:
    """A path from a config; `{run}` stands for the run directory."""
    return Path(name.replace("{run}", str(self.root))).expanduser()

  @property
  def stage_seed(self) -> int:
    """A seed of the stage's own, so that two stages of a run never share a random stream."""
    return zlib.crc32(f"{self.seed}/{self.name}".encode())
