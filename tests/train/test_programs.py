"""Compiled programs that runs share on disk: where they lie, how many, and what a corrupt one costs."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from rlhf_jax.train import programs


@pytest.fixture(autouse=True)
def told_no_place(monkeypatch):
  """JAX is told no place, as it is to a user; the one of the tests is put aside."""
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
  before = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", None)
  yield
  jax.config.update("jax_compilation_cache_dir", before)


SCRIPT = """
import jax, jax.numpy as jnp, logging
from rlhf_jax.train import programs
programs.MIN_SECONDS = 0.0
print(programs.keep_programs())
events = []
jax.monitoring.register_event_listener(lambda name, **rest: events.append(name))
print(float(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones(64))))
print(events.count("/jax/compilation_cache/cache_hits") > 0)
"""


def run(place):
  environment = {**os.environ, "RLHF_JAX_CACHE": str(place)}
  done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
  return done.stdout.split()


def half(content):
  return content[: len(content) // 2]


def flipped(content):
  return content[:-1] + bytes([content[-1] ^ 1])


def test_a_second_process_reads_what_the_first_compiled(tmp_path):
  place, value, hit = run(tmp_path)
  assert place.startswith(str(tmp_path)) and hit == "False"
  assert run(tmp_path) == [place, value, "True"]


@pytest.mark.parametrize("damage", [half, flipped, lambda content: b""])
def test_a_damaged_program_costs_one_compilation(tmp_path, damage):
  place, value, _ = run(tmp_path)
  files = [path for path in Path(place).rglob("*") if path.is_file()]
  assert files
  for path in files:
    path.write_bytes(damage(path.read_bytes()))
  assert run(tmp_path) == [place, value, "False"]
  assert run(tmp_path) == [place, value, "True"]


def test_the_programs_used_last_stay(tmp_path):
  for number in range(4):
    path = tmp_path / f"sub{number}" / "program"
    path.parent.mkdir()
    path.write_bytes(bytes(100))
    os.utime(path, (1000 + number, 1000 + number))
  os.utime(tmp_path / "sub0" / "program", (5000, 1000))  # read again since
  programs.drop_oldest(tmp_path, 250)
  assert sorted(path.parent.name for path in tmp_path.rglob("program")) == ["sub0", "sub3"]


@pytest.mark.parametrize("given", ["off", "/proc/nowhere"])
def test_no_place_is_no_cache(given, monkeypatch):
  monkeypatch.setenv("RLHF_JAX_CACHE", given)
  assert programs.keep_programs() is None


def test_a_place_that_jax_was_told_is_left_alone(tmp_path, monkeypatch):
  monkeypatch.setenv("RLHF_JAX_CACHE", str(tmp_path))
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
  assert programs.keep_programs() is None and jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
