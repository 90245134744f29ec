"""`loop.hand_over`: a connection goes on in the loop of another thread, and loses and reorders nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading

import pytest
from support import peers, tls

BIG = bytes(range(256)) * 8192  # 2 MiB: more than a socket's buffers


class Recorder(asyncio.Protocol):
    """Writes down what it hears, and in which thread; `heard(n)` waits for n bytes."""

    def __init__(self):
        self.data = bytearray()
        self.events = []
        self.threads = []
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")
        self.threads.append(threading.get_ident())

    def data_received(self, data):
        assert threading.get_ident() == self.threads[-1]
        self.data += data

    def eof_received(self):
        self.events.append("eof")
        return True

    def connection_lost(self, exc):
        self.events.append(("lost", exc))


class Beside:
    """A loop that runs in another thread until the test ends."""

    def __init__(self, loop):
        self.loop = loop
        self.thread = threading.Thread(target=loop.run_forever)
        self.thread.start()

    async def do(self, function):
        """Calls a function in the other thread."""

        async def call():
            return function()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), self.loop))

    def stop(self):
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()


@pytest.fixture
def beside(proact, new_loop):
    with contextlib.ExitStack() as stack:

        def make():
            other = Beside(new_loop())
            stack.callback(other.stop)
            return other

        yield make


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def connected(loop, factory=Recorder):
    """A transport of the loop, its protocol, and the socket at the other end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    transport, protocol = await loop.connect_accepted_socket(factory, ours)
    return transport, protocol, theirs


async def test_the_protocol_goes_on_in_the_other_thread(loop, beside):
    other = beside()
    transport, protocol, peer = await connected(loop)
    with peer:
        await loop.sock_sendall(peer, b"before")
        await until(lambda: protocol.data == b"before")
        moved, same = await loop.hand_over(transport, other.loop)
        assert same is protocol
        assert protocol.transport is moved
        assert protocol.threads == [threading.get_ident(), other.thread.ident]
        assert transport.is_closing()
        await loop.sock_sendall(peer, b" and after")
        await until(lambda: protocol.data == b"before and after")
        await other.do(lambda: moved.write(b"answer"))
        assert await loop.sock_recv(peer, 100) == b"answer"
        await other.do(moved.close)
        assert await loop.sock_recv(peer, 100) == b""
    assert protocol.events == ["made", "made", ("lost", None)]


@pytest.mark.parametrize("buffered", [False, True])
async def test_to_and_fro_under_load(loop, beside, buffered):
    """A connection changes its loop while bytes stream in both directions."""

    class Echo(Recorder, asyncio.BufferedProtocol if buffered else asyncio.Protocol):
        room = bytearray(5000)

        def get_buffer(self, hint):
            return self.room

        def buffer_updated(self, count):
            self.data_received(bytes(self.room[:count]))

        def data_received(self, data):
            super().data_received(data)
            self.transport.write(data)

    other = beside()
    transport, protocol, peer = await connected(loop, Echo)
    with peer:
        received = bytearray()

        async def send():
            for begin in range(0, len(BIG), 10_000):
                await loop.sock_sendall(peer, BIG[begin : begin + 10_000])
                await asyncio.sleep(0.001)

        async def receive():
            while len(received) < len(BIG):
                received.extend(await loop.sock_recv(peer, 70_000))

        sent = asyncio.ensure_future(send())
        answer = asyncio.ensure_future(receive())
        moves = 0
        while not answer.done():
            transport, _ = await loop.hand_over(transport, other.loop)
            back = other.loop.hand_over(transport, loop)
            transport, _ = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(back, other.loop))
            moves += 2
            await asyncio.sleep(0)
        await sent
        await answer
        assert received == BIG == protocol.data
        assert moves >= 4
        transport.close()
    await until(lambda: protocol.events[-1] == ("lost", None))


async def test_what_was_not_delivered_goes_along(loop, beside):
    """What arrived while reading was paused, and the end behind it, is delivered after the resume."""
    other = beside()
    transport, protocol, peer = await connected(loop)
    with peer:
        await loop.sock_sendall(peer, b"1")
        await until(lambda: protocol.data == b"1")
        await loop.sock_sendall(peer, b"23")
        transport.pause_reading()
        peer.shutdown(socket.SHUT_WR)
        moved, _ = await loop.hand_over(transport, other.loop)
        assert not await other.do(moved.is_reading)
        assert protocol.data in (b"1", b"123")
        await other.do(moved.resume_reading)
        await until(lambda: "eof" in protocol.events)
        assert protocol.data == b"123"
        await other.do(moved.close)
        await until(lambda: protocol.events[-1] == ("lost", None))
    assert protocol.events == ["made", "made", "eof", ("lost", None)]


async def test_an_end_is_told_once(loop, beside):
    other = beside()
    transport, protocol, peer = await connected(loop)
    with peer:
        peer.shutdown(socket.SHUT_WR)
        await until(lambda: "eof" in protocol.events)
        moved, _ = await loop.hand_over(transport, other.loop)
        await other.do(lambda: moved.write(b"still there"))
        assert await loop.sock_recv(peer, 100) == b"still there"
        await other.do(moved.close)
        await until(lambda: protocol.events[-1] == ("lost", None))
    assert protocol.events.count("eof") == 1


async def test_what_was_written_is_sent_first(loop, beside):
    other = beside()
    transport, protocol, peer = await connected(loop)
    with peer:
        transport.write(BIG)
        handing = asyncio.ensure_future(loop.hand_over(transport, other.loop))
        await asyncio.sleep(0)
        transport.write(b"also what is written while it leaves")
        received = bytearray()
        while not received.endswith(b"leaves"):
            received += await loop.sock_recv(peer, 1 << 20)
        moved, _ = await handing
        assert received == BIG + b"also what is written while it leaves"
        await other.do(moved.close)
        await until(lambda: protocol.events[-1] == ("lost", None))


async def test_a_cancel_keeps_the_connection(loop, beside):
    other = beside()
    transport, protocol, peer = await connected(loop)
    with peer:
        transport.write(BIG)
        handing = asyncio.ensure_future(loop.hand_over(transport, other.loop))
        await asyncio.sleep(0.01)
        handing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handing
        await loop.sock_sendall(peer, b"here")
        await until(lambda: protocol.data == b"here")
        transport.abort()
        await until(lambda: protocol.events[-1] == ("lost", None))
    assert protocol.events == ["made", ("lost", None)]


@pytest.mark.parametrize("how", ["close", "abort", "reset"])
async def test_a_connection_that_ends_first(loop, beside, how):
    other = beside()
    transport, protocol, peer = await connected(loop)
    with peer:
        transport.write(BIG)
        handing = asyncio.ensure_future(loop.hand_over(transport, other.loop))
        await asyncio.sleep(0.01)
        if how == "reset":
            peer.close()
        else:
            getattr(transport, how)()
        if how == "close":
            received = 0
            while piece := await loop.sock_recv(peer, 1 << 20):
                received += len(piece)
            assert received == len(BIG)
        with pytest.raises(ConnectionAbortedError):
            await handing
    assert protocol.events[0] == "made"
    assert [event[0] for event in protocol.events[1:]] == ["lost"]


async def test_a_loop_that_closes_before_the_connection_arrives(loop, new_loop, proact):
    transport, protocol, peer = await connected(loop)
    with peer:
        target = new_loop()  # it never runs
        handing = asyncio.ensure_future(loop.hand_over(transport, target))
        await until(transport.is_closing)
        target.close()
        with pytest.raises(RuntimeError, match="closed"):
            await handing
        assert await loop.sock_recv(peer, 100) == b""
    assert protocol.events[0] == "made"
    assert isinstance(protocol.events[1][1], RuntimeError)


async def test_a_factory_makes_the_new_protocol(loop, beside):
    other = beside()
    transport, old, peer = await connected(loop)
    with peer:
        moved, new = await loop.hand_over(transport, other.loop, Recorder)
        assert old.events == ["made", ("lost", None)]
        await loop.sock_sendall(peer, b"new")
        await until(lambda: new.data == b"new")
        assert new.threads == [other.thread.ident]
        await other.do(moved.close)
        await until(lambda: new.events[-1] == ("lost", None))


async def test_a_factory_that_raises(loop, beside):
    other = beside()
    transport, old, peer = await connected(loop)

    def fail():
        raise LookupError("no protocol")

    with peer:
        with pytest.raises(LookupError):
            await loop.hand_over(transport, other.loop, fail)
        assert await loop.sock_recv(peer, 100) == b""
    assert old.events == ["made", ("lost", None)]


async def test_streams(loop, beside):
    """What the first StreamReader has and nobody has read goes to the second one."""
    other = beside()
    answered = []

    async def greet(reader, writer):
        assert await reader.readline() == b"hello\n"

        def factory():
            second = asyncio.StreamReader(loop=other.loop)
            return asyncio.StreamReaderProtocol(second, serve, loop=other.loop)

        with pytest.raises(TypeError, match="protocol_factory"):
            await loop.hand_over(writer.transport, other.loop)
        await loop.hand_over(writer.transport, other.loop, factory)
        assert await reader.read() == b""

    async def serve(reader, writer):
        answered.append(threading.get_ident())
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\nand the rest\n")
        assert await reader.readline() == b"AND THE REST\n"
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    # The server of this loop does not wait for a connection of the other one.
    await server.wait_closed()
    assert answered == [other.thread.ident]


async def test_what_cannot_be_handed_over(loop, beside, new_loop):
    other = beside()
    transport, protocol, peer = await connected(loop)
    closed = new_loop()
    closed.close()
    with peer:
        for wrong, error in [
            ((transport, loop), ValueError),
            ((transport, closed), RuntimeError),
            ((transport, object()), TypeError),
            ((object(), other.loop), TypeError),
        ]:
            with pytest.raises(error):
                await loop.hand_over(*wrong)
        assert transport.is_reading()
        first = asyncio.ensure_future(loop.hand_over(transport, other.loop))
        with pytest.raises(RuntimeError, match="only once"):
            await asyncio.gather(first, loop.hand_over(transport, other.loop))
        moved, _ = await first
        with pytest.raises(ValueError, match="another loop"):
            await loop.hand_over(moved, other.loop)
        await other.do(moved.close)
        await until(lambda: protocol.events[-1] == ("lost", None))


async def test_tls_is_refused(loop, beside):
    other = beside()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=tls.server_context())
    async with server:
        transport, _ = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname(), ssl=tls.client_context(), server_hostname="localhost"
        )
        assert isinstance(transport.get_extra_info("ssl_object"), ssl.SSLObject)
        with pytest.raises(TypeError, match="only a stream transport"):
            await loop.hand_over(transport, other.loop)
        transport.abort()


@pytest.mark.parametrize("resumed", ["", "while it leaves"])
async def test_a_reader_that_has_paused(loop, beside, resumed):
    """The transport was paused by a StreamReader, and its successor reads on."""
    other = beside()
    old, new = asyncio.StreamReader(1000, loop=loop), asyncio.StreamReader(1000, loop=other.loop)
    transport, _, peer = await connected(loop, lambda: asyncio.StreamReaderProtocol(old, loop=loop))
    with peer:
        await loop.sock_sendall(peer, b"x" * 50_000)
        await until(lambda: not transport.is_reading())
        if resumed:
            transport.write(BIG)
        handing = asyncio.ensure_future(
            loop.hand_over(transport, other.loop, lambda: asyncio.StreamReaderProtocol(new, loop=other.loop))
        )
        taken = 0
        if resumed:
            await asyncio.sleep(0)
            taken = len(await old.read(50_000))
            received = 0
            while received < len(BIG):
                received += len(await loop.sock_recv(peer, 1 << 20))
        moved, _ = await handing
        peer.shutdown(socket.SHUT_WR)
        reading = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(new.read(), other.loop))
        assert taken + len(await asyncio.wait_for(reading, 20)) == 50_000
        await other.do(moved.close)


async def test_a_loop_that_closes_before_it_tells(loop, new_loop):
    """The connection has arrived, and the loop runs no further."""
    transport, protocol, peer = await connected(loop)
    with peer:
        target = new_loop()
        handing = asyncio.ensure_future(loop.hand_over(transport, target))
        await until(transport.is_closing)
        target.call_soon(target.stop)
        thread = threading.Thread(target=target.run_forever)
        thread.start()
        thread.join()
        # The new transport goes with its loop, as any transport that is open then.
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            target.close()
        with pytest.raises(RuntimeError, match="closed"):
            await asyncio.wait_for(handing, 20)
        assert await loop.sock_recv(peer, 100) == b""
    assert isinstance(protocol.events[-1][1], RuntimeError)


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_connection_that_has_ended(loop, beside, how):
    transport, protocol, peer = await connected(loop)
    with peer:
        getattr(transport, how)()
        with pytest.raises(ConnectionAbortedError):
            await loop.hand_over(transport, beside().loop)
        await until(lambda: protocol.events[-1] == ("lost", None))


async def test_a_factory_that_raises_stop_iteration(loop, beside):
    """No future can hold a StopIteration."""
    transport, _, peer = await connected(loop)
    with peer, pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(loop.hand_over(transport, beside().loop, iter([]).__next__), 20)


async def test_a_factory_and_a_protocol_that_are_false(loop, beside, new_loop):
    class Empty(Recorder):
        def __len__(self):
            return 0

        def __call__(self):
            return Recorder()

    other = beside()
    transport, old, peer = await connected(loop)
    with peer:
        moved, new = await loop.hand_over(transport, other.loop, Empty())
        assert new is not old
        await other.do(moved.close)
    transport, old, peer = await connected(loop, Empty)
    with peer:
        target = new_loop()
        handing = asyncio.ensure_future(loop.hand_over(transport, target))
        await until(transport.is_closing)
        target.close()
        with pytest.raises(RuntimeError, match="closed"):
            await handing
    assert old.events[-1][0] == "lost"


async def test_an_end_that_was_written_goes_along(loop, beside):
    other = beside()
    transport, protocol, peer = await connected(loop)
    with peer:
        transport.write_eof()
        moved, _ = await loop.hand_over(transport, other.loop)
        assert await loop.sock_recv(peer, 100) == b""
        with pytest.raises(RuntimeError, match="write_eof"):
            await other.do(lambda: moved.write(b"more"))
        await loop.sock_sendall(peer, b"answer")
        await until(lambda: protocol.data == b"answer")
        await other.do(moved.close)
        await until(lambda: protocol.events[-1] == ("lost", None))


async def test_start_tls_is_refused_while_it_leaves(loop, beside):
    other = beside()
    transport, protocol, peer = await connected(loop)
    with peer:
        transport.write(BIG)
        handing = asyncio.ensure_future(loop.hand_over(transport, other.loop))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="handed over"):
            async with asyncio.timeout(20):
                await loop.start_tls(transport, protocol, tls.server_context(), server_side=True)
        handing.cancel()
        await asyncio.wait([handing])
        transport.abort()
        await until(lambda: protocol.events[-1] == ("lost", None))


async def test_only_its_own_loop_hands_a_connection_over(loop, new_loop):
    """Awaited in another loop it is refused, and changes nothing."""
    source = new_loop()
    transport, protocol, peer = await loop.run_in_executor(None, source.run_until_complete, connected(source))
    with peer:
        with pytest.raises(RuntimeError, match="its own loop"):
            await source.hand_over(transport, loop)
        assert transport.is_reading()
        peer.send(b"here")

        async def heard():
            await until(lambda: protocol.data == b"here")
            transport.abort()
            await until(lambda: protocol.events[-1] == ("lost", None))

        await loop.run_in_executor(None, source.run_until_complete, heard())


@pytest.mark.parametrize("ours", ["detach", "close"])
async def test_a_socket_that_the_program_has_taken(loop, beside, ours):
    """There is nothing to hand over, and the number of the fd may be another file's by now."""
    other = beside()
    transport, protocol, peer = await connected(loop)
    with peer:
        sock = transport.get_extra_info("socket")._sock
        taken = sock.detach() if ours == "detach" else sock.fileno()
        if ours == "close":
            sock._io_refs = 0
            sock.close()
            taken = os.open(os.devnull, os.O_RDONLY)
        with pytest.raises(ConnectionAbortedError):
            await loop.hand_over(transport, other.loop)
        await until(lambda: protocol.events[-1] == ("lost", None))
        os.fstat(taken)
        os.close(taken)


async def test_other_threads_ask_for_the_socket(loop, beside, switching):
    """The Python socket that shares the fd is made when it is asked for. It must not close the fd later."""
    other = beside()
    transport, protocol, peer = await connected(loop)
    over = False
    current = [transport]

    def ask():
        while not over:
            sock = current[0].get_extra_info("socket")
            assert sock is None or sock.fileno() != 0
            del sock

    with peer, contextlib.ExitStack() as threads:
        for _ in range(3):
            threads.enter_context(peers.thread(ask))
        try:
            for number in range(100):
                current[0], _ = await loop.hand_over(current[0], other.loop)
                back = other.loop.hand_over(current[0], loop)
                current[0], _ = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(back, other.loop))
                await loop.sock_sendall(peer, b"x")
                await until(lambda count=number + 1: len(protocol.data) == count)
        finally:
            over = True
        current[0].close()
        await until(lambda: protocol.events[-1] == ("lost", None))


async def test_memory_runs_out_when_it_leaves(loop, beside, monkeypatch):
    """The caller is told, and the connection is closed."""

    class Full:
        @staticmethod
        def socket(fileno):
            raise MemoryError("no socket")

    other = beside()
    transport, protocol, peer = await connected(loop)
    with peer:
        monkeypatch.setattr("proact.handover.socket", Full)
        async with asyncio.timeout(20):
            with pytest.raises(MemoryError, match="no socket"):
                await loop.hand_over(transport, other.loop)
        assert await loop.sock_recv(peer, 100) == b""
    assert protocol.events[0] == "made"
    assert isinstance(protocol.events[-1][1], MemoryError)
