"""A stage of a run, as plain data: where it lives, what it may read, and the settings all stages share.

A stage is a module with a frozen dataclass `Config` and a function `run(config, stage)`; the pipeline calls it and
marks it done when it returns. What a stage reads follows from its config: a field that names another stage is a
`StageName`, and a path "{run}/STAGE/..." may stand in any text. Three names are optional in the module. `WRITES` holds
the files that others may read, so that a wrong path is found before anything runs. `NEEDS` holds the libraries that
are imported only while the stage runs, so that a missing one is found as early. `check(config, stage)` raises
ConfigError for mistakes that no type of a field can say.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import zlib
from pathlib import Path
from typing import Annotated, Literal

from rlhf_jax.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Range, Share

# Name in this run, or path of a stage's directory in another run, with "@STEP" for another checkpoint than the last; ""
# for none.
StageName = Annotated[str, "stage"]
ANY_SHAPE = "any shape"
StageOfAnyShape = Annotated[str, "stage", ANY_SHAPE]  # a StageName whose model may have another shape than the reader's
# Marks of what is checked before anything runs (`rlhf_jax.pipeline.check`). Files, by their rows; "" for none:
PromptFile = Annotated[str, "prompt file"]
DemonstrationFile = Annotated[str, "demonstration file"]
ComparisonFile = Annotated[str, "comparison file"]
StepFile = Annotated[str, "step file"]  # responses in steps with a label for each
UnpairedFile = Annotated[str, "unpaired file"]  # single responses with a label
ContrastFile = Annotated[str, "contrast file"]
QuestionFile = Annotated[str, "question file"]
RecordFile = Annotated[str, "record file"]  # feedback: .db, .jsonl or .parquet
PageFile = Annotated[str, "page file"]  # what the annotation page asks, in TOML
TextFile = Annotated[str, "text file"]
WeightFile = Annotated[str, "weight file"]  # weights of annotators
ROW_LENGTH = "row length"
RowLength = Annotated[NonNegativeInt, ROW_LENGTH]  # tokens of a row, at most config.model.max_length; 0: the run's
FrozenDtype = Literal["", "int8"]  # of the matrices of a model that is not trained; "": that of the computation
DeviceCount = Annotated[int, Range(1, also=-1)]  # -1: the rest of the devices, after the other axes of the mesh


def split_step(name: str) -> tuple[str, int | None]:
  """(stage, step of its checkpoint) of a `StageName`: ("ppo", 16) of "ppo@16", ("ppo", None) of "ppo", the last one."""
  stage, _, step = name.rpartition("@")
  return (stage, int(step)) if stage and step.isdecimal() else (name, None)


@dataclasses.dataclass(frozen=True)
class Model:
  """The decoder's shape, but for its vocabulary, which is the tokenizer's. See `rlhf_jax.models.DecoderConfig`."""

  num_layers: PositiveInt
  """Number of layers, each with attention and a feed-forward network."""
  d_model: PositiveInt
  """Width of the residual stream, in features."""
  num_heads: PositiveInt
  """Number of attention heads for queries; d_model is divided among them."""
  num_kv_heads: PositiveInt
  """Number of attention heads for keys and values; it divides num_heads."""
  d_ff: PositiveInt
  """Width of the feed-forward networks, in features."""
  max_length: PositiveInt
  """Longest sequence, prompt and response together, in tokens."""
  rope_theta: PositiveFloat = 10000.0
  """Base of the rotary position embedding's wavelengths, in tokens."""
  norm_eps: PositiveFloat = 1e-6
  """Constant that is added to the mean square before the root in every RMS norm."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Number format of the activations; parameters are float32."""
  tied: bool = True
  """Switch for the matrix that makes logits: True for the embedding matrix, False for a matrix of its own."""


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
  """How computation is spread over devices and kept within their memory; the numbers are the same to rounding.

  The devices are a mesh of data x fsdp x tensor; one of the three may be -1, for the rest of the devices.
  """

  kind: Literal["jit", "pmap", "shard_map"]
  """Way to use several devices: "jit" over the mesh, "pmap" over data alone; "shard_map" is an older name of
  "jit"."""
  fsdp: DeviceCount
  """Number of devices that cut a batch and share one copy of the parameters; above 1 with "jit" only."""
  microbatches: PositiveInt
  """Number of parts that each device's rows of a batch are cut into, computed one after the other to save memory."""
  logits_chunk: NonNegativeInt = 0
  """Number of positions of each row whose logits exist at once; 0 for all positions."""
  remat: Literal["none", "full", "dots"] = "none"
  """Activations that a backward pass computes anew in each layer: none, all ("full"), or all but the products with
  weights ("dots")."""
  layers: Literal["auto", "scanned", "unrolled"] = "auto"
  """Form of the layers in training: "scanned" compiles one layer, "unrolled" all of them, which are faster on a CPU;
  "auto" is "unrolled" for up to 8 layers on a CPU without remat, else "scanned". Checkpoints open in either form."""
  attention: Literal["auto", "xla", "chunked", "cudnn", "splash"] = "auto"
  """Computation of the attention: "xla" with all scores of a row at once, "chunked" with memory linear in the length of
  rows of more than 128 tokens, "cudnn" by a kernel for GPUs, "splash" by one for a single TPU; "auto" is "chunked" on a
  CPU, else "xla". Tokens that are sampled one by one always take "xla"."""
  peak_flops: NonNegativeFloat = 0.0
  """Peak of one device in floating-point operations per second, to which the metric mfu is relative; 0 takes it from a
  table of known devices (`rlhf_jax.train.speed`)."""
  data: DeviceCount = -1
  """Number of groups of fsdp x tensor devices, each with a copy of the parameters, that cut a batch."""
  tensor: DeviceCount = 1
  """Number of devices that share each matrix and its arithmetic, for the same rows; above 1 with "jit" only."""
  gradient_dtype: Literal["float32", "bfloat16"] = "float32"
  """Number format in which gradients are summed over devices; "bfloat16" halves their traffic and rounds each sum."""
  packing: Share = 0.25
  """Least share of their rows that the sequences of an update are packed in, in RL and for reward models. Sequences
  that need more get more, in steps of an eighth, each of which is another program; 1 packs nothing."""

  def __post_init__(self) -> None:
    sizes = {name: getattr(self, name) for name in ("data", "fsdp", "tensor")}
    if list(sizes.values()).count(-1) > 1:
      words = ", ".join(f"{name}={size}" for name, size in sizes.items())
      raise ValueError(f"{words}: only one of them can be -1, the rest of the devices")
    for name in ("fsdp", "tensor"):
      if sizes[name] != 1 and self.kind == "pmap":
        raise ValueError(f"{name}={sizes[name]} needs kind='jit', not 'pmap'")


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
  writers: tuple[str, ...] = ("tensorboard",)
  """Destinations of metrics beside metrics.jsonl (see `rlhf_jax.train.writers`)."""

  @property
  def directory(self) -> Path:
    """The stage's own directory."""
    return self.root / self.name

  def directory_of(self, name: str) -> Path:
    """The directory of a stage that is read; `name` is a `StageName` that is not empty."""
    stage, _ = split_step(name)
    return self.path(stage) if "/" in stage else self.root / stage

  def path(self, name: str) -> Path:
    """A path from a config; `{run}` stands for the run directory."""
    return Path(name.replace("{run}", str(self.root))).expanduser()

  @property
  def stage_seed(self) -> int:
    """A seed of the stage's own, so that two stages of a run never share a random stream."""
    return zlib.crc32(f"{self.seed}/{self.name}".encode())
