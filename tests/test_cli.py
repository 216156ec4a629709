"""The command line: overrides, typos, exit codes."""

from pathlib import Path

import pytest

from rlhf_jax import cli
from rlhf_jax.settings import ConfigError

ROOT = Path(__file__).parents[1]
BASE = ["--config", str(ROOT / "configs/quickstart.py"), "--workdir", "runs/x"]


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
  monkeypatch.chdir(ROOT)


def test_overrides_of_every_kind():
  config, workdir = cli.load_config(
    [
      *BASE,
      "--config.ppo.clip=0.1",
      "--config.ppo.num_steps=7",
      "--config.ppo.whiten_rewards=true",
      "--config.ppo.environment.reward.function=mine.py:score",
      "--config.evaluation.models=('sft', 'ppo')",
      "--config.world.seed=5",
    ]
  )
  assert workdir == "runs/x"
  assert (config["ppo"]["clip"], config["ppo"]["num_steps"], config["ppo"]["whiten_rewards"]) == (0.1, 7, True)
  assert config["ppo"]["environment"]["reward"]["function"] == "mine.py:score"
  assert config["evaluation"]["models"] == ["sft", "ppo"]
  assert config["ppo"]["environment"]["monitor"]["arguments"] == {"seed": 5}, "the gold reward follows the world"


@pytest.mark.parametrize(
  "override, message",
  [
    ("--config.ppo.clp=0.1", "config.ppo has no key 'clp'. Did you mean 'clip'?"),
    ("--config.ppo.optimizer.bta1=1", "config.ppo.optimizer has no key 'bta1'. Did you mean 'beta1'?"),
    ("--config.poo.clip=1", "config has no key 'poo'. Did you mean 'ppo'?"),
    ("--config.ppo.clip=high", "config.ppo.clip must be float, not 'high'."),
    ("--config.ppo.num_steps=2.5", "2.5"),
    ("--confg=1", "confg"),
  ],
)
def test_a_mistake_is_one_readable_line(override, message):
  with pytest.raises(ConfigError) as error:
    cli.load_config([*BASE, override])
  assert message in str(error.value)
  assert "\n" not in str(error.value) and "\\" not in str(error.value)


def test_missing_flags_and_files():
  with pytest.raises(ConfigError, match="both --config FILE and --workdir DIR are needed"):
    cli.load_config(["--workdir", "x"])
  with pytest.raises(ConfigError, match="both --config"):
    cli.load_config(BASE[:2])
  with pytest.raises((ConfigError, FileNotFoundError), match="nowhere.py"):
    cli.load_config(["--config", "nowhere.py", "--workdir", "x"])
  with pytest.raises(ConfigError, match="unexpected argument 'more'"):
    cli.load_config([*BASE, "more"])


def test_exit_codes(capsys, tmp_path, monkeypatch):
  from rlhf_jax import pipeline
  from rlhf_jax.train import Interrupted

  assert cli.main(["--help"]) == 0
  assert "rlhf-jax run --config" in capsys.readouterr().out
  assert cli.main(["rnu"]) == 2
  assert "no command 'rnu'. Did you mean 'run'?" in capsys.readouterr().err
  assert cli.main(["run", *BASE, "--config.ppo.clp=1"]) == 2
  assert capsys.readouterr().err.startswith("rlhf-jax: config.ppo has no key 'clp'")
  assert cli.main(["report", str(tmp_path)]) == 2

  def interrupted(*arguments, **options):
    raise Interrupted("stopped at step 3 of 9 of ppo")

  monkeypatch.setattr(pipeline, "run", interrupted)
  assert cli.main(["run", *BASE[:2], "--workdir", str(tmp_path / "run")]) == 130
  assert "the same command continues there" in capsys.readouterr().err
