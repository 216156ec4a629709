"""Connections of the annotation page's server: how many may wait, and how long a request may take to arrive.

A connection waits while no whole request has come on it: it says nothing, or sends its header or body in drops. Such
connections cost nothing to open, and without a bound a few hundred of them keep everybody else out.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_WAITING = 32  # connections of an address that wait; a browser opens six, and a proxy in front is one address
ARRIVAL_SECONDS = 30.0  # longest time from when a connection is free to a whole request


def bounded_protocol(max_waiting: int = MAX_WAITING, seconds: float = ARRIVAL_SECONDS) -> type[H11Protocol]:
  """uvicorn's HTTP protocol, in which a connection that waits is closed after `seconds`.

  When more than `max_waiting` connections of one address wait, the one that has waited longest is closed.
  """
  waiting: dict[str, dict[H11Protocol, asyncio.TimerHandle]] = defaultdict(dict)  # address -> in order of waiting

  class Bounded(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
      super().connection_made(transport)
      self._count()

    def data_received(self, data: bytes) -> None:
      super().data_received(data)
      self._count()

    def on_response_complete(self) -> None:
      super().on_response_complete()
      self._count()

    def connection_lost(self, exc: Exception | None) -> None:
      self._stop()
      super().connection_lost(exc)

    def _count(self) -> None:
      """Notes whether the connection waits now."""
      mine = waiting[self._address()]
      busy = self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete
      if busy or self.transport.is_closing():
        self._stop()
      elif self not in mine:
        mine[self] = self.loop.call_later(seconds, self.transport.abort)
        if len(mine) > max_waiting:
          next(iter(mine)).transport.abort()  # its end is told to connection_lost later

    def _stop(self) -> None:
      mine = waiting[self._address()]
      if timer := mine.pop(self, None):
        timer.cancel()
      if not mine:
        del waiting[self._address()]

    def _address(self) -> str:
      return self.client[0] if self.client else ""

  return Bounded
