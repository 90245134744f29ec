"""The owner of an fd, and the attributes that a program may set on a transport.

A transport that is collected frees its fd's number; an accepted fd is closed once, whatever the
factory does; a transport has attributes, overrides, weak references and a hash like any object.
"""

import asyncio
import contextlib
import errno
import gc
import os
import socket
import warnings
import weakref

import pytest
from support import loops, peers
from support.protocols import Recorder
from test_ending import datagrams, let_go, read_pipe, secured, stream, upgraded, write_pipe


async def over_tls(loop):
    transport, _, far = await upgraded(loop)
    return transport, far


TRANSPORTS = (stream, over_tls, datagrams, read_pipe, write_pipe)


async def closed(number):
    """Wait until the fd is closed."""
    async with asyncio.timeout(peers.PATIENCE):
        with contextlib.suppress(OSError):
            while os.fstat(number):
                await asyncio.sleep(0.001)


async def tcp(loop):
    with peers.tcp_pair() as (near, far):
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=near.dup())
        return transport, far.dup()


@pytest.mark.parametrize("thread", [False, True], ids=["here", "in a thread"])
@pytest.mark.parametrize("make", [stream, tcp, secured], ids=lambda make: make.__name__)
async def test_a_collected_transport_frees_its_number(loop, make, thread):
    for _ in range(3):
        transport, far = await make(loop)
        transport.pause_reading()
        await loops.turns()
        number = transport.get_extra_info("socket").fileno()
        kept = [transport]
        del transport
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if thread:
                await loop.run_in_executor(None, lambda kept=kept: (kept.clear(), gc.collect()))
            else:
                kept.clear()
                gc.collect()
            await closed(number)
        far.close()
        # The next file with that number belongs to nothing else.
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            assert number in (near.fileno(), far.fileno())
            far.send(b"x")
            assert await loop.sock_recv(near, 1) == b"x"


def close_twice(server):
    server.close()
    server.close()


def close_and_raise(server):
    server.close()
    raise ZeroDivisionError


def only_raise(server):
    raise ZeroDivisionError


@pytest.mark.parametrize("act", [asyncio.Server.close, close_twice, close_and_raise, only_raise])
@pytest.mark.not_on("asyncio", "uvloop", reason="leave it open, for the garbage collector to find")
async def test_what_was_accepted_is_closed_once(loop, unhandled, act):
    # A file takes each number as soon as it is free: a second close would hit that file.
    kept, asked = [], loop.create_future()

    class Guarded(Recorder):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            loop.call_soon(guard)

    def guard():
        with contextlib.suppress(OSError):
            while len(kept) < 40:
                kept.append(os.open(os.devnull, os.O_RDONLY))

    def factory():
        asked.done() or asked.set_result(None)
        try:
            act(server)
        finally:
            kept.append(os.open(os.devnull, os.O_RDONLY))
        return Guarded(loop)

    server = await loop.create_server(factory, peers.LOOPBACK, 0)
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        await asked
        for _ in range(10):
            await asyncio.sleep(0)
            kept.append(os.open(os.devnull, os.O_RDONLY))
        server.close()
        client.shutdown(socket.SHUT_WR)
        client.settimeout(peers.PATIENCE)
        with contextlib.suppress(ConnectionError):
            assert await loop.run_in_executor(None, client.recv, 1) == b""
        await loops.turns(5)
        unhandled.take()
        for fd in kept:
            assert os.readlink(f"/proc/self/fd/{fd}") == os.devnull
            os.close(fd)
    await server.wait_closed()


@pytest.mark.parametrize("number", [2**30, 2**31 - 1])
@pytest.mark.not_on("uvloop", reason="other errors")
async def test_numbers_that_are_no_files(loop, number):
    class Odd:
        def fileno(self):
            return number

    for watched in (Odd(), number):
        with pytest.raises(OSError) as info:
            loop.add_reader(watched, print)
        assert info.value.errno == errno.EBADF
        assert not loop.remove_reader(watched)


@pytest.mark.parametrize("make", TRANSPORTS, ids=lambda make: make.__name__)
@pytest.mark.not_on("uvloop", reason="its transports have no attributes of the program's")
async def test_a_program_s_attributes(loop, make):
    transport, other = await make(loop)
    transport.mine = [1]
    assert transport.mine == [1] and vars(transport)["mine"] == [1]
    assert {transport: 1}[transport] == 1
    assert weakref.ref(transport)() is transport
    calls = []
    close = transport.close
    transport.close = lambda: (calls.append("close"), close())
    transport.get_extra_info = lambda name, default=None: name
    assert transport.get_extra_info("mine") == "mine"
    transport.close()
    assert calls == ["close"]
    del transport.mine, transport.close
    with pytest.raises(AttributeError):
        transport.mine  # noqa: B018
    let_go(other)
    await loops.turns(5)


@pytest.mark.parametrize("make", TRANSPORTS, ids=lambda make: make.__name__)
@pytest.mark.not_on("uvloop", reason="its transports have no attributes of the program's")
async def test_a_cycle_through_an_attribute_is_collected(loop, make):
    class Kept:
        pass

    transport, other = await make(loop)
    transport.kept, transport.me = Kept(), transport
    reference = weakref.ref(transport.kept)
    transport.abort() if hasattr(transport, "abort") else transport.close()
    let_go(other)
    del transport
    async with asyncio.timeout(peers.PATIENCE):
        while reference():
            await asyncio.sleep(0.001)
            gc.collect()
