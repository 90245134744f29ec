"""A reader of a native transport does what asyncio's own reader does, whatever is fed and read.

Both readers are fed by hand, so the bytes come in the same pieces. Each program is a list of actions. The two
readers have to agree about results, exceptions, the bytes that are left and whether reading is paused.
"""

import asyncio
import contextlib
import gc
import socket
import weakref

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import children, peers
from support.loops import turns

LIMIT = 8
PIECES = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"--", b"-"]), max_size=8).map(b"".join)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), st.one_of(PIECES, PIECES.map(bytearray))),
        st.tuples(st.just("read"), st.integers(-1, 12)),
        st.tuples(st.just("readexactly"), st.integers(-1, 20)),
        st.tuples(st.just("readuntil"), st.sampled_from([b"\n", b"--", b"", b"c\n", bytearray(b"\n")])),
        st.tuples(st.just("readline")),
        st.tuples(st.just("wait_for"), st.integers(1, 5)),
        st.tuples(st.just("cancel")),
        st.tuples(st.just("look")),
        st.tuples(st.just("eof")),
        st.tuples(st.just("fail")),
        st.tuples(st.just("turn")),
    ),
    max_size=25,
)


class Paused:
    """A transport for the reference, as far as a reader asks one."""

    def __init__(self):
        self.reading = True

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


class Side:
    """A reader and the tasks that read from it."""

    def __init__(self, reader):
        self.reader = reader
        self.tasks = []
        self.raised = []

    def act(self, action, *arguments):
        reader = self.reader
        try:
            match action:
                case "feed":
                    reader.feed_data(*arguments)
                case "eof":
                    reader.feed_eof()
                case "fail":
                    reader.set_exception(ConnectionResetError("gone"))
                case "cancel":
                    for task in self.tasks:
                        task.cancel()
                case "look":
                    assert isinstance(reader._buffer, bytearray)
                case "wait_for":
                    self.tasks.append(asyncio.ensure_future(self.limited(*arguments)))
                case _:
                    self.tasks.append(asyncio.ensure_future(getattr(reader, action)(*arguments)))
        except Exception as error:
            self.raised.append((type(error), str(error)))

    async def limited(self, count):
        return await asyncio.wait_for(self.reader.read(count), 30)

    def results(self):
        found = []
        for task in self.tasks:
            if not task.done():
                found.append("waits")
            elif task.cancelled():
                found.append("cancelled")
            elif error := task.exception():
                found.append((type(error), str(error), getattr(error, "partial", None)))
            else:
                found.append((type(task.result()), task.result()))
        return found

    def state(self):
        return self.raised, self.results(), self.reader.at_eof(), bool(self.reader._paused), self.reader._eof

    async def end(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def same(loop, actions):
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_connection(sock=ours, limit=LIMIT)
        reference = asyncio.StreamReader(limit=LIMIT, loop=loop)
        transport = Paused()
        reference.set_transport(transport)
        native, expected = Side(reader), Side(reference)
        try:
            for action in actions:
                native.act(*action)
                expected.act(*action)
                if action[0] == "turn":
                    await turns()
                    assert native.state() == expected.state()
                    assert writer.transport.is_reading() == transport.reading
            await turns()
            assert native.state() == expected.state()
            assert bytes(reader._buffer) == bytes(reference._buffer)
        finally:
            await native.end()
            await expected.end()
            writer.close()
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])


def test_any_program_reads_the_same(loop):
    # A reader that was woken, and another that begins to wait before the first one goes on.
    @example([("readline",), ("turn",), ("readexactly", 2), ("feed", b"a")])
    @settings(deadline=None)
    @given(ACTIONS)
    def check(actions):
        loop.run_until_complete(same(loop, actions))

    check()


@contextlib.asynccontextmanager
async def connected(limit=2**16):
    """A reader, its writer, and the socket at the other end."""
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_connection(sock=ours, limit=limit)
        try:
            yield reader, writer, theirs
        finally:
            writer.close()
            await writer.wait_closed()


async def test_it_is_a_stream_reader(loop):
    async with connected() as (reader, _writer, theirs):
        assert isinstance(reader, asyncio.StreamReader)
        assert repr(reader).startswith("<StreamReader transport=")
        theirs.send(b"one\ntwo\n")
        assert [await reader.readline() for _ in range(2)] == [b"one\n", b"two\n"]
        theirs.send(b"three\nfour")
        theirs.shutdown(socket.SHUT_WR)
        assert [line async for line in reader] == [b"three\n", b"four"]
        assert reader.at_eof()


@pytest.mark.not_on("asyncio", "uvloop", reason="they copy twice")
async def test_a_piece_that_is_read_whole_is_not_copied(loop):
    async with connected() as (reader, _writer, _theirs):
        piece = b"x" * 1000
        reader.feed_data(piece)
        assert await reader.read(65536) is piece
        reader.feed_data(piece)
        assert await reader.readexactly(1000) is piece


async def test_a_cancelled_read_takes_nothing(loop):
    async with connected() as (reader, _writer, theirs):
        for count in (1, 2, 3):
            task = asyncio.ensure_future(reader.read(100))
            await turns(count)
            theirs.send(b"x")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await reader.readexactly(1) == b"x"


async def test_a_cancel_that_comes_with_the_bytes_takes_nothing(loop):
    async with connected() as (reader, _writer, _theirs):
        task = asyncio.ensure_future(reader.read(100))
        await turns()
        reader.feed_data(b"x")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await reader.read(100) == b"x"


@pytest.mark.parametrize("method", ["read", "readline", "readexactly", "readuntil"])
async def test_a_read_that_is_never_awaited_warns(loop, method):
    arguments = [5] if method in ("read", "readexactly") else []
    async with connected() as (reader, _writer, _theirs):
        with pytest.warns(RuntimeWarning, match=rf"coroutine 'StreamReader\.{method}' was never awaited"):
            getattr(reader, method)(*arguments)
        # Closed is as good as awaited.
        getattr(reader, method)(*arguments).close()


async def test_a_read_is_awaited_once(loop):
    async with connected() as (reader, _writer, _theirs):
        reader.feed_data(b"xy")
        read = reader.read(1)
        assert await read == b"x"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await read
        assert await reader.read(1) == b"y"


async def test_the_names_of_arguments(loop):
    async with connected() as (reader, _writer, _theirs):
        reader.feed_data(data=b"abcdefghi")
        assert await reader.read(n=2) == b"ab"
        assert await reader.readexactly(n=2) == b"cd"
        assert await reader.readuntil(separator=b"f") == b"ef"
        assert await asyncio.StreamReader.read(reader, 2) == b"gh"
        for wrong in (lambda: reader.read(1, 2), lambda: reader.readline(1), lambda: reader.read(size=1)):
            with pytest.raises(TypeError):
                await wrong()


async def test_a_task_names_the_read(loop):
    async with connected() as (reader, _writer, _theirs):
        task = loop.create_task(reader.readexactly(5))
        await turns()
        assert "StreamReader.readexactly" in repr(task)
        task.cancel()
        await asyncio.wait([task])


async def test_methods_of_the_program_are_called(loop, monkeypatch):
    fed = []
    feed_data = asyncio.StreamReader.feed_data

    def watched(self, data):
        fed.append(data)
        feed_data(self, data)

    monkeypatch.setattr(asyncio.StreamReader, "feed_data", watched)
    async with connected() as (reader, _writer, theirs):
        theirs.send(b"seen")
        assert await reader.readexactly(4) == b"seen"
    assert b"".join(fed) == b"seen"


async def test_a_subclass_keeps_its_methods(loop):
    class Shouting(asyncio.StreamReader):
        async def read(self, n=-1):
            return (await super().read(n)).upper()

    ours, theirs = socket.socketpair()
    with theirs:
        reader = Shouting(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        theirs.send(b"quiet")
        assert await reader.read(100) == b"QUIET"
        transport.close()
        await turns()


async def test_a_record_in_many_pieces_is_searched_once(loop):
    """Not once again from its beginning with each piece: that takes a minute here."""
    async with connected(limit=1 << 24) as (reader, _writer, _theirs):
        task = asyncio.ensure_future(reader.readuntil(b"\n"))
        await turns()
        for _ in range(4000):
            reader.feed_data(b"x" * 4000)
            await asyncio.sleep(0)
        reader.feed_data(b"\n")
        assert len(await task) == 16_000_001


async def test_a_circle_of_a_reader_and_its_read_is_collected(loop):
    async with connected() as (reader, _writer, _theirs):
        read = reader.read(5)
        reader.circle = read
        gone = weakref.ref(read)
        read.close()
        del read, reader.circle
        gc.collect()
        assert gone() is None


@contextlib.asynccontextmanager
async def served():
    """The writer of a server's connection, and the socket at the other end."""
    came = asyncio.get_running_loop().create_future()

    async def handle(reader, writer):
        came.set_result((reader, writer))

    server = await asyncio.start_server(handle, peers.LOOPBACK, 0)
    theirs = await asyncio.to_thread(socket.create_connection, server.sockets[0].getsockname())
    with theirs:
        reader, writer = await came
        try:
            yield reader, writer, theirs
        finally:
            writer.transport.abort()
            server.close()
            await server.wait_closed()


async def test_a_writer_that_was_given_another_transport_uses_it(loop):
    """As programs do that upgrade a connection by themselves: nothing may go out beside it."""

    class Other:
        written = b""

        def write(self, data):
            self.written += data

        def is_closing(self):
            return False

    async with served() as (_reader, writer, _theirs):
        own = writer._transport
        writer._transport = other = Other()
        writer.write(b"secret")
        await writer.drain()
        assert other.written == b"secret"
        assert own.get_write_buffer_size() == 0
        writer._transport = own


async def test_a_drain_waits_for_room(loop):
    async with served() as (_reader, writer, theirs):
        assert isinstance(writer, asyncio.StreamWriter)
        await writer.drain()
        writer.write(bytes(32 << 20))
        task = asyncio.ensure_future(writer.drain())
        await turns()
        assert not task.done()
        left = 32 << 20
        while left:
            left -= len(await asyncio.to_thread(theirs.recv, 1 << 20))
        await task
        await writer.drain()


async def test_a_drain_that_waits_can_be_cancelled(loop):
    async with served() as (_reader, writer, _theirs):
        writer.write(bytes(32 << 20))
        task = asyncio.ensure_future(writer.drain())
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_drain_tells_that_the_connection_is_lost(loop):
    async with served() as (reader, writer, _theirs):
        reader.set_exception(ConnectionResetError("gone"))
        with pytest.raises(ConnectionResetError, match="gone"):
            await writer.drain()
    async with served() as (_reader, writer, _theirs):
        writer.transport.abort()
        await turns()
        with pytest.raises(ConnectionResetError, match="Connection lost"):
            await writer.drain()


async def test_a_drain_after_close_gives_the_loop_a_turn(loop):
    async with served() as (_reader, writer, _theirs):
        ran = []
        writer.close()
        loop.call_soon(ran.append, 1)
        with pytest.raises(ConnectionResetError):
            await writer.drain()
        assert ran


async def test_a_drain_that_is_never_awaited_warns(loop):
    async with served() as (_reader, writer, _theirs):
        with pytest.warns(RuntimeWarning, match=r"coroutine 'StreamWriter\.drain' was never awaited"):
            writer.drain()
        with pytest.raises(TypeError):
            writer.drain(1)
        task = loop.create_task(writer.drain())
        assert "StreamWriter.drain" in repr(task)
        await task


async def test_a_buffer_that_the_program_holds_is_the_stream(loop):
    async with connected() as (reader, _writer, _theirs):
        held = reader._buffer
        reader.feed_data(b"first")
        assert held == b"first"
        held += b"second"
        assert await reader.read(100) == b"firstsecond"
        reader.feed_data(b"head\nbody")
        assert await reader.readline() == b"head\n"
        assert held == b"body"
        held.clear()
        reader.feed_data(b"next")
        assert await reader.read(100) == b"next"


@pytest.mark.parametrize("limit", [2**64, 2**80, 1e18, float("inf")])
async def test_a_limit_is_any_number(loop, limit):
    async with connected(limit) as (reader, _writer, theirs):
        assert reader._limit == limit
        theirs.send(b"line\n")
        assert await reader.readline() == b"line\n"
        reader._limit = 2
        theirs.send(b"line\n")
        with pytest.raises(ValueError, match="limit"):
            await reader.readline()
        reader._limit = limit
        assert reader._limit == limit


async def test_a_read_that_is_dropped_while_it_waits_locks_nothing(loop):
    async with connected() as (reader, _writer, theirs):
        read = reader.read(1)
        read.send(None)
        del read
        gc.collect()
        theirs.send(b"hi")
        assert await reader.read(2) == b"hi"


async def test_a_step_that_nobody_asked_for_reads_nothing(loop):
    async with connected() as (reader, _writer, _theirs):
        read = reader.read(5)
        waiter = read.send(None)
        waiter._asyncio_future_blocking = False
        assert read.send(None) is waiter
        read.close()


def test_methods_that_were_replaced_before_the_first_connection_are_called(engine):
    assert children.output("replaced_reader.py", engine=engine) == "seen"
