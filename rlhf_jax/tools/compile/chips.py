"""Accelerators by their data sheets, and their devices as JAX describes them where none is plugged in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from rlhf_jax.settings import ConfigError, nearest

GIB = 2**30  # bytes


class Chip(NamedTuple):
  """One accelerator, by its data sheet."""

  hbm: float
  """Memory that a program can use, in bytes."""
  flops: float
  """Peak of dense products in bfloat16, in floating-point operations per second."""
  bandwidth: float
  """Bandwidth of the memory, in bytes per second."""
  links: float
  """Bandwidth of all links to other chips of the slice together, in bytes per second, one way."""


# Peaks and bandwidths: cloud.google.com/tpu/docs/system-architecture-tpu-vm; one way of a link, as measured in "How to
# scale your model" (Austin et al. 2025), chapter 2. Memory: what the compiler of libtpu 0.0.42 leaves to programs.
CHIPS = {
  "v4": Chip(30.75 * GIB, 275e12, 1.23e12, 6 * 4.5e10),
  "v5e": Chip(15.75 * GIB, 197e12, 8.2e11, 4 * 4.5e10),
  "v5p": Chip(95.74 * GIB, 459e12, 2.765e12, 6 * 9e10),
  "v6e": Chip(31.25 * GIB, 918e12, 1.64e12, 4 * 9e10),
}
BETWEEN_SLICES = 6.25e9  # bytes per second and chip, one way: the data centre's network, which only axis data crosses


class Target(NamedTuple):
  """The chips that programs are compiled for."""

  name: str
  """Topology and number of slices: "v5e:16x16", "v5e:16x16 x 2"."""
  chip: Chip
  """Data of one chip."""
  devices: Sequence[jax.Device]
  """Devices of all slices."""
  slices: int
  """Number of slices."""


def target(topology: str, slices: int = 1) -> Target:
  """The chips of a topology "GENERATION:AxB[xC]", several slices of it together.

  Raises:
    ConfigError: the generation is not known, or its compiler is not installed or knows no such topology.
  """
  generation = topology.partition(":")[0]
  if generation not in CHIPS:
    raise ConfigError(f"--topology {topology}: {generation!r} is not known.{nearest(generation, CHIPS)} Known: "
                      f"{', '.join(CHIPS)}, as in v5e:16x16")  # fmt: skip
  try:
    import libtpu  # noqa: F401
  except ModuleNotFoundError as error:
    raise ConfigError("the compiler for TPUs is not installed: pip install 'rlhf_jax[aot]'") from error
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # asks no metadata server which TPU this machine is
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # several processes may compile at once
  os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
  from jax.experimental import topologies

  more: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
  if generation == "v4":
    more["chip_config_name"] = "megacore"  # both cores of a chip are one device
  try:
    devices = topologies.get_topology_desc(topology, "tpu", **more).devices
  except Exception as error:  # JaxRuntimeError and others, by the kind of the mistake
    raise ConfigError(f"--topology {topology}: {str(error).splitlines()[0]}") from error
  return Target(topology + f" x {slices}" * (slices > 1), CHIPS[generation], devices, slices)
