"""The arguments of `rlhf-jax run` as a resolved config: the recipe, overrides of its keys, values of a population."""

from __future__ import annotations

import argparse
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from rlhf_jax.pipeline.catalogue import load_recipe
from rlhf_jax.settings import ConfigError, nearest

OVERRIDES = "--config.KEY=VALUE overrides one key, as in --config.ppo.clip=0.1; the key must exist, the type stays."


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
  parser.add_argument("--seeds", type=int, metavar="N", help="a population: N seeds of the last stage that is trained")
  vary = "a population: values of a float of the config; of several, the grid"
  parser.add_argument("--vary", action="append", default=[], metavar="KEY=X,Y", help=vary)
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
  return plain(values.config), settings.workdir or ""


def load_population(arguments: list[str]) -> tuple[int, dict[str, list[float]]]:
  """`--seeds N --vary KEY=X,Y ...` -> (N, the values of each key); without --seeds N is 0. Raises ConfigError."""
  settings, _ = _parse(arguments)
  vary: dict[str, list[float]] = {}
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
  here: Any = config
  for part in key.split(".")[1:]:
    here = here[part]
  kind = "a mapping" if isinstance(here, ConfigDict) else type(here).__name__
  return f"{key} must be {kind}, not {value!r}."
