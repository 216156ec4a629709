"""Scripts by which bash, zsh and fish complete commands, flags, their choices, recipes and files.

They are made from the parsers of the commands, and hold the names of the recipes as of the day they are printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from rlhf_jax.cli.parsers import PARSERS
from rlhf_jax.pipeline.catalogue import recipe_names


def script(shell: str) -> str:
  """The script for "bash", "zsh" or "fish", to be evaluated by it."""
  return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _flags(command: str) -> list[str]:
  return [flag for action in PARSERS[command]()._actions for flag in action.option_strings]


def _choices(action: argparse.Action) -> list[str]:
  """The values that an argument may have, [] where they are no closed list."""
  if action.dest in ("config", "recipe"):
    return recipe_names()
  return list(action.choices or ())


def _values() -> Iterator[tuple[str, str, list[str]]]:
  """(command, the word before, choices), for each flag and each first positional argument that has choices."""
  for command, parser in PARSERS.items():
    positional = True
    for action in parser()._actions:
      first = positional and not action.option_strings
      positional = positional and not first
      for word in action.option_strings or ([command] if first else []):
        if _choices(action):
          yield command, word, _choices(action)


def _cases() -> str:
  """Branches on "COMMAND:WORD BEFORE", which set `found`."""
  return "\n".join(f"    {command}:{word}) found='{' '.join(found)}';;" for command, word, found in _values())


def _flag_cases() -> str:
  return "\n".join(f"      {command}) found='{' '.join(_flags(command))}';;" for command in PARSERS)


def _bash() -> str:
  return f"""_rlhf_jax() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}} found=
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W '{" ".join(PARSERS)}' -- "$current"))
    return
  fi
  case $command:$before in
{_cases()}
  esac
  if [[ -z $found && $current == -* ]]; then
    case $command in
{_flag_cases()}
    esac
  fi
  COMPREPLY=($(compgen -W "$found" -- "$current"))
}}
complete -o default -F _rlhf_jax rlhf-jax"""


def _zsh() -> str:
  return f"""#compdef rlhf-jax
_rlhf_jax() {{
  local found=
  if ((CURRENT == 2)); then
    compadd {" ".join(PARSERS)}
    return
  fi
  case "${{words[2]}}:${{words[CURRENT-1]}}" in
{_cases()}
  esac
  if [[ -z $found && $words[CURRENT] == -* ]]; then
    case $words[2] in
{_flag_cases()}
    esac
  fi
  [[ -n $found ]] && compadd -- ${{=found}}
  [[ $words[CURRENT] == -* ]] || _files
}}
compdef _rlhf_jax rlhf-jax"""


def _fish() -> str:
  lines = []
  for command, parser in PARSERS.items():
    lines.append(f"complete -c rlhf-jax -n __fish_use_subcommand -f -a {command}")
    positional = True
    for action in parser()._actions:
      found = f" -a '{' '.join(_choices(action))}'" if _choices(action) else ""
      seen = f"complete -c rlhf-jax -n '__fish_seen_subcommand_from {command}'"
      for flag in action.option_strings:
        name = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
        lines.append(f"{seen} {name}{'' if action.nargs == 0 else ' -r'}{found}")
      if found and positional and not action.option_strings:
        lines.append(f"{seen}{found}")
      positional = positional and bool(action.option_strings)
  return "\n".join(lines)
