"""Data: files and their shapes, the chat form, the tokenizer, and fixed-shape arrays. NumPy only."""

from rlhf_jax.data.arrays import (
  batch_indices,
  comparison_rows,
  demonstration_rows,
  language_model_rows,
  pack_rows,
  prompt_rows,
  split_prompts,
  take,
)
from rlhf_jax.data.chat import export_tokenizer, prompt_ids, response_ids
from rlhf_jax.data.files import DataError, read_rows, read_text, write_rows
from rlhf_jax.data.pieces import token_bytes
from rlhf_jax.data.sources import (
  Comparison,
  Demonstration,
  read_comparisons,
  read_corpus,
  read_demonstrations,
  read_prompts,
)
from rlhf_jax.data.templates import (
  UnusableDialogue,
  render_prompt,
  render_response,
  split_answer,
  split_dialogue,
  split_pair,
)
from rlhf_jax.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

__all__ = [
  "Comparison",
  "DataError",
  "Demonstration",
  "Tokenizer",
  "UnusableDialogue",
  "batch_indices",
  "comparison_rows",
  "demonstration_rows",
  "export_tokenizer",
  "language_model_rows",
  "pack_rows",
  "load_tokenizer",
  "prompt_ids",
  "prompt_rows",
  "read_comparisons",
  "read_corpus",
  "read_demonstrations",
  "read_prompts",
  "read_rows",
  "read_text",
  "render_prompt",
  "render_response",
  "response_ids",
  "split_answer",
  "split_dialogue",
  "split_pair",
  "split_prompts",
  "take",
  "token_bytes",
  "train_tokenizer",
  "write_rows",
]
