"""Servers: starting, serving, closing, and running out of resources."""

import asyncio
import errno
import socket
import sys
import time

import pytest
from support import children, loops, peers
from support.protocols import Echo, Recorder, heard, serving


async def start(loop, **options):
    return await loop.create_server(lambda: Echo(loop), peers.LOOPBACK, 0, **options)


async def stop(server):
    server.close()
    await server.wait_closed()


@pytest.mark.not_on("uvloop", reason="sockets are views of its own")
async def test_what_a_server_tells_of_itself(loop):
    server = await start(loop)
    assert isinstance(server, asyncio.AbstractServer)
    assert server.is_serving()
    assert server.get_loop() is loop
    (sock,) = server.sockets
    host, port = sock.getsockname()
    assert host == "127.0.0.1"
    assert port > 0
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    await stop(server)
    assert not server.is_serving()
    assert list(server.sockets) == []


async def test_after_close_connections_are_refused(loop):
    server = await start(loop)
    address = server.sockets[0].getsockname()
    with socket.create_connection(address):
        pass
    await stop(server)
    with socket.socket() as sock:
        assert sock.connect_ex(address) == errno.ECONNREFUSED
    # The port is free again.
    again = await loop.create_server(lambda: Echo(loop), *address)
    await stop(again)


async def test_live_connections_survive_their_server(loop):
    async with serving(loop, lambda: Echo(loop)) as server:
        _, client = await loop.create_connection(lambda: Recorder(loop), *server.address)
        await server.accepted()
        server.server.close()
        client.transport.write(b"still here")
        assert await client.received(10) == b"still here"
        closed = loop.create_task(server.server.wait_closed())
        await loops.turns()
        if sys.version_info >= (3, 12, 1):
            assert not closed.done(), "wait_closed waits for the connections"
        await client.close()
        await closed


async def test_closing_twice(loop):
    server = await start(loop)
    server.close()
    server.close()
    await server.wait_closed()
    await server.wait_closed()


async def test_closing_with_connections_waiting_to_be_accepted(loop):
    server = await start(loop)
    address = server.sockets[0].getsockname()
    socks = [socket.create_connection(address) for _ in range(20)]
    server.close()
    await server.wait_closed()
    # No client hangs: a connection accepted in the last moment is closed or served, the others are reset.
    await asyncio.sleep(0.01)
    for sock in socks:
        sock.close()
    await asyncio.sleep(0.01)


async def test_a_server_that_starts_later(loop):
    server = await start(loop, start_serving=False)
    assert not server.is_serving()
    address = server.sockets[0].getsockname()
    with socket.socket() as sock:
        # Bound and not listening.
        assert sock.connect_ex(address) == errno.ECONNREFUSED
    await server.start_serving()
    await server.start_serving()
    assert server.is_serving()
    _, client = await loop.create_connection(lambda: Recorder(loop), *address)
    client.transport.write(b"x")
    await client.received(1)
    await client.close()
    await stop(server)


async def test_serve_forever_serves_until_it_is_cancelled(loop):
    server = await start(loop, start_serving=False)
    address = server.sockets[0].getsockname()
    task = loop.create_task(server.serve_forever())
    await loops.turns(5)
    assert server.is_serving()
    _, client = await loop.create_connection(lambda: Recorder(loop), *address)
    client.transport.write(b"x")
    await client.received(1)
    with pytest.raises(RuntimeError, match="is already being awaited"):
        await server.serve_forever()
    await client.close()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not server.is_serving()
    with socket.socket() as sock:
        assert sock.connect_ex(address) == errno.ECONNREFUSED
    with pytest.raises(RuntimeError, match="is closed"):
        await server.serve_forever()


async def test_a_server_as_a_context_manager(loop):
    async with await start(loop) as server:
        address = server.sockets[0].getsockname()
        assert server.is_serving()
    assert not server.is_serving()
    with socket.socket() as sock:
        assert sock.connect_ex(address) == errno.ECONNREFUSED


async def test_several_addresses(loop):
    server = await loop.create_server(lambda: Echo(loop), ["127.0.0.1", "127.0.0.2"], 0)
    addresses = [sock.getsockname() for sock in server.sockets]
    assert sorted(host for host, _ in addresses) == ["127.0.0.1", "127.0.0.2"]
    for address in addresses:
        _, client = await loop.create_connection(lambda: Recorder(loop), *address)
        client.transport.write(address[0].encode())
        assert await client.received(9) == address[0].encode()
        await client.close()
    await stop(server)


async def test_all_interfaces(loop):
    with socket.socket() as sock:
        sock.bind(("", 0))
        port = sock.getsockname()[1]
    server = await loop.create_server(lambda: Echo(loop), None, port)
    assert socket.AF_INET in {sock.family for sock in server.sockets}
    _, client = await loop.create_connection(lambda: Recorder(loop), "127.0.0.1", port)
    await client.close()
    await stop(server)


async def test_a_socket_of_ones_own(loop):
    sock = socket.create_server((peers.LOOPBACK, 0))
    address = sock.getsockname()
    server = await loop.create_server(lambda: Echo(loop), sock=sock)
    _, client = await loop.create_connection(lambda: Recorder(loop), *address)
    client.transport.write(b"x")
    await client.received(1)
    await client.close()
    await stop(server)
    assert sock.fileno() == -1, "the server owns its socket, and closes it"


async def test_two_servers_on_one_port(loop):
    first = await start(loop, reuse_port=True)
    address = first.sockets[0].getsockname()
    second = await loop.create_server(lambda: Echo(loop), *address, reuse_port=True)
    for _ in range(10):
        _, client = await loop.create_connection(lambda: Recorder(loop), *address)
        client.transport.write(b"x")
        await client.received(1)
        await client.close()
    await stop(first)
    await stop(second)


async def test_a_port_in_use(loop):
    server = await start(loop)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(OSError, match=f"{port}.*address already in use") as info:
        await loop.create_server(lambda: Echo(loop), peers.LOOPBACK, port)
    assert info.value.errno == errno.EADDRINUSE
    await stop(server)


async def test_an_address_that_is_not_ours(loop):
    with pytest.raises(OSError, match=r"192\.0\.2\.1") as info:
        await loop.create_server(lambda: Echo(loop), "192.0.2.1", 0)
    # asyncio of 3.13 skips such an address, and then has bound none.
    assert info.value.errno == (None if sys.version_info >= (3, 13) else errno.EADDRNOTAVAIL)


async def test_arguments_that_do_not_fit(loop):
    with pytest.raises(ValueError, match="Neither host/port nor sock"):
        await loop.create_server(lambda: Echo(loop))
    with socket.socket() as sock:
        with pytest.raises(ValueError, match="at the same time"):
            await loop.create_server(lambda: Echo(loop), "127.0.0.1", 0, sock=sock)


async def test_a_datagram_socket_is_no_server_s(loop):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        with pytest.raises(ValueError, match="Stream Socket was expected"):
            await loop.create_server(lambda: Echo(loop), sock=sock)


async def test_all_that_waits_is_accepted(loop):
    # More connections at once than one accept, or one batch of completions, brings.
    async with serving(loop, lambda: Echo(loop)) as server:
        socks = [socket.create_connection(server.address) for _ in range(90)]
        for number, sock in enumerate(socks):
            sock.sendall(b"%02d" % number)
        for index in range(90):
            await (await server.accepted(index)).received(2)
        for number, sock in enumerate(socks):
            assert await heard(loop, sock, 2) == b"%02d" % number
            sock.close()


async def test_connections_that_are_gone_before_they_are_accepted(loop):
    async with serving(loop, lambda: Echo(loop)) as server:
        for _ in range(5):
            for _ in range(20):
                peers.reset(socket.create_connection(server.address))
            await asyncio.sleep(0.002)
        _, client = await loop.create_connection(lambda: Recorder(loop), *server.address)
        client.transport.write(b"alive")
        assert await client.received(5) == b"alive"
        await client.close()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="came with Python 3.13")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
async def test_a_server_can_end_its_connections(loop, method):
    async with serving(loop, lambda: Recorder(loop)) as server:
        _, client = await loop.create_connection(lambda: Recorder(loop), *server.address)
        protocol = await server.accepted()
        server.server.close()
        getattr(server.server, method)()
        assert await protocol.lost is None
        await client.lost
        await server.server.wait_closed()


@pytest.mark.not_on("uvloop", reason="does not report it")
def test_without_file_descriptors_it_neither_spins_nor_dies(engine):
    with children.program("out_of_fds.py", engine=engine) as child:
        port = int(children.line(child))
        socks = [socket.create_connection((peers.LOOPBACK, port)) for _ in range(40)]
        try:
            assert children.line(child) == "out of fds"
            start = time.monotonic()
            # The child measures a second and a half of its own CPU time while it can't accept.
            busy, reports = children.line(child).split()
            assert float(busy) < 0.45, "it spins"
            # A line a second, not one a turn (asyncio before 3.13 writes a backlog's worth at once).
            assert 2 <= int(reports) <= (10_000 if loops.REFERENCE else 5)
        finally:
            for sock in socks:
                sock.close()
        # Now there are fds again, so it serves.
        with socket.create_connection((peers.LOOPBACK, port), timeout=10) as sock:
            sock.sendall(b"recovered")
            assert peers.receive(sock, 9) == b"recovered"
        assert time.monotonic() - start < 5
        child.stdin.close()
        assert child.stdout.read().strip() == "closed"
        assert child.wait(10) == 0
        assert "Traceback" not in child.stderr.read()


@pytest.mark.not_on("uvloop", reason="does not report it")
def test_everybody_is_served_each_time_that_there_are_fds_again(engine):
    with children.program("out_of_fds_again.py", engine=engine) as child:
        port = int(children.line(child))

        def say(line):
            child.stdin.write(line)
            child.stdin.flush()

        for _ in range(2):
            say("again\n")
            assert children.line(child) == "few"
            socks = [socket.create_connection((peers.LOOPBACK, port)) for _ in range(20)]
            for number, sock in enumerate(socks):
                sock.sendall(b"%02d" % number)
            assert children.line(child) == "out"
            for number, sock in enumerate(socks):
                with sock:
                    assert peers.receive(sock, 2) == b"%02d" % number
        say("end\n")
        assert child.wait(10) == 0
