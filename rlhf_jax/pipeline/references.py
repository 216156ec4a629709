"""The references in a stage's config: to earlier stages, to files that these write, and to functions.

From them follow the stages that a stage depends on, and the names that are wrong, before anything has run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from rlhf_jax.calls import CallError, guarded
from rlhf_jax.settings import ConfigError, import_function, nearest, texts
from rlhf_jax.stage import Stage, split_step

T = TypeVar("T")
_PATH = re.compile(r"\{run\}/([^/]+)/")


class Reference(NamedTuple):
  """A text of a config: its place, without "config.", and its mark, "stage", "function" or ""."""

  where: str
  text: str
  mark: str


def read_references(config: Any, where: str) -> tuple[Reference, ...]:
  """Every text in a parsed config that may name a stage, a file or a function; `where` is its place in the config."""
  return tuple(Reference(*found) for found in texts(config, where))


def stages_read(references: Iterable[Reference]) -> set[str]:
  """The names of the stages that are referred to: by their names, and in the paths of files."""
  found: set[str] = set()
  for reference in references:
    found.update(_PATH.findall(reference.text), [split_step(reference.text)[0]] if reference.mark == "stage" else [])
  return found


def check_names(references: Iterable[Reference], stage: Stage, earlier: Mapping[str, tuple[str, ...] | None]) -> None:
  """Raises ConfigError where a stage's config names a stage, file or function that is not there.

  earlier: the stages before it with the files they write, None where that is not known. A stage that the run directory
  holds already, of another config, is there too.
  """
  for where, text, mark in references:
    if mark == "function" and text:
      load(where, import_function, text)
    elif mark == "stage" and "/" in text:
      if not stage.directory_of(text).is_dir():
        raise ConfigError(f"config.{where}: there is no directory {stage.directory_of(text)}")
    elif mark == "stage" and text:
      name, _ = split_step(text)
      if name not in earlier and not (stage.root / name / "done.json").exists():
        raise ConfigError(f"config.{where} is {text!r}, and no stage before it has that name.{nearest(name, earlier)}")
    elif text.startswith("{run}/"):
      check_path(where, text, stage, earlier)


def check_path(where: str, text: str, stage: Stage, earlier: Mapping[str, tuple[str, ...] | None]) -> None:
  """Raises ConfigError where no stage has made, or will make, the file "{run}/STAGE/FILE"."""
  name, _, file = text.removeprefix("{run}/").partition("/")
  whole = text.rpartition(":")[0] or text  # some paths end in ":NAME", a part of the file
  if re.search(r"[*?[]", file) or stage.path(text).exists() or stage.path(whole).exists():
    return
  files = earlier.get(name, ())
  if file in files if files is not None else not (stage.root / name / "done.json").exists():
    return
  known = [f"{{run}}/{other}/{written}" for other, writes in earlier.items() for written in writes or ()]
  raise ConfigError(f"config.{where} is {text!r}, and no stage before it writes that file.{nearest(text, known)}")


def load(where: str, function: Callable[[str], T], name: str) -> T:
  """`function(name)`, an import of code that `config.<where>` names. Raises ConfigError, whatever the import raises."""
  try:
    return guarded(function, name)
  except ConfigError as error:
    raise ConfigError(f"config.{where}: {error}") from error
  except CallError as error:
    raise ConfigError(f"config.{where}: importing {name} {error}") from error
