"""How a TLS connection ends: in good order, half-closed, abruptly, or only by its time limit."""

import asyncio
import contextlib
import gc
import socket
import ssl
import sys
import threading
import warnings
import weakref

import pytest
from support import loops, peers, tls
from support.protocols import Echo, HalfOpen, Recorder, serving


@contextlib.asynccontextmanager
async def handheld(loop, make, **options):
    """The loop's server side, its plain socket peer, the TLS engine behind: (protocol, socket, engine)."""
    async with serving(loop, make, ssl=tls.server_context(), **options) as server:
        engine = tls.Engine()
        with socket.create_connection(server.address) as sock:
            await loop.run_in_executor(None, engine.shake_hands, sock)
            yield await server.accepted(), sock, engine


@pytest.mark.parametrize("paused", [False, True], ids=["reading", "paused"])
async def test_what_was_written_arrives_before_the_end(loop, paused):
    # More than the kernel holds, so that most of it waits in the transport when it is closed.
    data = peers.payload(12_000_000)
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (near, far):
        if paused:
            near.transport.pause_reading()
        near.transport.write(data)
        near.transport.close()
        assert near.transport.is_closing()
        near.transport.write(b"too late")
        near.transport.close()
        assert await far.lost is None
        assert far.data == data
        assert await near.lost is None


@pytest.mark.parametrize("kind", [Recorder, HalfOpen])
async def test_tls_does_not_end_by_halves(loop, kind, caplog):
    # Whatever eof_received returns, the connection closes; a log message says so if it asked to keep it open.
    async with tls.connected(loop, lambda: kind(loop), lambda: Recorder(loop)) as (near, far):
        far.transport.close()
        assert await near.lost is None
        assert near.calls == ["connection_made", "eof_received", "connection_lost"]
    told = "returning true from eof_received() has no effect when using ssl"
    assert [record.message for record in caplog.records] == ([told] if kind is HalfOpen else [])


async def test_abort(loop):
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (near, far):
        near.transport.write(bytes(10 << 20))
        near.transport.abort()
        assert near.transport.is_closing()
        near.transport.abort()
        near.transport.close()
        assert await near.lost is None
        assert near.calls[-1] == "connection_lost"
        await far.lost


async def test_a_peer_that_never_answers_close_notify(loop):
    async with handheld(loop, lambda: Recorder(loop), ssl_shutdown_timeout=0.05) as (far, _, _):
        begun = loop.time()
        far.transport.close()
        lost = await far.lost
        assert isinstance(lost, TimeoutError)
        assert str(lost) == "SSL shutdown timed out"
        assert 0.04 < loop.time() - begun < 2


async def test_a_peer_that_never_reads(loop):
    # The written bytes can't leave, so only the time limit can end the closing.
    async with handheld(loop, lambda: Recorder(loop), ssl_shutdown_timeout=0.05) as (far, _, _):
        far.transport.write(bytes(16 << 20))
        far.transport.close()
        assert isinstance(await far.lost, TimeoutError)


@pytest.mark.parametrize("first", ["close", "end"])
async def test_a_peer_that_ends_its_side_and_reads_late(loop, first):
    # More than the kernel holds: most of it still waits in the transport when the peer's side ends.
    data = peers.payload(16 << 20)
    async with handheld(loop, lambda: Recorder(loop)) as (far, sock, engine):
        far.transport.write(data)
        if first == "close":
            far.transport.close()
        sock.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.02)
        engine.incoming.write(await loop.run_in_executor(None, peers.receive_all, sock))
        received = bytearray()
        with contextlib.suppress(ssl.SSLZeroReturnError, ssl.SSLWantReadError):
            while len(received) < len(data):
                received += engine.session.read(1 << 20)
        assert peers.digest(received) == peers.digest(data)
        assert await far.lost is None


@pytest.mark.skipif(
    loops.REFERENCE == "asyncio" and sys.version_info < (3, 14),
    reason="before, asyncio waits for ever",
)
@pytest.mark.not_on("uvloop", reason="it waits for ever")
@pytest.mark.parametrize("first", ["close", "end"])
@pytest.mark.parametrize("end", ["close_notify", "EOF"])
async def test_a_peer_that_ends_its_side_and_never_reads(loop, first, end):
    async with handheld(loop, lambda: Recorder(loop), ssl_shutdown_timeout=0.05) as (far, sock, engine):
        far.transport.write(bytes(16 << 20))  # more than the kernel holds
        if first == "close":
            far.transport.close()
        if end == "EOF":
            sock.shutdown(socket.SHUT_WR)
        else:
            sock.sendall(engine.goodbye())
        assert isinstance(await far.lost, TimeoutError)


async def test_a_peer_that_answers_late(loop):
    async with handheld(loop, lambda: Recorder(loop), ssl_shutdown_timeout=5) as (far, sock, engine):
        far.transport.close()
        await asyncio.sleep(0.02)
        assert not far.lost.done()
        engine.incoming.write(sock.recv(65536))
        engine.session.unwrap()
        sock.sendall(engine.outgoing.read())
        assert await far.lost is None
        assert far.calls == ["connection_made", "eof_received", "connection_lost"]


@pytest.mark.parametrize("paused", [False, True])
async def test_an_end_without_close_notify(loop, paused):
    async with handheld(loop, lambda: Recorder(loop)) as (far, sock, engine):
        if paused:
            far.transport.pause_reading()
        sock.sendall(engine.encrypt(b"data"))
        sock.shutdown(socket.SHUT_WR)
        if paused:
            await asyncio.sleep(0.01)
            assert far.calls == ["connection_made"]
            far.transport.resume_reading()
        assert await far.lost is None
        assert far.data == b"data"
        assert far.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]


async def test_closing_when_the_end_has_come_while_paused(loop):
    async with handheld(loop, lambda: Recorder(loop)) as (far, sock, engine):
        far.transport.pause_reading()
        sock.sendall(engine.encrypt(b"data"))
        sock.shutdown(socket.SHUT_WR)
        # For the end to come; should it be late, there is less to see.
        await asyncio.sleep(0.01)
        far.transport.close()
        assert far.transport.is_closing()
        far.transport.resume_reading()
        assert await far.lost is None


async def test_an_end_in_the_middle_of_a_record(loop):
    async with handheld(loop, lambda: Recorder(loop)) as (far, sock, engine):
        sock.sendall(engine.encrypt(b"whole") + engine.encrypt(b"half")[:10])
        sock.shutdown(socket.SHUT_WR)
        await far.lost
        assert far.data == b"whole"


@pytest.mark.parametrize("when", ["open", "closing"])
async def test_a_reset(loop, when):
    async with handheld(loop, lambda: Recorder(loop)) as (far, sock, _):
        if when == "closing":
            far.transport.close()
        await asyncio.sleep(0.005)
        peers.reset(sock)
        lost = await far.lost
        assert lost is None or isinstance(lost, ConnectionError)
        if when == "open":
            assert isinstance(lost, ConnectionResetError)
            assert far.calls == ["connection_made", "connection_lost"]


async def test_garbage_instead_of_a_record(loop):
    async with handheld(loop, lambda: Recorder(loop)) as (far, sock, _):
        sock.sendall(b"this is no TLS record at all" * 10)
        assert isinstance(await far.lost, ssl.SSLError)
        assert far.calls == ["connection_made", "connection_lost"]


async def test_a_record_that_was_tampered_with(loop):
    async with handheld(loop, lambda: Recorder(loop)) as (far, sock, engine):
        record = bytearray(engine.encrypt(b"forged"))
        record[-1] ^= 1
        sock.sendall(record)
        assert isinstance(await far.lost, ssl.SSLError)
        assert far.data == b""


async def test_writing_into_a_lost_connection(loop, caplog):
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (near, _):
        near.transport.abort()
        await near.lost
        for _ in range(8):
            near.transport.write(b"x")
        assert {record.message for record in caplog.records} == {"SSL connection is closed"}


async def test_a_lost_connection_answers_still(loop):
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (near, _):
        transport = near.transport
        ends = [transport.get_extra_info(name) for name in ("peername", "sockname")]
        await near.close()
        assert transport.is_closing()
        assert transport.get_write_buffer_size() == 0
        assert transport.get_extra_info("cipher")
        kept = [transport.get_extra_info(name, "gone") for name in ("peername", "sockname")]
        assert kept == (["gone", "gone"] if loops.REFERENCE else ends)
        assert transport.get_extra_info("socket", "gone") == "gone"
        transport.abort()
        assert near.calls.count("connection_lost") == 1


async def test_closed_within_data_received(loop):
    class Once(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(b"answer")
            self.transport.close()

    async with tls.connected(loop, lambda: Recorder(loop), lambda: Once(loop)) as (near, far):
        near.transport.write(b"question")
        assert await near.received(6) == b"answer"
        assert await near.lost is None
        assert await far.lost is None


async def test_aborted_within_data_received(loop):
    class Once(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(b"never")
            self.transport.abort()

    async with tls.connected(loop, lambda: Recorder(loop), lambda: Once(loop)) as (near, far):
        near.transport.write(b"question")
        assert await far.lost is None
        await near.lost


FAILING = {
    "data_received": "Fatal error on SSL protocol",
    "eof_received": "Error calling eof_received()",
    "pause_writing": "protocol.pause_writing() failed",
    "resume_writing": "protocol.resume_writing() failed",
    "connection_lost": "Exception in callback",
}


@pytest.mark.parametrize("method", FAILING)
async def test_a_protocol_that_fails(loop, unhandled, method):
    class Failing(Recorder):
        pass

    def fail(self, *args):
        getattr(Recorder, method)(self, *args)
        raise ZeroDivisionError

    setattr(Failing, method, fail)
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Failing(loop)) as (near, far):
        if method in ("pause_writing", "resume_writing"):
            far.transport.set_write_buffer_limits(high=1000)
            near.transport.pause_reading()
            sent = 0
            while "pause_writing" not in far.calls:
                far.transport.write(bytes(1 << 20))
                sent += 1 << 20
            near.transport.resume_reading()
            await near.received(sent)
            # The connection still works.
            far.transport.set_write_buffer_limits()
            near.transport.write(b"x")
            await far.received(1)
        near.transport.write(b"x")
        await far.received(1)
        near.transport.close()
        await far.lost
        await near.lost
    problem = unhandled.take_one()
    assert isinstance(problem.exception, ZeroDivisionError)
    assert FAILING[method] in problem.message


@pytest.mark.parametrize("failing", ["get_buffer", "buffer_updated", "empty buffer"])
async def test_a_buffered_protocol_that_fails(loop, unhandled, failing):
    class Failing(asyncio.BufferedProtocol):
        def __init__(self):
            self.record = Recorder(loop)
            self.lost, self.made = self.record.lost, self.record.made
            self.connection_made = self.record.connection_made
            self.connection_lost = self.record.connection_lost

        def get_buffer(self, sizehint):
            if failing == "get_buffer" and self.armed:
                raise ZeroDivisionError
            return bytearray(0 if failing == "empty buffer" and self.armed else 10)

        def buffer_updated(self, count):
            if failing == "buffer_updated":
                raise ZeroDivisionError

        armed = False
        transport = property(lambda self: self.record.transport)

    async with tls.connected(loop, lambda: Recorder(loop), Failing) as (near, far):
        # Not during the handshake, because asyncio looks for data right after it.
        Failing.armed = True
        near.transport.write(b"x")
        if failing != "empty buffer":
            assert isinstance(await far.lost, ZeroDivisionError)
            assert isinstance(unhandled.take_one().exception, ZeroDivisionError)
        else:
            await far.lost
            unhandled.take()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_stops_the_loop_passes_through(loop, error):
    class Stopping(Recorder):
        def data_received(self, data):
            super().data_received(data)
            raise error

    async def converse():
        async with tls.connected(loop, lambda: Recorder(loop), lambda: Stopping(loop)) as (near, _):
            near.transport.write(b"x")
            await loop.create_future()

    task = loop.create_task(converse())
    with pytest.raises(error):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


async def test_a_server_that_closes_while_clients_are_connected(loop):
    async with serving(loop, lambda: Echo(loop), ssl=tls.server_context()) as server:
        _, near = await loop.create_connection(
            lambda: Recorder(loop), *server.address, ssl=tls.client_context(), server_hostname=tls.NAME
        )
        near.transport.write(b"before")
        await near.received(6)
        server.server.close()
        near.transport.write(b"after")
        assert await near.received(11) == b"beforeafter"
        assert await near.close() is None
        assert await server.protocols[0].lost is None


async def test_a_server_ends_its_clients(loop):
    async with serving(loop, lambda: Recorder(loop), ssl=tls.server_context()) as server:
        if not hasattr(server.server, "abort_clients"):
            return
        clients = []
        for _ in range(3):
            _, client = await loop.create_connection(
                lambda: Recorder(loop), *server.address, ssl=tls.client_context(), server_hostname=tls.NAME
            )
            clients.append(client)
        await server.accepted(2)
        server.server.abort_clients()
        for protocol in [*clients, *server.protocols]:
            await protocol.lost
        server.server.close()
        await server.server.wait_closed()


async def test_nothing_is_kept_of_a_connection(loop):
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Echo(loop)) as (near, far):
        near.transport.write(b"x")
        await near.received(1)
        await near.close()
        await far.lost
        kept = [weakref.ref(near.transport), weakref.ref(far.transport)]
        near.transport = far.transport = near.made = far.made = None
    await asyncio.sleep(0.01)
    gc.collect()
    assert [reference() for reference in kept] == [None, None]


def test_a_loop_that_closes_with_tls_connections_open(new_loop, unhandled):
    loop = new_loop()

    async def leave_open():
        near_end, far_end = socket.socketpair()
        accepted = loop.create_task(
            loop.connect_accepted_socket(lambda: Echo(loop), far_end, ssl=tls.server_context())
        )
        _, near = await loop.create_connection(
            lambda: Recorder(loop), sock=near_end, ssl=tls.client_context(), server_hostname=tls.NAME
        )
        await accepted
        return weakref.ref(near)

    near = loop.run_until_complete(leave_open())
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        loop.close()
        gc.collect()
    assert near() is None
    assert [warning for warning in warned if "unclosed transport" in str(warning.message)]


async def test_both_ends_close_at_once(loop):
    for _ in range(5):
        async with tls.connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (near, far):
            near.transport.close()
            far.transport.close()
            assert await near.lost is None
            assert await far.lost is None


async def test_closing_while_the_peer_still_sends(loop):
    # Both must end soon, whatever happened to the bytes that crossed our close_notify.
    stop = threading.Event()

    def conversation(sock):
        with contextlib.suppress(OSError):
            while not stop.is_set():
                sock.sendall(bytes(1000))

    async with tls.facing(loop, lambda: Recorder(loop), conversation, ssl_shutdown_timeout=0.5) as client:
        await client.received(5000)
        client.transport.close()
        await asyncio.wait_for(asyncio.shield(client.lost), 5)
        stop.set()


async def test_what_waits_for_the_peer_goes_out_after_its_close_notify(loop):
    # The peer sends close_notify before it reads the bytes that fill the connection.
    data = peers.payload(8 << 20)
    async with handheld(loop, lambda: Recorder(loop)) as (near, sock, engine):
        near.transport.write(data[: 4 << 20])
        near.transport.write(data[4 << 20 :])
        await loop.run_in_executor(None, sock.sendall, engine.goodbye())
        await near.ended

        def read():
            got = bytearray()
            while True:
                try:
                    got += engine.session.read(65536)
                except ssl.SSLZeroReturnError:
                    return bytes(got)
                except ssl.SSLWantReadError:
                    received = sock.recv(1 << 20)
                    assert received, "ended without close_notify"
                    engine.incoming.write(received)

        got = await loop.run_in_executor(None, read)
        assert peers.digest(got) == peers.digest(data)
        assert await near.lost is None
