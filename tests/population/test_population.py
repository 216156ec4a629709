"""Members of a population: what they compile runs as one program, and each gets what it would get alone."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlhf_jax.population import jit, shared, speaks, varied
from rlhf_jax.population.program import Population
from rlhf_jax.population.varying import Varying
from rlhf_jax.train.optimizer import Optimizer, make_optimizer

ADAM = Optimizer(0.1, 0.0, "linear", 0.9, 0.99, 1e-8, False, 0.01, 1.0)
RATES, CLIPS = (0.1, 0.2, 0.3), (0.2, 0.3, 0.4)
SLOPES = jnp.arange(1.0, 4.0)


def train(number, rate, clip, *, steps=3, scale=1.0):
  """A few steps of something with every way of using a hyperparameter; its own data, keys and shared slopes."""
  optimizer = make_optimizer(dataclasses.replace(ADAM, learning_rate=rate), 10)
  slopes = shared("slopes", lambda: SLOPES)

  def loss(params, x, slopes):
    clipped = jnp.clip(params * x, 1 - clip, 1 + clip)
    return jnp.sum(slopes * (jnp.where(x > 0, clip, clipped) + scale * jnp.maximum(clip, params) * clip**2 + clipped))

  def step(state, x, slopes, key):
    params, opt_state = state
    value, grads = jax.value_and_grad(loss)(params, x, slopes)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    noise = 0.01 * jax.random.normal(key, params.shape)
    return (optax.apply_updates(params, updates) + noise, opt_state), value

  step = jit(step, donate_argnums=(0,))
  params = jnp.arange(3.0) + number
  state, values = (params, optimizer.init(params)), []
  for index in range(steps):
    x = np.arange(3, dtype=np.float32) - number
    state, value = step(state, x, slopes, jax.random.fold_in(jax.random.key(number), index))
    values.append(float(value))
  return np.asarray(state[0]), values


def together(tasks):
  """(what each task returned or raised, the population)."""
  population, results = Population(len(tasks)), [None] * len(tasks)

  def put(number):
    results[number] = tasks[number]()

  errors = population.run([lambda k=k: put(k) for k in range(len(tasks))], [{}] * len(tasks))
  return [error or result for error, result in zip(errors, results, strict=True)], population


def assert_same(got, expected):
  np.testing.assert_allclose(got[0], expected[0], rtol=1e-5)
  np.testing.assert_allclose(got[1], expected[1], rtol=1e-5)


def test_members_equal_their_solo_runs_in_one_program():
  tasks = [lambda k=k: train(k, Varying(RATES, k), Varying(CLIPS, k)) for k in range(3)]
  results, population = together(tasks)
  for number in range(3):
    assert_same(results[number], train(number, RATES[number], CLIPS[number]))
  (program,) = population.programs.values()
  assert program.compiled._cache_size() == 1  # compiled once, for three steps of three members
  assert list(population.counts().values()) == [1]
  differ = [results[number][1] for number in range(3)]
  assert differ[0] != differ[1] != differ[2]


def test_what_differs_otherwise_costs_a_program_and_no_wrong_number():
  scales = (1.0, 2.0, 1.0)
  results, population = together([lambda k=k: train(k, 0.1, 0.2, scale=scales[k]) for k in range(3)])
  for number in range(3):
    assert_same(results[number], train(number, 0.1, 0.2, scale=scales[number]))
  assert list(population.counts().values()) == [2]


def test_captured_arrays_that_differ_make_programs_differ():
  def task(number):
    captured = np.full(3, number, np.float32)
    inner = jax.jit(lambda x: x + captured)
    return float(jit(lambda x: inner(x).sum())(jnp.ones(3)))

  results, _ = together([lambda k=k: task(k) for k in range(3)])
  assert results == [3.0, 6.0, 9.0]


def test_members_may_part_and_fail():
  def fails():
    train(1, 0.1, 0.2, steps=1)
    raise FloatingPointError("the loss is nan")

  tasks = [lambda: train(0, 0.1, 0.2, steps=5), fails, lambda: train(2, 0.1, 0.2, steps=2)]
  results, population = together(tasks)
  assert_same(results[0], train(0, 0.1, 0.2, steps=5))
  assert_same(results[2], train(2, 0.1, 0.2, steps=2))
  assert isinstance(results[1], FloatingPointError)
  assert population.active == set()


def test_an_error_in_the_program_reaches_every_member():
  def task():
    return jit(lambda x: jnp.zeros(3) + x)(jnp.ones(4))

  results, _ = together([task, task])
  assert all(isinstance(result, TypeError) for result in results)


def test_shared_arrays_are_made_once_and_not_stacked():
  made = []

  def task():
    array = shared("array", lambda: made.append(1) or jnp.ones(4))
    return np.asarray(jit(lambda x, y: x + y)(array, jnp.ones(4)))

  results, population = together([task, task])
  assert len(made) == 1 and (results[0] == 2).all()
  (program,) = population.programs.values()
  assert program._roles == ("common", "kept")


def test_members_meet_in_threads_of_their_own_and_one_speaks():
  meet = jit(lambda x: x)

  def task():
    meet(1.0)
    found = threading.get_ident(), speaks()
    meet(1.0)
    return found

  results, _ = together([task] * 3)
  assert len({thread for thread, _ in results}) == 3
  assert [heard for _, heard in results] == [True, False, False] and speaks()


def test_a_varying_float_is_the_members_own_on_the_host():
  x = Varying((0.5, 2.0), 1)
  assert float(x) == 2.0 and f"{x:.1f}" == "2.0" and bool(x) and round(x) == 2
  assert (1 - x).values == (0.5, -1.0) and (x / 2).values == (0.25, 1.0) and (x**2).values == (0.25, 4.0)
  assert (x * Varying((2.0, 3.0), 1)).values == (1.0, 6.0) and (-x).values == (-0.5, -2.0)
  assert x > 1 and not x < 1 and x == 2.0 and x != 0.5 and 1 <= x
  assert float(np.float32(3) * x) == 6.0 and float(jnp.float32(3) * x) == 6.0 and float(jnp.asarray(x)) == 2.0


def test_a_key_names_its_field_and_no_arguments_of_functions():
  @dataclasses.dataclass(frozen=True)
  class Config:
    optimizer: Optimizer
    clip: float
    arguments: dict

  config = Config(ADAM, 0.2, {"margin": 1.0})
  assert varied("ppo", config) is config
  varying = {
    "ppo.clip": Varying((0.2,), 0),
    "ppo.optimizer.eps": Varying((1e-3,), 0),
    "ppo.arguments.margin": Varying((1.0,), 0),
  }
  seen = []
  Population(1).run([lambda: seen.extend([varied("ppo", config), varied("sft", config)])], [varying])
  assert isinstance(seen[0].clip, Varying) and isinstance(seen[0].optimizer.eps, Varying)
  assert seen[0].arguments == {"margin": 1.0} and isinstance(seen[0].arguments["margin"], float)
  assert seen[1] is config
  with pytest.raises(ValueError):
    dataclasses.replace(ADAM, learning_rate=Varying((-1.0, 1.0), 0))
