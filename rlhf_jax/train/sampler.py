"""From prompts to sampled responses: the compiled sampler, and the texts of its responses."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from rlhf_jax import data
from rlhf_jax.models import LanguageModel, fold_lora
from rlhf_jax.population import jit
from rlhf_jax.sampling import before_stop, generate, pad_to_powers, power_of_two, stop_table, trim
from rlhf_jax.stage import Transport
from rlhf_jax.train.update import batch_sharding, make_mesh
from rlhf_jax.train.workspace import check_length
from rlhf_jax.types import Rollout


@dataclasses.dataclass(frozen=True)
class Sampling:
  """Settings of sampling responses. The recorded log-probs are at `temperature`, and never truncated."""

  max_prompt_tokens: int
  """Number of tokens a prompt may have; longer prompts are skipped and counted."""
  max_new_tokens: int
  """Number of tokens a response may have, EOS included."""
  temperature: float
  """Temperature that logits are divided by; 0 always takes the likeliest token."""
  top_k: int = 0
  """Number of likeliest tokens that are drawn from; 0 for all (see `rlhf_jax.sampling.truncate`)."""
  top_p: float = 1.0
  """Probability, above 0, of the smallest set of likeliest tokens that are drawn from; 1 for all tokens."""
  min_p: float = 0.0
  """Share of the likeliest token's probability below which a token is not drawn; 0 for all tokens."""
  stop: tuple[str, ...] = ()
  """Strings that end a response and are left out of its text; () for none."""
  slots: int = 0
  """Number of rows decoded at once, over all devices; a waiting row takes the slot of one that has ended. 0 decodes all
  rows at once."""

  def __post_init__(self):
    if self.temperature < 0 or self.max_new_tokens < 1:
      raise ValueError(f"temperature={self.temperature} must be >= 0 and max_new_tokens={self.max_new_tokens} >= 1")
    if not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1:
      raise ValueError(f"top_p={self.top_p} must be in (0, 1] and min_p={self.min_p} in [0, 1]")
    if self.top_k < 0 or self.slots < 0:
      raise ValueError(f"top_k={self.top_k} and slots={self.slots} must be >= 0; 0 stands for all")
    if "" in self.stop:
      raise ValueError(f"stop={self.stop} holds an empty string, which every response contains")


Sampler = Callable[..., tuple[Rollout, list[str]]]


def make_sampler(
  model: LanguageModel,
  tokenizer: data.Tokenizer,
  settings: Sampling,
  transport: Transport,
  *,
  any_shape: bool = False,
) -> Sampler:
  """`sample(params, prompts, key, copies=1) -> (rollout, responses)`, with `copies` responses to each prompt.

  The rows are spread over all devices. The program is compiled once for each shape of prompts; with `any_shape`, once
  for each power of two that a shape is padded to.

  Raises:
    ValueError: prompt and response together do not fit the model.
  """
  check_length(model, settings.max_prompt_tokens + settings.max_new_tokens, "max_prompt_tokens + max_new_tokens")
  mesh = make_mesh(transport)
  room = power_of_two(settings.max_new_tokens) if any_shape else settings.max_new_tokens
  compiled = _compiled_sampler(
    model, dataclasses.replace(settings, max_new_tokens=room), mesh, tokenizer.eos_id, tokenizer.pad_id
  )
  table = None
  if settings.stop:
    pieces = data.token_bytes(tokenizer)
    table = stop_table(pieces + [b""] * (model.config.vocab_size - len(pieces)), settings.stop)

  def sample(params, prompts, key, copies=1):
    batch, width = prompts.tokens.shape
    real = np.ones(batch, bool)
    if any_shape:
      prompts, real = pad_to_powers(prompts)
    limits = np.repeat(np.where(real, settings.max_new_tokens, 0), copies)
    if len(real) % mesh.size and len(limits) % mesh.size == 0:  # only the repeated rows divide over the devices
      prompts = jax.tree.map(lambda x: np.repeat(x, copies, axis=0), prompts)
    if len(prompts.lengths) % mesh.size == 0:
      prompts = jax.device_put(prompts, batch_sharding(mesh))
    rollout = compiled(params, prompts, key, limits, table)
    if any_shape:
      rollout = trim(rollout, batch * copies, width + settings.max_new_tokens)
    return rollout, decode(tokenizer, rollout, settings.stop)

  return sample


@functools.lru_cache(maxsize=8)
def _compiled_sampler(model: LanguageModel, settings: Sampling, mesh: Mesh, eos_id: int, pad_id: int):
  """The jitted sampler; stages of a process with the same settings share it, and its compiled programs.

  Adapters are merged first, so that they add nothing to the cost of a token; the merged matrices take memory beside the
  adapted ones while it samples.
  """
  cut, whole = PartitionSpec(mesh.axis_names), PartitionSpec()

  @jit
  def compiled(params, prompts, key, limits, table):
    rows, batch = len(limits), len(prompts.lengths)
    params = fold_lora(params)

    def part(params, prompts, keys, limits, table, slots=settings.slots):
      return generate(
        model, params, prompts, keys, limits=limits, stop_table=table, samples_per_prompt=rows // batch, slots=slots,
        max_new_tokens=settings.max_new_tokens, temperature=settings.temperature, top_k=settings.top_k,
        top_p=settings.top_p, min_p=settings.min_p, eos_id=eos_id, pad_id=pad_id,
      )  # fmt: skip

    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))
    if batch % mesh.size or not 0 < settings.slots < rows:
      return part(params, prompts, keys, limits, table)
    # Each device refills its own slots from its own prompts, and its loop ends with them, without communication.
    local = functools.partial(part, slots=max(settings.slots // mesh.size, 1))
    specs = (whole, cut, cut, cut, whole)
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=cut, check_vma=False)(
      params, prompts, keys, limits, table
    )

  return compiled


def decode(tokenizer: data.Tokenizer, rollout: Rollout, stop: Sequence[str] = ()) -> list[str]:
  """The texts of the responses, each up to its first stop string, without control tokens and outer white space."""
  tokens, mask = np.asarray(rollout.tokens), np.asarray(rollout.mask)
  texts = (tokenizer.decode(row[keep].tolist()) for row, keep in zip(tokens, mask, strict=True))
  return [before_stop(text, stop).strip() for text in texts]
