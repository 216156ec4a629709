"""Standard output and error that outlast their reader."""

import os
import subprocess
import sys

import pytest

from rlhf_jax.streams import lasting_output

SCRIPT = """
import sys
from rlhf_jax.streams import lasting_output
with lasting_output():
  for number in range(20000):
    print("a line", number, flush=number % 2 == 0)
    print("a line", file=sys.stderr)
open(sys.argv[1], "w").write("ended")
"""


@pytest.mark.parametrize("closing", ["| head -1", ">&- 2>&-", "> /dev/full 2>&1"])
def test_a_closed_output_ends_nothing(tmp_path, closing):
  """Not a pipe that is read once, nor streams closed from the start, nor a log on a full disk."""
  script = tmp_path / "script.py"
  script.write_text(SCRIPT)
  command = f"(exec 2>&1; {sys.executable} {script} {tmp_path}/end; echo $? > {tmp_path}/status) {closing}"
  subprocess.run(["bash", "-c", command], check=False, capture_output=True, timeout=60, env={**os.environ})
  assert (tmp_path / "end").read_text() == "ended"
  assert (tmp_path / "status").read_text() == "0\n"


def test_what_can_be_written_is_written(capsys):
  with lasting_output():
    print("out")
    print("err", file=sys.stderr)
    assert sys.stdout.isatty() is False
  assert capsys.readouterr() == ("out\n", "err\n")
