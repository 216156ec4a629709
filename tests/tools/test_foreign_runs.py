"""A run directory that somebody else made is opened without running anything that it names or holds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import data
from rlhf_jax.stage import Model, Stage, Transport
from rlhf_jax.train import checkpoint
from rlhf_jax.train.workspace import identity, open_workspace
from rlhf_jax.types import TrainState

ROOT = Path(__file__).parents[2]
MODEL = dict(num_layers=1, d_model=16, num_heads=2, num_kv_heads=2, d_ff=16, max_length=64)
TRANSPORT = dict(kind="jit", fsdp=1, microbatches=1)
# Modules that the commands import: files of these names in the current directory must not come first.
IMPORTED = ("jinja2", "markupsafe", "ml_dtypes", "msgpack", "numpy", "safetensors", "tokenizers", "jax", "rlhf_jax")


@pytest.fixture
def run(tmp_path):
  """A run with one finished model, in which every name of code leaves a mark when it is imported."""
  directory = tmp_path / "run"
  directory.mkdir()
  mark = f"open({str(tmp_path / 'mark')!r}, 'a').write(__name__ + chr(10))\n"
  for name in ("attack", *IMPORTED):
    (directory / f"{name}.py").write_text(mark + "def reward(*_, **__): pass\n")
  data.train_tokenizer(["a b c"] * 9, 300).save(directory / "tokenizer.json")
  named = str(directory / "attack.py")
  section = {"algorithm": named, "reward": {"function": f"{named}:reward"}, "monitors": {f"{named}:reward": {}}}
  config = {
    "seed": 0, "stages": ["sft", "ppo", "evaluation"], "tokenizer": "{run}/tokenizer.json", "model": MODEL,
    "transport": TRANSPORT, "sft": section, "ppo": {**section, "algorithm": "attack"}, "evaluation": section,
  }  # fmt: skip
  (directory / "config.json").write_text(json.dumps(config))
  for name in config["stages"]:
    (directory / name).mkdir()
    (directory / name / "config.json").write_text(json.dumps(config[name]))
    (directory / name / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0, "reward/proxy": 0.5}\n')
  row = {"step": 1, "row": 0, "split": "train", "prompt": "a", "response": "b", "reward": 1.0, "kl": 0.0}
  (directory / "ppo" / "samples.jsonl").write_text(json.dumps(row))
  (directory / "ppo" / "samples").mkdir()
  ones = np.ones((1, 3))
  np.savez(directory / "ppo" / "samples" / "1.npz", tokens=ones.astype(int), mask=ones > 0, logp=-ones, logp_ref=-ones)
  (directory / "evaluation" / "evaluation.json").write_text(json.dumps({"models": {"sft": {"gold": 1.0}}}))
  (directory / "sft" / "done.json").write_text(json.dumps({"fingerprint": "f", "seconds": 1.0, "command": "x"}))
  stage = Stage("sft", directory, 0, config["tokenizer"], Model(**MODEL), Transport(**TRANSPORT), "f")
  tokenizer, model = open_workspace(stage)
  state = TrainState(jnp.zeros((), jnp.int32), model.init(jax.random.key(0)), (), ())
  with checkpoint.open_checkpoints(directory / "sft" / "checkpoints") as checkpoints:
    checkpoint.save(checkpoints, state, identity(stage, model, tokenizer))
  (directory / "prompts.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b c"}\n')
  return directory


COMMANDS = [
  ["sample", ".", "a b", "--max-new-tokens", "4"],
  ["export", ".", "../exported"],
  ["collect", ".", "--prompts", "prompts.jsonl", "-k", "2", "--max-new-tokens", "4", "--out", "../feedback.db"],
  ["report", "."],
  ["inspect", "."],
  ["doctor", "."],
  ["harness", ".", "--tasks", "none"],
]


def test_no_command_runs_what_a_run_names_or_holds(run):
  """The commands stand in the run's directory, as a user who looks at it does."""
  script = (
    "import json, sys\nfrom rlhf_jax.cli import main\nprint([main(command) for command in json.loads(sys.argv[1])])"
  )
  environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
  call = [sys.executable, "-P", "-c", script, json.dumps(COMMANDS)]  # -P: as for an installed command
  done = subprocess.run(call, cwd=run, env=environment, capture_output=True, text=True)
  statuses = json.loads(done.stdout.splitlines()[-1])
  assert statuses[:5] == [0] * 5, done.stdout + done.stderr
  assert not (run.parent / "mark").exists()
  told = subprocess.run(
    [sys.executable, "-P", "-m", "rlhf_jax.cli", "run", "--config", "attack.py", "--workdir", "x"],
    cwd=run, env=environment, capture_output=True, text=True,
  )  # fmt: skip
  assert (run.parent / "mark").exists(), told.stderr  # what a user names is run, so that the marks work
