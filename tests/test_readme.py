"""Every command of the README: its Python runs, its configs are accepted whole, its quickstart runs (slow)."""

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import pytest
from tiny_chain import recipe, run_stages, shortness

from rlhf_jax import data
from rlhf_jax.algorithms import sft
from rlhf_jax.cli import main
from rlhf_jax.pipeline.recipe import load_config
from rlhf_jax.pipeline.run import plan
from rlhf_jax.settings import parse
from rlhf_jax.train.metrics import read_metrics

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BASH = [block.replace("\\\n", " ") for block in re.findall(r"```bash\n(.*?)```", README, re.S)]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
COMMANDS = [line.split("&&")[-1].strip() for block in BASH for line in block.splitlines() if "rlhf-jax" in line]
RUNS = [shlex.split(line)[2:] for line in COMMANDS if line.startswith("rlhf-jax run") and "my_config.py" not in line]


def test_the_readme_has_the_two_commands():
  assert "<!-- run -->" in README and "<!-- test -->" in README
  assert len(RUNS) >= 5


@pytest.mark.parametrize("arguments", RUNS, ids=lambda a: " ".join(a))
def test_runs_are_accepted(arguments, tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  monkeypatch.syspath_prepend(str(ROOT))
  config, workdir = load_config(arguments)
  assert [step.stage.name for step in plan(config, tmp_path)] == list(config["stages"])
  assert workdir.startswith("runs/")


def python(mark: str) -> str:
  """The one block of Python that has this text in it."""
  (code,) = (block for block in PYTHON if mark in block)
  return code


def names_of(code: str) -> dict:
  names = {"__name__": "readme"}
  exec(compile(code, "README.md", "exec"), names)
  return names


def test_the_objectives_of_the_readme_give_what_they_should():
  assert names_of(python("def score"))["score"](["a", "b"], ["Yes.", "no"]) == [1.0, 0.0]
  assert float(names_of(python("gae("))["loss"]) == pytest.approx(-(0.95 + 1) / 2)


def test_the_mixture_of_the_readme_is_accepted():
  config = recipe("sft")
  names = {"config": SimpleNamespace(sft=SimpleNamespace())}
  exec(compile(python("sources=dict("), "README.md", "exec"), names)
  mixture = names["config"].sft.demonstrations
  parsed = parse(sft.Config, {**config["sft"], "demonstrations": mixture}, "sft").demonstrations
  assert list(parsed.sources) == ["chat", "squad", "nli", "sums"] and parsed.cap == 3000
  assert parsed.sources["squad"].shots == (0, 3)


def test_the_tokenizer_of_the_readme_is_trained(tmp_path, monkeypatch):
  (command,) = (line for line in COMMANDS if "tokenizer train" in line)
  monkeypatch.chdir(tmp_path)
  Path("corpus.txt").write_text("Tom lives in Oakford.\n" * 20)
  rows = [{"instruction": "Where does Tom live?", "input": "", "output": "In Oakford."}]
  Path("alpaca.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
  assert main(shlex.split(command)[1:]) == 0
  assert data.load_tokenizer("my_tokenizer").encode("Oakford")


def test_the_sampling_of_the_readme_gives_what_it_says():
  rollout = names_of(python("rollout = generate("))["rollout"]
  assert rollout.tokens.shape == rollout.mask.shape == rollout.logp.shape == (8, 11)
  assert (rollout.logp[rollout.mask] < 0).all() and rollout.mask.any(axis=1).all()


def test_an_algorithm_of_ones_own_is_short_and_runs(chain, tmp_path, monkeypatch):
  algorithm = python("def above_quantile")
  assert sum(1 for line in algorithm.splitlines() if line.strip()) < 40
  (tmp_path / "my_algorithm.py").write_text(algorithm)
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(str(ROOT))
  config = names_of(python("my_algorithm.py"))["get_config"]().copy_and_resolve_references().to_dict()
  assert config["mine"]["algorithm"] == "my_algorithm.py"
  environment = shortness(tmp_path, batch_size=4, samples_per_prompt=4)
  optimizer = {**config["mine"]["optimizer"], "learning_rate": 3e-2}
  sizes = dict(environment=environment, num_steps=4, kl_coef=0.01, checkpoint_every=4, optimizer=optimizer)
  run_stages(config, chain, tmp_path / "run", {"mine": sizes})
  rows = read_metrics(tmp_path / "run" / "mine" / "metrics.jsonl")
  assert len(rows) == 4 and (tmp_path / "run" / "mine" / "done.json").exists()
  assert abs(rows[0]["kl/reference"]) < 1e-4 < 1e-2 < rows[-1]["kl/reference"]
  advantages = names_of(algorithm)["above_quantile"](jnp.array([[1.0, 2.0, 3.0, 10.0]]), 0.5)
  assert advantages.tolist() == [[-1.5, -0.5, 0.5, 7.5]]


def test_every_recipe_is_accepted(tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  monkeypatch.syspath_prepend(str(ROOT))
  for path in sorted((ROOT / "configs").glob("*.py")):
    argument = ":pairs.jsonl" if path.stem in ("hh", "smollm2_hh") else ""
    config, _ = load_config(["--config", f"configs/{path.name}{argument}", "--workdir", "x"])
    assert plan(config, tmp_path)


@pytest.mark.slow
def test_quickstart_runs_and_learns(tmp_path):
  arguments = ["--config", "configs/quickstart.py", "--workdir", str(tmp_path / "run")]
  one_device = {**os.environ, "XLA_FLAGS": ""}
  subprocess.run([sys.executable, "-m", "rlhf_jax.cli", "run", *arguments], cwd=ROOT, check=True, env=one_device)
  result = json.loads((tmp_path / "run/evaluation/evaluation.json").read_text())
  base, sft, ppo = (result["models"][name] for name in ("pretrain", "sft", "ppo"))
  assert sft["gold"]["low"] > base["gold"]["high"]
  assert ppo["proxy"]["low"] > sft["proxy"]["high"]
  assert ppo["gold"]["mean"] > sft["gold"]["mean"]
  assert ppo["win_rate"]["low"] > 0.5
  assert 0 < ppo["kl"]["mean"] < 50
  assert result["reward_model"]["reward_model"]["clear_accuracy"]["low"] > 0.7
  assert (tmp_path / "run/report.html").stat().st_size > 20_000
