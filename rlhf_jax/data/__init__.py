"""Data: files and their shapes, the chat form, the tokenizer, and fixed-shape arrays. NumPy only."""

from rlhf_jax.data.arrays import (
  batch_indices,
  comparison_rows,
  demonstration_rows,
  is_held_out,
  language_model_rows,
  pack_rows,
  prompt_rows,
  split_prompts,
  take,
)
from rlhf_jax.data.dialogue import (
  UnusableDialogue,
  render_prompt,
  render_response,
  split_answer,
  split_dialogue,
  split_pair,
)
from rlhf_jax.data.encoding import Loss, encode_demonstrations, export_tokenizer, prompt_ids, response_ids
from rlhf_jax.data.files import DataError, read_rows, read_text, write_rows
from rlhf_jax.data.mixture import Mixture
from rlhf_jax.data.row_formats import Comparison, Critique, Demonstration, Ratings
from rlhf_jax.data.sources import (
  Source,
  read_comparisons,
  read_corpus,
  read_critiques,
  read_demonstrations,
  read_prompts,
  read_ratings,
  stream_corpus,
)
from rlhf_jax.data.stream import Stream
from rlhf_jax.data.templates import load_templates
from rlhf_jax.data.tokenizer import Tokenizer, load_tokenizer, token_bytes, train_tokenizer

__all__ = [
  "Comparison",
  "Critique",
  "DataError",
  "Demonstration",
  "Loss",
  "Mixture",
  "Ratings",
  "Source",
  "Stream",
  "Tokenizer",
  "UnusableDialogue",
  "batch_indices",
  "comparison_rows",
  "demonstration_rows",
  "encode_demonstrations",
  "export_tokenizer",
  "is_held_out",
  "language_model_rows",
  "load_templates",
  "load_tokenizer",
  "pack_rows",
  "prompt_ids",
  "prompt_rows",
  "read_comparisons",
  "read_corpus",
  "read_critiques",
  "read_demonstrations",
  "read_prompts",
  "read_ratings",
  "read_rows",
  "read_text",
  "render_prompt",
  "render_response",
  "response_ids",
  "split_answer",
  "split_dialogue",
  "split_pair",
  "split_prompts",
  "stream_corpus",
  "take",
  "token_bytes",
  "train_tokenizer",
  "write_rows",
]
