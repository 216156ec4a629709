"""Connections between the processes of a job that carry nothing: one that closes tells that its process has ended.

The leader has a connection to every other process. The kernel closes those of a process that is killed at once,
whatever the process was doing, and probes whether the host of a quiet one is still there.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import time

from rlhf_jax.train.processes import client, count, index, leader
from rlhf_jax.train.progress import console

Lines = dict[int, socket.socket]  # {number of a process: the connection to it}
_KEY = "rlhf_jax/lifelines"
_FAREWELL = b"."  # of a process that ends as it should
# Seconds without traffic before the first probe, seconds between probes, probes without an answer: 20 s in all.
_PROBES = {"TCP_KEEPIDLE": 8, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 4}


def connect(host: str, seconds: float) -> Lines:
  """The connections of this process, of the leader to all others and of the others to the leader; all call it.

  A process that cannot be connected is named on the console: JAX's own heartbeats will notice its end, later.

  Args:
    host: the name or address of the leader's host.
    seconds: the time that processes wait for each other.
  """
  lines = _accept(seconds) if leader() else _call(host, seconds)
  for line in lines.values():
    line.setblocking(False)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _PROBES.items():
      if hasattr(socket, option):  # macOS lacks the first
        line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
  return lines


def _accept(seconds: float) -> Lines:
  """The connections of the leader."""
  both = socket.has_dualstack_ipv6()
  family = socket.AF_INET6 if both else socket.AF_INET
  lines: Lines = {}
  with socket.create_server(("", 0), family=family, backlog=count(), dualstack_ipv6=both) as server:
    word = secrets.token_hex(8)  # anybody may connect
    client().key_value_set(_KEY, f"{server.getsockname()[1]} {word}")
    replies = {
      other: client().blocking_key_value_get(f"{_KEY}/{other}", int(1000 * seconds)) for other in range(1, count())
    }
    for other, problem in replies.items():
      if problem:
        console.print(f"process {other} cannot be watched ({problem}): its end would be noticed late", markup=False)
    waited = {other for other, problem in replies.items() if not problem}
    server.settimeout(seconds)
    while waited - lines.keys():
      line, _ = server.accept()
      line.settimeout(seconds)
      with contextlib.suppress(OSError, ValueError):
        found, number = line.recv(64).decode().split()
        if found == word:
          lines[int(number)] = line
  return lines


def _call(host: str, seconds: float) -> Lines:
  """The connection to the leader."""
  port, word = client().blocking_key_value_get(_KEY, int(1000 * seconds)).split()
  lines: Lines = {}
  problem = ""
  try:
    lines[0] = socket.create_connection((host, int(port)), timeout=10)
    lines[0].sendall(f"{word} {index()}".encode())
  except OSError as error:
    problem = str(error)
  client().key_value_set(f"{_KEY}/{index()}", problem)
  return lines


def broken(lines: Lines, seconds: float) -> list[int]:
  """The numbers of the processes that have ended without a farewell, after at most `seconds` of waiting for one.

  Connections of processes that have taken leave are closed and removed from `lines`.
  """
  if not lines:
    time.sleep(seconds)
    return []
  with selectors.DefaultSelector() as selector:
    for number, line in lines.items():
      selector.register(line, selectors.EVENT_READ, number)
    ready = [key.data for key, _ in selector.select(seconds)]
  found = []
  for number in ready:
    try:
      word = lines[number].recv(1)
    except OSError:  # the host does not answer, or the process left what it was sent unread
      word = b""
    if word == _FAREWELL:
      lines.pop(number).close()
    else:
      found.append(number)
  return sorted(found)


def take_leave(lines: Lines) -> None:
  """Tells the other processes that this one ends as it should."""
  for line in lines.values():
    with contextlib.suppress(OSError):  # that one has ended
      line.sendall(_FAREWELL)
    line.close()
