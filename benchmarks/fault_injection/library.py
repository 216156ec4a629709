"""The library that makes file operations fail: built on the spot, preloaded, and told what to do by a mapped file."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import subprocess
from pathlib import Path

CLASSES = ("read", "open", "create", "write", "fsync", "rename", "mkdir", "remove")  # as in library.c
SOURCE = Path(__file__).with_name("library.c")


class Control(ctypes.Structure):
  """`struct control` of library.c, where its fields are described."""

  _fields_ = [
    ("directory", ctypes.c_char * 512),
    ("class_", ctypes.c_int),
    ("at", ctypes.c_int),
    ("error", ctypes.c_int),
    ("stays", ctypes.c_int),
    ("after", ctypes.c_int),
    ("struck", ctypes.c_int),
    ("seen", ctypes.c_int * len(CLASSES)),
    ("path", ctypes.c_char * 512),
  ]

  def counts(self) -> dict[str, int]:
    """The number of operations of each class so far."""
    return dict(zip(CLASSES, self.seen, strict=True))


def build(directory: Path) -> Path | None:
  """Compiles the library into `directory`; None where there is no C compiler, or where no library can be preloaded."""
  compiler = shutil.which("cc")
  if compiler is None or os.uname().sysname != "Linux":
    return None
  target = directory / "library.so"
  subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(target), str(SOURCE), "-ldl"], check=True)
  return target


def make_control(file: Path, directory: Path, **settings: int) -> Control:
  """Writes a control file for operations below `directory`; the structure that is returned stays mapped to it.

  settings: fields of Control. Without any, operations are counted and none fails.
  """
  file.write_bytes(bytes(ctypes.sizeof(Control)))
  with file.open("r+b") as opened:
    control = Control.from_buffer(mmap.mmap(opened.fileno(), 0))
  control.directory = os.fsencode(directory)
  control.class_ = -1
  for name, value in settings.items():
    setattr(control, name, value)
  return control


def arm(file: Path) -> None:
  """Makes the preloaded library of this process obey a control file."""
  if ctypes.CDLL(None).fault_arm(os.fsencode(file)):
    raise OSError(f"{file} could not be mapped")
