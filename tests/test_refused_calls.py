"""A call from another thread while the loop sleeps in its engine either works or raises RuntimeError.

After a refusal the loop's own thread can still do it: one connection_lost, no byte sent twice or later.
"""

import asyncio
import contextlib
import socket

import pytest
from support import loops, peers
from support.links import opened
from support.protocols import HalfOpen

pytestmark = pytest.mark.not_on("asyncio", "uvloop", reason="not thread-safe, and does not tell")


async def elsewhere(loop, function):
    """Call a function in another thread while the loop is in its engine; return whether it worked."""
    done = loop.create_future()

    def run():
        with contextlib.suppress(RuntimeError):
            while True:
                loop.stats()  # refused as soon as the loop sleeps
        try:
            worked = function() is None
        except RuntimeError:
            worked = False
        loop.call_soon_threadsafe(done.set_result, worked)

    with peers.thread(run):
        async with asyncio.timeout(peers.PATIENCE):
            return await done


async def both(loop, transport, method, *arguments):
    """Call a method in another thread, and then here; return whether the first call worked."""
    worked = await elsewhere(loop, lambda: getattr(transport, method)(*arguments))
    getattr(transport, method)(*arguments)
    return worked


async def all_of(loop, read):
    got = b""
    while chunk := await loop.run_in_executor(None, read, 1 << 20):
        got += chunk
    return got


KINDS = ["tcp", "unix", "tls", "datagram", "read pipe", "write pipe"]
WRITING = ["tcp", "unix", "tls", "write pipe"]
READING = ["tcp", "unix", "tls", "datagram", "read pipe"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["close", "abort"])
@pytest.mark.parametrize("state", ["idle", "paused", "full"])
async def test_the_end(loop, kind, way, state):
    if kind == "read pipe" and way == "abort":
        way = "close"  # it has no abort
    async with opened(loop, kind) as (protocol, read, _):
        transport = protocol.transport
        data = b""
        if state == "paused" and kind in READING:
            transport.pause_reading()
        elif state == "full" and kind in WRITING:
            data = peers.payload(4 << 20)
            transport.write(data)
        await both(loop, transport, way)
        if kind in WRITING and (way == "close" or not data):
            assert peers.digest(await all_of(loop, read)) == peers.digest(data)
        async with asyncio.timeout(peers.PATIENCE):
            assert await protocol.lost is None
        await loops.turns()
        assert protocol.calls.count("connection_lost") == 1
        assert transport.is_closing()


@pytest.mark.parametrize("kind", WRITING)
@pytest.mark.parametrize("method", ["write", "writelines"])
@pytest.mark.parametrize("size", [6, 4 << 20])
async def test_writes(loop, kind, method, size):
    async with opened(loop, kind) as (protocol, read, _):
        transport = protocol.transport
        first, theirs, own = (peers.payload(size, seed) for seed in range(3))
        transport.write(first)
        argument = [theirs] if method == "writelines" else theirs
        worked = await elsewhere(loop, lambda: getattr(transport, method)(argument))
        transport.write(own)
        transport.close()
        got = await all_of(loop, read)
        assert peers.digest(got) == peers.digest(first + (theirs if worked else b"") + own)
        assert await protocol.lost is None


async def test_datagrams_sent(loop):
    async with opened(loop, "datagram") as (protocol, read, _):
        worked = await elsewhere(loop, lambda: protocol.transport.sendto(b"theirs"))
        protocol.transport.sendto(b"own")
        protocol.transport.sendto(b"last")
        expected = ([b"theirs"] if worked else []) + [b"own", b"last"]
        assert [await loop.run_in_executor(None, read, 100) for _ in expected] == expected


@pytest.mark.parametrize("kind", ["tcp", "unix", "write pipe"])
@pytest.mark.parametrize("full", [False, True])
async def test_write_eof(loop, kind, full):
    async with opened(loop, kind, HalfOpen) as (protocol, read, _):
        data = peers.payload(4 << 20) if full else b"data"
        protocol.transport.write(data)
        await both(loop, protocol.transport, "write_eof")
        got = await all_of(loop, read)
        assert peers.digest(got) == peers.digest(data)


@pytest.mark.parametrize("kind", READING)
async def test_pausing_and_resuming(loop, kind):
    async with opened(loop, kind) as (protocol, _, write):
        transport = protocol.transport

        def arrived():
            return b"".join(data for data, _ in protocol.datagrams) if kind == "datagram" else protocol.data

        for number in range(3):
            await both(loop, transport, "pause_reading")
            assert not transport.is_reading()
            write(b"%d" % number)
            await loops.turns(5)
            assert len(arrived()) == number
            await both(loop, transport, "resume_reading")
            assert transport.is_reading()
            await protocol.received(number + 1)
        await loops.turns()
        assert arrived() == b"012"


@pytest.mark.parametrize("kind", [*WRITING, "datagram"])
async def test_limits_and_protocols(loop, kind):
    async with opened(loop, kind) as (protocol, _, _):
        transport = protocol.transport
        await both(loop, transport, "set_write_buffer_limits", 4000, 1000)
        assert transport.get_write_buffer_limits() == (1000, 4000)
        await both(loop, transport, "set_protocol", protocol)
        assert transport.get_protocol() is protocol


@pytest.mark.parametrize("count", [1, 3])
async def test_a_server_is_closed(loop, count):
    server = await loop.create_server(asyncio.Protocol, [f"127.0.0.{i + 1}" for i in range(count)], 0)
    addresses = [sock.getsockname() for sock in server.sockets]
    await both(loop, server, "close")
    async with asyncio.timeout(peers.PATIENCE):
        await server.wait_closed()
    await loops.turns()
    for address in addresses:
        with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
            sock.connect(address)
