"""start_tls: a connection that becomes a TLS connection, on either side, over any transport."""

import asyncio
import contextlib
import gc
import socket
import ssl
import sys
import time
import weakref

import pytest
from support import loops, peers, tls
from support.protocols import Echo, Recorder, connected, facing


class Upgradable(Recorder):
    """After start_tls the protocol continues on another transport."""

    async def upgrade(self, server_side=False, **options):
        context = options.pop("context", None) or (
            tls.server_context() if server_side else tls.client_context()
        )
        if not server_side:
            options.setdefault("server_hostname", tls.NAME)
        self.plain = self.transport
        self.transport = await self.loop.start_tls(
            self.transport, self, context, server_side=server_side, **options
        )
        return self


@contextlib.asynccontextmanager
async def upgraded(loop):
    async with connected(loop, lambda: Upgradable(loop), lambda: Upgradable(loop)) as (near, far):
        near.transport.write(b"STARTTLS\n")
        await far.received(9)
        far.transport.write(b"OK\n")
        await near.received(3)
        await asyncio.gather(near.upgrade(), far.upgrade(server_side=True))
        yield near, far


async def test_upgrade_after_plain_bytes(loop):
    data = peers.payload(300_000)
    async with upgraded(loop) as (near, far):
        near.transport.write(data)
        assert await far.received(len(data) + 9) == b"STARTTLS\n" + data
        far.transport.write(data)
        assert await near.received(len(data) + 3) == b"OK\n" + data
        assert near.transport is not near.plain
        assert near.transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        assert near.transport.get_extra_info("peername") == far.transport.get_extra_info("sockname")
        near.transport.close()
        assert await near.lost is None
        assert await far.lost is None
        # connection_made is not called again.
        assert near.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]


async def test_the_handshake_comes_with_the_plain_bytes(loop):
    # The server pauses on STARTTLS; the ClientHello that came in the same segment must not reach the
    # protocol.
    class Server(Upgradable):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    async with facing(loop, lambda: Server(loop)) as (far, peer):
        engine = tls.Engine()
        with contextlib.suppress(ssl.SSLWantReadError):
            engine.session.do_handshake()
        hello = engine.outgoing.read()
        peer.sendall(b"STARTTLS\n")
        await far.received(9)
        peer.sendall(hello)
        await asyncio.sleep(0.005)
        shaking = loop.run_in_executor(None, engine.shake_hands, Given(peer))
        await far.upgrade(server_side=True)
        await shaking
        assert far.data == b"STARTTLS\n"
        peer.sendall(engine.encrypt(b"secret"))
        assert await far.received(15) == b"STARTTLS\nsecret"


class Given:
    """A socket for a TLS engine that has already sent its first bytes."""

    def __init__(self, sock):
        self.settimeout, self.recv, self._send = sock.settimeout, sock.recv, sock.sendall

    def sendall(self, data):
        if data:
            self._send(data)


async def test_over_unix_sockets(loop):
    ends = [await loop.create_connection(lambda: Upgradable(loop), sock=sock) for sock in socket.socketpair()]
    (_, near), (_, far) = ends
    await asyncio.gather(near.upgrade(), far.upgrade(server_side=True))
    near.transport.write(b"unix")
    assert await far.received(4) == b"unix"
    near.transport.close()
    await near.lost
    await far.lost


async def test_tls_over_tls(loop):
    data = peers.payload(100_000)
    async with upgraded(loop) as (near, far):
        inner = near.transport, far.transport
        await asyncio.gather(near.upgrade(), far.upgrade(server_side=True))
        assert (near.plain, far.plain) == inner
        near.transport.write(data)
        assert await far.received(len(data) + 9) == b"STARTTLS\n" + data
        far.transport.write(data)
        assert await near.received(len(data) + 3) == b"OK\n" + data
        near.transport.close()
        assert await near.lost is None
        assert await far.lost is None


async def test_over_a_transport_that_is_none_of_the_loop(loop):
    # Any transport that declares itself fit for start_tls: here one in memory, which passes bytes through the
    # loop.
    class Memory(asyncio.Transport):
        _start_tls_compatible = True

        def __init__(self, protocol):
            super().__init__({"peername": "memory"})
            self.protocol, self.other, self.held, self.paused, self.ended = protocol, None, [], False, False

        def write(self, data):
            loop.call_soon(self.other.arrive, bytes(data))

        def arrive(self, data):
            self.held.append(data)
            while self.held and not self.paused:
                self.protocol.data_received(self.held.pop(0))

        def pause_reading(self):
            self.paused = True

        def resume_reading(self):
            self.paused = False
            loop.call_soon(self.arrive, b"")

        def set_protocol(self, protocol):
            self.protocol = protocol

        def _force_close(self, error):
            self.close(error)

        def close(self, error=None):
            if not self.ended:
                self.ended = True
                loop.call_soon(self.protocol.connection_lost, error)

    near, far = Upgradable(loop), Upgradable(loop)
    ends = Memory(near), Memory(far)
    ends[0].other, ends[1].other = ends[1], ends[0]
    near.connection_made(ends[0])
    far.connection_made(ends[1])
    await asyncio.gather(near.upgrade(), far.upgrade(server_side=True))
    assert near.transport.get_extra_info("peername") == "memory"
    data = peers.payload(100_000)
    near.transport.write(data)
    assert await far.received(len(data)) == data
    near.transport.close()
    assert await near.lost is None
    assert await far.lost is None


test_over_a_transport_that_is_none_of_the_loop = pytest.mark.not_on(
    "asyncio",
    "uvloop",
    reason="their TLS is a BufferedProtocol, which such a transport must know how to feed",
)(test_over_a_transport_that_is_none_of_the_loop)


async def test_streams(loop):
    async def serve(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"OK\n")
        await writer.drain()
        await writer.start_tls(tls.server_context())
        writer.write(b"<%s>\n" % (await reader.readline()).strip())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, peers.LOOPBACK, 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"STARTTLS\n")
    assert await reader.readline() == b"OK\n"
    await writer.start_tls(tls.client_context(), server_hostname=tls.NAME)
    writer.write(b"secret\n")
    assert await reader.readline() == b"<secret>\n"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.01)


async def test_a_peer_that_is_silent(loop):
    async with facing(loop, lambda: Upgradable(loop)) as (near, _):
        with pytest.raises(ConnectionAbortedError, match=r"longer than 0\.05 seconds"):
            await near.upgrade(ssl_handshake_timeout=0.05)
        near.lost.set_result(None)


async def test_a_peer_that_refuses(loop):
    async with facing(loop, lambda: Upgradable(loop)) as (near, peer):
        peer.sendall(b"I do not know what you mean\n")
        with pytest.raises(ssl.SSLError):
            await near.upgrade()
        assert isinstance(await near.lost, ssl.SSLError)


async def test_cancelled(loop):
    for turns in (0, 1, 3):
        async with facing(loop, lambda: Upgradable(loop)) as (near, peer):
            task = loop.create_task(near.upgrade())
            for _ in range(turns + 1):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # The cancellation ends the connection.
            await loop.run_in_executor(None, peers.receive_all, peer)
            near.lost.set_result(None)


@pytest.mark.skipif(
    loops.REFERENCE == "asyncio" and sys.version_info < (3, 14),
    reason="gh-159049, mended in 2026",
)
@pytest.mark.not_on("uvloop", reason="it keeps it until a collection")
async def test_nothing_is_kept_of_a_failed_handshake(loop):
    def conversation(listener):
        connection, _ = listener.accept()
        connection.settimeout(peers.PATIENCE)
        with connection, contextlib.suppress(OSError):
            tls.server_context("stranger").wrap_socket(connection, server_side=True)

    async def fail(address):
        transport, protocol = await loop.create_connection(asyncio.Protocol, *address)
        kept.append(weakref.ref(transport))
        try:  # pytest.raises would keep the exception, and so the frames of its traceback
            await loop.start_tls(transport, protocol, tls.client_context(), server_hostname=tls.NAME)
        except ssl.SSLCertVerificationError:
            return
        pytest.fail("the stranger was trusted")

    kept = []
    gc.collect()
    gc.disable()
    try:
        with peers.listening(blocking=True) as listener, peers.thread(conversation, listener):
            await fail(listener.getsockname())
            await loops.turns()  # the connection is closed
        assert [transport() for transport in kept] == [None]
    finally:
        gc.enable()


async def test_what_is_refused(loop):
    async with connected(loop, lambda: Recorder(loop), lambda: Echo(loop)) as (near, _):
        with pytest.raises(TypeError, match=r"instance of ssl\.SSLContext, got None"):
            await loop.start_tls(near.transport, near, None)
        with pytest.raises(TypeError, match="is not supported by start_tls"):
            await loop.start_tls(asyncio.Transport(), near, tls.client_context())
        for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
            with pytest.raises(ValueError, match=f"{name} should be a positive number, got 0"):
                await loop.start_tls(near.transport, near, tls.client_context(), **{name: 0})
        near.transport.write(b"unharmed")
        assert await near.received(8) == b"unharmed"


# The bytes that the plain connection has already received are passed on.

carried = pytest.mark.not_on("asyncio", "uvloop", reason="lost there (gh-142352, mended in 2026)")
# A protocol's name, and also the header of a long record.
LIKE_A_RECORD = "\x16\x03\x01\x3f\x7f"


@carried
@pytest.mark.parametrize("limit", [2**16, 64], ids=["room", "full"])
@pytest.mark.parametrize("split", [9, 10, 100, "like a record", -1, None], ids=str)
async def test_the_hello_is_in_the_reader(loop, limit, split):
    # The ClientHello came with the last plain line, wholly or in part. The reader holds it, and may have
    # paused.
    done = loop.create_future()

    async def serve(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        while split != 9 and not reader._buffer:
            await asyncio.sleep(0)
        await asyncio.sleep(0.005)
        await writer.start_tls(tls.server_context())
        assert reader._transport is writer.transport
        writer.write(b"<%s>\n" % (await reader.readline()).strip())
        writer.close()
        # The client leaves without close_notify, which may reset the connection.
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        done.set_result(None)

    server = await asyncio.start_server(serve, peers.LOOPBACK, 0, limit=limit)

    def client():
        context = tls.client_context()
        context.set_alpn_protocols([LIKE_A_RECORD])
        engine = tls.Engine(context=context)
        with contextlib.suppress(ssl.SSLWantReadError):
            engine.session.do_handshake()
        said = b"STARTTLS\n" + engine.outgoing.read()
        cut = said.index(LIKE_A_RECORD.encode()) if split == "like a record" else split
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.settimeout(peers.PATIENCE)
            sock.sendall(said[:cut])
            time.sleep(0.05)
            engine.shake_hands(Ahead(sock, said[cut:] if cut else b""))
            sock.sendall(engine.encrypt(b"secret\n"))
            while True:
                with contextlib.suppress(ssl.SSLWantReadError):
                    return engine.session.read(100)
                engine.incoming.write(sock.recv(65536))

    assert await asyncio.to_thread(client) == b"<secret>\n"
    await done
    server.close()
    await server.wait_closed()


class Ahead(Given):
    """The same, with something to be said first."""

    def __init__(self, sock, first):
        super().__init__(sock)
        sock.sendall(first)


class Held:
    """A socket whose last bytes wait until it receives."""

    def __init__(self, sock):
        self.sock, self.bytes = sock, b""
        self.settimeout = sock.settimeout

    def sendall(self, data):
        self.bytes += data

    def recv(self, size):
        self.sock.sendall(self.bytes)
        self.bytes = b""
        return self.sock.recv(size)


async def test_the_reader_is_full_when_the_handshake_ends(loop):
    # Bytes that come with the end of the handshake make the reader pause before start_tls returns. What it
    # paused has to be what it resumes.
    size = 5000
    done = loop.create_future()

    async def serve(reader, writer):
        await writer.start_tls(tls.server_context())
        writer.write(b"on")
        try:
            async with asyncio.timeout(peers.PATIENCE / 2):
                done.set_result(await reader.readexactly(2 * size))
        except TimeoutError as error:
            done.set_exception(error)
        writer.transport.abort()

    server = await asyncio.start_server(serve, peers.LOOPBACK, 0, limit=100)

    def client():
        engine = tls.Engine()
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            held = Held(sock)
            engine.shake_hands(held)
            sock.sendall(held.bytes + engine.encrypt(bytes(size)))
            said = b""
            while said != b"on":
                engine.incoming.write(sock.recv(65536))
                with contextlib.suppress(ssl.SSLWantReadError):
                    said += engine.session.read(100)
            sock.sendall(engine.encrypt(bytes(size)))
            with contextlib.suppress(ConnectionError):
                while sock.recv(65536):
                    pass

    await asyncio.to_thread(client)
    assert await done == bytes(2 * size)
    server.close()
    await server.wait_closed()
    await loops.turns()


FULL = 2_000_000


def little_room(*protocols):
    """Both ends' buffers stay small: FULL does not fit, however fast the connection was before."""
    for protocol in protocols:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            protocol.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, 32768)


@carried
async def test_a_paused_writer_goes_on(loop):
    size = FULL
    async with connected(loop, lambda: Upgradable(loop), lambda: Upgradable(loop)) as (near, far):
        little_room(near, far)
        near.transport.pause_reading()
        far.transport.write(bytes(size))
        assert far.calls[-1] == "pause_writing"
        upgrade = asyncio.ensure_future(far.upgrade(server_side=True))
        await asyncio.sleep(0.01)
        assert far.calls[-1] == "pause_writing", "resumed while the transport below is full"
        near.transport.resume_reading()
        await near.received(size)
        await near.upgrade()
        await upgrade
        assert far.calls[-2:] == ["pause_writing", "resume_writing"]
        assert not far.transport._protocol_paused
        # Pause again, by the TLS transport's own water marks.
        near.transport.pause_reading()
        far.transport.write(bytes(size))
        assert far.calls[-1] == "pause_writing"
        near.transport.resume_reading()
        await near.received(2 * size)
        assert far.calls.count("resume_writing") == 2


@carried
async def test_a_paused_writer_goes_on_over_tls(loop):
    size = FULL
    async with upgraded(loop) as (near, far):
        little_room(near, far)
        before = len(near.data)
        near.transport.pause_reading()
        far.transport.write(bytes(size))
        upgrade = asyncio.ensure_future(far.upgrade(server_side=True))
        await asyncio.sleep(0.01)
        near.transport.resume_reading()
        await near.received(before + size)
        await near.upgrade()
        await upgrade
        assert far.calls[-2:] == ["pause_writing", "resume_writing"]


async def test_the_upgrade_of_a_paused_writer_fails(loop):
    async with facing(loop, lambda: Upgradable(loop)) as (near, _):
        little_room(near)
        near.transport.write(bytes(FULL))
        with pytest.raises(ConnectionAbortedError):
            await near.upgrade(ssl_handshake_timeout=0.05)
        near.lost.set_result(None)
        assert near.transport.is_closing()


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_of_a_closing_transport_there_is_none(loop, end):
    async with facing(loop, lambda: Upgradable(loop)) as (near, _):
        getattr(near.transport, end)()
        async with asyncio.timeout(peers.PATIENCE):
            upgraded = await loop.start_tls(
                near.transport, near, tls.client_context(), server_hostname=tls.NAME
            )
        assert upgraded is None
