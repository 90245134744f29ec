"""asyncio's own streams have to work on proact's transports as on asyncio's."""

import asyncio
import contextlib
import socket

import pytest
from support import loops, peers


@contextlib.asynccontextmanager
async def streams(handler):
    """A server that runs `handler(reader, writer)` for its connections, and one connection to it."""
    handlers = []

    async def handle(reader, writer):
        handlers.append(asyncio.current_task())
        try:
            await handler(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, peers.LOOPBACK, 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        await asyncio.gather(*handlers)
        server.close()
        await server.wait_closed()


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def test_echo(loop):
    async with streams(echo) as (reader, writer):
        for number in range(200):
            writer.write(b"%d\n" % number)
            await writer.drain()
            assert await reader.readline() == b"%d\n" % number


async def test_ten_mebibytes_with_drain(loop):
    data = peers.payload(10 << 20)
    waited = 0

    async def slow(reader, writer):
        received = bytearray()
        while part := await reader.read(100_000):
            received += part
            if len(received) < 2 << 20:
                await asyncio.sleep(0.001)
        writer.write(peers.digest(received).encode())
        await writer.drain()

    async with streams(slow) as (reader, writer):
        for start in range(0, len(data), 256 << 10):
            writer.write(data[start : start + (256 << 10)])
            await writer.drain()
            # drain() keeps the buffer near its limit: one piece above the high-water mark at most.
            waited = max(waited, writer.transport.get_write_buffer_size())
        writer.write_eof()
        assert (await reader.read()).decode() == peers.digest(data)
    assert waited <= (256 << 10) + 65536


async def test_reading_by_line_by_size_and_by_mark(loop):
    async def talk(reader, writer):
        writer.write(b"line one\nline two\n12345678AB--end--rest")
        await writer.drain()

    async with streams(talk) as (reader, _):
        assert await reader.readline() == b"line one\n"
        assert await reader.readuntil(b"\n") == b"line two\n"
        assert await reader.readexactly(8) == b"12345678"
        assert await reader.readuntil(b"--end--") == b"AB--end--"
        with pytest.raises(asyncio.IncompleteReadError) as info:
            await reader.readexactly(100)
        assert info.value.partial == b"rest"
        assert reader.at_eof()
        assert await reader.read() == b""


async def test_lines_arriving_byte_by_byte(loop):
    async def dribble(reader, writer):
        for byte in b"one\ntwo\nthree":
            writer.write(bytes([byte]))
            await asyncio.sleep(0.0002)

    async with streams(dribble) as (reader, _):
        assert [line async for line in reader] == [b"one\n", b"two\n", b"three"]


async def test_a_line_beyond_the_limit(loop):
    async def talk(reader, writer):
        writer.write(b"x" * 200_000 + b"\n")
        await writer.drain()
        await reader.read()

    async with streams(talk) as (reader, writer):
        with pytest.raises(ValueError, match="limit"):
            await reader.readline()
        writer.write_eof()


async def test_a_reader_cancelled_halfway_loses_nothing(loop):
    async def talk(reader, writer):
        writer.write(b"first half, ")
        await reader.readexactly(1)
        writer.write(b"second half")
        await reader.read()

    async with streams(talk) as (reader, writer):
        task = loop.create_task(reader.readexactly(23))
        await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        writer.write(b"!")
        assert await reader.readexactly(23) == b"first half, second half"
        writer.write_eof()


async def test_drain_waits_and_can_be_cancelled(loop):
    release = asyncio.Event()

    async def hold(reader, writer):
        writer.transport.pause_reading()
        await release.wait()
        writer.transport.resume_reading()
        await reader.read()

    async with streams(hold) as (_, writer):
        writer.write(bytes(16 << 20))
        task = loop.create_task(writer.drain())
        await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
        await writer.drain()
        assert writer.transport.get_write_buffer_size() <= 65536
        writer.write_eof()


async def test_drain_after_the_peer_has_gone(loop):
    async def gone(reader, writer):
        await reader.readexactly(1)
        writer.transport.abort()

    async with streams(gone) as (reader, writer):
        writer.write(b"x")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        with pytest.raises(ConnectionError):
            while True:
                writer.write(bytes(1 << 20))
                await writer.drain()


async def test_wait_closed(loop):
    async def wait_for_end(reader, writer):
        await reader.read()

    async with streams(wait_for_end) as (_, writer):
        assert not writer.is_closing()
        writer.close()
        assert writer.is_closing()
        await writer.wait_closed()
        await writer.wait_closed()


async def test_half_closing(loop):
    async def count(reader, writer):
        writer.write(b"%d" % len(await reader.read()))
        await writer.drain()

    async with streams(count) as (reader, writer):
        assert writer.can_write_eof()
        writer.write(bytes(12345))
        writer.write_eof()
        assert await reader.read() == b"12345"


async def test_a_handler_that_fails_is_reported_and_the_server_goes_on(loop, unhandled):
    async def fail(reader, writer):
        await reader.readexactly(1)
        raise ZeroDivisionError

    failed = asyncio.Event()

    async def handler(reader, writer):
        try:
            await fail(reader, writer)
        finally:
            writer.close()
            failed.set()

    server = await asyncio.start_server(handler, peers.LOOPBACK, 0)
    address = server.sockets[0].getsockname()
    for _ in range(2):
        failed.clear()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"x")
        await failed.wait()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()
    await loops.turns(5)
    import gc

    gc.collect()
    # Newer Pythons report it at once, older ones when the task is collected; it is always reported.
    assert {type(problem.exception) for problem in unhandled.take()} == {ZeroDivisionError}


async def test_a_hundred_conversations_at_once(loop):
    server = await asyncio.start_server(converse, peers.LOOPBACK, 0)
    address = server.sockets[0].getsockname()

    async def client(number):
        reader, writer = await asyncio.open_connection(*address)
        for step in range(10):
            writer.write(b"%d:%d\n" % (number, step))
            assert await reader.readline() == b"<%d:%d>\n" % (number, step)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*map(client, range(100)))
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.005)


async def converse(reader, writer):
    async for line in reader:
        writer.write(b"<%s>\n" % line.strip())
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def test_streams_on_a_socket_of_ones_own(loop):
    near, far = socket.socketpair()
    with far:
        reader, writer = await asyncio.open_connection(sock=near)
        far.sendall(b"unix\n")
        assert await reader.readline() == b"unix\n"
        writer.close()
        await writer.wait_closed()
