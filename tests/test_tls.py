"""TLS: bytes both ways, in order and in bounded memory, and the information about a transport."""

import asyncio
import contextlib
import socket
import ssl

import pytest
from support import loops, peers, tls
from support.protocols import Buffered, Echo, Recorder, heard

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
async def test_echo(loop, version):
    client = tls.client_context(version=version)
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Echo(loop), client=client) as (near, far):
        for size in (1, 100, 16383, 16384, 16385, 70_000):
            del near.data[:]
            data = peers.payload(size)
            near.transport.write(data)
            assert await near.received(size) == data
        assert await near.close() is None
        assert await far.lost is None
        assert near.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]
        assert far.calls == near.calls


class Lending(Buffered):
    """Returns a memoryview: asyncio slices the buffer, and a slice of a bytearray would be a copy."""

    def get_buffer(self, sizehint):
        return memoryview(self.buffer)


@pytest.mark.not_on("asyncio", reason="fills a copy of a bytearray once a record is not the whole of it")
async def test_a_bytearray_as_buffer(loop):
    data = peers.payload(300_000)
    async with tls.connected(loop, lambda: Buffered(loop), lambda: Echo(loop)) as (near, _):
        near.transport.write(data)
        assert await near.received(len(data)) == data


@pytest.mark.parametrize("size", [64, 5000, 1 << 16], ids=lambda size: f"buffer{size}")
async def test_buffered_protocol(loop, size):
    data = peers.payload(300_000)
    async with tls.connected(loop, lambda: Lending(loop, size), lambda: Echo(loop)) as (near, _):
        near.transport.write(data)
        assert await near.received(len(data)) == data
        assert await near.close() is None


async def test_much_data_both_ways_at_once(loop):
    there, back = peers.payload(8 << 20, seed=1), peers.payload(8 << 20, seed=2)
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (near, far):
        near.transport.write(there)
        for start in range(0, len(back), 100_000):
            far.transport.write(back[start : start + 100_000])
        assert peers.digest(await far.received(len(there))) == peers.digest(there)
        assert peers.digest(await near.received(len(back))) == peers.digest(back)


async def test_many_small_writes_arrive_in_order(loop):
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (near, far):
        expected = b"".join(b"%d;" % number for number in range(2000))
        for number in range(2000):
            near.transport.write(b"%d;" % number)
            if number % 100 == 0:
                await asyncio.sleep(0)
        assert await far.received(len(expected)) == expected


async def test_what_is_written_is_a_snapshot(loop):
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (near, far):
        array = bytearray(b"bytearray")
        near.transport.write(array)
        array[:] = b"overwrite"
        view = memoryview(bytearray(b"memory"))
        near.transport.write(view)
        view[:] = b"______"
        near.transport.write(b"")
        near.transport.writelines([b"1", bytearray(b"2"), memoryview(b"3"), b""])
        near.transport.writelines(iter([b"4"]))
        near.transport.writelines([])
        assert await far.received(19) == b"bytearraymemory1234"


@pytest.mark.parametrize("wrong", ["text", 5, None, [b"list"]])
async def test_what_is_not_bytes_is_refused(loop, wrong):
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Echo(loop)) as (near, _):
        with pytest.raises(TypeError):
            near.transport.write(wrong)
        near.transport.write(b"still there")
        assert await near.received(11) == b"still there"


async def test_one_end_is_all_there_is(loop):
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Echo(loop)) as (near, _):
        assert not near.transport.can_write_eof()
        with pytest.raises(NotImplementedError):
            near.transport.write_eof()


class Flow(Recorder):
    """Writes until told to pause."""

    def __init__(self, loop):
        super().__init__(loop)
        self.resumed = loop.create_future()

    def resume_writing(self):
        super().resume_writing()
        if not self.resumed.done():
            self.resumed.set_result(None)


async def test_a_slow_reader_pauses_the_writer(loop):
    # The reader's program pauses; the kernel's, the reader's and the writer's buffers fill up in turn.
    async with tls.connected(loop, lambda: Flow(loop), lambda: Recorder(loop)) as (near, far):
        far.transport.pause_reading()
        assert not far.transport.is_reading()
        sent = 0
        chunk = peers.payload(64 << 10)
        while "pause_writing" not in near.calls:
            near.transport.write(chunk)
            sent += len(chunk)
            await asyncio.sleep(0.0001)
            assert sent < 64 << 20, "a writer was never paused"
        size = near.transport.get_write_buffer_size()
        assert near.transport.get_write_buffer_limits()[1] <= size < 1 << 20
        assert len(far.data) == 0
        assert far.transport.get_read_buffer_size() < 1 << 20
        assert not near.resumed.done()
        far.transport.resume_reading()
        assert far.transport.is_reading()
        await near.resumed
        assert await far.received(sent) == chunk * (sent // len(chunk))
        assert near.calls[1:] == ["pause_writing", "resume_writing"]


async def test_write_buffer_limits(loop):
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Echo(loop)) as (near, _):
        transport = near.transport
        assert transport.get_write_buffer_limits() == (128 << 10, 512 << 10)
        transport.set_write_buffer_limits(high=1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        transport.set_write_buffer_limits(low=1000)
        assert transport.get_write_buffer_limits() == (1000, 4000)
        transport.set_write_buffer_limits(high=10, low=5)
        assert transport.get_write_buffer_limits() == (5, 10)
        for wrong in ({"high": 5, "low": 10}, {"high": -1}, {"low": -1}):
            with pytest.raises(ValueError, match="must be >= low"):
                transport.set_write_buffer_limits(**wrong)
        assert transport.get_read_buffer_limits() == (64 << 10, 256 << 10)
        transport.set_read_buffer_limits(high=100_000)
        assert transport.get_read_buffer_limits() == (25_000, 100_000)
        with pytest.raises(ValueError, match="must be >= low"):
            transport.set_read_buffer_limits(high=5, low=10)
        assert transport.get_write_buffer_size() == transport.get_read_buffer_size() == 0


async def test_pausing_within_data_received(loop):
    class Stepwise(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()
            self.loop.call_soon(self.transport.resume_reading)

    data = peers.payload(500_000)
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Stepwise(loop)) as (near, far):
        near.transport.write(data)
        assert await far.received(len(data)) == data


class PausesAtOnce(Recorder):
    def connection_made(self, transport):
        super().connection_made(transport)
        transport.pause_reading()


@pytest.mark.not_on(
    "asyncio", "uvloop", reason="the handshake's last message stays there until the program writes"
)
@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name
)
async def test_a_handshake_ends_although_both_sides_pause_at_once(loop, version):
    # In TLS 1.3 the client has the last word, in TLS 1.2 the server; neither has anything to write.
    client = tls.client_context(version=version)
    near, far = lambda: PausesAtOnce(loop), lambda: PausesAtOnce(loop)
    async with tls.connected(loop, near, far, client=client) as (near, far):
        far.transport.write(b"welcome")
        near.transport.resume_reading()
        assert await near.received(7) == b"welcome"


async def test_what_arrives_while_paused_is_not_lost(loop):
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (near, far):
        far.transport.pause_reading()
        near.transport.write(b"while paused")
        await asyncio.sleep(0.01)
        assert far.data == b""
        far.transport.resume_reading()
        far.transport.resume_reading()
        assert await far.received(12) == b"while paused"


async def test_the_end_waits_while_paused(loop):
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (near, far):
        far.transport.pause_reading()
        near.transport.write(b"last words")
        near.transport.close()
        await asyncio.sleep(0.01)
        assert far.calls == ["connection_made"]
        far.transport.resume_reading()
        assert await far.lost is None
        assert far.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]
        assert far.data == b"last words"


async def test_what_a_transport_says_of_itself(loop):
    client = tls.client_context("client")
    server = tls.server_context(clients=True)
    async with tls.connected(
        loop, lambda: Recorder(loop), lambda: Recorder(loop), server=server, client=client
    ) as (near, far):
        for end, context in ((near, client), (far, server)):
            info = end.transport.get_extra_info
            assert isinstance(end.transport, asyncio.Transport)
            assert isinstance(info("ssl_object"), ssl.SSLObject)
            assert info("sslcontext") is context
            assert info("cipher") == info("ssl_object").cipher()
            assert info("compression") is None
            assert info("socket").type == socket.SOCK_STREAM
            assert info("nothing", "default") == "default"
            assert info("nothing") is None
            assert end.transport.get_protocol() is end
        assert near.transport.get_extra_info("peername") == far.transport.get_extra_info("sockname")
        assert near.transport.get_extra_info("sockname") == far.transport.get_extra_info("peername")
        assert dict(*near.transport.get_extra_info("peercert")["subject"]) == {"commonName": "localhost"}
        assert dict(*far.transport.get_extra_info("peercert")["subject"]) == {
            "commonName": "proact test client"
        }
        assert not near.transport.is_closing()
        near.transport.close()
        assert near.transport.is_closing()
        await near.lost
        assert near.transport.get_extra_info("sslcontext") is client


async def test_a_protocol_takes_over(loop):
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Echo(loop)) as (near, _):
        near.transport.write(b"first")
        await near.received(5)
        for other in (Recorder(loop), Buffered(loop), Recorder(loop)):
            other.connection_made(near.transport)
            near.transport.set_protocol(other)
            assert near.transport.get_protocol() is other
            near.transport.write(b"second")
            assert await other.received(6) == b"second"
        assert near.data == b"first"
        near.transport.set_protocol(near)


async def test_a_protocol_takes_over_within_data_received(loop):
    later = Recorder(loop)

    class First(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.set_protocol(later)
            later.connection_made(self.transport)

    async with tls.connected(loop, lambda: First(loop), lambda: Echo(loop)) as (near, _):
        near.transport.write(b"one")
        await near.received(3)
        near.transport.write(b"two")
        assert await later.received(3) == b"two"
        near.transport.close()
        await later.lost
        near.lost.set_result(None)


async def test_streams(loop):
    async def serve(reader, writer):
        while line := await reader.readline():
            writer.writelines([b"<", line.strip(), b">\n"])
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, peers.LOOPBACK, 0, ssl=tls.server_context())
    address = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(
        *address, ssl=tls.client_context(), server_hostname=tls.NAME
    )
    for word in (b"hello", peers.payload(20_000).hex().encode()):
        writer.write(word + b"\n")
        assert await reader.readline() == b"<" + word + b">\n"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.01)


async def test_unix_sockets(loop):
    near_end, far_end = socket.socketpair()
    accepted = loop.create_task(
        loop.connect_accepted_socket(lambda: Echo(loop), far_end, ssl=tls.server_context())
    )
    _, near = await loop.create_connection(
        lambda: Recorder(loop), sock=near_end, ssl=tls.client_context(), server_hostname=tls.NAME
    )
    _, far = await accepted
    near.transport.write(b"unix")
    assert await near.received(4) == b"unix"
    await near.close()
    await far.lost


async def test_sendfile_reads_and_encrypts(loop, tmp_path):
    data = peers.payload(1_000_000)
    path = tmp_path / "file"
    path.write_bytes(data)
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (near, far):
        with path.open("rb") as file:
            assert await loop.sendfile(near.transport, file) == len(data)
        assert await far.received(len(data)) == data
        with path.open("rb") as file, pytest.raises(RuntimeError):
            await loop.sendfile(near.transport, file, fallback=False)


async def test_a_peer_that_is_no_asyncio(loop):
    data = peers.payload(200_000)

    def conversation(sock):
        received = b""
        while len(received) < len(data):
            received += sock.recv(65536)
        assert received == data
        sock.sendall(data[::-1])
        with contextlib.suppress(ssl.SSLError):
            sock.unwrap()

    async with tls.facing(loop, lambda: Recorder(loop), conversation) as client:
        client.transport.write(data)
        assert await client.received(len(data)) == data[::-1]
        assert await client.lost is None


async def test_records_in_pieces(loop):
    # A record that comes byte by byte is delivered when it is whole, and two that come at once are one piece.
    engine = tls.Engine()
    server = await loop.create_server(lambda: far, peers.LOOPBACK, 0, ssl=tls.server_context())

    class Pieces(Recorder):
        pieces = ()

        def data_received(self, data):
            super().data_received(data)
            self.pieces += (data,)

    far = Pieces(loop)
    with socket.create_connection(server.sockets[0].getsockname()) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.run_in_executor(None, engine.shake_hands, sock)
        for byte in engine.encrypt(b"slowly"):
            sock.sendall(bytes([byte]))
            await asyncio.sleep(0.0001)
        assert await far.received(6) == b"slowly"
        sock.sendall(engine.encrypt(b"two") + engine.encrypt(b"at once"))
        await far.received(16)
        # The end of the connection comes in the same segment as the data before it.
        sock.sendall(engine.encrypt(b"end") + engine.goodbye())
        assert await far.lost is None
        assert far.pieces == (b"slowly", b"twoat once", b"end")
        assert far.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]
        assert await heard(loop, sock)
    server.close()
    await server.wait_closed()


async def test_session_tickets_bring_an_old_session_back(loop):
    context = tls.client_context()
    server = tls.server_context()
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Echo(loop), server, context) as (near, _):
        # TLS 1.3 sends session tickets after the handshake: records without application data.
        near.transport.write(b"x")
        await near.received(1)
        assert near.transport.get_extra_info("ssl_object").session.has_ticket
        assert near.calls == ["connection_made", "data_received"]


async def test_callbacks_run_in_the_context_of_the_connection(loop):
    import contextvars

    where = contextvars.ContextVar("where", default="nowhere")
    seen = []

    class Placed(Recorder):
        def data_received(self, data):
            seen.append(where.get())
            super().data_received(data)

        def connection_lost(self, exc):
            seen.append(where.get())
            super().connection_lost(exc)

    async def client():
        where.set("client")
        async with tls.connected(loop, lambda: Placed(loop), lambda: Echo(loop)) as (near, _):
            near.transport.write(b"x")
            await near.received(1)
            await near.close()

    await loop.create_task(client())
    assert seen == ["client", "client"]
    assert where.get() == "nowhere"


async def test_a_hundred_connections(loop):
    server = await loop.create_server(lambda: Echo(loop), peers.LOOPBACK, 0, ssl=tls.server_context())
    address = server.sockets[0].getsockname()
    context = tls.client_context()

    async def converse(number):
        _, client = await loop.create_connection(
            lambda: Recorder(loop), *address, ssl=context, server_hostname=tls.NAME
        )
        for step in range(5):
            client.transport.write(b"%4d" % (number * 10 + step))
            assert (await client.received(4 * step + 4))[-4:] == b"%4d" % (number * 10 + step)
        await client.close()

    await asyncio.gather(*map(converse, range(100)))
    server.close()
    await server.wait_closed()
    await loops.turns(5)
    await asyncio.sleep(0.01)
