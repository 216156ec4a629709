"""The `rlhf-jax` command: flags and a config in, plain arguments out.

  rlhf-jax run --config configs/quickstart.py --workdir runs/quickstart [--config.ppo.clip=0.1 ...]
  rlhf-jax sample RUN ["a prompt"]      answers of the base, SFT and final models side by side
  rlhf-jax report RUN                   writes RUN/report.html anew
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from rlhf_jax.settings import ConfigError, nearest


def main(argv: list[str] | None = None) -> int:
  """Entry point; a user's mistake is one line on stderr and exit status 2, an interruption is 130."""
  argv = sys.argv[1:] if argv is None else argv
  commands = {"run": _run, "sample": _sample, "report": _report}
  sys.path.insert(0, "")  # a config may import its neighbours, and name functions of the current directory
  if not argv or argv[0] in ("-h", "--help", "help"):
    print(__doc__)
    return 0
  if argv[0] not in commands:
    print(f"rlhf-jax has no command {argv[0]!r}.{nearest(argv[0], commands)}", file=sys.stderr)
    return 2
  from rlhf_jax.train import Interrupted  # imports jax: `--help` and typos should answer at once

  try:
    commands[argv[0]](argv[1:])
  except Interrupted as stop:
    print(f"{stop}; the same command continues there", file=sys.stderr)
    return 130
  except (ValueError, FileNotFoundError, FloatingPointError) as error:  # the errors a user can cause
    print(f"rlhf-jax: {error}", file=sys.stderr)
    return 2
  return 0


def load_config(arguments: list[str]) -> tuple[dict[str, Any], str]:
  """`--config FILE --workdir DIR --config.key=value ...` -> (the resolved config as a plain dict, workdir).

  Raises:
    ConfigError: an unknown key (with the nearest one), a value of the wrong type, a missing flag.
  """
  values = flags.FlagValues()
  argv = ["rlhf-jax run", *arguments]
  config_flags.DEFINE_config_file("config", None, "A file with get_config().", flag_values=values, sys_argv=argv)
  flags.DEFINE_string("workdir", None, "The run directory.", flag_values=values)
  try:
    rest = values(argv)[1:]
  except AttributeError as error:
    raise ConfigError(_unknown_key(str(error), arguments)) from error
  except (flags.Error, TypeError, KeyError) as error:
    raise ConfigError(str(error).strip('"')) from error
  if rest:
    raise ConfigError(f"unexpected argument {rest[0]!r}")
  if values.config is None or values.workdir is None:
    raise ConfigError("both --config FILE and --workdir DIR are needed")
  return _plain(values.config), values.workdir


def _unknown_key(message: str, arguments: list[str]) -> str:
  overrides = [a.split("=")[0].lstrip("-") for a in arguments if a.lstrip("-").startswith("config.")]
  named = next((o for o in overrides if f'"{o.rsplit(".", 1)[-1]}"' in message or f"'{o.rsplit('.', 1)[-1]}'" in message), "")
  return f"{named or 'config'}: {message}"


def _plain(value: Any) -> Any:
  """ConfigDict -> dict, tuple -> list: what JSON would give back, so that a stored config compares equal."""
  if hasattr(value, "items"):
    return {key: _plain(item) for key, item in value.items()}
  return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _run(arguments: list[str]) -> None:
  from rlhf_jax import pipeline

  config, workdir = load_config(arguments)
  pipeline.run(config, Path(workdir))


def _sample(arguments: list[str]) -> None:
  parser = argparse.ArgumentParser(prog="rlhf-jax sample", description="Ask the models of a run, side by side.")
  parser.add_argument("run", type=Path)
  parser.add_argument("prompt", nargs="?", help="without it, prompts are read line by line")
  parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the most probable token (default)")
  parser.add_argument("--max-new-tokens", type=int, default=32)
  parser.add_argument("--seed", type=int, default=0)
  settings = parser.parse_args(arguments)
  from rlhf_jax.chat import answer, open_run

  models = open_run(settings.run, settings.temperature, settings.max_new_tokens)
  if settings.prompt is not None:
    print(answer(models, settings.prompt, settings.seed))
    return
  print("One prompt a line; an empty line or end of input leaves.")
  for number, line in enumerate(iter(_ask, "")):
    print(answer(models, line, settings.seed + number), flush=True)


def _ask() -> str:
  try:
    return input("> ").strip()
  except EOFError:
    return ""


def _report(arguments: list[str]) -> None:
  parser = argparse.ArgumentParser(prog="rlhf-jax report", description="Write RUN/report.html anew.")
  parser.add_argument("run", type=Path)
  settings = parser.parse_args(arguments)
  from rlhf_jax.evaluation.report import write_report

  print(write_report(settings.run))


if __name__ == "__main__":
  sys.exit(main())
