"""Files are written whole, in one way, and an error of the file system says which file and what to do."""

import ast
import errno
import resource
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from rlhf_jax.cli import main
from rlhf_jax.models.hub import export_peft
from rlhf_jax.writing import explain, named_errors, whole_file, write_bytes, write_figure

ROOT = Path(__file__).parents[1]
APART = {  # files that write in another way, and why
  "writing.py": "the way",
  "train/array_files.py": "arrays of a checkpoint, in a directory that is renamed as a whole",
  "pipeline/owner.py": "a lock",
  "streams.py": "standard output",
  "verify/sandbox_child.py": "the kernel's files",
}


@pytest.fixture
def small_files():
  """Within it no file of this process may have more than 10 bytes, as on a disk that is full."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
  yield
  resource.setrlimit(resource.RLIMIT_FSIZE, before)


def adapters(directory):
  """Adapters of a tiny model."""
  from rlhf_jax.models.config import DecoderConfig

  config = DecoderConfig(8, 1, 4, 2, 2, 4, 4)
  pair = {"a": np.zeros((4, 1), np.float32), "b": np.zeros((1, 4), np.float32)}
  params = {"lora": {"layers_0": {"query": pair}}, "lora_scale": 1.0}
  export_peft.export_adapters(directory, config, params)


@pytest.mark.parametrize(
  "write, name",
  [
    (lambda path: write_bytes(path, bytes(20)), "file"),
    (lambda path: write_figure(path, Figure()), "file"),
    (lambda path: adapters(path), "file/adapter_model.safetensors"),
  ],
)
def test_a_failed_write_names_the_file_and_leaves_what_was_there(tmp_path, small_files, write, name):
  path = tmp_path / "new" / "file"
  target = path.parent / name
  target.parent.mkdir(parents=True)
  target.write_bytes(b"before")
  with pytest.raises(OSError, match="File too large") as error:
    write(path)
  assert error.value.filename == str(target) and target.read_bytes() == b"before"
  assert [found.name for found in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("name", ["file", "file/" + "x" * 300])
def test_a_file_that_cannot_be_written_is_named_as_it_was_asked_for(tmp_path, name):
  (tmp_path / "file").mkdir()
  with pytest.raises(OSError, match="Is a directory|too long") as error:
    write_bytes(tmp_path / name, b"")
  told = explain(error.value)
  assert told.startswith(f"{tmp_path / name}: ") and told.endswith(": check the path")


def test_other_errors_keep_their_path(tmp_path):
  with pytest.raises(OSError, match="other") as error, whole_file(tmp_path / "file"):
    raise OSError(errno.EIO, "damaged", "other")
  assert error.value.filename == "other" and not (tmp_path / "file").exists()
  with pytest.raises(OSError, match="damaged: 'path'"), named_errors("path"):
    raise OSError(errno.EIO, "damaged")


@pytest.mark.parametrize(
  "error, told",
  [
    (OSError(errno.ENOSPC, "No space", "/x"), "/x: No space: make room there"),
    (OSError(errno.EACCES, "Denied"), "/place: Denied: make it writable"),
    (OSError(errno.EIO, "Fault", b"/x"), "/x: Fault: repair that"),
    (OSError("own words"), "/place: own words: repair that"),
  ],
)
def test_what_to_do_about_an_error(error, told):
  assert explain(error, "/place", "repair that") == told


def test_a_command_says_which_file_and_what_to_do(capsys):
  assert main(["tokenizer", "train", str(ROOT / "README.md"), "--vocab-size", "300", "--out", "/dev/null/x"]) == 2
  message = capsys.readouterr().err
  assert "/dev/null" in message and message.endswith(": check the path\n") and "Errno" not in message


def named(function):
  return getattr(function.value, "id", "")


def writes(path):
  """The lines of a file of Python that write a file by themselves; appending to one is another matter."""
  for node in ast.walk(ast.parse(path.read_text())):
    if not isinstance(node, ast.Call):
      continue
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    first = node.args[0] if node.args else None
    given = [*node.args[-1:], *(keyword.value for keyword in node.keywords)]
    modes = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    opens = name == "open" and any(len(mode) < 4 and set(mode) & set("wx") for mode in modes)
    of_path = (
      name in ("write_text", "write_bytes") and isinstance(function, ast.Attribute) and named(function) != "data"
    )
    figure = name == "savefig" and isinstance(first, ast.Name) and first.id in ("path", "file")
    if opens or figure or name in ("save_file", "tofile") or of_path:
      yield node.lineno


def test_files_are_written_in_one_way():
  own = {path.relative_to(ROOT / "rlhf_jax").as_posix(): path for path in (ROOT / "rlhf_jax").rglob("*.py")}
  found = {name: lines for name, path in own.items() if (lines := [*writes(path)])}
  assert set(found) == set(APART), {name: lines for name, lines in found.items() if name not in APART}
