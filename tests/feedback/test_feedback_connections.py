"""Connections that send nothing, or send it in drops, do not keep others out."""

import asyncio
import contextlib

import pytest

pytest.importorskip("uvicorn", reason="the feedback extra is not installed")

import uvicorn

from rlhf_jax.feedback.connections import bounded_protocol

REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"


async def answer(scope, receive, send):
  while (await receive()).get("more_body"):
    pass
  await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
  await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def serving(**bounds):
  """A port at which `answer` is served."""
  config = uvicorn.Config(answer, host="127.0.0.1", port=0, http=bounded_protocol(**bounds), ws="none", lifespan="off",
                          log_level="critical")  # fmt: skip
  server, listener = uvicorn.Server(config), config.bind_socket()
  task = asyncio.create_task(server.serve(sockets=[listener]))
  while not server.started:
    await asyncio.sleep(0.01)
  try:
    yield listener.getsockname()[1]
  finally:
    server.should_exit = True
    await task
    listener.close()


async def ask(reader, writer, body=b"{}"):
  writer.write(REQUEST + body)
  return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)


async def ends(reader, seconds=5.0):
  """Whether the server closes the connection within some time."""
  try:
    return await asyncio.wait_for(reader.read(), seconds) == b""
  except ConnectionError:
    return True
  except TimeoutError:
    return False


def test_of_too_many_idle_connections_the_oldest_is_closed():
  async def check():
    async with serving(max_waiting=3) as port:
      idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
      late = await asyncio.open_connection("127.0.0.1", port)
      assert await ends(idle[0][0])
      assert b"200 OK" in await ask(*late)
      assert not await ends(idle[2][0], 0.2) and b"200 OK" in await ask(*idle[2])
      for _, writer in (*idle, late):
        writer.close()

  asyncio.run(check())


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\nHost: a", REQUEST, REQUEST + b"{"])
def test_a_request_that_does_not_arrive_in_time_is_closed(sent):
  async def check():
    async with serving(seconds=0.3) as port:
      reader, writer = await asyncio.open_connection("127.0.0.1", port)
      writer.write(sent)
      assert await ends(reader)
      again = await asyncio.open_connection("127.0.0.1", port)
      assert b"200 OK" in await ask(*again)
      again[1].write(sent)  # the time runs anew after an answer
      assert await ends(again[0])
      for each in (writer, again[1]):
        each.close()

  asyncio.run(check())


def test_drops_do_not_prolong_the_time():
  async def check():
    async with serving(seconds=0.5) as port:
      reader, writer = await asyncio.open_connection("127.0.0.1", port)
      for drop in REQUEST.decode():
        writer.write(drop.encode())
        await asyncio.sleep(0.05)
        if reader.at_eof() or reader.exception():
          break
      else:
        raise AssertionError("the connection was kept")

  asyncio.run(check())
