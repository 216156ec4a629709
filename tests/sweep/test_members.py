"""`rlhf-jax run --seeds N`: the stages before the last one that is trained run once, the seeds in members/."""

import csv
import json
import textwrap

import pytest

from rlhf_jax.cli import main
from rlhf_jax.configs import quickstart
from rlhf_jax.pipeline.recipe import plain
from rlhf_jax.settings import ConfigError
from rlhf_jax.sweep.members import units_of

TRAINED = """
  @dataclasses.dataclass(frozen=True)
  class Config(Config):
    optimizer: Optimizer | None = None
"""


RECIPE = """
def get_config():
  config = base()
  config.second.optimizer = dict(learning_rate=0.1, warmup=0.0, decay="linear", beta1=0.9, beta2=0.9, eps=1e-8,
    tensorflow_eps=False, weight_decay=0.0, clip_norm=1.0)
  return config
"""


def test_units_of_seeds():
  shared, units = units_of(plain(quickstart.get_config()), 3)
  assert shared["stages"][-1] == "reward_model" and [unit.name for unit in units][2] == "members/seed=2"
  assert units[2].stages == ("ppo", "evaluation") and units[2].config["seeds"] == {"ppo": 2, "evaluation": 2}
  assert units[0].links["sft"] == "."
  with pytest.raises(ConfigError, match="no stage with an optimizer"):
    units_of({"stages": ["world"], "seed": 0, "world": {}}, 2)


def test_seeds_run_beside_each_other_on_what_they_share(write_sweep, tmp_path):
  path = write_sweep("pass")
  path.write_text(path.read_text() + RECIPE)
  mine = tmp_path / "mine.py"
  trained = textwrap.dedent(TRAINED)
  mine.write_text(
    "from rlhf_jax.train import Optimizer\n" + mine.read_text().replace("def run(", f"{trained}\ndef run(")
  )
  command = ["run", "--config", str(path), "--workdir", str(tmp_path / "run"), "--seeds", "2"]
  assert main([*command, "--check"]) == 0 and not (tmp_path / "run").exists()
  assert main(command) == 0
  root = tmp_path / "run"
  assert (root / "starts.txt").read_text().split() == ["first"]
  for seed in range(2):
    member = root / "members" / f"seed={seed}"
    assert (member / "first").is_symlink() and (member / "starts.txt").read_text().split() == ["second"]
    assert json.loads((member / "second" / "results.json").read_text())["score"] == pytest.approx(2 + seed / 10)
  assert [row["seed"] for row in csv.DictReader((root / "table.csv").open())] == ["0", "1"]
  assert main(command) == 0
  mine.write_text(mine.read_text() + "# edited\n")
  for changed in ([*command, "--check"], command):
    assert main(changed) == 2
  assert main([*command, "--accept-changes", "--check"]) == 0 and main([*command, "--accept-changes"]) == 0
  member = root / "members" / "seed=1"
  misspelt = [*command, "--redo", "second", "--config.second.init=frist"]
  for changed in ([*misspelt, "--check"], misspelt):
    assert main(changed) == 2 and (member / "second" / "done.json").exists()
  assert main([*command, "--redo", "second"]) == 0
  assert (member / "starts.txt").read_text().split() == ["second", "second"]
