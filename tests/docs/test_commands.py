"""Every command and every block of Python of the pages works: configs are accepted whole, Python runs."""

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from pages import BLOCKS, ROOT, code, commands
from tiny_chain import SAMPLING, SIZES, a_stage, recipe, run_stages, shortness

from rlhf_jax import data
from rlhf_jax.algorithms import sft
from rlhf_jax.cli import main
from rlhf_jax.cli.parsers import PARSERS
from rlhf_jax.objectives import dpo_loss
from rlhf_jax.pipeline.plan import plan
from rlhf_jax.pipeline.recipe import load_config
from rlhf_jax.settings import parse
from rlhf_jax.train import Function
from rlhf_jax.train.metrics import read_metrics
from rlhf_jax.train.reward_functions import Responses, make_reward_function
from rlhf_jax.types import Experience, Rollout

pytestmark = pytest.mark.usefixtures("unoptimised")
OWN_CONFIG = "my_config.py"
OURS = [(page, words[1:]) for page, words in commands() if words[0] == "rlhf-jax"]
RUNS = {shlex.join(words[1:]): words[1:] for _, words in OURS if words[0] == "run" and OWN_CONFIG not in words}
OTHERS = {shlex.join(words): words for _, words in OURS if words[0] != "run"}


def names_of(text: str, **names) -> dict:
  exec(compile(text, "page", "exec"), names)
  return names


def test_there_are_commands_to_test():
  assert len(RUNS) >= 25 and len(OTHERS) >= 12


@pytest.mark.parametrize("arguments", RUNS.values(), ids=RUNS)
def test_runs_are_accepted(arguments, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)  # recipes are found from any directory
  config, workdir = load_config(arguments)
  assert [step.stage.name for step in plan(config, tmp_path)] == list(config["stages"])
  assert workdir.startswith("runs/")


@pytest.mark.parametrize("words", OTHERS.values(), ids=OTHERS)
def test_other_commands_are_accepted(words):
  if words[0].startswith("-"):
    assert main(words) == 0
  else:
    PARSERS[words[0]]().parse_args(words[1:])


def test_recipes_that_are_shown_exist(capsys):
  shown = [words[1:] for words in OTHERS.values() if words[0] == "configs"]
  assert [] in shown and ["ppo"] in shown
  for words in shown:
    assert main(["configs", *words]) == 0
    assert "ppo" in capsys.readouterr().out


def test_files_that_commands_run_exist():
  paths = [
    (page, word)
    for page, words in commands()
    if words[0] == "python"
    for word in words[1:]
    if word.startswith(("tests/", "experiments/", "benchmarks/"))
  ]
  assert len(paths) >= 4
  for page, path in paths:
    assert (ROOT / path).exists(), f"{page.name}: {path}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=lambda b: b.page.name)
def test_python_runs(block):
  names_of(block.text, __name__="page", config=get_quickstart())


def test_lines_of_a_config_are_accepted(tmp_path):
  blocks = [block for block in BLOCKS if block.language == "" and block.text.startswith("config.")]
  assert len(blocks) >= 3
  for block in blocks:
    config = names_of(block.text, config=get_quickstart())["config"]
    assert plan(config.copy_and_resolve_references().to_dict(), tmp_path)


def get_quickstart():
  from rlhf_jax.configs import quickstart

  return quickstart.get_config()


def test_the_objectives_give_what_they_should():
  assert names_of(code("python", "def score"))["score"](["a", "b"], ["Yes.", "no"]) == [1.0, 0.0]
  assert float(names_of(code("python", "gae("))["loss"]) == pytest.approx(-(0.95 + 1) / 2)


def test_the_functions_of_a_reward_get_and_give_what_the_page_says(tmp_path):
  (tmp_path / "my_rewards.py").write_text(code("python", "def solved"))
  mask = np.array([[0, 1, 1], [0, 0, 1]], bool)
  rollout = Rollout(np.array([[5, 7, 1], [5, 5, 7]]), mask, np.zeros(mask.shape, np.float32), np.array([True, False]))
  rows = [{"prompt": "2 + 2?", "answer": "4"}, {"prompt": "2 + 3?", "answer": "5"}]
  asked = Responses(rollout, ["2 + 2?", "2 + 3?"], ["It is 4.", "Six"], rows, 5)

  def by(name, **arguments):
    return make_reward_function(Function(f"{tmp_path}/my_rewards.py:{name}", arguments), a_stage(tmp_path))(asked)

  solved = by("solved")
  assert solved.total.tolist() == pytest.approx([1.1, 0]) and solved.named["right"].tolist() == [1, 0]
  assert by("brief").total.tolist() == pytest.approx([-0.01, -0.005])
  assert by("brief", step=20).total.tolist() == pytest.approx([-0.02, -0.01])
  assert by("every_step", newline=7).tokens.tolist() == [[0, 1, 0], [0, 0, 1]]


def test_the_mixture_is_accepted():
  mixture = names_of(code("python", "config.sft.demonstrations = dict("), config=get_quickstart())[
    "config"
  ].sft.demonstrations.to_dict()
  parsed = parse(sft.Config, {**recipe("sft")["sft"], "demonstrations": mixture}, "sft").demonstrations
  assert set(parsed.sources) == {"chat", "squad", "nli", "sums"} and parsed.cap == 3000
  assert parsed.sources["squad"].shots == (0, 3)


def test_the_tokenizer_is_trained(tmp_path, monkeypatch):
  (words,) = (words for words in OTHERS.values() if words[0] == "tokenizer")
  monkeypatch.chdir(tmp_path)
  Path("corpus.txt").write_text("Tom lives in Oakford.\n" * 20)
  rows = [{"instruction": "Where does Tom live?", "input": "", "output": "In Oakford."}]
  Path("alpaca.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
  assert main(words) == 0
  assert data.load_tokenizer("my_tokenizer").encode("Oakford")


def test_the_sampling_gives_what_it_says():
  rollout = names_of(code("python", "rollout = generate("))["rollout"]
  assert rollout.tokens.shape == rollout.mask.shape == rollout.logp.shape == (8, 11)
  assert (rollout.logp[rollout.mask] < 0).all() and rollout.mask.any(axis=1).all()


def test_an_algorithm_of_ones_own_is_short_and_runs(chain, tmp_path, monkeypatch):
  algorithm = code("python", "def above_quantile")
  assert sum(1 for line in algorithm.splitlines() if line.strip()) < 40
  (tmp_path / "my_algorithm.py").write_text(algorithm)
  (tmp_path / OWN_CONFIG).write_text(code("python", "my_algorithm.py"))
  monkeypatch.chdir(tmp_path)
  (words,) = (words for _, words in OURS if OWN_CONFIG in words)
  config, _ = load_config(words[1:])
  assert config["mine"]["algorithm"] == "my_algorithm.py"
  environment = shortness(tmp_path, batch_size=4, samples_per_prompt=4)
  optimizer = {**config["mine"]["optimizer"], "learning_rate": 3e-2}
  sizes = dict(environment=environment, num_steps=4, kl_coef=0.01, checkpoint_every=4, optimizer=optimizer)
  run_stages(config, chain, tmp_path / "run", {"mine": sizes})
  rows = read_metrics(tmp_path / "run" / "mine" / "metrics.jsonl")
  assert len(rows) == 4 and (tmp_path / "run" / "mine" / "done.json").exists()
  assert abs(rows[0]["kl/reference"]) < 1e-4 < 1e-2 < rows[-1]["kl/reference"]
  advantages = names_of(algorithm, __name__="mine")["above_quantile"](jnp.array([[1.0, 2.0, 3.0, 10.0]]), 0.5)
  assert advantages.tolist() == [[-1.5, -0.5, 0.5, 7.5]]


def test_losses_of_ones_own_are_what_they_say_and_train(chain, tmp_path, monkeypatch):
  losses = code("python", "def robust_dpo")
  mine = names_of(losses)
  # A bad action that the policy has come to take ten times as often: without the bound the gain would be -10.
  batch = Experience(*(jnp.zeros((1, 2)),) * 3, jnp.array([[-1.0, 1.0]])).replace(mask=jnp.ones((1, 2), bool))
  gain, clipped = mine["dual_clip"](jnp.log(jnp.full((1, 2), 10.0)), batch, clip=0.2, bound=3.0)
  assert gain.tolist() == [[-3.0, pytest.approx(1.2)]] and clipped.tolist() == [[0.0, 1.0]]
  # Where a share of the labels is flipped, the mean of the robust loss is DPO's on the true labels.
  logps, given = jnp.array([-3.0, -4.0, -3.5, -3.6])[:, None], dict(beta=0.5, mask=jnp.ones(1))
  chosen, rejected, ref_chosen, ref_rejected = logps
  true = mine["robust_dpo"](*logps, **given, flipped=0.2)
  other = mine["robust_dpo"](rejected, chosen, ref_rejected, ref_chosen, **given, flipped=0.2)
  assert (0.8 * true + 0.2 * other).tolist() == pytest.approx(dpo_loss(*logps, beta=0.5).tolist(), rel=1e-5)
  (tmp_path / "my_losses.py").write_text(losses)
  monkeypatch.chdir(tmp_path)
  config = get_quickstart()
  exec(code("python", "config.ppo.objective ="), {"config": config})
  run_stages(
    config.copy_and_resolve_references().to_dict(),
    chain,
    tmp_path / "run",
    {"ppo": dict(SIZES["ppo"], num_steps=2, checkpoint_every=2)},
  )
  assert len(read_metrics(tmp_path / "run" / "ppo" / "metrics.jsonl")) == 2
  (line,) = re.findall(r"`config.dpo.loss = (.*)`\.", (ROOT / "docs/writing_an_algorithm.md").read_text())
  sizes = dict(length=64, batch_size=16, eval_fraction=0.2, num_epochs=1, loss=eval(line))
  config = recipe("dpo")
  config["dpo"]["loss"] = {}
  run_stages(config, chain, tmp_path / "run", {"dpo": sizes})
  assert (tmp_path / "run" / "dpo" / "done.json").exists()


@pytest.mark.parametrize(
  "file, mark",
  [("my_plus.py", "dual_clip_objective"), ("my_rloo.py", "config.rloo.ptx"), ("my_remax.py", "reinforce_greedy.ptx")],
)
def test_parts_put_together_are_short_and_run(chain, tmp_path, monkeypatch, file, mark):
  text = code("python", mark)
  assert sum(1 for line in text.splitlines() if line.strip()) <= 15
  (tmp_path / file).write_text(text)
  monkeypatch.chdir(tmp_path)
  config, _ = load_config(["--config", file, "--workdir", "x"])
  name = config["stages"][-2]
  sizes = {key: SIZES["ppo"][key] for key in ("num_steps", "checkpoint_every")}
  environment = dict(batch_size=8, sampling=SAMPLING, missing_eos_score=None)
  changes = dict(sizes, num_steps=2, environment=environment)
  if "ptx" in config[name]:
    changes["ptx"] = dict(length=32)
  run_stages(config, chain, tmp_path / "run", {name: changes})
  (row, _) = read_metrics(tmp_path / "run" / name / "metrics.jsonl")
  found = {"reward/overlong"} if file == "my_plus.py" else {"ptx/loss"}
  assert (found | ({"reward/greedy"} if file == "my_remax.py" else set())) <= row.keys()


@pytest.mark.slow
def test_quickstart_runs_and_learns(tmp_path):
  arguments = ["--config", "quickstart", "--workdir", str(tmp_path / "run")]
  one_device = {**os.environ, "XLA_FLAGS": ""}
  subprocess.run([sys.executable, "-m", "rlhf_jax.cli", "run", *arguments], cwd=ROOT, check=True, env=one_device)
  result = json.loads((tmp_path / "run/evaluation/evaluation.json").read_text())
  base, tuned, ppo = (result["models"][name] for name in ("pretrain", "sft", "ppo"))
  assert tuned["gold"]["low"] > base["gold"]["high"]
  assert ppo["proxy"]["low"] > tuned["proxy"]["high"]
  assert ppo["gold"]["mean"] > tuned["gold"]["mean"]
  assert ppo["win_rate"]["low"] > 0.5
  assert 0 < ppo["kl"]["mean"] < 50
  assert result["reward_model"]["reward_model"]["clear_accuracy"]["low"] > 0.7
  assert (tmp_path / "run/report.html").stat().st_size > 20_000
