"""From prompts to sampled responses: the compiled sampler, and the texts of its responses."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from rlhf_jax import data
from rlhf_jax.models import LanguageModel, fold_lora, is_stacked, language_model, unstack_layers
from rlhf_jax.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt, PositiveShare, Share
from rlhf_jax.sampling import (
  before_stop,
  common_prefix,
  generate,
  pad_prompts,
  pad_to_powers,
  power_of_two,
  stop_table,
  trim,
)
from rlhf_jax.stage import Stage, Transport
from rlhf_jax.train.cores import part_size, sample_parts, threads
from rlhf_jax.train.mesh import ROWS, is_matrix, make_mesh, put_rows, row_devices, sent, shardings
from rlhf_jax.train.processes import own_rows, shared_rows
from rlhf_jax.train.workspace import check_length, load_policy
from rlhf_jax.types import Params, Rollout


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
  """Settings of sampling responses. In a stage of RL the tokens that top_k, top_p and min_p leave are recorded, and the
  policy that learns is the truncated one; elsewhere recorded log-probs are those of the whole softmax."""

  max_prompt_tokens: NonNegativeInt = 0
  """Number of tokens a prompt may have; longer prompts are skipped and counted. 0 for what `max_new_tokens` leaves of
  the run's `max_length`."""
  max_new_tokens: PositiveInt
  """Number of tokens a response may have, EOS included."""
  temperature: NonNegativeFloat
  """Temperature that logits are divided by; 0 always takes the likeliest token."""
  top_k: NonNegativeInt = 0
  """Number of likeliest tokens that are drawn from; 0 for all (see `rlhf_jax.sampling.truncate`)."""
  top_p: PositiveShare = 1.0
  """Probability, above 0, of the smallest set of likeliest tokens that are drawn from; 1 for all tokens."""
  min_p: Share = 0.0
  """Share of the likeliest token's probability below which a token is not drawn; 0 for all tokens."""
  stop: tuple[str, ...] = ()
  """Strings that end a response and are left out of its text; () for none."""
  slots: NonNegativeInt = 0
  """Number of rows decoded at once, over all devices; a waiting row takes the slot of one that has ended. 0 decodes all
  rows at once."""

  def __post_init__(self):
    if "" in self.stop:
      raise ValueError(f"stop={self.stop} holds an empty string, which every response contains")

  @property
  def truncates(self) -> bool:
    """Whether some tokens are never drawn."""
    return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


Sampler = Callable[..., tuple[Rollout, list[str]]]


def make_sampler(
  model: LanguageModel,
  tokenizer: data.Tokenizer,
  settings: Sampling,
  transport: Transport,
  *,
  any_shape: bool = False,
  record_support: bool = False,
) -> Sampler:
  """`sample(params, prompts, key, copies=1) -> (rollout, responses)`, with `copies` responses to each prompt.

  The rows are cut over the mesh's data and fsdp axes, and each device decodes its own with a copy of the parameters
  that is made for it before (see `lay_out`). On a single CPU device they are cut into parts for threads (see
  `rlhf_jax.train.cores`). What all prompts begin with is prefilled once (see `common_prefix`). With `record_support`
  the rollout says which tokens could be drawn, and its log-probs are those of the truncated policy (see
  `rlhf_jax.sampling.generate`). The program is compiled once for each shape of prompts or parts of them; with
  `any_shape`, once for each power of two that a shape is padded to.

  Raises:
    ValueError: prompt and response together do not fit the model.
  """
  check_length(model, settings.max_prompt_tokens + settings.max_new_tokens, "max_prompt_tokens + max_new_tokens")
  mesh = make_mesh(transport)
  room = power_of_two(settings.max_new_tokens) if any_shape else settings.max_new_tokens
  cores = 0 if settings.slots else threads(mesh)
  compiled_shapes: set[tuple[int, ...]] = set()  # of parts
  compiled = compiled_sampler(
    model, dataclasses.replace(settings, max_new_tokens=room), mesh, tokenizer.end_ids, tokenizer.pad_id, record_support
  )
  table = None
  if settings.stop:
    pieces = data.token_bytes(tokenizer)
    table = stop_table(pieces + [b""] * (model.config.vocab_size - len(pieces)), settings.stop)

  def sample(params, prompts, key, copies=1):
    batch, width = prompts.tokens.shape
    rows = batch * copies
    real = np.ones(batch, bool)
    prefix = common_prefix(prompts)
    if any_shape:
      prompts, real = pad_to_powers(prompts)
    if len(real) % row_devices(mesh):  # each row its own prompt, so that rows are cut anywhere
      prompts, real = jax.tree.map(lambda x: np.repeat(x, copies, axis=0), (prompts, real))
      copies = 1
    size = part_size(len(real), copies) if cores else len(real)
    prompts, real = pad_prompts(prompts, real, size if cores else row_devices(mesh))
    limits = np.repeat(np.where(real, settings.max_new_tokens, 0), copies)
    served = lay_out(model, params, mesh)
    if size < len(real) and cores:
      shape = (size, copies, prompts.tokens.shape[1], prefix)
      rollout = sample_parts(
        compiled, mesh, served, prompts, limits, key, table, prefix, size=size, cores=cores,
        alone=shape not in compiled_shapes,
      )  # fmt: skip
      compiled_shapes.add(shape)
    else:
      with sent():
        rollout = compiled(served, *put_rows(mesh, (prompts, limits)), key, table, prefix)
    if any_shape:
      rollout = trim(rollout, rows, width + settings.max_new_tokens)
    elif len(limits) > rows:
      rollout = _first(rollout, rows)
    return rollout, decode(tokenizer, rollout, settings.stop)

  return sample


def lay_out(model: LanguageModel, params: Params, mesh: Mesh) -> Params:
  """The parameters as sampling reads them, once for a whole rollout; given back where they are so already.

  Adapters are merged, layers are unrolled (their caches are updated in place), matrices are in the dtype of the
  computation, and each device has all of them but for what the tensor axis cuts. So nothing is moved or converted for a
  token but activations.
  """
  dtype = model.config.dtype
  plain = "lora" not in params and not is_stacked(params)

  def is_ready(path, x, place):
    placed = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
    return placed and x.dtype == _dtype(path, x, dtype) and x.sharding.is_equivalent_to(place, x.ndim)

  ready = jax.tree_util.tree_map_with_path(is_ready, params, shardings(mesh, params, ("tensor",)))
  return params if plain and jax.tree.all(ready) else make_layout(dtype, mesh)(params)


def load_served(stage: Stage, name: str, model: LanguageModel, tokenizer: data.Tokenizer) -> Params:
  """The policy of a stage as sampling reads it, by `lay_out`: for a stage that samples many batches from it."""
  return lay_out(model, load_policy(stage, name, model, tokenizer), make_mesh(stage.transport))


@functools.lru_cache(maxsize=8)
def make_layout(dtype: str, mesh: Mesh) -> Callable[[Params], Params]:
  """The jitted function of `lay_out`."""

  def laid_out(params: Params) -> Params:
    params = unstack_layers({"decoder": fold_lora(params)["decoder"]})
    params = jax.tree_util.tree_map_with_path(lambda path, x: x.astype(_dtype(path, x, dtype)), params)
    return params if mesh.size == 1 else jax.lax.with_sharding_constraint(params, shardings(mesh, params, ("tensor",)))

  return jax.jit(laid_out)


def _dtype(path: tuple[Any, ...], x: jax.Array, dtype: str) -> np.dtype:
  return jnp.dtype(dtype) if is_matrix(jax.tree_util.keystr(path, simple=True, separator="/")) else x.dtype


@functools.lru_cache(maxsize=8)
def compiled_sampler(
  model: LanguageModel,
  settings: Sampling,
  mesh: Mesh,
  end_ids: tuple[int, ...],
  pad_id: int,
  record_support: bool = False,
) -> jax.stages.Wrapped:
  """The jitted `sampler(params, prompts, limits, key, table, prefix=0) -> rollout`, for parameters of `lay_out`.

  Stages of a process with the same settings share it, and its compiled programs. prompts: B, a multiple of data x fsdp;
  limits[B * copies]; key and prefix as in `generate`.
  """
  model = model if mesh.shape["fsdp"] == 1 else language_model(model.config)  # without a gather: weights are whole
  devices = row_devices(mesh)
  cut, whole = PartitionSpec(ROWS), PartitionSpec()

  @functools.partial(jax.jit, static_argnames="prefix")
  def sampler(params, prompts, limits, key, table, prefix=0):
    rows, batch = len(limits), len(prompts.lengths)
    keys = key if key.ndim else jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))

    def part(params, prompts, keys, limits, table):
      return generate(
        model, params, prompts, keys, limits=limits, stop_table=table, samples_per_prompt=rows // batch,
        slots=-(-settings.slots // devices), max_new_tokens=settings.max_new_tokens, temperature=settings.temperature,
        top_k=settings.top_k, top_p=settings.top_p, min_p=settings.min_p, record_support=record_support,
        eos_id=end_ids, pad_id=pad_id, prefix=prefix,
        # Devices of one tensor group sum activations; no other device is waited for.
        end_together=ROWS if mesh.shape["tensor"] > 1 else (),
      )  # fmt: skip

    if mesh.size == 1:
      return part(params, prompts, keys, limits, table)
    # Each device decodes its own rows, and refills its own slots from its own prompts.
    specs = (whole, cut, cut, cut, whole)
    return jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=cut, axis_names=set(ROWS), check_vma=False)(
      params, prompts, keys, limits, table
    )

  return sampler


@functools.partial(jax.jit, static_argnums=1)
def _first(rollout: Rollout, rows: int) -> Rollout:
  return jax.tree.map(lambda x: x[:rows], rollout)


def decode(tokenizer: data.Tokenizer, rollout: Rollout, stop: Sequence[str] = ()) -> list[str]:
  """The texts of the responses, each up to its first stop string, without control tokens and outer white space.

  Of several processes each decodes its own rows, and all get all texts.
  """
  tokens, mask = own_rows(rollout.tokens), own_rows(rollout.mask)

  def decoded(rows: slice) -> list[str]:
    texts = (tokenizer.decode(row[keep].tolist()) for row, keep in zip(tokens, mask, strict=True))
    return [before_stop(text, stop).strip() for text in texts]

  return shared_rows(decoded, len(rollout.tokens))
