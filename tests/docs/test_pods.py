"""The arguments of other tools on the page about pods, against the tools' own help where they are installed."""

import importlib.util
import json
import os
import re
import shutil
import subprocess

import pytest
from pages import BLOCKS, ROOT, commands

PAGE = ROOT / "docs/pods.md"
TOOLS = {
  "gcloud": "the Google Cloud CLI",
  "xpk": "pip install xpk",
  "sky": "pip install skypilot",
  "sbatch": "SLURM",
}
LINES = [words for page, words in commands() if page == PAGE and words[0] in TOOLS]


def command_of(words):
  """The words of a command in front of its arguments: gcloud compute tpus tpu-vm ssh."""
  name = []
  for word in words:
    if word.startswith("-") or word in ("ppo", "ppo.yaml"):
      break
    name.append(word)
  return name


def test_every_tool_stands_on_the_page():
  assert {words[0] for words in LINES} == set(TOOLS)


@pytest.mark.parametrize("words", LINES, ids=lambda words: " ".join(command_of(words)))
def test_arguments_are_those_of_the_tool(words, tmp_path):
  if not shutil.which(words[0]):
    pytest.skip(f"{words[0]} is not installed: {TOOLS[words[0]]}")
  cluster = tmp_path / "slurm.conf"  # without one SLURM looks for a cluster, and says nothing of its arguments
  cluster.write_text("ClusterName=c\nSlurmctldHost=localhost\nNodeName=localhost\n")
  environment = {**os.environ, "SLURM_CONF": str(cluster)}
  help = [*command_of(words), "--help"]
  found = subprocess.run(help, capture_output=True, text=True, timeout=120, env=environment)
  known = set(re.findall(r"--[a-z][a-z-]+", re.sub(r"\x1b\[\d*m|.\x08", "", found.stdout)))
  assert len(known) > 5, found.stderr
  asked = {word.partition("=")[0] for word in words if word.startswith("--")}
  assert asked <= known


def test_the_task_of_skypilot_is_accepted():
  if importlib.util.find_spec("sky") is None:
    pytest.skip("sky is not installed: pip install skypilot")
  import jsonschema
  import yaml
  from sky.utils import schemas

  (block,) = (block for block in BLOCKS if block.page == PAGE and block.language == "yaml")
  jsonschema.validate(yaml.safe_load(block.text), schemas.get_task_schema())


def test_the_errors_of_the_prediction_are_those_of_the_benchmark():
  spec = importlib.util.spec_from_file_location("pods", ROOT / "benchmarks/pods.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  rows = re.findall(r"^\|[^|]+\| (Llama [^|]+) \| ([\d,]+) \| ([\d,]+) \| ([+-][\d.]+) % \|$", PAGE.read_text(), re.M)
  assert {name for name, *_ in rows} == {step.name for step in module.STEPS}
  for name, predicted, published, error in rows:
    (step,) = (step for step in module.STEPS if step.name == name)
    speed = module.predicted(step, *module.fit([other for other in module.STEPS if other is not step]))
    assert (f"{speed:,.0f}", f"{step.speed:,.0f}", f"{100 * (speed / step.speed - 1):+.1f}") == (
      predicted,
      published,
      error,
    )


def test_the_table_of_recipes_is_that_of_their_reports():
  rows = re.findall(
    r"^\| `(pods/\w+)` \| (\S+) \| ([\d.]+) of ([\d.]+) \| ([\d.]+), ([\d.]+) \| ([\d.]+) \|", PAGE.read_text(), re.M
  )
  assert len(rows) == len(list((ROOT / "configs/pods").glob("*.json")))
  for name, topology, *numbers in rows:
    report = json.loads((ROOT / f"configs/{name}.json").read_text())
    peak = max(program["peak"] + program["held"] for program in report["programs"])
    (update,) = (program for program in report["programs"] if program["program"] == "update")
    ((seconds, *_),) = (found.values() for found in report["stages"].values())
    expected = (peak / 2**30, update["hbm"] / 2**30, update["asked_ratio"], update["made_ratio"], seconds)
    assert topology == report["topology"] and report["fits"]
    assert [float(number) for number in numbers] == pytest.approx(expected, abs=0.06)
