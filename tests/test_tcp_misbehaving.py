"""Protocols that raise, and the report about it: the message, the context.

test_exceptions_everywhere.py tries every place where a program may raise.
"""

import asyncio
import socket

import pytest
from support import peers
from support.protocols import Buffered, Echo, Recorder, connected, facing, heard, serving


class Oops(Exception):
    pass


def raising(kind, name, error=Oops, times=1):
    """A protocol that does what `kind` does, and then raises in the method `name`."""

    class Raising(kind):
        raised = 0

    def method(self, *args):
        result = getattr(kind, name)(self, *args)
        if type(self).raised < times:
            type(self).raised += 1
            raise error
        return result

    setattr(Raising, name, method)
    return Raising


def read_only(self, sizehint):
    return b"constant"


# method, kind of protocol, whether the error ends the connection, part of the message
ENDING = [
    ("data_received", Recorder, "protocol.data_received() call failed"),
    ("eof_received", Recorder, "protocol.eof_received() call failed"),
    ("get_buffer", Buffered, "protocol.get_buffer() call failed"),
    ("buffer_updated", Buffered, "protocol.buffer_updated() call failed"),
    ("eof_received", Buffered, "protocol.eof_received() call failed"),
]


@pytest.mark.parametrize(("method", "kind", "message"), ENDING)
@pytest.mark.not_on("uvloop", reason="other messages")
async def test_an_error_that_ends_the_connection(loop, unhandled, method, kind, message):
    made = raising(kind, method)
    async with serving(loop, lambda: Echo(loop)) as bystanders, serving(loop, lambda: made(loop)) as server:
        _, other = await loop.create_connection(lambda: Recorder(loop), *bystanders.address)
        with socket.create_connection(server.address) as sock:
            protocol = await server.accepted()
            sock.sendall(b"x")
            if method == "eof_received":
                sock.shutdown(socket.SHUT_WR)
            exc = await protocol.lost
            assert isinstance(exc, Oops)
            sock.settimeout(5)
            try:
                assert sock.recv(10) == b""
            except ConnectionResetError:
                pass  # closed with data unread: this is an end, too
        problem = unhandled.take_one()
        assert problem.exception is exc
        assert message in problem.message
        assert problem.context["protocol"] is protocol
        assert problem.context["transport"] is protocol.transport
        assert protocol.calls.count("connection_lost") == 1
        # The other connection continues, and the server accepts the next one.
        other.transport.write(b"alive")
        assert await other.received(5) == b"alive"
        await other.close()
        with socket.create_connection(server.address) as sock:
            sock.sendall(b"y")
            next_ = await server.accepted(1)
            await next_.received(1)


@pytest.mark.parametrize("kind", [Recorder, Buffered])
@pytest.mark.parametrize("method", ["connection_made", "connection_lost"])
@pytest.mark.not_on("uvloop", reason="closes the connection")
async def test_an_error_that_only_looks_like_the_connection_s(loop, unhandled, method, kind):
    made = raising(kind, method, ConnectionResetError)
    async with serving(loop, lambda: made(loop)) as server:
        with socket.create_connection(server.address) as sock:
            sock.sendall(b"data")
            protocol = await server.accepted()
            assert await protocol.received(4) == b"data"
        assert await protocol.lost is None
        await asyncio.sleep(0.002)
        problem = unhandled.take_one()
        assert isinstance(problem.exception, ConnectionResetError)
        assert protocol.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
async def test_the_same_in_flow_control(loop, unhandled, method):
    made = raising(Recorder, method, ConnectionResetError)
    data = peers.payload(8 << 20)
    async with facing(loop, lambda: made(loop)) as (client, peer):
        client.transport.write(data)
        received = await heard(loop, peer, len(data))
        assert peers.digest(received) == peers.digest(data)
        while "resume_writing" not in client.calls:
            await asyncio.sleep(0.001)
        problem = unhandled.take_one()
        assert isinstance(problem.exception, ConnectionResetError)
        assert f"protocol.{method}() failed" in problem.message
        # The connection is whole.
        peer.sendall(b"back")
        assert await client.received(4) == b"back"


@pytest.mark.parametrize(
    "buffer",
    [lambda: bytearray(), lambda: b"constant", lambda: 42, lambda: None],
    ids=["empty", "read-only", "int", "none"],
)
async def test_a_buffer_that_cannot_be_received_into(loop, unhandled, buffer):
    class Wrong(Buffered):
        def get_buffer(self, sizehint):
            return buffer()

    async with facing(loop, lambda: Wrong(loop)) as (client, peer):
        peer.sendall(b"x")
        exc = await client.lost
        assert isinstance(exc, (RuntimeError, TypeError, BufferError))
        problem = unhandled.take_one()
        assert problem.exception is exc


@pytest.mark.not_on("uvloop", reason="reports it otherwise")
async def test_a_missing_method_is_an_error_like_any_other(loop, unhandled):
    class Empty:
        def connection_made(self, transport):
            made.set_result(transport)

        def connection_lost(self, exc):
            lost.set_result(exc)

    made, lost = loop.create_future(), loop.create_future()
    with peers.listening(blocking=True) as listener:
        await loop.create_connection(Empty, *listener.getsockname())
        peer, _ = listener.accept()
    await made
    with peer:
        peer.sendall(b"x")
        assert isinstance(await lost, AttributeError)
    assert isinstance(unhandled.take_one().exception, AttributeError)


async def test_errors_on_many_connections_at_once(loop, unhandled):
    made = raising(Recorder, "data_received", times=50)
    async with serving(loop, lambda: made(loop)) as server:
        socks = [socket.create_connection(server.address) for _ in range(50)]
        for sock in socks:
            sock.sendall(b"x")
        for index in range(50):
            protocol = await server.accepted(index)
            assert isinstance(await protocol.lost, Oops)
        for sock in socks:
            sock.close()
        assert len(unhandled.take()) == 50


async def test_a_protocol_may_be_confused_about_its_own_state(loop):
    # Every call at once, in every callback: calls that make no sense are ignored, nothing crashes.
    class Busybody(Recorder):
        def call(self, name):
            super().call(name)
            if self.transport is None:
                return
            transport = self.transport
            transport.pause_reading()
            transport.resume_reading()
            transport.set_write_buffer_limits(high=0)
            # Not in pause_writing or resume_writing: these would cause each other without end.
            if not transport.is_closing() and not name.endswith("_writing"):
                transport.write(b"busy")
            transport.get_write_buffer_size()
            transport.is_reading()
            repr(transport)
            if name == "eof_received":
                transport.write_eof()
                transport.close()
            if name == "connection_lost":
                transport.close()
                transport.abort()
                transport.write_eof()

    async with connected(loop, lambda: Recorder(loop), lambda: Busybody(loop)) as (client, server):
        client.transport.write(b"hello")
        assert (await client.received(4))[:4] == b"busy"
        client.transport.write_eof()
        assert await server.lost is None
        assert await client.lost is None
