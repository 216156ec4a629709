"""The programs of a stage with abstract arguments: the stage's own functions, as its `run` builds and calls them.

An algorithm's `build(config, model, transport, steps)` returns its compiled functions, for `run` and for this module.
Rows are full, so that none are packed (`rlhf_jax.packing`): a step of shorter responses takes less.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from rlhf_jax.algorithms import (
  distillation,
  dpo,
  kto,
  online_dpo,
  ppo,
  pretrain,
  process_reward,
  reinforce,
  reward_model,
  rloo,
  sft,
)
from rlhf_jax.models import LanguageModel, only_scored
from rlhf_jax.pipeline.plan import Step
from rlhf_jax.stage import FrozenDtype
from rlhf_jax.tools.compile.counts import moved
from rlhf_jax.tools.compile.program import Program
from rlhf_jax.train import PolicyConfig, adapt, by_rows, frozen, init_state, make_mesh, policy_of
from rlhf_jax.train.mesh import row_devices, rows, shardings
from rlhf_jax.train.response_logprobs import response_logprobs
from rlhf_jax.train.rewards import make_score
from rlhf_jax.train.sampler import Sampling, compiled_sampler, make_layout
from rlhf_jax.train.update import detach
from rlhf_jax.types import Batch, Params, Preferences, Prompts, Rollout, TrainState

RESPONSES = 2  # to a prompt of a comparison
Tree = Any


class StagePrograms(NamedTuple):
  """The programs of a stage, and what it keeps on the chips."""

  programs: list[Program]
  """Programs in the order in which a step calls them."""
  resident: Mapping[str, Tree]
  """Trees of arrays that are on the chips in every step, by the names of `Program.weights`."""


def programs_of(step: Step, model: LanguageModel, judge: LanguageModel | None = None) -> StagePrograms | None:
  """The programs of a stage on the devices of `rlhf_jax.train.mesh.using_devices`; None for a stage that learns
  nothing.

  judge: the model of the reward, where it has another shape than `model`.
  """
  make = _STAGES.get(step.module.__name__)
  if isinstance(step.config, PolicyConfig):
    make = _reinforcement
  return make(_Place(step, model, judge or model)) if make else None


class _Place:
  """Makes abstract arrays of one stage, laid out as its own arrays are."""

  def __init__(self, step: Step, model: LanguageModel, judge: LanguageModel) -> None:
    self.step, self.model, self.judge, self.config = step, model, judge, step.config
    self.transport = step.stage.transport
    self.mesh = make_mesh(self.transport)
    self.rows, self.whole = rows(self.mesh), NamedSharding(self.mesh, PartitionSpec())
    self.key = self.laid_out(jax.eval_shape(lambda: jax.random.key(0)), lambda _: self.whole)

  def laid_out(self, tree: Tree, places: Callable[[Tree], Any]) -> Tree:
    """The tree with shardings: one for all leaves, or a tree of them."""
    found = places(tree)
    found = found if not isinstance(found, NamedSharding) else jax.tree.map(lambda _: found, tree)
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, found)

  def parameters(self, make: Callable[..., Tree], *arguments: Tree) -> Tree:
    """The result of `make`, laid out by the rules of the mesh."""
    return self.laid_out(jax.eval_shape(make, *arguments), lambda tree: shardings(self.mesh, tree))

  def array(self, dtype: Any, *shape: int) -> Any:
    """Rows [N, ...], N up to a multiple of what they are cut into, as the stage pads them."""
    parts = row_devices(self.mesh) * self.transport.microbatches
    each = -(-shape[0] // parts) * parts
    return jax.ShapeDtypeStruct((each, *shape[1:]), dtype, sharding=self.rows)

  def policy(self) -> Params:
    return self.parameters(lambda: self.model.init(jax.random.key(0)))

  def headed(self, params: Params) -> Params:
    likelihood = getattr(self.config, "likelihood", 0.0)
    return self.parameters(lambda params: self.model.init_head(jax.random.key(0), params, likelihood), params)

  def scored(self, params: Params) -> Params:
    return self.parameters(only_scored, self.headed(params))

  def frozen(self, params: Params, dtype: FrozenDtype = "", *, scores_only: bool = False) -> Params:
    return self.parameters(lambda params: frozen(self.model, params, dtype, scores_only=scores_only), params)

  def state(self, params: Params, optimizer: Any, extra: Tree = ()) -> TrainState:
    def first(params):
      return init_state(adapt(getattr(self.config, "lora", None), self.step.stage, params), optimizer, extra)

    return self.parameters(first, params)

  def minimum(self, tree: Tree, gathers: int, reductions: int) -> float:
    """Bytes that a chip sends when every matrix that is cut is gathered `gathers` times in two bytes a number, and its
    gradient is summed `reductions` times, in each microbatch."""
    fsdp = self.mesh.shape["fsdp"]
    cut = sum(
      math.prod(leaf.shape) / self.mesh.shape["tensor"]
      for leaf in jax.tree.leaves(tree)
      if "fsdp" in (leaf.sharding.spec if leaf.sharding else ())
    )
    return self.transport.microbatches * cut * 2 * (gathers + reductions) * (fsdp - 1) / fsdp

  def sums(self, flops: float) -> float:
    """Bytes that a chip sends along tensor for `flops` operations of models, over all chips: two sums of the hidden
    states of its rows in each layer and pass."""
    tensor, config = self.mesh.shape["tensor"], self.model.config
    if tensor == 1:
      return 0.0
    tokens = flops / (2 * _count(self.policy())) / row_devices(self.mesh)  # of all passes, of one row of the mesh
    hidden = tokens * config.d_model * jnp.dtype(config.dtype).itemsize
    return 2 * config.num_layers * moved("all-reduce", hidden, tensor)

  def forward(
    self, name: str, function: Any, arguments: tuple[Any, ...], models: Mapping[str, Tree], tokens: float, **more: Any
  ) -> Program:
    """A program that reads `tokens` tokens by each of the models, which are arguments by name."""
    flops = 2 * sum(map(_count, models.values())) * tokens
    minimum = sum(self.minimum(tree, 1, 0) for tree in models.values())
    settings = dict(tokens=tokens, model_flops=flops, minimum=minimum, partitioned=self.sums(flops), weights=models)
    return Program(name, function, arguments, **{**settings, **more})

  def update(
    self, update: Any, state: TrainState, batch: Tree, weights: Tree, tokens: float, calls: int = 1
  ) -> Program:
    trained, flops = detach(state)[0].params, 6 * _count(state.params) * tokens
    return Program(
      "update", update, (state, batch, weights), {"parameters": state.params, "optimizer": state.opt_state}, calls,
      tokens, flops, self.minimum(state.params, 2, 0) + self.minimum(trained, 0, 1), self.sums(flops),
    )  # fmt: skip


def _supervised(place: _Place, build: Callable, params: Params, batch: Tree, weights: Tree) -> StagePrograms:
  optimizer, update, *_ = build(place.config, place.model, place.transport, 1000)
  state = place.state(params, optimizer)
  programs = [place.update(update, state, batch, weights, math.prod(batch.tokens.shape))]
  return StagePrograms(programs, {"parameters": state.params, "optimizer": state.opt_state})


def _language(build: Callable, *, packed: bool) -> Callable[[_Place], StagePrograms]:
  """Pretraining and SFT. packed: whether a row holds several sequences."""

  def programs(place: _Place) -> StagePrograms:
    shape = place.config.batch_size, place.config.length
    segments = place.array(jnp.int32, *shape) if packed else None
    batch = Batch(place.array(jnp.int32, *shape), place.array(bool, *shape), segments)
    return _supervised(place, build, place.policy(), batch, place.array(jnp.float32, *shape))

  return programs


def _dpo(place: _Place) -> StagePrograms:
  n = place.config.batch_size
  shape = n, RESPONSES, place.config.length
  tokens, mask = place.array(jnp.int32, *shape), place.array(bool, *shape)
  batch = dpo.Groups(tokens, mask, place.array(jnp.float32, n, RESPONSES), place.array(jnp.float32, n))
  found = _supervised(place, dpo.build, place.policy(), batch, place.array(jnp.float32, n, RESPONSES, RESPONSES))
  logprobs = jax.jit(by_rows(functools.partial(response_logprobs, place.model.apply), place.transport))
  models = {"reference": place.policy()}
  # The reference's log-probs are made before the first step, not in each; then the reference is not kept.
  scored = place.forward("reference", logprobs, (*models.values(), tokens, mask), models, math.prod(shape), calls=0)
  return StagePrograms([scored, *found.programs], found.resident)


def _kto(place: _Place) -> StagePrograms:
  n = place.config.batch_size
  tokens, mask = (place.array(dtype, n, place.config.length) for dtype in (jnp.int32, bool))
  ref_logp, desirable = place.array(jnp.float32, n), place.array(bool, n)
  batch = kto.Labelled(tokens, mask, desirable, ref_logp, ref_logp)
  found = _supervised(place, kto.build, place.policy(), batch, place.array(jnp.float32, n))
  logprobs = by_rows(functools.partial(response_logprobs, place.model.apply), place.transport)
  models, count = {"reference": place.policy()}, math.prod(tokens.shape)
  scored = place.forward("reference", jax.jit(logprobs), (*models.values(), tokens, mask), models, count, calls=0)
  programs = [scored, *found.programs]
  if place.config.loss.name != "apo_zero":
    held = {"parameters": found.resident["parameters"]}
    arguments = (*held.values(), tokens, mask, None, ref_logp, desirable)
    baseline = kto.make_baseline(logprobs, place.config.loss)
    programs.insert(1, place.forward("baseline", baseline, arguments, held, count))
  return StagePrograms(programs, found.resident)


def _process_reward(place: _Place) -> StagePrograms:
  shape = place.config.batch_size, place.config.length
  batch = process_reward.Stepwise(place.array(jnp.int32, *shape), place.array(bool, *shape))
  params = place.scored(place.policy())
  return _supervised(place, process_reward.build, params, batch, place.array(jnp.float32, *shape))


def _reward_model(place: _Place) -> StagePrograms:
  config = place.config
  shape = config.batch_size, RESPONSES, config.length
  ranks = place.array(jnp.int32, *shape[:2])
  batch = Preferences(place.array(jnp.int32, *shape), place.array(bool, *shape), ranks)
  weights = {"ranks": place.array(jnp.float32, shape[0])}
  policy = {"policy": place.policy()}
  found = _supervised(place, reward_model.build, place.scored(policy["policy"]), batch, weights)
  if not config.normalize_count:
    return found
  trained = {"frozen copy": place.frozen(found.resident["parameters"], scores_only=True)}
  sampling = _sampling(place, config.sampling, policy, policy["policy"], trained, config.normalize_count, 1)
  after = [dataclasses.replace(program, calls=0) for program in sampling]  # once, at the end, when the policy is loaded
  return StagePrograms([*found.programs, *after], found.resident)


def _reinforcement(place: _Place) -> StagePrograms:
  config, module = place.config, place.step.module
  settings, sampling = config.environment, config.environment.sampling
  samples, length = settings.samples_per_prompt, sampling.max_prompt_tokens + sampling.max_new_tokens
  episodes = settings.batch_size * samples
  policy = place.policy()
  reference = place.frozen(policy, settings.frozen_dtype)
  optimizer, update, experience_of = module.build(config, place.model, place.transport, 1000)
  state = place.state(*_first_state(place, policy, optimizer))
  resident = {"parameters": state.params, "optimizer": state.opt_state, "reference": reference}
  with_model = bool(settings.reward.checkpoint)
  of_judge = _Place(place.step, place.judge, place.judge)
  judge = of_judge.frozen(of_judge.headed(of_judge.policy()), settings.frozen_dtype, scores_only=True)
  reward = {"reward model": judge} if with_model else {}
  held = {"parameters": state.params}
  prompts = settings.batch_size
  programs = _sampling(place, sampling, held, policy_of(state.params), reward, prompts, samples, sampling.truncates)

  rows = episodes, length
  f32 = jnp.float32
  rollout = Rollout(
    place.array(jnp.int32, *rows), place.array(bool, *rows), place.array(f32, *rows), place.array(bool, episodes),
    place.array(jnp.uint8, *rows, -(-place.model.config.vocab_size // 8)) if sampling.truncates else None,
    place.array(jnp.int32, episodes, sampling.max_new_tokens),
  )  # fmt: skip
  minibatches = getattr(config, "minibatches", 1)
  each = episodes // minibatches
  order = place.laid_out(jax.ShapeDtypeStruct((minibatches, each), jnp.int32), lambda _: place.whole)
  models = {"reference": reference}
  # The coefficient of the KL, or the moving mean, is an argument where there is one.
  extra = () if not state.extra else state.extra.values()
  arguments = (state.params, reference, rollout, place.array(f32, episodes), *extra, order)
  if settings.logp == "trainer":
    models["policy"] = policy_of(state.params)
  minimum = minibatches * sum(place.minimum(tree, 1, 0) for tree in models.values())  # they are read in minibatches
  if state.extra:
    models["value"] = state.params.get("value", state.params["policy"] if module is ppo else {})
    minimum += place.minimum(models["value"], 1, 0)
  program = place.forward("experience", experience_of, arguments, models, episodes * length, minimum=minimum)
  weights = {"reference": reference, "parameters": state.params}
  programs.append(dataclasses.replace(program, weights=weights))

  experience = jax.eval_shape(experience_of, *arguments)[0]
  batch = jax.tree.map(lambda x: place.array(x.dtype, each, *x.shape[1:]), experience)
  # A weight for each sequence, for each token, or for each pair of a prompt.
  weighed: tuple[int, ...] = (each,) if module is rloo else (each, length)
  if module is online_dpo:
    groups = functools.partial(online_dpo.grouped, samples_per_prompt=samples)
    batch = jax.tree.map(lambda x: place.array(x.dtype, *x.shape), jax.eval_shape(groups, experience))
    weighed = (settings.batch_size, samples, samples)
  calls = getattr(config, "epochs", 1) * minibatches
  shares, tokens, beside = place.array(f32, *weighed), each * length, 0.0
  if ptx := getattr(config, "ptx", None):
    shape = each, ptx.rows, ptx.length
    batch = batch, Batch(place.array(jnp.int32, *shape), place.array(bool, *shape))
    shares, tokens = (shares, place.array(f32, *shape)), tokens + math.prod(shape)
    beside = place.minimum(policy_of(state.params), 2, 1)  # the policy is read again, for the text
  program = place.update(update, state, batch, shares, tokens, calls)
  programs.append(dataclasses.replace(program, minimum=program.minimum + beside))
  return StagePrograms(programs, {**resident, **reward})


def _distillation(place: _Place) -> StagePrograms:
  """A step on the student's own responses."""
  config, sampling = place.config, place.config.sampling
  policy = place.policy()
  teacher = {"teacher": place.frozen(policy)}
  optimizer, update, logits_of = distillation.build(config, place.model, place.transport, 1000)
  state = place.state(policy, optimizer)
  shape = config.batch_size, sampling.max_prompt_tokens + sampling.max_new_tokens
  batch = Batch(place.array(jnp.int32, *shape), place.array(bool, *shape))
  taught = distillation.Taught(batch, place.array(jnp.float32, *shape, place.model.config.vocab_size))
  held = {"parameters": state.params}
  programs = _sampling(place, sampling, held, policy_of(state.params), {}, config.batch_size, 1)
  arguments = (*teacher.values(), batch.tokens, None)
  programs.append(place.forward("teacher", logits_of, arguments, teacher, math.prod(shape)))
  programs.append(place.update(update, state, taught, place.array(jnp.float32, *shape), math.prod(shape)))
  return StagePrograms(programs, {**held, "optimizer": state.opt_state, **teacher})


def _first_state(place: _Place, policy: Params, optimizer: Any) -> tuple[Params, Any, Tree]:
  """(parameters, optimiser, extra arrays) of a stage of RL, by algorithm."""
  module, config = place.step.module, place.config
  if module not in (ppo, reinforce):
    return policy, optimizer, ()
  extra = {"kl_coef" if module is ppo else "moving_mean": jnp.zeros(())}
  if module is ppo and config.shared_trunk:
    return {"policy": place.headed(policy)}, optimizer, extra
  if module is ppo or config.baseline == "value":
    return {"policy": policy, "value": place.scored(policy)}, optimizer, extra
  return {"policy": policy}, optimizer, extra


def _sampling(
  place: _Place,
  settings: Sampling,
  held: Mapping[str, Tree],
  policy: Params,
  reward: Mapping[str, Params],
  prompts: int,
  samples: int,
  record_support: bool = False,
) -> list[Program]:
  """The programs that lay a policy out for sampling, sample `samples` responses to each prompt, and score them.

  held: the tree, by name, that the policy is part of. reward: the reward model by its name, or nothing.
  """
  lay_out = make_layout(place.model.config.dtype, place.mesh)
  served = place.laid_out(jax.eval_shape(lay_out, policy), lambda tree: shardings(place.mesh, tree, ("tensor",)))
  sampler = compiled_sampler(place.model, settings, place.mesh, (2,), 0, record_support)
  devices = row_devices(place.mesh)
  count = -(-prompts // devices) * devices

  def row(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=place.rows)

  new, total = settings.max_new_tokens, prompts * samples
  length = settings.max_prompt_tokens + new
  arguments = (
    served,
    Prompts(row(count, settings.max_prompt_tokens), row(count)),
    row(count * samples),
    place.key,
    None,
  )
  waves = -(-count * samples // settings.slots) if settings.slots else 1
  gathered = place.minimum(policy, 1, 0) / place.transport.microbatches
  programs = [
    Program("lay_out", lay_out, (policy,), held, minimum=gathered, partitioned=gathered),
    place.forward("sample", sampler, arguments, {"serving copy": served}, total * new, minimum=0.0, trips=waves * new),
  ]
  if reward:
    (model,) = reward.values()
    tokens, mask = place.array(jnp.int32, total, length), place.array(bool, total, length)
    score = make_score(place.judge, place.transport)
    programs.append(place.forward("score", score, (model, tokens, mask), reward, total * length))
  return programs


def _count(tree: Tree) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


_STAGES: dict[str, Callable[[_Place], StagePrograms]] = {
  pretrain.__name__: _language(pretrain.build, packed=False),
  sft.__name__: _language(sft.build, packed=True),
  distillation.__name__: _distillation,
  dpo.__name__: _dpo,
  kto.__name__: _kto,
  process_reward.__name__: _process_reward,
  reward_model.__name__: _reward_model,
}
