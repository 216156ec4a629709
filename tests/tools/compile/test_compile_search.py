"""The search: which uses of the chips are tried, in which order, and what is taken."""

from types import SimpleNamespace

import pytest

from rlhf_jax.stage import Transport
from rlhf_jax.tools.compile.search import Candidate, candidates, search, words


def target(chips, slices=1):
  return SimpleNamespace(devices=range(chips), slices=slices)


def test_every_shape_uses_all_chips_and_gives_each_a_row():
  found = list(candidates(Transport("jit", 1, 1), target(64), rows=32))
  assert found and len({*found}) == len(found)
  for each in found:
    data = 64 // each.fsdp // each.tensor
    assert data * each.fsdp * each.tensor == 64
    assert data * each.fsdp <= 32 and each.microbatches * data * each.fsdp <= 32
  assert {each.remat for each in found} == {"none", "dots", "full"}


def test_slices_never_cut_parameters():
  assert all(each.fsdp * each.tensor <= 16 for each in candidates(Transport("jit", 1, 1), target(32, 2), rows=64))


@pytest.mark.parametrize(("fitting", "expected"), [({1, 2}, 1), ({2}, 2), (set(), None)])
def test_the_first_that_fits_is_taken_in_the_order_of_the_estimates(fitting, expected):
  choices = {size: Transport("jit", size, 1) for size in (1, 2, 3)}
  seconds = {1: 1.0, 2: 2.0, 3: 0.5}  # 3 is fastest, and too large by its estimate
  tried = []

  def compile_one(choice):
    tried.append(choice.fsdp)
    return choice.fsdp in fitting, f"report {choice.fsdp}"

  found = search(
    iter(choices.values()), lambda each: Candidate(each, seconds[each.fsdp], 10.0 if each.fsdp == 3 else 1.0),
    compile_one, hbm=5.0, best=2, tell=lambda line: None,
  )  # fmt: skip
  assert found == (None if expected is None else (choices[expected], f"report {expected}"))
  assert tried == [1, 2][: len(tried)]


def test_the_choice_is_printed_as_overrides():
  assert words(Transport("jit", 8, 2, remat="full")).startswith("--config.transport.data=-1 --config.transport.fsdp=8 ")
