"""The arguments of `rlhf-jax run` as a resolved config: the recipe, overrides of its keys, the number of seeds."""

from __future__ import annotations

import argparse
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from rlhf_jax.pipeline.catalogue import load_recipe
from rlhf_jax.pipeline.field_types import provide_key
from rlhf_jax.settings import ConfigError

OVERRIDES = (
  "--config.KEY=VALUE sets one key, as in --config.ppo.clip=0.1, also one that the recipe leaves to its default."
)


def run_parser() -> argparse.ArgumentParser:
  """The flags of `rlhf-jax run`, without the overrides of the config."""
  parser = argparse.ArgumentParser(
    prog="rlhf-jax run",
    description="Run a recipe: every stage of it that is not done yet.",
    allow_abbrev=False,
    exit_on_error=False,
    epilog=OVERRIDES,
  )
  parser.add_argument("--config", metavar="NAME", help="a recipe (`rlhf-jax configs` lists them) or the path of a .py "
                      "file with get_config(); NAME:ARG calls get_config(ARG)")  # fmt: skip
  parser.add_argument("--workdir", metavar="DIR", help="the run directory; an interrupted run continues there")
  parser.add_argument("--print", action="store_true", help="show the config with its overrides and end")
  parser.add_argument("--check", action="store_true", help="check all that can be checked before a run, show what each "
                      "stage will cost, and end")  # fmt: skip
  parser.add_argument("--seeds", type=int, metavar="N", help="N seeds of the last stage that is trained, each "
                      "a run in DIR/members; the stages before it run once")  # fmt: skip
  parser.add_argument("--redo", action="append", default=[], metavar="STAGE", help="delete a stage and what depends "
                      "on it, and make them anew; A,B for several")  # fmt: skip
  parser.add_argument("--accept-changes", action="store_true", help="keep stages although files, code or results that "
                      "they were made from have changed, and record it")  # fmt: skip
  parser.add_argument("--coordinator", default="", metavar="HOST:PORT", help="several processes: the address of the "
                      "first (default: JAX_COORDINATOR_ADDRESS, or as SLURM, TPU pods or GKE say)")  # fmt: skip
  parser.add_argument("--process-count", type=int, metavar="N", help="several processes: their number")
  parser.add_argument(
    "--process-index", type=int, metavar="I", help="several processes: the number of this one, from 0"
  )
  return parser


def load_config(arguments: list[str]) -> tuple[dict[str, Any], str]:
  """`--config NAME --workdir DIR --config.key=value ...` -> (the resolved config as a plain dict, workdir).

  With --print workdir may be absent; it is then "".

  Raises:
    ConfigError: an unknown recipe or key (with the nearest one), a value of the wrong type, a missing flag, a file
      without a config.
  """
  settings, overrides = _parse(arguments)
  if not settings.config or not (settings.workdir or settings.print):
    raise ConfigError(
      "both --config and --workdir are needed, as in `rlhf-jax run --config quickstart --workdir runs/quickstart`"
    )
  config = load_recipe(settings.config)
  for override in overrides:
    if override.startswith("-") and override.lstrip("-")[:1].isalpha():  # else a value, as in `--config.ppo.clip -1`
      _check_override(config, override, overrides)
  values = flags.FlagValues()
  overrides, nones = _split_none(config, overrides)
  argv = ["rlhf-jax run", *overrides]
  try:
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    rest = values(argv)[1:]
  except flags.IllegalFlagValueError as error:
    raise ConfigError(_wrong_type(config, str(error))) from error
  except (flags.Error, TypeError) as error:
    raise ConfigError(str(error)) from error
  if rest:
    raise ConfigError(f"unexpected argument {rest[0]!r}")
  for path in nones:
    section = _section(values.config, path)
    with section.ignore_type():
      section[path[-1]] = None
  return plain(values.config), settings.workdir or ""


def load_seeds(arguments: list[str]) -> int:
  """`--seeds N` -> N, 0 without it. Raises ConfigError."""
  settings, _ = _parse(arguments)
  if settings.seeds is not None and settings.seeds < 1:
    raise ConfigError(f"--seeds {settings.seeds} must be at least 1")
  return settings.seeds or 0


def config_lines(config: Any, where: str = "config") -> list[str]:
  """`config.ppo.clip = 0.2`, a line for each value of a nested dict; an empty dict is a value."""
  if not isinstance(config, dict) or not config:
    return [f"{where} = {config!r}"]
  return [line for key, value in config.items() for line in config_lines(value, f"{where}.{key}")]


def plain(value: Any) -> Any:
  """ConfigDict -> dict, tuple -> list, as JSON gives them back, so that a stored config compares equal."""
  if hasattr(value, "items"):
    return {key: plain(item) for key, item in value.items()}
  return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
  """The flags, and the remaining arguments, which are the overrides."""
  try:
    return run_parser().parse_known_args(arguments)
  except argparse.ArgumentError as error:
    raise ConfigError(str(error)) from error


def _check_override(config: ConfigDict, override: str, overrides: list[str]) -> None:
  """Raises ConfigError for an unknown flag or key; a key that the recipe leaves to its default gets its type."""
  flag = override.split("=", 1)[0]
  root, *keys = flag.lstrip("-").split(".")
  if root not in ("config", "noconfig") or not keys:
    raise ConfigError(f"unknown flag {flag}: --config, --workdir and overrides --config.KEY=VALUE are known")
  algorithms = [other.partition("=")[2] for other in overrides if other.startswith(f"--config.{keys[0]}.algorithm=")]
  provide_key(config, keys, algorithms[-1] if algorithms else "")


def _split_none(config: ConfigDict, overrides: list[str]) -> tuple[list[str], list[list[str]]]:
  """The overrides that absl can read, and the paths of the keys that are set to None, which absl reads for no number.

  A stage says whether a key may be None when the config is parsed. A key that holds a text becomes "None".
  """
  words: list[str] = []
  for word in overrides:
    if word == "None" and words and words[-1].startswith("--config.") and "=" not in words[-1]:
      words[-1] += "=None"
    else:
      words.append(word)
  rest: list[str] = []
  keys: dict[str, list[str]] = {}
  for word in words:
    flag, _, value = word.partition("=")
    path = flag.split(".")[1:]
    if flag.startswith("--config.") and value == "None" and _section(config, path).get_type(path[-1]) is not str:
      keys[flag] = path
    else:
      rest.append(word)
      keys.pop(flag, None)
  return rest, list(keys.values())


def _section(config: ConfigDict, path: list[str]) -> ConfigDict:
  for name in path[:-1]:
    config = config[name]
  return config


def _wrong_type(config: ConfigDict, message: str) -> str:
  """absl's "flag --config.a.b=value: reason" as a sentence about the key."""
  key, _, value = message.removeprefix("flag --").partition(": ")[0].partition("=")
  path = key.split(".")[1:]
  kind = _section(config, path).get_type(path[-1])
  return f"{key} must be {'a mapping' if kind is ConfigDict else kind.__name__}, not {value!r}."
