"""Sweeps of a stage that trains nothing: each run takes a moment."""

import textwrap
from pathlib import Path

import pytest

STAGE = """
  import dataclasses, json, time
  from pathlib import Path
  from rlhf_jax.stage import StageName

  WRITES = ("results.json",)

  @dataclasses.dataclass(frozen=True)
  class Config:
    algorithm: str
    size: int = 1
    init: StageName = ""
    seconds: float = 0.0
    trap: str = ""
    num_steps: int = 0

  def run(config, stage):
    with open(stage.root / "starts.txt", "a") as file:
      file.write(stage.name + "\\n")
    time.sleep(config.seconds)
    if config.trap and Path(config.trap).exists():
      raise ValueError("the trap is there")
    before = json.loads((stage.root / config.init / "results.json").read_text())["score"] if config.init else 0
    stage.directory.mkdir(exist_ok=True)
    (stage.directory / "results.json").write_text(json.dumps({"score": before + config.size + stage.seed / 10}))
"""
SWEEP = """
  from ml_collections import ConfigDict
  from rlhf_jax.sweep import changed, product, seeds, zip

  def base():
    own = {"algorithm": "HERE/mine.py"}
    transport = dict(kind="jit", fsdp=1, microbatches=1)
    model = dict(num_layers=1, d_model=16, num_heads=2, num_kv_heads=2, d_ff=16, max_length=8)
    return ConfigDict(dict(seed=0, stages=("first", "second"), tokenizer="", model=model, transport=transport,
      writers=(), first=dict(own, size=1), second=dict(own, size=1, init="first", trap="HERE/trap")))

  def sweep(add):
"""


@pytest.fixture
def write_sweep(tmp_path):
  """A function of the body of sweep(add) that writes mine.py and sweep.py, and returns the path of the sweep."""

  def write(body: str) -> Path:
    (tmp_path / "mine.py").write_text(textwrap.dedent(STAGE))
    text = textwrap.dedent(SWEEP).replace("HERE", str(tmp_path)) + textwrap.indent(textwrap.dedent(body), "  ")
    (tmp_path / "sweep.py").write_text(text)
    return tmp_path / "sweep.py"

  return write


@pytest.fixture
def grid():
  """The body of a sweep over two values of both stages."""
  return """
    for changes in product({"first.size": (1, 2), "second.size": (10, 20)}):
      add(changed(base(), changes))
  """


@pytest.fixture
def pair():
  """The body of a sweep over two values of the second stage, for tests that start a process for each run."""
  return "for size in (10, 20):\n  one = base(); one.second.size = size; add(one)"
