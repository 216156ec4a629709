"""The command line: what a user types is what runs, and what is mistyped is answered in one line."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rlhf_jax.cli import main
from rlhf_jax.cli.commands import COMMANDS
from rlhf_jax.cli.parsers import PARSERS
from rlhf_jax.pipeline.recipe import load_config
from rlhf_jax.settings import ConfigError

ROOT = Path(__file__).parents[1]
BOTH = "both --config and --workdir are needed, as in `rlhf-jax run --config quickstart --workdir runs/quickstart`"
CONFIG = """
from ml_collections import ConfigDict, config_dict

def get_config(arg="all"):
  config = ConfigDict()
  config.seed = 0
  config.stages = ("toy",)
  config.tokenizer = ""
  config.model = dict(num_layers=1, d_model=2, num_heads=1, num_kv_heads=1, d_ff=2, max_length=4)
  config.transport = dict(kind="jit", fsdp=1, microbatches=1)
  config.toy = dict(
    algorithm=__file__.replace("config.py", "toy.py"),
    clip=0.2,
    steps=3,
    shared=True,
    name=arg,
    sizes=(1, 2),
    inner=dict(rate=0.5, none=None, limit=config_dict.placeholder(float)),
    arguments=dict(seed=config.get_ref("seed"), none=None),
  )
  return config
"""
STAGE = """
import dataclasses
import os
import signal
from typing import Any

@dataclasses.dataclass(frozen=True)
class Inner:
  rate: float
  none: None | int
  limit: float | None

@dataclasses.dataclass(frozen=True)
class Config:
  algorithm: str
  clip: float
  steps: int
  shared: bool
  name: str
  sizes: tuple[int, ...]
  inner: Inner
  arguments: dict[str, Any]

def run(config, stage):
  if config.name == "value":
    raise ValueError("row 3: not a number")
  if config.name == "interrupt":
    raise KeyboardInterrupt
  if config.name in ("SIGTERM", "SIGHUP", "SIGUSR1"):
    os.kill(os.getpid(), signal.Signals[config.name])
  if config.name == "chatter":
    for number in range(20000):
      print("a line", number)
  if config.name == "bug":
    raise AssertionError("a bug")
"""


@pytest.fixture
def config(tmp_path):
  (tmp_path / "config.py").write_text(CONFIG)
  (tmp_path / "toy.py").write_text(STAGE)
  return tmp_path / "config.py"


def load(config, *overrides):
  return load_config(["--config", str(config), "--workdir", "out", *overrides])[0]


def test_without_overrides_the_config_is_what_get_config_returns(config):
  loaded, workdir = load_config([f"--config={config}", "--workdir=runs/here"])
  assert workdir == "runs/here"
  assert loaded["toy"] == {
    "algorithm": str(config.with_name("toy.py")),
    "clip": 0.2,
    "steps": 3,
    "shared": True,
    "name": "all",
    "sizes": [1, 2],
    "inner": {"rate": 0.5, "none": None, "limit": None},
    "arguments": {"seed": 0, "none": None},
  }
  assert json.loads(json.dumps(loaded)) == loaded and type(loaded["toy"]) is dict


@pytest.mark.parametrize(
  "override, path, value",
  [
    ("--config.toy.clip=0.1", ("toy", "clip"), 0.1),
    ("--config.toy.clip=1", ("toy", "clip"), 1.0),
    ("--config.toy.clip=1e-4", ("toy", "clip"), 1e-4),
    ("--config.toy.clip=-0.5", ("toy", "clip"), -0.5),
    ("--config.toy.clip -0.5", ("toy", "clip"), -0.5),
    ("--config.toy.clip 0.3", ("toy", "clip"), 0.3),
    ("--config.toy.steps=7", ("toy", "steps"), 7),
    ("--config.toy.shared=False", ("toy", "shared"), False),
    ("--config.toy.shared=false", ("toy", "shared"), False),
    ("--noconfig.toy.shared", ("toy", "shared"), False),
    ("--config.toy.name=x=y", ("toy", "name"), "x=y"),
    ("--config.toy.name=", ("toy", "name"), ""),
    ("--config.toy.name=7", ("toy", "name"), "7"),
    ("--config.toy.sizes=(4,5,6)", ("toy", "sizes"), [4, 5, 6]),
    ("--config.toy.sizes=()", ("toy", "sizes"), []),
    ("--config.stages=('toy',)", ("stages",), ["toy"]),
    ("--config.toy.inner.rate=0.25", ("toy", "inner", "rate"), 0.25),
    ("--config.toy.inner.limit=3", ("toy", "inner", "limit"), 3.0),
    ("--config.toy.inner.none=3", ("toy", "inner", "none"), 3),
    ("--config.toy.inner.limit=3 --config.toy.inner.limit=None", ("toy", "inner", "limit"), None),
    ("--config.toy.inner.limit=None --config.toy.inner.limit=3", ("toy", "inner", "limit"), 3.0),
    ("--config.toy.inner.rate=None", ("toy", "inner", "rate"), None),
    ("--config.toy.inner.rate None --config.seed=5", ("toy", "inner", "rate"), None),
    ("--config.toy.inner.rate None --config.seed=5", ("seed",), 5),
    ("--config.toy.name=None", ("toy", "name"), "None"),
    ("--config.toy.arguments={'unit':2}", ("toy", "arguments"), {"unit": 2}),
    ("--config.seed=5", ("toy", "arguments", "seed"), 5),  # a reference follows what it refers to
    ("--config.toy.steps=7 --config.toy.steps=8", ("toy", "steps"), 8),
  ],
)
def test_overrides(config, override, path, value):
  found = load(config, *override.split())
  for key in path:
    found = found[key]
  assert found == value and type(found) is type(value)


def test_the_argument_after_the_colon_goes_to_get_config(config):
  assert load(f"{config}:sft")["toy"]["name"] == "sft"
  assert load(f"{config}:a:b")["toy"]["name"] == "a:b"


@pytest.mark.parametrize(
  "override, message",
  [
    ("--config.toy.clp=1", "config.toy has no key 'clp'. Did you mean 'clip'?"),
    ("--config.toy.inner.raet=1", "config.toy.inner has no key 'raet'. Did you mean 'rate'?"),
    ("--config.toi.clip=1", "config has no key 'toi'. Did you mean 'toy'?"),
    ("--config.toy.qq.clip=1", re.compile(r"config.toy has no key 'qq'. Known: algorithm, arguments, clip, .*\.")),
    ("--noconfig.toy.sharde", "config.toy has no key 'sharde'. Did you mean 'shared'?"),
    ("--config.toy.clip.low=1", "config.toy.clip is 0.2 and has no keys, so there is no 'low' in it."),
    ("--config.toy.clip=abc", "config.toy.clip must be float, not 'abc'."),
    ("--config.toy.clip=None", "config.toy.clip must be float, not None."),
    ("--config.toy.steps=1.5", "config.toy.steps must be int, not '1.5'."),
    ("--config.toy.steps=", "config.toy.steps must be int, not ''."),
    ("--config.toy.shared=maybe", "config.toy.shared must be bool, not 'maybe'."),
    ("--config.toy=1", "config.toy must be a mapping, not '1'."),
    ("--config.toy.arguments.none=1", "config.toy.arguments.none is None, so its type is not known here: set it in the "
     "config file."),
    ("--config.toy.clip", "Missing value for flag --config.toy.clip"),
    ("--confg.toy.clip=1", "unknown flag --confg.toy.clip: --config, --workdir and overrides --config.KEY=VALUE are "
     "known"),
    ("--lr=1", "unknown flag --lr: --config, --workdir and overrides --config.KEY=VALUE are known"),
    ("config.toy.clip=1", "unexpected argument 'config.toy.clip=1'"),
  ],
)  # fmt: skip
def test_a_mistyped_override_is_one_readable_line(config, override, message, capsys):
  assert main(["run", "--config", str(config), "--workdir", str(config.parent / "out"), override]) == 2
  printed = capsys.readouterr()
  line = printed.err.removeprefix("rlhf-jax: ").removesuffix("\n")
  assert re.fullmatch(message, line) if isinstance(message, re.Pattern) else line == message
  assert "\n" not in line and not printed.out and not (config.parent / "out").exists()


def test_overriding_a_section_after_one_of_its_keys_is_refused(config):
  with pytest.raises(ConfigError, match="config.toy.inner is provided after --config.toy.inner.rate"):
    load(config, "--config.toy.inner.rate=1", "--config.toy.inner={'rate': 2.0}")


@pytest.mark.parametrize(
  "arguments, message",
  [
    ([], BOTH),
    (["--config", "{config}"], BOTH),
    (["--workdir", "out"], BOTH),
    (["--workdir", "out", "--config"], "argument --config: expected one argument"),
    (["--workdir", "out", "--config", "absent.py"], "no file absent.py (relative paths start at the current "
     "directory)"),
    (["--workdir", "out", "--config", "quickstat"], "'quickstat' is neither a recipe nor the path of a .py file. Did "
     "you mean 'quickstart'?"),
    (["--workdir", "out", "--config", "configs/dpo.py"], "no file configs/dpo.py (relative paths start at the current "
     "directory); the recipe of that name is `--config dpo`"),
    (["--workdir", "out", "--config", "empty.py"], "--config empty.py has no function get_config()"),
    (["--workdir", "out", "--config", "syntax.py"], "syntax.py:2: invalid syntax"),
    (["--workdir", "out", "--config", "imports.py"], "imports.py:1: ModuleNotFoundError: No module named 'no_such'"),
    (["--workdir", "out", "--config", "raises.py"], "raises.py:4: ZeroDivisionError: division by zero"),
    (["--workdir", "out", "--config", "raises.py:x"], "raises.py: TypeError: get_config() takes 0 positional arguments "
     "but 1 was given. get_config('x') was called"),
    (["--workdir", "out", "--config", "refuses.py:x"], "refuses.py:4: ValueError: tuple.index(x): x not in tuple. "
     "get_config('x') was called; it takes: `arg` is a or b."),
    (["--workdir", "out", "--config", "number.py"], "get_config() of number.py must return a ConfigDict, not 3"),
  ],
)  # fmt: skip
def test_a_config_that_cannot_be_had_is_one_readable_line(config, arguments, message, monkeypatch, capsys):
  monkeypatch.chdir(config.parent)
  Path("empty.py").write_text("")
  Path("syntax.py").write_text("x = 1\ny = = 2\n")
  Path("imports.py").write_text("import no_such\n")
  Path("raises.py").write_text("def number():\n  return 0\ndef get_config():\n  return 1 / number()\n")
  refuses = 'def get_config(arg):\n  """`arg` is a\n  or b."""\n  return (\'a\', \'b\').index(arg)\n'
  Path("refuses.py").write_text(refuses)
  Path("number.py").write_text("def get_config():\n  return 3\n")
  assert main(["run", *(argument.format(config=config) for argument in arguments)]) == 2
  err = capsys.readouterr().err
  assert err.removeprefix("rlhf-jax: ").removesuffix("\n").removeprefix(f"{config.parent}/") == message
  assert not (config.parent / "out").exists()


def test_run_keeps_config_and_command(config, capsys):
  out = config.parent / "a run"
  arguments = ["run", "--config", str(config), "--workdir", str(out), "--config.toy.sizes=(4, 5)"]
  assert main(arguments) == 0
  assert json.loads((out / "config.json").read_text())["toy"]["sizes"] == [4, 5]
  command = f"rlhf-jax run --config {config} --workdir '{out}' '--config.toy.sizes=(4, 5)'\n"
  assert (out / "command.txt").read_text() == command
  printed = capsys.readouterr().out
  assert "[1/1] toy: done in 0 s" in printed and printed.splitlines()[-1] == f"The report is {out}/report.html"
  assert (out / "report.html").exists()
  assert main([*arguments, "--config.toy.steps=9"]) == 2  # refused, so it is not the command of this run
  assert "toy.steps: 3 then, 9 now" in capsys.readouterr().err
  assert (out / "command.txt").read_text() == command


@pytest.mark.parametrize(
  "event, status, printed",
  [
    ("value", 2, "rlhf-jax: row 3: not a number\n"),
    ("interrupt", 130, "interrupted; the same command continues\n"),
    ("SIGTERM", 143, "interrupted; the same command continues\n"),
    ("SIGHUP", 129, "interrupted; the same command continues\n"),
    ("SIGUSR1", 138, "interrupted; the same command continues\n"),
  ],
)
def test_exit_status(config, event, status, printed, capsys):
  assert main(["run", "--config", f"{config}:{event}", "--workdir", str(config.parent / "out")]) == status
  assert capsys.readouterr().err == printed


def test_a_closed_output_does_not_end_a_run(config):
  """`rlhf-jax run ... | head -1`: the stage's later lines go nowhere, and the run ends well."""
  out = config.parent / "out"
  command = [sys.executable, "-m", "rlhf_jax.cli", "run", "--config", f"{config}:chatter", "--workdir", str(out)]
  process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  process.stdout.readline()
  process.stdout.close()
  assert process.wait(timeout=120) == 0
  assert (out / "toy" / "done.json").exists() and (out / "report.html").exists()


def test_a_bug_keeps_its_traceback(config):
  with pytest.raises(AssertionError, match="a bug"):
    main(["run", "--config", f"{config}:bug", "--workdir", str(config.parent / "out")])


def test_a_workdir_that_is_a_file_is_refused(config, capsys):
  assert main(["run", "--config", str(config), "--workdir", str(config)]) == 2
  assert capsys.readouterr().err.startswith("rlhf-jax: ")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_prints_the_usage(arguments, capsys):
  assert main(arguments) == 0
  out = capsys.readouterr().out
  assert all(command in out for command in ("rlhf-jax run --config", "rlhf-jax sample RUN", "rlhf-jax report RUN"))


def test_run_help_explains_overrides(capsys):
  with pytest.raises(SystemExit) as stop:
    main(["run", "--help"])
  assert stop.value.code == 0
  assert "--config.KEY=VALUE" in capsys.readouterr().out


def test_an_unknown_command_names_the_nearest(capsys):
  assert main(["smaple", "x"]) == 2
  assert capsys.readouterr().err == "rlhf-jax has no command 'smaple'. Did you mean 'sample'?\n"


def test_report_inspect_and_sample_need_a_run(tmp_path, capsys):
  no_directory = "is not the directory of a run"
  for command, message in (("report", no_directory), ("inspect", no_directory), ("sample", "is no run directory")):
    assert main([command, str(tmp_path / "absent")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], *([name] for name in PARSERS)], ids=lambda command: "".join(command) or "all")
def test_help_answers_without_importing_jax(command):
  """After a typing mistake nobody should wait seconds for an accelerator to be found."""
  script = (
    "import sys\nfrom rlhf_jax.cli import main\ntry:\n  status = main(sys.argv[1:])\n"
    "except SystemExit as stop:\n  status = stop.code\nassert status == 0 and 'jax' not in sys.modules"
  )
  done = subprocess.run([sys.executable, "-c", script, *command, "--help"], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert "rlhf-jax " + "".join(command) in done.stdout


def test_before_its_first_stage_a_run_imports_nothing_that_only_some_stages_need():
  """Each of these takes from a quarter of a second to several seconds."""
  script = (
    "import sys\nfrom pathlib import Path\nfrom rlhf_jax.pipeline import run\n"
    "from rlhf_jax.pipeline.plan import plan\nfrom rlhf_jax.pipeline.recipe import load_config\n"
    "plan(load_config(['--config', 'quickstart', '--workdir', 'unused'])[0], Path('unused'))\n"
    "late = {'torch', 'tensorflow', 'transformers', 'datasets', 'pyarrow', 'pandas', 'matplotlib', 'orbax'}\n"
    "sys.exit(', '.join(sorted(late & set(sys.modules))) or 0)"
  )
  done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


def test_every_command_has_a_parser_and_a_line_of_help(capsys):
  assert set(PARSERS) == set(COMMANDS)
  main(["--help"])
  printed = capsys.readouterr().out
  assert [name for name in PARSERS if f"rlhf-jax {name} " not in printed] == []


def test_version(capsys):
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  assert main(["--version"]) == 0
  assert capsys.readouterr().out == f"rlhf-jax {project['version']}\n"


def test_print_shows_the_config_with_its_overrides(config, capsys):
  overrides = ["--config.toy.clip=0.1", "--config.seed=5"]
  assert main(["run", "--config", f"{config}:x", "--print", *overrides]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert {"config.toy.clip = 0.1", "config.toy.name = 'x'", "config.toy.arguments.seed = 5", "config.seed = 5"} <= {
    *lines
  }
  assert "config.toy.sizes = [1, 2]" in lines and "config.toy.inner.none = None" in lines
  assert all(re.match(r"config(\.\w+)+ = ", line) for line in lines) and len(lines) == 23
  assert main(["run", "--config", str(config), "--print", "--config.toy.clp=1"]) == 2


def rlhf_jax(directory, *arguments):
  """The command in a process of its own, in `directory`, with the package installed and no checkout on the path."""
  site = directory / "site"
  site.mkdir(exist_ok=True)
  if not (site / "rlhf_jax").exists():
    (site / "rlhf_jax").symlink_to(ROOT / "rlhf_jax")
  command = [sys.executable, "-m", "rlhf_jax.cli", *map(str, arguments)]
  environment = {**os.environ, "PYTHONPATH": str(site)}
  return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)


def test_recipes_are_found_by_name_from_any_directory(tmp_path):
  done = rlhf_jax(tmp_path, "run", "--config", "quickstart:sft", "--print")
  assert done.returncode == 0, done.stderr
  assert "config.stages = ['world', 'vocabulary', 'pretrain', 'sft']" in done.stdout.splitlines()
  (tmp_path / "dpo.py").write_text(
    "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'own': 1})"
  )
  assert rlhf_jax(tmp_path, "run", "--config", "dpo.py", "--print").stdout == "config.own = 1\n"
  assert "config.dpo.loss" in rlhf_jax(tmp_path, "run", "--config", "dpo", "--print").stdout


OWN = """
from {package} import quickstart

def get_config():
  config = quickstart.get_config("sft")
  config.sft.num_epochs = 7
  return config
"""


@pytest.mark.parametrize(
  "package, own_folder", [("configs", False), ("rlhf_jax.configs", False), ("rlhf_jax.configs", True)]
)
def test_a_config_in_any_directory_may_start_from_a_recipe(tmp_path, package, own_folder):
  if own_folder:
    (tmp_path / "configs").mkdir()
  (tmp_path / "mine.py").write_text(OWN.format(package=package))
  done = rlhf_jax(tmp_path, "run", "--config", "mine.py", "--print")
  assert "config.sft.num_epochs = 7" in done.stdout.splitlines(), done.stderr


def test_a_folder_called_configs_of_ones_own_is_not_hidden(tmp_path):
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / "quickstart.py").write_text("def get_config(arg): return 1 / 0\n")
  (tmp_path / "mine.py").write_text(OWN.format(package="configs"))
  assert "mine.py:5: ZeroDivisionError" in rlhf_jax(tmp_path, "run", "--config", "mine.py", "--print").stderr
  (tmp_path / "configs" / "quickstart.py").rename(tmp_path / "configs" / "other.py")
  done = rlhf_jax(tmp_path, "run", "--config", "mine.py", "--print")
  assert "(the recipes are in rlhf_jax.configs too: " in done.stderr


def test_the_process_exits_with_the_status(config):
  """As a program: `python -m rlhf_jax.cli`, which is what the `rlhf-jax` command calls."""
  command = [sys.executable, "-m", "rlhf_jax.cli", "run", "--config", str(config), "--config.toy.clp=1"]
  done = subprocess.run([*command, "--workdir", str(config.parent / "out")], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 2
  assert done.stderr == "rlhf-jax: config.toy has no key 'clp'. Did you mean 'clip'?\n"
