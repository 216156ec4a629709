"""The annotation server under load: judgements per second, the slowest responses, and judgements lost by `kill -9`.

  python benchmarks/feedback_server.py --seconds 10 --kills 20 --out benchmarks/results/feedback_server.json

Eight annotators, each a thread with its own connection and without pauses, judge items of four responses over HTTP (a
complete ranking, four ratings, a critique). A judgement is acknowledged once the client has read status 200. Server and
clients share the machine. The server is killed at random moments under the same load; afterwards every acknowledged
judgement must be in the store exactly once. (A kill ends the process, not the machine: SQLite's synchronous=FULL guards
against loss of power.)
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rlhf_jax.feedback.collect import collect
from rlhf_jax.feedback.records import Annotator, Response, current, make_item
from rlhf_jax.feedback.store import add_records, open_store, read_store
from rlhf_jax.feedback.store_settings import Settings
from rlhf_jax.feedback.tokens import issue_token

ROOT = Path(__file__).parents[1]
ANSWER = {"ranks": [0, 1, 1, 2], "ratings": [7, 5, 5, 1], "critiques": ["", "", "", "It does not answer the question."]}


def make_store(path: Path, num_items: int, num_annotators: int) -> list[str]:
  """Makes a store of items with four responses of about 300 characters; returns the annotators' tokens."""
  texts = ["the answer goes on for a while " * 10 + str(i) for i in range(4)]
  items = [make_item(f"Question {n}?", (Response(text) for text in texts)) for n in range(num_items)]
  gold = [make_item(f"Gold question {n}?", (Response(text) for text in texts), (0, 1, 2, 3)) for n in range(50)]
  collect(path, items, gold, Settings(gold_every=10))
  names = [f"annotator {n}" for n in range(num_annotators)]
  with contextlib.closing(open_store(path)) as store:
    add_records(store, ([Annotator(name) for name in names], [], []))
    return [issue_token(store, name) for name in names]


@contextlib.contextmanager
def serving(path: Path) -> Iterator[tuple[subprocess.Popen, int]]:
  """Yields a server process and its port; kills the process at the end."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  command = [sys.executable, "-m", "rlhf_jax.cli", "annotate", str(path), "--port", str(port)]
  process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
  try:
    for _ in range(600):
      with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        break
      if process.poll() is not None:
        raise RuntimeError(f"the server ended with status {process.returncode}")
      time.sleep(0.05)
    yield process, port
  finally:
    process.kill()
    process.wait()


class Annotating(threading.Thread):
  """An annotator that judges until `stop` is set, the server is gone or no item is left."""

  def __init__(self, port: int, token: str, stop: threading.Event):
    super().__init__()
    self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    self.headers = {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{port}"}
    self.token, self.stop = token, stop
    self.acknowledged: list[str] = []
    self.seconds: list[float] = []
    self.errors: list[str] = []

  def run(self) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):  # the server was killed
      self.post("/login", {"token": self.token})
      state = self.post("/next", {})
      while state["assignment"] is not None and not self.stop.is_set():
        assignment = state["assignment"]["id"]
        start = time.perf_counter()
        state = self.post("/judgements", {"assignment": assignment, **ANSWER, "seconds": 1.0})
        self.seconds.append(time.perf_counter() - start)
        self.acknowledged.append(assignment)

  def post(self, path: str, body: dict) -> dict:
    self.connection.request("POST", path, json.dumps(body), self.headers)
    reply = self.connection.getresponse()
    content = reply.read()
    if reply.status not in (200, 204):
      self.errors.append(f"{path}: {reply.status} {content!r}")
      raise OSError(self.errors[-1])
    if cookie := reply.headers["Set-Cookie"]:
      self.headers["Cookie"] = cookie.partition(";")[0]
    return json.loads(content) if content else {}


def load(port: int, tokens: list[str], seconds: float, process: subprocess.Popen | None = None) -> list[Annotating]:
  """Runs all annotators at once for some seconds; then kills `process`, if it is given, while they work."""
  stop = threading.Event()
  annotators = [Annotating(port, token, stop) for token in tokens]
  for annotator in annotators:
    annotator.start()
  time.sleep(seconds)
  if process is not None:
    os.kill(process.pid, signal.SIGKILL)
  stop.set()
  for annotator in annotators:
    annotator.join()
  errors = [error for annotator in annotators for error in annotator.errors]
  if errors:
    raise RuntimeError(errors[0])
  return annotators


def measure_speed(path: Path, tokens: list[str], seconds: float) -> dict[str, float]:
  """Judgements per second, and milliseconds of a response: median, 99th percentile and maximum."""
  with serving(path) as (_, port):
    load(port, tokens, min(1.0, seconds))  # warm-up
    start = time.perf_counter()
    annotators = load(port, tokens, seconds)
    elapsed = time.perf_counter() - start
  times = sorted(1000 * value for annotator in annotators for value in annotator.seconds)
  return {
    "judgements": len(times),
    "judgements_per_second": round(len(times) / elapsed, 1),
    "median_ms": round(times[len(times) // 2], 2),
    "slowest_1_percent_ms": round(times[int(0.99 * len(times))], 2),
    "longest_ms": round(times[-1], 2),
  }


def count_losses(path: Path, tokens: list[str], kills: int, seed: int) -> dict[str, int]:
  """Kills the server `kills` times under load; counts judgements that were acknowledged, lost, and stored twice."""
  rng = random.Random(seed)
  acknowledged: list[str] = []
  for _ in range(kills):
    with serving(path) as (process, port):
      for annotator in load(port, tokens, rng.uniform(0.3, 1.0), process):
        acknowledged += annotator.acknowledged
  _, _, judgements = read_store(path)  # raises where the file is damaged or a record does not fit
  stored = {judgement.id for judgement in judgements}
  said = Counter((judgement.item, judgement.annotator) for judgement in current(judgements))
  return {
    "kills": kills,
    "acknowledged": len(acknowledged),
    "lost": len(set(acknowledged) - stored),
    "twice": sum(count - 1 for count in said.values()),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--seconds", type=float, default=10.0)
  parser.add_argument("--kills", type=int, default=20)
  parser.add_argument("--annotators", type=int, default=8)
  parser.add_argument("--items", type=int, default=20_000)
  parser.add_argument("--out", type=Path)
  settings = parser.parse_args()
  with tempfile.TemporaryDirectory() as directory:
    path = Path(directory) / "feedback.db"
    tokens = make_store(path, settings.items, settings.annotators)
    result = {
      "command": " ".join(["python", "benchmarks/feedback_server.py", *sys.argv[1:]]),
      "machine": {"cpus": len(os.sched_getaffinity(0)), "python": platform.python_version(),
                  "sqlite": sqlite3.sqlite_version},
      "annotators": settings.annotators,
      "items": settings.items,
      **measure_speed(path, tokens, settings.seconds),
      **count_losses(path, tokens, settings.kills, seed=0),
    }  # fmt: skip
  text = json.dumps(result, indent=2)
  print(text)
  if settings.out:
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text(text + "\n")


if __name__ == "__main__":
  main()
