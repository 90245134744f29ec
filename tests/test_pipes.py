"""connect_read_pipe and connect_write_pipe: pipes, FIFOs, terminals, sockets, and files of other kinds."""

import asyncio
import contextlib
import contextvars
import gc
import io
import os
import pty
import socket
import tty

import pytest
from support import loops, peers, protocols


@contextlib.asynccontextmanager
async def reading(loop, make=None, kind=os.pipe):
    """A protocol that reads from a pipe, and the fd of the other end: (protocol, fd)."""
    near, far = kind()
    try:
        pipe = io.FileIO(near, "r")
        _, protocol = await loop.connect_read_pipe(make or (lambda: protocols.Recorder(loop)), pipe)
        try:
            yield protocol, far
        finally:
            if not protocol.lost.done():
                protocol.transport.close()
                await protocol.lost
    finally:
        with contextlib.suppress(OSError):
            os.close(far)


@contextlib.asynccontextmanager
async def writing(loop, make=None, kind=os.pipe):
    """A protocol that writes to a pipe, and the fd of the other end."""
    far, near = kind()
    try:
        pipe = io.FileIO(near, "w")
        _, protocol = await loop.connect_write_pipe(make or (lambda: protocols.Recorder(loop)), pipe)
        try:
            yield protocol, far
        finally:
            if not protocol.lost.done():
                protocol.transport.abort()
                await protocol.lost
    finally:
        with contextlib.suppress(OSError):
            os.close(far)


def terminal():
    """The two ends of a terminal, without its line discipline: (master, slave)."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    return master, slave


def sockets():
    near, far = socket.socketpair()
    return near.detach(), far.detach()


def drain(fd):
    """The bytes that can be read now."""
    os.set_blocking(fd, False)
    data = bytearray()
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(fd, 1 << 20):
            data += chunk
    return bytes(data)


# Reading.


@pytest.mark.parametrize("kind", [os.pipe, sockets], ids=["pipe", "socket"])
async def test_what_is_written_arrives_and_then_the_end(loop, kind):
    async with reading(loop, kind=kind) as (protocol, far):
        os.write(far, b"one")
        assert await protocol.received(3) == b"one"
        os.write(far, b"two")
        assert await protocol.received(6) == b"onetwo"
        os.close(far)
        assert await protocol.lost is None
        assert protocol.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]
        assert protocol.transport.is_closing()


async def test_a_megabyte_arrives_whole(loop):
    data = peers.payload(1 << 20)
    async with reading(loop) as (protocol, far):
        with peers.thread(lambda: [os.write(far, data), os.close(far)]):
            await protocol.lost
        assert peers.digest(protocol.data) == peers.digest(data)


async def test_a_fifo(loop, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)

    def ends():
        near = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        return near, os.open(path, os.O_WRONLY)

    async with reading(loop, kind=ends) as (protocol, far):
        os.write(far, b"through a name")
        await protocol.received(14)
        os.close(far)
        await protocol.lost


async def test_a_terminal_that_hangs_up(loop):
    async with reading(loop, kind=terminal) as (protocol, slave):
        os.write(slave, b"line\n")
        assert await protocol.received(5) == b"line\n"
        os.close(slave)
        # EIO: asyncio does not report it to the exception handler.
        assert (await protocol.lost).errno == 5
        assert "eof_received" not in protocol.calls


async def test_pausing_and_resuming(loop):
    async with reading(loop) as (protocol, far):
        transport = protocol.transport
        assert transport.is_reading()
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        os.write(far, b"later")
        await asyncio.sleep(0.02)
        assert not protocol.data
        transport.resume_reading()
        transport.resume_reading()
        assert await protocol.received(5) == b"later"


async def test_paused_reading_costs_no_turns(loop, proact):
    async with reading(loop) as (protocol, far):
        protocol.transport.pause_reading()
        os.write(far, b"x")
        await asyncio.sleep(0.01)
        before = loop.stats()["syscalls"]
        await asyncio.sleep(0.05)
        assert loop.stats()["syscalls"] - before < 10


async def test_the_end_comes_while_reading_is_paused(loop):
    async with reading(loop) as (protocol, far):
        protocol.transport.pause_reading()
        os.write(far, b"last words")
        os.close(far)
        await asyncio.sleep(0.02)
        assert protocol.calls == ["connection_made"]
        protocol.transport.resume_reading()
        await protocol.lost
        assert protocol.data == b"last words"


@pytest.mark.parametrize("kind", [os.pipe, terminal, sockets], ids=["pipe", "terminal", "socket"])
async def test_closing_with_a_read_pending_ends_at_once(loop, kind):
    async with reading(loop, kind=kind) as (protocol, _):
        await loops.turns()
        pipe = protocol.transport.get_extra_info("pipe")
        protocol.transport.close()
        protocol.transport.close()
        assert not pipe.closed and protocol.calls == ["connection_made"]
        assert await protocol.lost is None
        await loops.turns(1)
        assert pipe.closed


async def test_closing_in_data_received(loop):
    class Once(protocols.Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.close()

    async with reading(loop, lambda: Once(loop)) as (protocol, far):
        os.write(far, b"x")
        assert await protocol.lost is None
        assert protocol.calls == ["connection_made", "data_received", "connection_lost"]


async def test_closing_in_connection_made(loop):
    class Shy(protocols.Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.close()

    async with reading(loop, lambda: Shy(loop)) as (protocol, _):
        assert await protocol.lost is None
    async with writing(loop, lambda: Shy(loop)) as (protocol, _):
        assert await protocol.lost is None


@pytest.mark.parametrize("method", ["connection_made", "data_received", "eof_received", "connection_lost"])
async def test_an_exception_of_the_protocol_is_reported_once(loop, unhandled, method):
    class Failing(protocols.Recorder):
        pass

    def fails(self, *args):
        getattr(protocols.Recorder, method)(self, *args)
        raise OSError("of the protocol")

    setattr(Failing, method, fails)
    async with reading(loop, lambda: Failing(loop)) as (protocol, far):
        os.write(far, b"one")
        await protocol.received(3)
        os.write(far, b"two")
        await protocol.received(6)
        os.close(far)
        await protocol.lost
    problems = unhandled.take()
    assert {str(problem.exception) for problem in problems} == {"of the protocol"}
    assert len(problems) == (2 if method == "data_received" else 1)


async def test_protocols_run_in_the_context_of_whoever_connected(loop):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    class Looking(protocols.Recorder):
        def data_received(self, data):
            seen.append(variable.get())
            super().data_received(data)

    variable.set("connecting")
    async with reading(loop, lambda: Looking(loop)) as (protocol, far):
        variable.set("later")
        os.write(far, b"x")
        await protocol.received(1)
    assert seen == ["connecting"]


async def test_changing_the_protocol(loop):
    async with reading(loop) as (first, far):
        second = protocols.Recorder(loop)
        assert first.transport.get_protocol() is first
        first.transport.set_protocol(second)
        os.write(far, b"x")
        await second.received(1)
        os.close(far)
        await second.lost
        first.lost.set_result(None)


async def test_a_closed_pipe_whose_duplicate_stays_open_is_watched_no_longer(loop, proact):
    async with reading(loop) as (protocol, far):
        duplicate = os.dup(protocol.transport.get_extra_info("pipe").fileno())
        try:
            await protocol.close()
            os.write(far, b"x")
            before = loop.stats()["syscalls"]
            await asyncio.sleep(0.05)
            assert loop.stats()["syscalls"] - before < 10
        finally:
            os.close(duplicate)


# Writing.


@pytest.mark.parametrize("kind", [os.pipe, terminal, sockets], ids=["pipe", "terminal", "socket"])
async def test_what_is_written_leaves_at_once_and_in_order(loop, kind):
    async with writing(loop, kind=kind) as (protocol, far):
        transport = protocol.transport
        transport.write(b"bytes ")
        transport.write(bytearray(b"bytearray "))
        transport.write(memoryview(b"memoryview "))
        transport.write(b"")
        transport.writelines([b"lines ", b"of it"])
        assert transport.get_write_buffer_size() == 0
        expected, arrived = b"bytes bytearray memoryview lines of it", b""
        while len(arrived) < len(expected):  # a terminal hands the bytes over in parts
            await asyncio.sleep(0.01)
            arrived += drain(far)
        assert arrived == expected


async def test_more_than_the_pipe_holds(loop):
    data = peers.payload(3 << 20)
    async with writing(loop) as (protocol, far):
        transport = protocol.transport
        for start in range(0, len(data), 100_000):
            transport.write(data[start : start + 100_000])
        assert transport.get_write_buffer_size() >= len(data) - (1 << 20)
        assert protocol.calls == ["connection_made", "pause_writing"]
        transport.close()
        assert transport.is_closing() and not protocol.lost.done()
        received = await loop.run_in_executor(None, read_all, far)
        assert await protocol.lost is None
        assert peers.digest(received) == peers.digest(data)
        assert protocol.calls == ["connection_made", "pause_writing", "resume_writing", "connection_lost"]


def read_all(fd):
    os.set_blocking(fd, True)
    data = bytearray()
    while chunk := os.read(fd, 1 << 20):
        data += chunk
    return data


async def test_water_marks(loop):
    async with writing(loop) as (protocol, _):
        transport = protocol.transport
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        transport.set_write_buffer_limits(high=100, low=10)
        assert transport.get_write_buffer_limits() == (10, 100)
        with pytest.raises(ValueError, match="must be >= low"):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.write(bytes(1 << 20))
        assert protocol.calls[-1] == "pause_writing"


async def test_write_eof_ends_it_after_what_is_queued(loop):
    async with writing(loop) as (protocol, far):
        assert protocol.transport.can_write_eof()
        protocol.transport.write(b"last")
        protocol.transport.write_eof()
        protocol.transport.write_eof()
        assert protocol.transport.is_closing()
        assert await protocol.lost is None
        assert os.read(far, 100) == b"last" and os.read(far, 100) == b""


async def test_abort_drops_what_is_queued(loop):
    async with writing(loop) as (protocol, far):
        protocol.transport.write(bytes(1 << 20))
        protocol.transport.abort()
        assert await protocol.lost is None
        assert protocol.transport.get_write_buffer_size() == 0
        assert len(drain(far)) < 1 << 20


@pytest.mark.not_on("asyncio", "uvloop", reason="an abort drops whatever is queued")
async def test_an_abort_writes_what_there_is_room_for_however_many_pieces(loop):
    pieces = [b"%03d," % number for number in range(200)]
    async with writing(loop) as (protocol, far):
        protocol.transport.write(bytes(65536))
        for piece in pieces:
            protocol.transport.write(piece)
        assert protocol.transport.get_write_buffer_size() == 800
        # The pipe is empty now, and the loop does not know yet.
        assert len(os.read(far, 65536)) == 65536
        protocol.transport.abort()
        assert drain(far) == b"".join(pieces)


@pytest.mark.parametrize("kind", [os.pipe, sockets], ids=["pipe", "socket"])
async def test_a_reader_that_goes_away(loop, kind):
    async with writing(loop, kind=kind) as (protocol, far):
        os.close(far)
        assert await protocol.lost is None
        assert protocol.calls == ["connection_made", "connection_lost"]


async def test_a_reader_that_goes_away_with_something_unsent(loop):
    async with writing(loop) as (protocol, far):
        protocol.transport.write(bytes(1 << 20))
        os.close(far)
        assert isinstance(await protocol.lost, BrokenPipeError)


async def test_writing_to_a_pipe_that_nobody_reads(loop, caplog):
    async with writing(loop) as (protocol, far):
        os.close(far)
        for _ in range(10):
            protocol.transport.write(b"x")
        assert isinstance(await protocol.lost, BrokenPipeError)
        assert any("pipe closed by peer" in record.getMessage() for record in caplog.records)


async def test_closing_with_a_write_pending_and_then_aborting(loop):
    async with writing(loop) as (protocol, _):
        protocol.transport.write(bytes(1 << 20))
        protocol.transport.close()
        await loops.turns()
        assert not protocol.lost.done()
        protocol.transport.abort()
        assert await asyncio.wait_for(protocol.lost, 1) is None


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
@pytest.mark.not_on("uvloop", reason="another message")
async def test_flow_control_that_raises_is_reported_once(loop, unhandled, method):
    class Failing(protocols.Recorder):
        pass

    def fails(self):
        getattr(protocols.Recorder, method)(self)
        raise ValueError("of the protocol")

    setattr(Failing, method, fails)
    async with writing(loop, lambda: Failing(loop)) as (protocol, far):
        protocol.transport.write(bytes(300_000))
        protocol.transport.close()
        assert len(await loop.run_in_executor(None, read_all, far)) == 300_000
        await protocol.lost
    assert str(unhandled.take_one().exception) == "of the protocol"


@pytest.mark.not_on("asyncio", "uvloop", reason="both let an assertion fail instead, or nothing")
async def test_what_is_no_bytes_is_refused(loop):
    async with writing(loop) as (protocol, _):
        for data in ("text", 1, None, [b"x"]):
            with pytest.raises(TypeError):
                protocol.transport.write(data)


# Both.


async def test_a_regular_file_is_refused(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with (
        open(path, "rb") as file,
        pytest.raises(ValueError, match=r"Pipe transport is for pipes/sockets only\."),
    ):
        await loop.connect_read_pipe(lambda: protocols.Recorder(loop), file)
    with (
        open(path, "wb") as file,
        pytest.raises(ValueError, match="Pipe transport is only for pipes, sockets and"),
    ):
        await loop.connect_write_pipe(lambda: protocols.Recorder(loop), file)


async def test_what_a_transport_says_of_itself(loop):
    async with reading(loop) as (reader, _), writing(loop) as (writer, _):
        for protocol, kind in ((reader, asyncio.ReadTransport), (writer, asyncio.WriteTransport)):
            transport = protocol.transport
            assert isinstance(transport, kind) and not isinstance(transport, asyncio.DatagramTransport)
            pipe = transport.get_extra_info("pipe")
            assert not os.get_blocking(pipe.fileno())
            assert transport.get_extra_info("other", 7) == 7
            assert f"fd={pipe.fileno()}" in repr(transport)
            await protocol.close()
            await loops.turns(1)
            assert "closed" in repr(transport)


async def test_the_streams_of_asyncio(loop):
    near, far = os.pipe()
    reader = asyncio.StreamReader()
    source, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), io.FileIO(near, "r")
    )
    sink, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, io.FileIO(far, "w"))
    writer = asyncio.StreamWriter(sink, protocol, None, loop)
    total = 0

    async def write():
        for _ in range(50):
            writer.write(bytes(50_000))
            await writer.drain()
        sink.close()

    task = loop.create_task(write())
    while data := await reader.read(1 << 20):
        total += len(data)
    await task
    assert total == 50 * 50_000
    source.close()
    await loops.turns()


async def test_a_cancelled_connect_closes_the_pipe(loop):
    near, far = os.pipe()
    protocol = protocols.Recorder(loop)
    task = loop.create_task(loop.connect_read_pipe(lambda: protocol, io.FileIO(near, "r")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await protocol.lost
    os.close(far)
    await loops.turns()


def close_and_collect(loop):
    loop.close()
    gc.collect()


def test_a_transport_that_nobody_closed(engine):
    loop = loops.new_event_loop(engine)
    near, far = os.pipe()
    pipe = io.FileIO(near, "r")
    loop.run_until_complete(loop.connect_read_pipe(asyncio.Protocol, pipe))
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        close_and_collect(loop)
    assert pipe.closed
    os.close(far)


async def test_a_thousand_messages_there_and_back(loop):
    there, back = os.pipe(), os.pipe()
    echo = protocols.Recorder(loop)
    out, _ = await loop.connect_write_pipe(lambda: protocols.Recorder(loop), io.FileIO(back[1], "w"))

    class Echo(protocols.Recorder):
        def data_received(self, data):
            super().data_received(data)
            out.write(data)

    _, server = await loop.connect_read_pipe(lambda: Echo(loop), io.FileIO(there[0], "r"))
    sink, _ = await loop.connect_write_pipe(lambda: protocols.Recorder(loop), io.FileIO(there[1], "w"))
    await loop.connect_read_pipe(lambda: echo, io.FileIO(back[0], "r"))
    for count in range(1, 1001):
        sink.write(b"ping")
        await echo.received(4 * count)
    sink.close()
    await server.lost
    out.close()
    await echo.lost
    await loops.turns()
