"""What a stage's config refers to: earlier stages, files that these write, and functions.

From this follow what a stage depends on, and which names are wrong, before anything has run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rlhf_jax.settings import ConfigError, import_function, nearest, texts
from rlhf_jax.stage import Stage

_PATH = re.compile(r"\{run\}/([^/]+)/")


def stages_read(config: Any) -> set[str]:
  """The names of stages in a parsed config: where it names one, and in the paths of files."""
  found = set()
  for _, text, mark in texts(config, ""):
    found.update(_PATH.findall(text), [text] if mark == "stage" else [])
  return found


def check_names(config: Any, stage: Stage, earlier: Mapping[str, tuple[str, ...] | None]) -> None:
  """Raises ConfigError where a stage's parsed config names a stage, file or function that is not there.

  earlier: the stages before it with the files they write, None where that is not known. What lies in the run directory
  already, of another config, is there too.
  """
  for where, text, mark in texts(config, stage.name):
    if mark == "function" and text:
      try:
        import_function(text)
      except ConfigError as error:
        raise ConfigError(f"config.{where}: {error}") from error
    elif mark == "stage" and "/" in text:
      if not stage.path(text).is_dir():
        raise ConfigError(f"config.{where}: there is no directory {stage.path(text)}")
    elif mark == "stage" and text and text not in earlier and not (stage.root / text / "done.json").exists():
      raise ConfigError(f"config.{where} is {text!r}, and no stage before it has that name.{nearest(text, earlier)}")
    elif text.startswith("{run}/"):
      check_path(where, text, stage, earlier)


def check_path(where: str, text: str, stage: Stage, earlier: Mapping[str, tuple[str, ...] | None]) -> None:
  """Raises ConfigError where nothing has made, or will make, the file "{run}/STAGE/FILE"."""
  name, _, file = text.removeprefix("{run}/").partition("/")
  whole = text.rpartition(":")[0] or text  # some paths end in ":NAME", a part of the file
  if re.search(r"[*?[]", file) or stage.path(text).exists() or stage.path(whole).exists():
    return
  files = earlier.get(name, ())
  if file in files if files is not None else not (stage.root / name / "done.json").exists():
    return
  known = [f"{{run}}/{other}/{written}" for other, writes in earlier.items() for written in writes or ()]
  raise ConfigError(f"config.{where} is {text!r}, and no stage before it writes that file.{nearest(text, known)}")
