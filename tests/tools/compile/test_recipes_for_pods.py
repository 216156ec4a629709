"""The recipes for pods, each with its report beside it."""

import json
import re

import pytest
from tiny_chain import ROOT

from rlhf_jax.pipeline.catalogue import read_recipe, recipe_names
from rlhf_jax.pipeline.recipe import load_config
from rlhf_jax.tools.compile.chips import CHIPS

RECIPES = [name for name in recipe_names() if name.startswith("pods/")]


def test_there_are_recipes():
  assert RECIPES == ["pods/dpo_8b_v5e", "pods/ppo_70b_v5p", "pods/ppo_8b_v5e", "pods/ppo_8b_v5p", "pods/sft_8b_v5e"]


@pytest.mark.parametrize("name", RECIPES)
def test_the_report_is_of_this_recipe_and_its_command(name):
  path = ROOT / f"configs/{name}.json"
  if not path.exists():
    pytest.fail(f"rlhf-jax compile --config {name} ... --out configs/{name} writes it")
  report = json.loads(path.read_text())
  text = read_recipe(name).text
  (topology,) = re.findall(rf"rlhf-jax compile --config {name} --topology (\S+) --out ", text)
  assert (report["config"], report["topology"]) == (name, topology)
  config, _ = load_config(["--config", name, "--print"])
  transport, sizes = config["transport"], report["mesh"]
  assert sizes["data"] * sizes["fsdp"] * sizes["tensor"] == report["chips"]
  assert (sizes["fsdp"], sizes["tensor"]) == (transport["fsdp"], transport.get("tensor", 1))
  assert list(report["stages"]) == list(config["stages"])
  assert report["fits"] == all(program["fits"] for program in report["programs"])
  for program in report["programs"]:
    assert program["hbm"] == pytest.approx(CHIPS[topology.partition(":")[0]].hbm, rel=1e-3)
    assert program["fits"] == (program["peak"] + program["held"] <= program["hbm"])
    if program["minimum"]:
      assert program["asked_ratio"] <= 1.0
