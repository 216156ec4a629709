"""Readers on hostile files, each in a process of its own, with the error, the processor time and the memory it took."""

import json
import os
import resource
import subprocess
import sys
from typing import NamedTuple

SECONDS, MEGABYTES = 2.0, 500  # what a reader may take until it refuses a file


class Outcome(NamedTuple):
  """What a reader did."""

  error: str  # "" for none
  named: bool  # whether the error is of a kind that the command line prints in one line
  seconds: float  # of processor time
  megabytes: float  # of memory at most, with the interpreter and its libraries


def measure(cases):
  """{name: (reader of READERS, path)} -> {name: Outcome}."""
  done = subprocess.run(
    [sys.executable, __file__], input=json.dumps(cases), capture_output=True, text=True, timeout=300
  )
  assert done.returncode == 0, done.stderr
  return {name: Outcome(*found) for name, found in json.loads(done.stdout.splitlines()[-1]).items()}


def read_prompt(path):
  from rlhf_jax.data import load_tokenizer, prompt_ids

  prompt_ids(load_tokenizer(path), "Hi")


def open_model(path):
  from rlhf_jax.models.hub import open_pretrained

  open_pretrained(path)


def read_with(name):
  def read(path):
    from rlhf_jax import data

    getattr(data, name)(path)

  return read


READERS = {
  "model": open_model,
  "prompt": read_prompt,
  **{name: read_with(name) for name in ("load_tokenizer", "read_rows", "read_text", "read_comparisons", "read_ratings",
                                        "read_demonstrations", "read_prompts")},
}  # fmt: skip


def outcome(reader, path):
  receive, send = os.pipe()
  child = os.fork()
  if not child:
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
    try:
      READERS[reader](path)
      said = "", True
    except ValueError as error:
      said = str(error), True
    except BaseException as error:
      said = f"{type(error).__name__}: {error}"[:1000], False
    os.write(send, json.dumps(said).encode())
    os._exit(0)
  os.close(send)
  with os.fdopen(receive, "rb") as pipe:
    written = pipe.read()
  _, status, usage = os.wait4(child, 0)
  said = json.loads(written) if written else (f"ended with {os.waitstatus_to_exitcode(status)}", False)
  return *said, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
  import rlhf_jax.data  # before the forks, which then share it

  cases = json.load(sys.stdin)
  if any(reader == "model" for reader, _ in cases.values()):
    import rlhf_jax.models.hub  # noqa: F401
  print(json.dumps({name: outcome(*case) for name, case in cases.items()}))
