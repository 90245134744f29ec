"""create_connection: from where, to where, with which socket, and the ways in which it fails."""

import asyncio
import errno
import socket
import sys

import pytest
from support import peers
from support.loops import pending
from support.protocols import Echo, Recorder, heard, serving


def resolving(monkeypatch, *addresses):
    """Let every name resolve to these (family, sockaddr) pairs, or raise the given exception."""

    def getaddrinfo(*_args, **_kwargs):
        if isinstance(addresses[0], Exception):
            raise addresses[0]
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


own_resolver = pytest.mark.not_on("uvloop", reason="resolves names without the socket module")


async def echoes(loop, client):
    client.transport.write(b"echo")
    assert await client.received(4) == b"echo"
    await client.close()


async def test_by_name(loop):
    async with serving(loop, lambda: Echo(loop)) as server:
        _, client = await loop.create_connection(lambda: Recorder(loop), "localhost", server.address[1])
        await echoes(loop, client)


async def test_from_a_local_address(loop):
    async with serving(loop, lambda: Echo(loop)) as server:
        _, client = await loop.create_connection(
            lambda: Recorder(loop), *server.address, local_addr=("127.0.0.3", 0)
        )
        assert client.transport.get_extra_info("sockname")[0] == "127.0.0.3"
        await echoes(loop, client)


async def test_from_a_local_address_that_is_not_ours(loop):
    async with serving(loop, lambda: Echo(loop)) as server:
        with pytest.raises(OSError) as info:
            await loop.create_connection(lambda: Recorder(loop), *server.address, local_addr=("192.0.2.1", 0))
        assert info.value.errno == errno.EADDRNOTAVAIL


async def test_on_a_socket_that_is_connected_already(loop):
    with peers.listening(blocking=True) as listener:
        sock = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    with peer:
        transport, client = await loop.create_connection(lambda: Recorder(loop), sock=sock)
        assert transport.get_extra_info("socket").fileno() == sock.fileno()
        transport.write(b"hello")
        assert await heard(loop, peer, 5) == b"hello"
        await client.close()
        assert sock.fileno() == -1, "the transport owns the socket, and closes it"


@pytest.mark.not_on("uvloop", reason="delivers what is there already first")
async def test_whoever_connects_has_the_transport_before_its_first_data(loop):
    seen = []

    class Client(Recorder):
        def data_received(self, data):
            seen.append(data)
            super().data_received(data)

    with peers.listening(blocking=True) as listener:
        sock = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    with peer:
        # The data is there before the transport is made.
        peer.sendall(b"early")
        _, client = await loop.create_connection(lambda: Client(loop), sock=sock)
        seen.append("connected")
        await client.received(5)
        assert seen == ["connected", b"early"]
        await client.close()


async def test_an_accepted_socket(loop):
    with peers.listening(blocking=True) as listener, socket.create_connection(listener.getsockname()) as peer:
        sock, _ = listener.accept()
        _, client = await loop.connect_accepted_socket(lambda: Echo(loop), sock)
        peer.sendall(b"hello")
        assert await heard(loop, peer, 5) == b"hello"
        await client.close()


@pytest.mark.not_on("uvloop", reason="the message names no address")
async def test_refused(loop):
    with peers.refusing() as address:
        with pytest.raises(ConnectionRefusedError, match=str(address[1])) as info:
            await loop.create_connection(lambda: Recorder(loop), *address)
        assert info.value.errno == errno.ECONNREFUSED


@own_resolver
async def test_the_next_address_is_tried(loop, monkeypatch):
    async with serving(loop, lambda: Echo(loop)) as server:
        with peers.refusing() as refusing:
            resolving(monkeypatch, (socket.AF_INET, refusing), (socket.AF_INET, server.address))
            _, client = await loop.create_connection(lambda: Recorder(loop), "name", 1)
            assert client.transport.get_extra_info("peername") == server.address
            await echoes(loop, client)


@own_resolver
async def test_every_address_refuses(loop, monkeypatch):
    with peers.refusing() as first, peers.refusing() as second:
        resolving(monkeypatch, (socket.AF_INET, first), (socket.AF_INET, second))
        with pytest.raises(OSError, match="Multiple exceptions") as info:
            await loop.create_connection(lambda: Recorder(loop), "name", 1)
        assert str(first[1]) in str(info.value)
        assert str(second[1]) in str(info.value)


@own_resolver
@pytest.mark.skipif(sys.version_info < (3, 12), reason="all_errors came with Python 3.12")
async def test_all_errors(loop, monkeypatch):
    with peers.refusing() as first, peers.refusing() as second:
        resolving(monkeypatch, (socket.AF_INET, first), (socket.AF_INET, second))
        with pytest.raises(ExceptionGroup) as info:
            await loop.create_connection(lambda: Recorder(loop), "name", 1, all_errors=True)
        assert [type(error) for error in info.value.exceptions] == [ConnectionRefusedError] * 2


@own_resolver
async def test_happy_eyeballs_do_not_wait_for_an_address_that_does_not_answer(loop, monkeypatch):
    async with serving(loop, lambda: Echo(loop)) as server:
        with peers.unanswering() as silent:
            resolving(monkeypatch, (socket.AF_INET, silent), (socket.AF_INET, server.address))
            start = loop.time()
            _, client = await loop.create_connection(
                lambda: Recorder(loop), "name", 1, happy_eyeballs_delay=0.02
            )
            # The first address gets its 20 ms; its retries would take minutes.
            assert 0.018 <= loop.time() - start < 5
            assert client.transport.get_extra_info("peername") == server.address
            await echoes(loop, client)


@own_resolver
async def test_a_name_that_does_not_exist(loop, monkeypatch):
    resolving(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    with pytest.raises(socket.gaierror, match="not known"):
        await loop.create_connection(lambda: Recorder(loop), "no.such.name.invalid", 1)


async def test_cancelled_while_it_connects(loop):
    with peers.unanswering() as address:
        task = loop.create_task(loop.create_connection(lambda: Recorder(loop), *address))
        await asyncio.sleep(0.005)
        await pending(loop, task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_timeout(loop):
    with peers.unanswering() as address:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await loop.create_connection(lambda: Recorder(loop), *address)


async def test_cancelled_in_any_turn(loop):
    # At whichever step the cancellation comes, either the connection is made or nothing is left of it.
    async with serving(loop, lambda: Recorder(loop)) as server:
        outcomes = set()
        for count in range(12):
            task = loop.create_task(loop.create_connection(lambda: Recorder(loop), *server.address))
            for _ in range(count):
                await asyncio.sleep(0)
            task.cancel()
            try:
                _, client = await task
            except asyncio.CancelledError:
                outcomes.add("cancelled")
            else:
                outcomes.add("connected")
                await client.close()
        await asyncio.sleep(0.01)
        assert "cancelled" in outcomes


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"host": "127.0.0.1", "port": 1, "sock": True},
        {"host": "127.0.0.1", "port": 1, "server_hostname": "name"},
        {"sock": True, "happy_eyeballs_delay": None, "local_addr": ("127.0.0.1", 0), "port": 1},
    ],
    ids=["nothing", "both", "server_hostname", "sock and port"],
)
@pytest.mark.not_on("uvloop", reason="has no happy_eyeballs_delay")
async def test_arguments_that_do_not_fit(loop, options):
    with socket.socket() as sock:
        if options.get("sock"):
            options = options | {"sock": sock}
        with pytest.raises(ValueError):
            await loop.create_connection(lambda: Recorder(loop), **options)


async def test_a_datagram_socket(loop):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        with pytest.raises(ValueError, match="Stream Socket was expected"):
            await loop.create_connection(lambda: Recorder(loop), sock=sock)


async def test_over_ipv6(loop):
    try:
        server = await loop.create_server(lambda: Echo(loop), "::1", 0)
    except OSError as error:
        pytest.skip(f"no IPv6 on this machine: {error}")
    address = server.sockets[0].getsockname()
    _, client = await loop.create_connection(lambda: Recorder(loop), address[0], address[1])
    assert client.transport.get_extra_info("peername") == address
    await echoes(loop, client)
    server.close()
    await server.wait_closed()
