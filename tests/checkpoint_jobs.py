"""A state of the shape of the recipes for 8B that is written and read under any mesh, by one process or by several."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rlhf_jax.configs.pods import shapes
from rlhf_jax.models import DecoderConfig, language_model
from rlhf_jax.stage import Transport
from rlhf_jax.train import checkpoint
from rlhf_jax.train.processes import host, leader
from rlhf_jax.train.update import init_state, place

IDENTITY = {"model": {"layers": 32}, "tokenizer": "abc", "stage": "f1"}
# The shape of the recipes for 8B, 64 times narrower: all of its arrays, with their proportions.
LARGE = shapes.MODELS["8b"]
CONFIG = DecoderConfig(
  shapes.LLAMA_VOCABULARY // 64, **LARGE | dict(d_model=LARGE["d_model"] // 64, d_ff=LARGE["d_ff"] // 64),
  max_length=8, tied=False,
)  # fmt: skip


def make_state(scale=1.0):
  """A state whose arrays are all different, with stacked layers as in those recipes."""
  tree = jax.eval_shape(lambda: language_model(CONFIG, scan=True).init(jax.random.key(0)))
  leaves, structure = jax.tree.flatten(tree)
  arrays = [scale * (i + np.arange(x.size, dtype=x.dtype).reshape(x.shape)) for i, x in enumerate(leaves)]
  state = init_state(jax.tree.map(jnp.asarray, jax.tree.unflatten(structure, arrays)), optax.adam(1e-3))
  return state.replace(step=jnp.asarray(7, jnp.int32))


def placed(scale, sizes):
  return place(make_state(scale), Transport("jit", **{"fsdp": 1, "microbatches": 1, "data": -1, **sizes}))


def write_state(directory, **sizes):
  """Saves the state of a mesh of these sizes, and donates its arrays while it is written."""
  state = placed(1.0, sizes)
  with checkpoint.open_checkpoints(directory) as checkpoints:
    checkpoint.save(checkpoints, state, IDENTITY, {"best": 3})
    jax.block_until_ready(jax.jit(lambda x: jax.tree.map(lambda leaf: leaf + 1, x), donate_argnums=0)(state))


def read_state(directory, **sizes):
  """Asserts that the state is that of `make_state` in the places of this mesh, and verifies."""
  like = placed(0.0, sizes)
  with checkpoint.open_checkpoints(directory) as checkpoints:
    found = checkpoint.restore(checkpoints, like, IDENTITY)
  assert found is not None and found.notes == {"best": 3}
  assert jax.tree.map(lambda x: x.sharding, found.state) == jax.tree.map(lambda x: x.sharding, like)
  jax.tree.map(np.testing.assert_array_equal, host(found.state), host(make_state()))
  if leader():
    checkpoint.verify_checkpoint(directory, 7)
