"""Datagram endpoints: UDP over IPv4 and IPv6 and Unix datagram sockets, connected and not."""

import asyncio
import contextlib
import contextvars
import errno
import os
import socket
import sys
import time

import pytest
from support import loops, peers
from support.protocols import Datagrams

ANY = (peers.LOOPBACK, 0)


@contextlib.asynccontextmanager
async def endpoint(loop, make=Datagrams, **options):
    """The protocol of an endpoint that is closed at the end."""
    _, protocol = await loop.create_datagram_endpoint(lambda: make(loop), **options)
    try:
        yield protocol
    finally:
        protocol.transport.abort()
        await protocol.lost


@contextlib.contextmanager
def peer(address=ANY, family=socket.AF_INET):
    """A plain blocking socket at the other end."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(peers.PATIENCE)
        sock.bind(address)
        yield sock


def address_of(protocol):
    return protocol.transport.get_extra_info("sockname")


@contextlib.contextmanager
def full(loop, tmp_path):
    """A connected pair: a Unix socket whose buffer is full, and the other end, which does not read."""
    with peer(str(tmp_path / "far"), socket.AF_UNIX) as far:
        near = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        near.setblocking(False)
        near.connect(far.getsockname())
        yield near, far


async def test_both_ways(loop):
    async with endpoint(loop, local_addr=ANY) as server, endpoint(loop, local_addr=ANY) as client:
        client.transport.sendto(b"question", address_of(server))
        assert await server.received() == [(b"question", address_of(client))]
        server.transport.sendto(b"answer", server.datagrams[0][1])
        assert await client.received() == [(b"answer", address_of(server))]
        assert client.calls == server.calls == ["connection_made", "datagram_received"]


async def test_connected(loop):
    with peer() as far:
        async with endpoint(loop, remote_addr=far.getsockname()) as near:
            assert near.transport.get_extra_info("peername") == far.getsockname()
            near.transport.sendto(b"one")
            near.transport.sendto(b"two", far.getsockname())
            near.transport.sendto(b"three", None)
            assert [far.recv(10) for _ in range(3)] == [b"one", b"two", b"three"]
            with peer() as stranger:
                with pytest.raises(ValueError, match="Invalid address: must be None or"):
                    near.transport.sendto(b"no", stranger.getsockname())
                stranger.sendto(b"not for you", address_of(near))
            far.sendto(b"reply", address_of(near))
            assert await near.received() == [(b"reply", far.getsockname())]


async def test_ipv6(loop):
    async with endpoint(loop, local_addr=("::1", 0)) as server:
        assert address_of(server)[0] == "::1"
        assert len(address_of(server)) == 4
        async with endpoint(loop, remote_addr=address_of(server)[:2]) as client:
            client.transport.sendto(b"six")
            ((data, sender),) = await server.received()
            assert data == b"six"
            assert sender == address_of(client)
            server.transport.sendto(b"back", sender)
            assert await client.received() == [(b"back", address_of(server))]


@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_unix(loop, tmp_path, kind):
    def name(end):
        return str(tmp_path / end) if kind == "path" else f"\0proact-{os.getpid()}-{id(loop)}-{end}"

    options = {"family": socket.AF_UNIX, "local_addr": name("near")}
    shown = name("far") if kind == "path" else name("far").encode()
    async with endpoint(loop, **options) as near:
        with peer(name("far"), socket.AF_UNIX) as far:
            far.sendto(b"to near", name("near"))
            assert await near.received() == [(b"to near", shown)]
            near.transport.sendto(b"to far", near.datagrams[0][1])
            assert far.recv(10) == b"to far"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
            nameless.sendto(b"from nobody", name("near"))
        assert (await near.received(2))[1] == (b"from nobody", None)


async def test_a_connected_unix_endpoint(loop, tmp_path):
    with peer(str(tmp_path / "far"), socket.AF_UNIX) as far:
        options = {"local_addr": str(tmp_path / "near"), "remote_addr": far.getsockname()}
        async with endpoint(loop, family=socket.AF_UNIX, **options) as near:
            near.transport.sendto(b"hello")
            assert far.recvfrom(10) == (b"hello", str(tmp_path / "near"))
            assert near.transport.get_extra_info("peername") == far.getsockname()


async def test_a_stale_unix_socket_is_replaced(loop, tmp_path):
    path = str(tmp_path / "stale")
    with peer(path, socket.AF_UNIX):
        pass
    async with endpoint(loop, family=socket.AF_UNIX, local_addr=path) as near:
        assert address_of(near) == path


async def test_a_socket_of_one_s_own(loop):
    with peer() as far:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(far.getsockname())
        async with endpoint(loop, sock=sock) as near:
            assert sock.getblocking() is False
            # The program has connected the socket: the endpoint sends to its peer, whatever the address.
            near.transport.sendto(b"hello", ("192.0.2.1", 9))
            assert far.recv(10) == b"hello"
            assert near.transport.get_extra_info("socket").fileno() == sock.fileno()
    assert sock.fileno() == -1


async def test_what_a_transport_tells_of_itself(loop):
    async with endpoint(loop, local_addr=ANY) as near:
        transport = near.transport
        assert isinstance(transport, asyncio.BaseTransport)
        if sys.version_info >= (3, 12):
            assert isinstance(transport, asyncio.DatagramTransport)
        assert transport.get_extra_info("sockname")[0] == peers.LOOPBACK
        assert transport.get_extra_info("peername") is None
        assert transport.get_extra_info("peername", "default") is None
        assert transport.get_extra_info("nothing", "default") == "default"
        sock = transport.get_extra_info("socket")
        assert sock is transport.get_extra_info("socket")
        assert sock.type == socket.SOCK_DGRAM
        assert transport.get_protocol() is near
        assert transport.get_write_buffer_size() == 0
        assert transport.get_write_buffer_limits() == (16384, 65536)
        assert not transport.is_closing()
        assert f"fd={sock.fileno()}" in repr(transport)
        transport.close()
        assert transport.is_closing()
        assert "closing" in repr(transport)
        await near.lost
        assert "closed" in repr(transport)


async def test_options(loop):
    options = {"local_addr": ANY, "reuse_port": True, "allow_broadcast": True}
    async with endpoint(loop, **options) as near:
        sock = near.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        async with endpoint(loop, local_addr=address_of(near), reuse_port=True):
            pass


async def test_with_broadcast_the_socket_is_not_connected_but_the_address_is_fixed(loop):
    with peer() as far:
        async with endpoint(loop, remote_addr=far.getsockname(), allow_broadcast=True) as near:
            assert near.transport.get_extra_info("peername") is None
            near.transport.sendto(b"hello")
            assert far.recv(10) == b"hello"
            with pytest.raises(ValueError, match="Invalid address"):
                near.transport.sendto(b"hello", ("127.0.0.1", 9))


async def test_broadcast_on_loopback(loop):
    async with endpoint(loop, local_addr=("0.0.0.0", 0)) as server:
        port = address_of(server)[1]
        async with endpoint(loop, local_addr=ANY, allow_broadcast=True) as client:
            client.transport.sendto(b"to all", ("127.255.255.255", port))
            assert await server.received() == [(b"to all", address_of(client))]


async def test_a_name_is_looked_up(loop):
    async with endpoint(loop, local_addr=ANY) as server, endpoint(loop, local_addr=ANY) as client:
        client.transport.sendto(b"hello", ("localhost", address_of(server)[1]))
        assert await server.received() == [(b"hello", address_of(client))]


@pytest.mark.parametrize("size", [0, 1, 1000, 65507])
async def test_every_size(loop, size):
    data = peers.payload(size)
    with peer() as far:
        async with endpoint(loop, remote_addr=far.getsockname()) as near:
            far.sendto(data, address_of(near))
            assert (await near.received())[0][0] == data
            near.transport.sendto(data)
            if size or sys.version_info >= (3, 13):
                assert far.recv(1 << 17) == data
            # Before 3.13, asyncio sends no empty datagrams.
            near.transport.sendto(b"end")
            assert far.recv(10) == b"end"


async def test_a_large_unix_datagram(loop, tmp_path):
    data = peers.payload(100_000)
    async with endpoint(loop, family=socket.AF_UNIX, local_addr=str(tmp_path / "near")) as near:
        with peer(str(tmp_path / "far"), socket.AF_UNIX) as far:
            far.sendto(data, address_of(near))
            assert (await near.received())[0][0] == data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_what_is_sent_is_as_it_was_when_it_was_sent(loop, tmp_path, kind):
    with full(loop, tmp_path) as (sock, far):
        async with endpoint(loop, sock=sock) as near:
            taken = 0
            while not near.transport.get_write_buffer_size():
                near.transport.sendto(b"filling")
                taken += 1
            buffer = bytearray(b"data")
            near.transport.sendto(kind(buffer))
            buffer[:] = b"JUNK"
            received = [await loop.run_in_executor(None, far.recv, 10) for _ in range(taken + 1)]
            assert received == [b"filling"] * taken + [b"data"]


async def test_what_can_not_be_sent(loop, unhandled):
    async with endpoint(loop, local_addr=ANY) as near:
        for junk in ("text", None, 1):
            with pytest.raises(TypeError, match="data argument must be a bytes-like object, not"):
                near.transport.sendto(junk, ANY)
        near.transport.sendto(b"x" * 70_000, address_of(near))
        assert near.errors.pop().errno == errno.EMSGSIZE
        near.transport.sendto(b"x", (peers.LOOPBACK + ".nowhere.invalid", 9))
        assert isinstance(near.errors.pop(), socket.gaierror)
        assert near.errors == []
        assert not near.transport.is_closing()


@pytest.mark.parametrize("address", [None, "text", ("127.0.0.1",), ("127.0.0.1", 1 << 20), (1, 2)])
async def test_what_is_no_address(loop, unhandled, address):
    # The program's mistake is to send; asyncio then ends the transport.
    async with endpoint(loop, local_addr=ANY) as near:
        near.transport.sendto(b"data", address)
        problem = unhandled.take_one()
        assert problem.message == "Fatal write error on datagram transport"
        assert problem.context["transport"] is near.transport
        assert isinstance(problem.exception, (TypeError, OverflowError))
        assert await near.lost is problem.exception


async def test_a_refused_datagram_is_an_error_and_no_end(loop):
    with peer() as far:
        address = far.getsockname()
    async with endpoint(loop, remote_addr=address) as near:
        near.transport.sendto(b"is anybody there?")
        while not near.errors:
            await asyncio.sleep(0.001)
        assert isinstance(near.errors[0], ConnectionRefusedError)
        with peer(address) as far:
            far.sendto(b"now there is", address_of(near))
            assert await near.received() == [(b"now there is", address)]


async def test_a_refused_unix_datagram_is_an_error_at_once(loop, tmp_path):
    with peer(str(tmp_path / "far"), socket.AF_UNIX) as far:
        options = {"local_addr": str(tmp_path / "near"), "remote_addr": far.getsockname()}
        _, near = await loop.create_datagram_endpoint(
            lambda: Datagrams(loop), family=socket.AF_UNIX, **options
        )
    near.transport.sendto(b"hello")
    assert isinstance(near.errors.pop(), ConnectionRefusedError)
    near.transport.close()
    assert await near.lost is None


async def test_flow_control(loop, tmp_path):
    with full(loop, tmp_path) as (sock, far):
        async with endpoint(loop, sock=sock) as near:
            near.transport.set_write_buffer_limits(high=3000, low=1000)
            count = 0
            while "pause_writing" not in near.calls:
                near.transport.sendto(b"%0100d" % count)
                count += 1
            queued = near.transport.get_write_buffer_size()
            assert 3000 < queued <= 3000 + 108
            received = []
            while len(received) < count:
                received.append(await loop.run_in_executor(None, far.recv, 200))
            assert received == [b"%0100d" % number for number in range(count)]
            await loops.turns()
            assert near.calls == ["connection_made", "pause_writing", "resume_writing"]
            assert near.transport.get_write_buffer_size() == 0


@pytest.mark.parametrize(
    ("high", "low", "limits"), [(100, None, (25, 100)), (None, 10, (10, 40)), (0, 0, (0, 0))]
)
async def test_limits(loop, high, low, limits):
    async with endpoint(loop, local_addr=ANY) as near:
        near.transport.set_write_buffer_limits(high=high, low=low)
        assert near.transport.get_write_buffer_limits() == limits
        for wrong in ({"high": 1, "low": 2}, {"high": -1}, {"low": -1}):
            with pytest.raises(ValueError, match="must be >="):
                near.transport.set_write_buffer_limits(**wrong)


@pytest.mark.not_on("asyncio", "uvloop", reason="spins until there is room")
async def test_an_addressee_that_does_not_read_costs_no_time(loop, tmp_path):
    # poll calls an unconnected Unix socket writable even if the next datagram will be refused.
    with peer(str(tmp_path / "far"), socket.AF_UNIX) as far:
        async with endpoint(loop, family=socket.AF_UNIX, local_addr=str(tmp_path / "near")) as near:
            count = 0
            while not near.transport.get_write_buffer_size():
                near.transport.sendto(b"%d" % count, far.getsockname())
                count += 1
            used = []
            for _ in range(3):  # a virtual machine may charge another process's time to this one
                before = time.process_time()
                await asyncio.sleep(0.1)
                used.append(time.process_time() - before)
            assert min(used) < 0.05
            received = [await loop.run_in_executor(None, far.recv, 10) for _ in range(count)]
            assert received == [b"%d" % number for number in range(count)]


async def test_close_sends_what_is_queued(loop, tmp_path):
    with full(loop, tmp_path) as (sock, far):
        _, near = await loop.create_datagram_endpoint(lambda: Datagrams(loop), sock=sock)
        count = 0
        while near.transport.get_write_buffer_size() < 100:
            near.transport.sendto(b"%d" % count)
            count += 1
        near.transport.close()
        near.transport.close()
        await loops.turns()
        assert not near.lost.done()
        near.transport.sendto(b"%d" % count)
        received = [await loop.run_in_executor(None, far.recv, 10) for _ in range(count + 1)]
        assert received == [b"%d" % number for number in range(count + 1)]
        assert await near.lost is None
        assert near.calls[-1] == "connection_lost"


async def test_abort_drops_what_is_queued(loop, tmp_path):
    with full(loop, tmp_path) as (sock, far):
        _, near = await loop.create_datagram_endpoint(lambda: Datagrams(loop), sock=sock)
        count = 0
        while not near.transport.get_write_buffer_size():
            near.transport.sendto(b"x")
            count += 1
        near.transport.abort()
        assert not near.lost.done(), "called back from inside abort()"
        assert await near.lost is None
        far.setblocking(False)
        for _ in range(count - 1):
            far.recv(10)
        with pytest.raises(BlockingIOError):
            far.recv(10)


async def test_sending_on_a_closed_transport(loop, caplog):
    with peer() as far:
        async with endpoint(loop, remote_addr=far.getsockname()) as near:
            near.transport.close()
            for _ in range(4):
                near.transport.sendto(b"too late")
            assert not caplog.records
            near.transport.sendto(b"too late")
            assert [record.message for record in caplog.records] == ["socket.send() raised exception."]
            assert await near.lost is None
            far.setblocking(False)
            with pytest.raises(BlockingIOError):
                far.recv(10)


@pytest.mark.parametrize("way", ["close", "abort"])
async def test_nothing_is_received_after_the_end(loop, way):
    async with endpoint(loop, local_addr=ANY) as near:
        with peer() as far:
            far.sendto(b"there already", address_of(near))
            getattr(near.transport, way)()
            await near.lost
            assert near.calls == ["connection_made", "connection_lost"]


async def test_closing_inside_its_own_callback(loop):
    class Once(Datagrams):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.close()

    async with endpoint(loop, Once, local_addr=ANY) as near:
        with peer() as far:
            for _ in range(10):
                far.sendto(b"once", address_of(near))
        await near.lost
        assert near.calls == ["connection_made", "datagram_received", "connection_lost"]


async def test_closing_in_connection_made(loop):
    class Never(Datagrams):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.close()

    async with endpoint(loop, Never, local_addr=ANY) as near:
        await near.lost
        assert near.calls == ["connection_made", "connection_lost"]


@pytest.mark.not_on("uvloop", reason="has no pause_reading")
async def test_pausing(loop):
    async with endpoint(loop, local_addr=ANY) as near:
        assert near.transport.is_reading()
        near.transport.pause_reading()
        assert not near.transport.is_reading()
        with peer() as far:
            for number in range(3):
                far.sendto(b"%d" % number, address_of(near))
                await asyncio.sleep(0.002)
            assert near.datagrams == []
            near.transport.resume_reading()
            assert near.datagrams == [], "called back from inside resume_reading()"
            assert [data for data, _ in await near.received(3)] == [b"0", b"1", b"2"]
            near.transport.pause_reading()
            near.transport.resume_reading()
            far.sendto(b"3", address_of(near))
            assert len(await near.received(4)) == 4


async def test_a_flood_does_not_starve_the_others(loop):
    # The protocol answers each datagram by two to itself, so the socket is readable for ever.
    class Flood(Datagrams):
        def datagram_received(self, data, addr):
            self.datagrams = [(data, addr)]
            self.transport.sendto(data, addr)
            self.transport.sendto(data, addr)

    async with endpoint(loop, Flood, local_addr=ANY) as near:
        near.transport.sendto(b"x", address_of(near))
        async with asyncio.timeout(5):
            for _ in range(20):
                await asyncio.sleep(0.001)
        near.transport.abort()


async def test_many_datagrams_in_their_order(loop):
    async with endpoint(loop, local_addr=ANY) as server, endpoint(loop, local_addr=ANY) as client:
        for number in range(2000):
            client.transport.sendto(b"%d" % number, address_of(server))
            if number % 50 == 49:
                await server.received(number + 1)
        assert [data for data, _ in server.datagrams] == [b"%d" % number for number in range(2000)]


@pytest.mark.parametrize(
    "method", ["connection_made", "datagram_received", "error_received", "connection_lost"]
)
async def test_what_the_protocol_raises_is_reported_once_and_ends_nothing(loop, unhandled, method):
    class Wrong(Datagrams):
        pass

    def fails(self, *args):
        getattr(Datagrams, method)(self, *args)
        raise OSError("mine")

    setattr(Wrong, method, fails)
    with peer() as far:
        address = far.getsockname()
        async with endpoint(loop, Wrong, remote_addr=address) as near:
            far.sendto(b"one", address_of(near))
            await near.received(1)
            far.sendto(b"two", address_of(near))
            await near.received(2)
            if method == "error_received":
                far.close()
                near.transport.sendto(b"refused")
                while not near.errors:
                    await asyncio.sleep(0.001)
            await loops.turns()
    problems = unhandled.take()
    assert len(problems) == (2 if method == "datagram_received" else 1)
    for problem in problems:
        assert str(problem.exception) == "mine"
        assert "Exception in callback" in problem.message


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_stops_the_loop_stops_it_and_leaves_it_usable(new_loop, error):
    loop = new_loop()

    class Stops(Datagrams):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"stop":
                raise error

    async def start():
        return await loop.create_datagram_endpoint(lambda: Stops(loop), local_addr=ANY)

    transport, near = loop.run_until_complete(start())
    with peer() as far:
        far.sendto(b"stop", address_of(near))
        far.sendto(b"go on", address_of(near))
        with pytest.raises(error):
            loop.run_forever()
        loop.run_until_complete(near.received(2))
    transport.close()
    loop.run_until_complete(near.lost)


async def test_the_protocol_runs_in_the_context_of_the_transport(loop):
    where = contextvars.ContextVar("where", default="nowhere")
    seen = []

    class Looks(Datagrams):
        def connection_made(self, transport):
            seen.append(where.get())
            super().connection_made(transport)

        def datagram_received(self, data, addr):
            seen.append(where.get())
            super().datagram_received(data, addr)

        def connection_lost(self, exc):
            seen.append(where.get())
            super().connection_lost(exc)

    async def create():
        where.set("endpoint")
        return await loop.create_datagram_endpoint(lambda: Looks(loop), local_addr=ANY)

    transport, near = await loop.create_task(create())
    transport.sendto(b"hello", address_of(near))
    await near.received()
    transport.close()
    await near.lost
    if loops.REFERENCE != "asyncio":
        assert seen == ["endpoint"] * 3
    else:
        # The last method is called in the context of the code that closed the transport.
        assert seen[:2] == ["endpoint"] * 2


async def test_a_factory_that_fails(loop, unhandled):
    def fails():
        raise ZeroDivisionError

    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock, pytest.raises(ZeroDivisionError):
        await loop.create_datagram_endpoint(fails, sock=sock)


async def test_wrong_arguments(loop):
    with socket.socket() as stream, pytest.raises(ValueError, match="ocket was expected"):
        await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=stream)
    with pytest.raises(ValueError, match="unexpected address family"):
        await loop.create_datagram_endpoint(asyncio.DatagramProtocol)
    with pytest.raises(TypeError, match="string is expected"):
        await loop.create_datagram_endpoint(asyncio.DatagramProtocol, family=socket.AF_UNIX, local_addr=ANY)
    with peer() as taken, pytest.raises(OSError) as info:
        await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=taken.getsockname())
    assert info.value.errno == errno.EADDRINUSE


def test_the_loop_goes_on_in_another_thread(new_loop):
    loop = new_loop()
    transport, near = loop.run_until_complete(
        loop.create_datagram_endpoint(lambda: Datagrams(loop), local_addr=ANY)
    )
    transport.sendto(b"here", address_of(near))
    loop.run_until_complete(near.received(1))

    def there():
        transport.sendto(b"there", address_of(near))
        loop.run_until_complete(near.received(2))

    with peers.thread(there):
        pass
    assert [data for data, _ in near.datagrams] == [b"here", b"there"]
    transport.close()
    loop.run_until_complete(near.lost)


def test_a_loop_closed_with_an_endpoint_open(new_loop):
    loop = new_loop()
    transport, near = loop.run_until_complete(
        loop.create_datagram_endpoint(lambda: Datagrams(loop), local_addr=ANY)
    )
    near.lost.cancel()
    loop.close()
    held = [transport, near.transport]
    del near.transport, transport
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        held.clear()
