"""The collector runs finalisers in any thread: what they end is then ended in the loop's thread."""

import asyncio
import contextlib
import gc
import os
import socket
import threading

import pytest
from support import loops, peers, tls
from support.protocols import Recorder


class Closes:
    """Closes something when it is collected, as `StreamWriter` and many clients do."""

    def __init__(self, close):
        self.close = close
        self.itself = self  # a cycle, so that only the collector frees it

    def __del__(self):
        self.close()


async def collected_elsewhere(loop, close):
    """Collect it in another thread, while the loop sleeps in its engine."""
    gc.disable()
    try:
        Closes(close)
        started = threading.Event()

        def collect():
            started.wait(peers.PATIENCE)
            gc.collect()

        collecting = loop.run_in_executor(None, collect)
        loop.call_later(0.01, started.set)
        await collecting
    finally:
        gc.enable()


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("kind", ["stream", "tls", "datagram", "read pipe", "write pipe"])
async def test_a_transport_is_closed(loop, kind, end):
    if kind == "read pipe" and end == "abort":
        end = "close"  # it has no other way to end
    protocol = Recorder(loop)
    with contextlib.ExitStack() as ends:
        if kind == "stream":
            near, far = socket.socketpair()
            ends.enter_context(far)
            transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        elif kind == "tls":
            server = await loop.create_server(asyncio.Protocol, peers.LOOPBACK, 0, ssl=tls.server_context())
            address = server.sockets[0].getsockname()
            transport, _ = await loop.create_connection(
                lambda: protocol, *address, ssl=tls.client_context(), server_hostname=tls.NAME
            )
            ends.callback(server.close)
        elif kind == "datagram":
            transport, _ = await loop.create_datagram_endpoint(
                lambda: protocol, local_addr=(peers.LOOPBACK, 0)
            )
        else:
            ours, theirs = os.pipe()
            reading, writing = os.fdopen(ours, "rb", 0), os.fdopen(theirs, "wb", 0)
            ends.enter_context(writing if kind == "read pipe" else reading)
            connect = loop.connect_read_pipe if kind == "read pipe" else loop.connect_write_pipe
            transport, _ = await connect(lambda: protocol, reading if kind == "read pipe" else writing)
        await collected_elsewhere(loop, getattr(transport, end))
        await asyncio.wait_for(protocol.lost, peers.PATIENCE)
        assert protocol.calls.count("connection_lost") == 1


async def test_a_writer_that_was_forgotten(loop):
    near, far = socket.socketpair()
    with far:
        far.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=near)
        await collected_elsewhere(loop, writer.close)
        assert await loop.sock_recv(far, 10) == b""
        del reader, writer
        await loops.turns()


@pytest.mark.parametrize("side", ["reader", "writer"])
async def test_a_watch_is_removed(loop, side):
    near, far = socket.socketpair()
    called = []
    with near, far:
        near.setblocking(False)
        getattr(loop, f"add_{side}")(near, called.append, side)
        answers = []
        await collected_elsewhere(loop, lambda: answers.append(getattr(loop, f"remove_{side}")(near)))
        assert answers == [True]
        await loops.turns()
        called.clear()
        far.send(b"x")
        await loops.turns()
        assert called == []
        assert getattr(loop, f"remove_{side}")(near) is False


async def test_an_operation_leaves_the_engine(loop):
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        before = loop.stats()["slots"]
        receiving = loop.sock_recv(near, 1)
        receiving.send(None)  # to its first pause, as a task would
        assert loop.stats()["slots"] == before + 1
        await collected_elsewhere(loop, receiving.close)
        async with asyncio.timeout(peers.PATIENCE):
            while loop.stats()["slots"] != before:
                await loops.turns()


async def test_a_watch_that_came_later_stays(loop):
    near, far = socket.socketpair()
    called = []
    with near, far:
        near.setblocking(False)
        loop.add_reader(near, called.append, "first")
        # This thread is not in the engine, so it has no turn before the second watch begins.
        with peers.thread(lambda: called.append(loop.remove_reader(near))):
            pass
        assert called == [True]
        loop.add_reader(near, called.append, "second")
        far.send(b"x")
        async with asyncio.timeout(peers.PATIENCE):
            while "second" not in called:
                await asyncio.sleep(0)
        await loops.turns()
        assert "first" not in called
        assert loop.remove_reader(near) is True
