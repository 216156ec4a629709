"""Stacked and scanned layers are the same model as unrolled ones, and compile and remember less."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoder_families import FAMILIES, config_of
from jax.sharding import PartitionSpec as P

from rlhf_jax.models import add_lora, is_stacked, language_model, stack_layers, unstack_layers
from rlhf_jax.models.stacked import Group, groups

REMAT = dict(zip(FAMILIES, ("none", "full", "dots", "none", "full", "dots", "full", "dots"), strict=True))
pytestmark = pytest.mark.usefixtures("unoptimised")
TOKENS = jax.random.randint(jax.random.key(2), (3, 10), 0, 17)
SEGMENTS = jnp.broadcast_to(jnp.arange(10) // jnp.array([[4], [7], [20]]), TOKENS.shape)


def close(ours, theirs, tolerance=1e-6):
  """Equal to a share of the largest number of the tree: some gradients, as of biases of keys, are rounding."""
  largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(theirs))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest), ours, theirs)


@functools.cache
def with_head(config):
  model = language_model(config)
  return model.init_head(jax.random.key(1), model.init(jax.random.key(0)))  # a program of init takes longer


def loss_and_gradients(model, params, scored=True):
  def loss(params):
    found = model.apply_with_value(params, TOKENS, SEGMENTS)
    if scored:
      found = (*found, model.score(params, TOKENS, jnp.arange(10) < jnp.array([[4], [9], [10]])))
    return sum(jnp.mean(x**2) for x in found)

  return jax.jit(jax.value_and_grad(loss))(params)


def agree(ours, theirs):
  """Losses and gradients."""
  close(ours[0], theirs[0])
  close(ours[1], theirs[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_both_forms_have_the_same_loss_and_gradients(family):
  config, scored = config_of(family), family == "llama"  # a score is made of the same layers in all
  params = with_head(config)
  loss, gradients = loss_and_gradients(language_model(config), params, scored)
  scanned = language_model(config, REMAT[family], scan=True)
  agree(loss_and_gradients(scanned, stack_layers(params), scored), (loss, stack_layers(gradients)))


def test_the_form_of_fresh_parameters_is_chosen_and_their_numbers_are_the_same():
  config = config_of("llama")
  plain, stacked = (language_model(config, scan=scan).init(jax.random.key(0)) for scan in (False, True))
  assert "layers_2" in plain["decoder"] and "layers_2" not in stacked["decoder"]
  jax.tree.map(np.testing.assert_array_equal, stacked, stack_layers(plain))


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_functions_with_a_cache_take_stacked_layers(family):
  model = language_model(config_of(family))
  params = model.init(jax.random.key(0))

  @jax.jit
  def run(params):
    hidden, cache = model.prefill(params, TOKENS, jnp.array([9, 0, 4]))
    positions = jnp.broadcast_to(jnp.arange(10), TOKENS.shape)
    return hidden, cache, model.extend(params, TOKENS, positions, model.init_cache(3, 12))

  close(run(stack_layers(params)), run(params))


def test_adapters_are_stacked_with_the_same_draws():
  params = with_head(config_of("llama", num_layers=11))  # layers_10 is before layers_2 in the order of names
  adapt = functools.partial(add_lora, jax.random.key(3), rank=2, alpha=3.0, targets=("query", "mlp_out"))
  stacked = adapt(stack_layers(params))
  assert stacked["lora"]["layers"]["query"]["a"].shape == (11, 16, 2)
  jax.tree.map(np.testing.assert_array_equal, stacked, stack_layers(adapt(params)))


def test_trees_of_models_are_converted_and_back_wherever_the_layers_are():
  params = with_head(config_of("llama"))
  tree = ({"policy": params, "value": {"decoder": params["decoder"]}}, [params["decoder"]], jnp.zeros(3))
  stacked = stack_layers(tree)
  assert stacked[0]["policy"]["decoder"]["embedding"]["embedding"] is params["decoder"]["embedding"]["embedding"]
  assert is_stacked(stacked) and not is_stacked(tree) and not is_stacked(unstack_layers(stacked))
  jax.tree.map(np.testing.assert_array_equal, unstack_layers(stacked), tree)
  host = jax.tree.map(np.asarray, tree)
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(unstack_layers(stack_layers(host))))


def test_groups_follow_the_period_of_the_windows():
  assert groups((0,) * 32) == (Group((0,), 32),)
  assert groups((5, 0) * 13) == (Group((5, 0), 13),)
  assert groups(((5,) * 5 + (0,)) * 4 + (5, 5)) == (Group((5,) * 5 + (0,), 4), Group((5,), 2))
  assert groups((0,) * 10 + (5,) * 20) == (Group((0,), 10), Group((5,), 20))
  assert groups((5, 0, 5)) in ((Group((5, 0), 1), Group((5,), 1)), (Group((5, 0, 5), 1),))
  assert groups((1,)) == (Group((1,), 1),)


def equations(jaxpr):
  """The equations of a jaxpr and of the jaxprs within it."""
  for equation in jaxpr.eqns:
    yield equation
    for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or callable(x)):
      inner = getattr(inner, "jaxpr", inner)
      if hasattr(inner, "eqns"):
        yield from equations(inner)


def gradient_jaxpr(model, wrap=lambda function: function):
  params = jax.eval_shape(model.init, jax.random.key(0))
  loss = wrap(lambda params: jnp.mean(jnp.sin(model.apply(params, TOKENS))))
  return jax.make_jaxpr(jax.grad(loss))(params).jaxpr


@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_scanned_program_does_not_grow_with_depth(remat):
  def size(layers, scan):
    windows = ((4, 0) * layers)[:layers]
    return sum(
      1
      for _ in equations(
        gradient_jaxpr(language_model(config_of("gemma2", num_layers=layers, windows=windows), remat, scan=scan))
      )
    )

  assert size(4, True) == size(10, True)
  assert size(6, False) > 2 * size(2, False)


def test_rematerialisation_saves_memory_of_a_scan_on_every_platform():
  tokens = jnp.zeros((2, 128), jnp.int32)

  def temporaries(remat):
    model = language_model(config_of("llama", num_layers=8, max_length=128), remat, scan=True)
    loss = jax.jit(jax.grad(lambda params: jnp.mean(model.hidden(params, tokens) ** 2)))
    return loss.lower(jax.eval_shape(model.init, jax.random.key(0))).compile().memory_analysis().temp_size_in_bytes

  full, dots, none = map(temporaries, ("full", "dots", "none"))
  assert full < 0.4 * none and full < dots < 0.6 * none


@pytest.mark.parametrize("remat", ["none", "full", "dots"])
def test_gathered_weights_are_gathered_again_by_the_backward_pass_and_not_kept(remat):
  """Weights in bfloat16 are the gathered ones: no loop gives such a stack of a layer's matrices to another."""
  seen = set()

  def gather(path, part):
    seen.add(path)
    return jax.tree.map(
      lambda x: jax.lax.all_gather(x.astype(jnp.bfloat16), "fsdp", tiled=True) if x.ndim > 1 else x, part
    )

  mesh = jax.make_mesh((1,), ("fsdp",), devices=jax.devices()[:1])

  def local(function):
    return jax.shard_map(function, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)

  model = language_model(config_of("gpt2", dtype="bfloat16"), remat, scan=True, gather=gather)
  jaxpr = gradient_jaxpr(model, local)
  assert seen == {f"decoder/{name}" for name in ("layers", "embedding", "position_embedding", "final_norm")}
  scans = [equation for equation in equations(jaxpr) if equation.primitive.name == "scan"]
  assert len(scans) == 2
  for scan in scans:
    gathers = [1 for equation in equations(scan.params["jaxpr"].jaxpr) if "all_gather" in equation.primitive.name]
    assert len(gathers) == 6  # the matrices of a layer
    kept = {(x.aval.shape, x.aval.dtype.name) for x in scan.outvars}
    assert not {(3, 16, 16), (3, 16, 8), (3, 16, 24), (3, 24, 16)} & {
      shape for shape, dtype in kept if dtype == "bfloat16"
    }


def test_a_gather_sees_each_part_in_both_forms_and_changes_nothing():
  paths = []

  def gather(path, part):
    paths.append(path)
    return jax.tree.map(lambda x: x + 0, part)

  config = config_of("gpt_neox", num_layers=2)
  params = add_lora(jax.random.key(3), with_head(config), rank=2, alpha=3.0)
  params["lora"] = jax.tree.map(lambda x: x + 0.1, params["lora"])
  expected = loss_and_gradients(language_model(config), params, scored=False)
  gathering = language_model(config, gather=gather)
  agree(loss_and_gradients(gathering, params, scored=False), expected)
  unrolled, paths[:] = {*paths}, []
  agree(loss_and_gradients(gathering, stack_layers(params), scored=False), stack_layers(expected))
  parts = {f"decoder/{name}" for name in ("layers", "embedding", "final_norm", "unembedding")}
  assert {*paths} == unrolled == parts | {"lora/layers", "head"}


def test_a_score_needs_no_unembedding():
  model, params = language_model(config_of("gpt_neox")), with_head(config_of("gpt_neox"))
  score = jax.jit(model.score)
  mask = jnp.ones_like(TOKENS, bool)
  bare = {**params, "decoder": {name: part for name, part in params["decoder"].items() if name != "unembedding"}}
  np.testing.assert_array_equal(score(bare, TOKENS, mask), score(params, TOKENS, mask))
