"""Data: files and the formats of their rows, the chat form, the tokenizer, and token arrays of fixed shape. NumPy only.

Data too large for memory are read by `rlhf_jax.data.stream.Stream`, from the sources of a
`rlhf_jax.data.mixture.Mixture`. These two are imported by their modules, so that a program without mixtures does not
load them.
"""

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
from rlhf_jax.data.encoding import LossTokens, encode_demonstrations, export_tokenizer, prompt_ids, response_ids
from rlhf_jax.data.files import DataError, read_rows, read_text, write_json, write_rows
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
from rlhf_jax.data.tokenizer import Tokenizer, load_tokenizer, token_bytes, train_tokenizer

__all__ = [
  "Comparison",
  "Critique",
  "DataError",
  "Demonstration",
  "LossTokens",
  "Ratings",
  "Source",
  "Tokenizer",
  "UnusableDialogue",
  "batch_indices",
  "comparison_rows",
  "demonstration_rows",
  "encode_demonstrations",
  "export_tokenizer",
  "is_held_out",
  "language_model_rows",
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
  "write_json",
  "write_rows",
]
