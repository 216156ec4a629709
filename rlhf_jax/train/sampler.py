"""From prompts to sampled responses as text: the compiled sampler and its host side."""

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
from rlhf_jax.types import Rollout


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How responses are sampled.

  max_prompt_tokens: longer prompts are skipped, and counted. max_new_tokens: of the response, EOS included. top_k,
  top_p, min_p: see `rlhf_jax.sampling.truncate`; off by default, and the recorded log-probs are never truncated. stop:
  strings that end a response, and are no part of its text. slots: rows decoded at a time over all devices, which those
  that wait take over from those that have ended; 0 is the whole batch.
  """

  max_prompt_tokens: int
  max_new_tokens: int
  temperature: float
  top_k: int = 0
  top_p: float = 1.0
  min_p: float = 0.0
  stop: tuple[str, ...] = ()
  slots: int = 0

  def __post_init__(self):
    if self.temperature < 0 or self.max_new_tokens < 1:
      raise ValueError(f"temperature={self.temperature} must be >= 0 and max_new_tokens={self.max_new_tokens} >= 1")
    if not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1:
      raise ValueError(f"top_p={self.top_p} must be in (0, 1] and min_p={self.min_p} in [0, 1]")
    if self.top_k < 0 or self.slots < 0:
      raise ValueError(f"top_k={self.top_k} and slots={self.slots} must be >= 0; 0 is all")
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
  """`sample(params, prompts, key, copies=1) -> (rollout, responses)`, spread over all devices; `copies` of each prompt.

  It is compiled once for each shape of prompts; with `any_shape`, once for each power of two that holds one.

  Raises:
    ValueError: where prompt and response together do not fit the model.
  """
  width = settings.max_prompt_tokens + settings.max_new_tokens
  if width > model.config.max_length:
    raise ValueError(
      f"max_prompt_tokens + max_new_tokens = {width} exceeds model.max_length = {model.config.max_length}"
    )
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
    if len(real) % mesh.size and len(limits) % mesh.size == 0:  # then every device gets rows, though not prompts
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
  """One jitted function for all stages of a process that sample alike: it compiles once for each shape of batch.

  Adapters are merged first, so that a token costs what it costs without them; while it samples, that takes the memory
  of the adapted matrices once more.
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
    # Each device refills its own slots from its own prompts, and its loop ends when they have: there is nothing to tell
    # the others.
    local = functools.partial(part, slots=max(settings.slots // mesh.size, 1))
    specs = (whole, cut, cut, cut, whole)
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=cut, check_vma=False)(
      params, prompts, keys, limits, table
    )

  return compiled


def decode(tokenizer: data.Tokenizer, rollout: Rollout, stop: Sequence[str] = ()) -> list[str]:
  """The responses as text up to the first stop string, control tokens and surrounding white space removed."""
  tokens, mask = np.asarray(rollout.tokens), np.asarray(rollout.mask)
  texts = (tokenizer.decode(row[keep].tolist()) for row, keep in zip(tokens, mask, strict=True))
  return [before_stop(text, stop).strip() for text in texts]
