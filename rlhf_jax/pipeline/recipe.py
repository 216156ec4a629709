"""From a command line to a resolved config: the recipe, overrides of its keys, and the members of a population."""

from __future__ import annotations

import argparse
import traceback
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from rlhf_jax.settings import ConfigError, import_module, nearest

OVERRIDES = "--config.KEY=VALUE overrides one key, as in --config.ppo.clip=0.1; the key must exist, the type stays."


def load_config(arguments: list[str]) -> tuple[dict[str, Any], str]:
  """`--config FILE[:ARG] --workdir DIR --config.key=value ...` -> (the resolved config as a plain dict, workdir).

  Raises:
    ConfigError: an unknown key (with the nearest one), a value of the wrong type, a missing flag, a file without a
      config.
  """
  parser = argparse.ArgumentParser(
    prog="rlhf-jax run", parents=[_population_parser()], allow_abbrev=False, exit_on_error=False, epilog=OVERRIDES
  )
  parser.add_argument("--config", metavar="FILE", help="a file with get_config(); FILE:ARG calls get_config(ARG)")
  parser.add_argument("--workdir", metavar="DIR", help="the run directory; an interrupted run continues there")
  try:
    settings, overrides = parser.parse_known_args(arguments)
  except argparse.ArgumentError as error:
    raise ConfigError(str(error)) from error
  if not settings.config or not settings.workdir:
    raise ConfigError("both --config FILE and --workdir DIR are needed")
  config = _call_get_config(settings.config)
  for override in overrides:
    if override.startswith("-") and override.lstrip("-")[:1].isalpha():  # else a value, as in `--config.ppo.clip -1`
      _check_override(config, override)
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
  return _plain(values.config), settings.workdir


def load_population(arguments: list[str]) -> tuple[int, dict[str, list[float]]]:
  """`--seeds N --vary KEY=X,Y ...` -> (N, 0 where it is not given; the values of each key). Raises ConfigError."""
  settings, _ = _population_parser().parse_known_args(arguments)
  vary = {}
  for text in settings.vary:
    key, equals, values = text.partition("=")
    try:
      numbers = [float(value) for value in values.split(",")]
    except ValueError:
      numbers = []
    if not equals or not numbers or key in vary:
      raise ConfigError(f"--vary {text}: it must be KEY=NUMBER,NUMBER,... as in ppo.kl_coef=0.1,0.2, each key once")
    vary[key] = numbers
  if settings.seeds is not None and settings.seeds < 1:
    raise ConfigError(f"--seeds {settings.seeds} must be at least 1")
  return settings.seeds or 0, vary


def _population_parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog="rlhf-jax run", add_help=False, allow_abbrev=False, exit_on_error=False)
  parser.add_argument("--seeds", type=int, metavar="N", help="a population: N seeds of the last stage that is trained")
  vary = "a population: values of a float of the config; of several, the grid"
  parser.add_argument("--vary", action="append", default=[], metavar="KEY=X,Y", help=vary)
  return parser


def _call_get_config(name: str) -> ConfigDict:
  """What get_config(ARG) of "FILE" or "FILE:ARG" returns; a mistake in the file is named with its line."""
  path, *arg = name.split(":", 1)
  if not path.endswith(".py"):
    raise ConfigError(f"--config {path} must be the path of a .py file")
  try:
    module = import_module(path)
    if not callable(getattr(module, "get_config", None)):
      raise ConfigError(f"--config {path} has no function get_config()")
    config = module.get_config(*arg)
  except ConfigError:
    raise
  except SyntaxError as error:
    raise ConfigError(f"{error.filename}:{error.lineno}: {error.msg}") from error
  except Exception as error:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f":{frame.lineno}" for frame in frames if frame.filename.endswith(Path(path).name)]
    raise ConfigError(f"{path}{lines[-1] if lines else ''}: {type(error).__name__}: {error}") from error
  if not isinstance(config, ConfigDict):
    raise ConfigError(f"get_config() of {path} must return a ConfigDict, not {config!r}")
  return config


def _check_override(config: ConfigDict, override: str) -> None:
  flag = override.split("=", 1)[0]
  root, *keys = flag.lstrip("-").split(".")
  if root not in ("config", "noconfig") or not keys:
    raise ConfigError(f"unknown flag {flag}: --config, --workdir and overrides --config.KEY=VALUE are known")
  where, here, kind = "config", config, ConfigDict
  for key in keys:
    if not isinstance(here, ConfigDict):
      raise ConfigError(f"{where} is {here!r} and has no keys, so there is no {key!r} in it.")
    if key not in here:
      raise ConfigError(f"{where} has no key {key!r}.{nearest(key, here)}")
    where, kind, here = f"{where}.{key}", here.get_type(key), here[key]
  if kind is type(None):
    raise ConfigError(f"{where} is None, so its type is not known here: set it in the config file.")


def _split_none(config: ConfigDict, overrides: list[str]) -> tuple[list[str], list[list[str]]]:
  """The overrides without those by None, which absl takes for no number, and the keys that end as None.

  Whether a key may be None is the stage's to say, when the config is parsed. A text becomes "None".
  """
  words: list[str] = []
  for word in overrides:
    if word == "None" and words and words[-1].startswith("--config.") and "=" not in words[-1]:
      words[-1] += "=None"
    else:
      words.append(word)
  rest, keys = [], {}
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
  here: Any = config
  for part in key.split(".")[1:]:
    here = here[part]
  kind = "a mapping" if isinstance(here, ConfigDict) else type(here).__name__
  return f"{key} must be {kind}, not {value!r}."


def _plain(value: Any) -> Any:
  """ConfigDict -> dict, tuple -> list: what JSON would give back, so that a stored config compares equal."""
  if hasattr(value, "items"):
    return {key: _plain(item) for key, item in value.items()}
  return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
