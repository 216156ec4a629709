"""The seconds of a stage by part, against a clock that is set by hand, and compilation as JAX reports it."""

import threading

import jax
import jax.numpy as jnp
import pytest

from rlhf_jax.train import timeline as module
from rlhf_jax.train.timeline import Timeline, counted_as, timeline


@pytest.fixture
def clock(monkeypatch):
  """The time, to be set."""
  now = [0.0]
  monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
  return now


def test_every_second_belongs_to_one_part(clock):
  with timeline() as spent:
    clock[0] = 2.0
    with counted_as("steps"):
      clock[0] = 5.0
      with counted_as("evaluation"):
        clock[0] = 9.0
      clock[0] = 10.0
    clock[0] = 10.5
  assert spent.seconds() == {"data": 2.5, "steps": 4.0, "evaluation": 4.0}


def test_an_error_leaves_the_part_that_it_ends(clock):
  with timeline() as spent:
    with pytest.raises(ValueError), counted_as("steps"):
      raise ValueError
    clock[0] = 1.0
  assert spent.seconds() == {"data": 1.0}


def test_compilation_is_taken_from_the_part_in_which_it_happens(clock):
  spent = Timeline()
  spent.enter("steps")
  clock[0] = 10.0
  spent.compiled(4.0)
  assert spent.seconds() == {"compile": 4.0, "steps": 6.0}


def test_what_jax_compiles_in_this_thread_counts_and_in_another_does_not():
  def seconds_of(number):
    """The seconds of compilation, unrounded, of a program that no cache has."""
    with timeline() as spent:
      jax.jit(lambda x: jnp.sin(x) * number)(jnp.ones(3)).block_until_ready()
    return spent._seconds["compile"]

  assert seconds_of(2.5) > 0
  with timeline() as spent:
    other = threading.Thread(target=lambda: jax.jit(lambda x: jnp.cos(x) * 3.5)(jnp.ones(3)))
    other.start()
    other.join()
  assert spent._seconds["compile"] == 0


def test_outside_of_a_stage_nothing_is_counted():
  @counted_as("evaluation")
  def measured(x):
    return x + 1

  assert measured(1) == 2
  with timeline() as spent:
    assert measured(2) == 3
  assert "steps" not in spent.seconds()
