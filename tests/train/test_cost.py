"""What an update costs a device: operations, temporary memory and collectives, which no test of numbers sees."""

import dataclasses
import functools
import itertools
import math

import jax
import numpy as np
import pytest

from rlhf_jax.algorithms import sft
from rlhf_jax.models import DecoderConfig, split_lora, stack_layers
from rlhf_jax.reduce import token_weights
from rlhf_jax.stage import Transport
from rlhf_jax.train.mesh import make_mesh, put_rows, shardings, specs
from rlhf_jax.train.rows import pad_rows, sum_of_rows
from rlhf_jax.train.update import _gradients
from rlhf_jax.train.workspace import select_model
from rlhf_jax.types import Batch

pytestmark = pytest.mark.skipif(jax.device_count() != 8, reason="needs eight devices")

CONFIG = DecoderConfig(128, 2, 64, 4, 4, 96, 32, tied=False)
TOKENS = np.random.default_rng(0).integers(3, 128, (64, 32)).astype(np.int32)
BATCH = Batch(TOKENS, np.ones_like(TOKENS, bool), np.ones_like(TOKENS))


def gradient_of(transport, stacked=False, config=CONFIG):
  """The function of the gradient on a mesh, and its arguments."""
  mesh, model = make_mesh(transport), select_model(config, transport)
  params = model.init(jax.random.key(0))
  params = stack_layers(params) if stacked else params
  gradient = sum_of_rows(_gradients(sft.make_loss(model.apply)), lambda p: split_lora(p)[0], transport, mesh)
  rows = put_rows(mesh, (BATCH, np.asarray(token_weights(BATCH.mask))))
  return jax.jit(gradient), (jax.device_put(params, shardings(mesh, params)), *rows)


def compiled(transport):
  function, arguments = gradient_of(transport)
  return function.lower(*arguments).compile()


@pytest.mark.parametrize("fsdp", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_microbatches_cost_no_operations_and_save_memory(fsdp, monkeypatch):
  """On every device; a partitioner that cuts the microbatches, not their rows, does the work several times."""
  whole = compiled(Transport("jit", fsdp, 1))
  looped = compiled(Transport("jit", fsdp, 4)).memory_analysis().temp_size_in_bytes
  assert looped < 0.5 * whole.memory_analysis().temp_size_in_bytes
  # The operations in a loop are counted once, those of an unrolled one as often as they run.
  monkeypatch.setattr(jax.lax, "scan", functools.partial(jax.lax.scan, unroll=True))
  parts = compiled(Transport("jit", fsdp, 4)).cost_analysis()["flops"]
  assert parts == pytest.approx(whole.cost_analysis()["flops"], rel=0.02)


def test_a_batch_of_few_rows_is_not_padded_to_all_microbatches():
  mesh = make_mesh(Transport("jit", 1, 1))
  lengths = [len(pad_rows(np.zeros((rows, 2)), mesh, 4)) for rows in (1, 8, 9, 24, 40, 64)]
  assert lengths == [8, 8, 16, 24, 48, 64]  # of a multiple of eight devices, each with at most four microbatches


def collectives(jaxpr, times=1):
  """(primitive, dtype, numbers that a device receives or sends) of a jaxpr, loops counted as often as they run."""
  for equation in jaxpr.eqns:
    name, inner = equation.primitive.name, times * equation.params.get("length", 1)
    if name in ("all_gather", "reduce_scatter", "psum"):
      for variable in equation.outvars if name == "all_gather" else equation.invars:
        yield name, str(variable.aval.dtype), times * math.prod(variable.aval.shape)
    for value in equation.params.values():
      for item in value if isinstance(value, (tuple, list)) else (value,):
        item = getattr(item, "jaxpr", item)
        if hasattr(item, "eqns"):
          yield from collectives(item, inner)


@pytest.mark.parametrize("remat, stacked", [*itertools.product(("none", "full"), (False, True))])
@pytest.mark.parametrize("tied, chunk", [(False, 8), (True, 8), (True, 0)])
def test_no_more_is_sent_than_fully_sharded_data_parallelism_must(remat, stacked, tied, chunk):
  """Two gathers and one scattered sum of each matrix that is cut, in the dtype of the computation."""
  config = dataclasses.replace(CONFIG, dtype="bfloat16", tied=tied, vocab_size=136)
  transport = Transport("jit", 8, 1, data=1, remat=remat, gradient_dtype="bfloat16", logits_chunk=chunk)
  function, arguments = gradient_of(transport, stacked, config)
  sent = list(collectives(jax.make_jaxpr(function)(*arguments).jaxpr))
  cut = [
    math.prod(leaf.shape)
    for leaf, spec in zip(
      jax.tree.leaves(arguments[0]), jax.tree.leaves(specs(make_mesh(transport), arguments[0])), strict=True
    )
    if "fsdp" in spec
  ]
  moved = [(dtype, size) for name, dtype, size in sent if name != "psum"]
  assert {dtype for dtype, _ in moved} == {"bfloat16"}
  ratio = sum(size for _, size in moved) / (3 * sum(cut))
  assert 0.8 < ratio <= 1.0  # an embedding is gathered once
  if tied:
    table = config.vocab_size * config.d_model
    assert [name for name, _, size in sent if size == table and name != "psum"] == ["all_gather", "reduce_scatter"]
  print(f"remat {remat}, stacked {stacked}: {ratio:.2f} of the minimum")


def test_the_output_matrix_is_gathered_once_for_all_chunks():
  for chunk in (0, 4):
    function, arguments = gradient_of(Transport("jit", 8, 1, data=1, logits_chunk=chunk))
    shape = CONFIG.d_model * CONFIG.vocab_size
    sent = collectives(jax.make_jaxpr(function)(*arguments).jaxpr)
    gathers = [size for name, _, size in sent if name == "all_gather" and size == shape]
    assert gathers == [shape, shape], chunk  # of the embeddings and of the output matrix
