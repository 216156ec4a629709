"""What may be wrong with a checkpoint."""

from __future__ import annotations


class CheckpointError(ValueError):
  """A checkpoint is absent, damaged, or of another model, tokenizer or stage; the message says what to do."""


class DamagedError(CheckpointError):
  """The files of a checkpoint are not those that were saved."""
