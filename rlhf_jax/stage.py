"""A stage of a run, as plain data: where it lives, what it may read, and the settings all stages share.

A stage is a module with a frozen dataclass `Config` and a function `run(config, stage)`; the pipeline calls it and
marks it done when it returns. What a stage reads follows from its config: a field that names another stage is a
`StageName`, and a path "{run}/STAGE/..." may stand in any text. Two names are optional in the module. `WRITES` holds
the files that others may read, so that a wrong path is found before anything runs. `NEEDS` holds the libraries that
are imported only while the stage runs, so that a missing one is found as early.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import zlib
from pathlib import Path
from typing import Annotated, Literal

StageName = Annotated[str, "stage"]  # name in this run, or path of a stage's directory in another run; "" for none


@dataclasses.dataclass(frozen=True)
class Model:
  """The decoder's shape, but for its vocabulary, which is the tokenizer's. See `rlhf_jax.models.DecoderConfig`."""

  num_layers: int
  """Number of layers, each with attention and a feed-forward network."""
  d_model: int
  """Width of the residual stream, in features."""
  num_heads: int
  """Number of attention heads for queries; d_model is divided among them."""
  num_kv_heads: int
  """Number of attention heads for keys and values; it divides num_heads."""
  d_ff: int
  """Width of the feed-forward networks, in features."""
  max_length: int
  """Longest sequence, prompt and response together, in tokens."""
  rope_theta: float = 10000.0
  """Base of the rotary position embedding's wavelengths, in tokens."""
  norm_eps: float = 1e-6
  """Constant that is added to the mean square before the root in every RMS norm."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Number format of the activations; parameters are float32."""


@dataclasses.dataclass(frozen=True)
class ImportedModel:
  """A published model instead of a shape; the stage `rlhf_jax.stages.import_model` makes a checkpoint of it."""

  path: str
  """Directory with config.json and safetensors, a .gguf file, or owner/name on the Hugging Face hub."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Number format of the activations; parameters are float32."""

  def __post_init__(self) -> None:
    if self.path.endswith(".gguf") and importlib.util.find_spec("gguf") is None:
      raise ValueError(f"path={self.path!r}: to read GGUF, install the package gguf: pip install 'rlhf_jax[gguf]'")


@dataclasses.dataclass(frozen=True)
class Transport:
  """How computation is spread over devices and kept within their memory; the numbers are the same to rounding."""

  kind: Literal["jit", "pmap", "shard_map"]
  """Way to use several devices: "jit" over a mesh of data x fsdp devices, "pmap" or "shard_map" over data alone."""
  fsdp: int
  """Number of devices that share one copy of the parameters; above 1 with "jit" only."""
  microbatches: int
  """Number of parts that a batch is cut into, computed one after the other to save memory."""
  logits_chunk: int = 0
  """Number of positions of each row whose logits exist at once; 0 for all positions."""
  remat: Literal["none", "full", "dots"] = "none"
  """Activations that a backward pass computes anew in each layer: none, all ("full"), or all but the products with
  weights ("dots")."""
  attention: Literal["xla", "cudnn", "splash"] = "xla"
  """Kernel of the attention: "xla" everywhere, "cudnn" on GPUs, "splash" on one TPU; sampling always uses "xla"."""

  def __post_init__(self) -> None:
    if self.fsdp < 1 or self.microbatches < 1:
      raise ValueError(f"fsdp={self.fsdp} and microbatches={self.microbatches} must be at least 1")
    if self.logits_chunk < 0:
      raise ValueError(f"logits_chunk={self.logits_chunk} must be at least 0")
    if self.fsdp > 1 and self.kind != "jit":
      raise ValueError(f"fsdp={self.fsdp} needs kind='jit', not {self.kind!r}")


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage of a run."""

  name: str
  """Name of the stage in config.stages."""
  root: Path
  """Directory of the run."""
  seed: int
  """Seed of the run, or of this stage where config.seeds has one."""
  tokenizer: str
  """Path of the tokenizer, in which `{model}` stands for the local copy of an imported model."""
  model: Model | ImportedModel
  """Shape of the model, or the published model that is imported."""
  transport: Transport
  """Use of the devices."""
  fingerprint: str = ""
  """Hash of the stage's config and of everything upstream of it."""

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
