"""Unix stream sockets: servers, clients and the program's own sockets, by path and by abstract name."""

import asyncio
import errno
import os
import pathlib
import socket
import ssl
import sys

import pytest
from support import loops, peers
from support.loops import pending
from support.protocols import Echo, Recorder, heard


@pytest.fixture(params=["str", "bytes", "path", "abstract"])
def address(request, tmp_path):
    path = tmp_path / "socket"
    names = {"str": str(path), "bytes": os.fsencode(path), "path": path}
    return names.get(request.param, f"\0proact-{os.getpid()}-{request.node.name}")


async def stop(server):
    server.close()
    await server.wait_closed()


async def test_a_server_and_a_client(loop, address):
    servers = []

    def factory():
        servers.append(Echo(loop))
        return servers[-1]

    server = await loop.create_unix_server(factory, address)
    shown = server.sockets[0].getsockname()
    _, client = await loop.create_unix_connection(lambda: Recorder(loop), address)
    data = peers.payload(300_000)
    client.transport.write(data)
    assert await client.received(len(data)) == data
    assert client.transport.get_extra_info("peername") == shown
    assert client.transport.get_extra_info("sockname") == ""
    assert client.transport.get_extra_info("socket").family == socket.AF_UNIX
    assert servers[0].transport.get_extra_info("peername") == ""
    assert servers[0].transport.get_extra_info("sockname") == shown
    client.transport.write_eof()
    await client.lost
    await servers[0].lost
    for protocol in (client, *servers):
        assert protocol.calls[0] == "connection_made"
        assert protocol.calls[-2:] == ["eof_received", "connection_lost"]
    await stop(server)


async def test_streams(loop, tmp_path):
    async def serve(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "socket"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        writer.write(b"one\ntwo\n")
        assert await reader.readline() == b"ONE\n"
        writer.write_eof()
        assert await reader.read() == b"TWO\n"
        writer.close()
        await writer.wait_closed()


async def test_sockets_of_one_s_own(loop, tmp_path):
    path = str(tmp_path / "socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    server = await loop.create_unix_server(lambda: Echo(loop), sock=listener)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    _, client = await loop.create_unix_connection(lambda: Recorder(loop), sock=sock)
    client.transport.write(b"hello")
    assert await client.received(5) == b"hello"
    await client.close()
    await stop(server)


async def test_half_of_a_socketpair(loop):
    near, far = socket.socketpair()
    with far:
        _, client = await loop.create_unix_connection(lambda: Recorder(loop), sock=near)
        far.send(b"hello")
        assert await client.received(5) == b"hello"
        client.transport.write(b"back")
        assert await heard(loop, far, 4) == b"back"
        await client.close()


async def test_an_accepted_socket(loop, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as far:
        listener.bind(path)
        listener.listen()
        far.connect(path)
        accepted, _ = listener.accept()
        _, near = await loop.connect_accepted_socket(lambda: Echo(loop), accepted)
        far.send(b"hello")
        assert await heard(loop, far, 5) == b"hello"
        assert near.transport.get_extra_info("sockname") == path
        await near.close()


async def test_start_serving_later(loop, tmp_path):
    path = str(tmp_path / "socket")
    server = await loop.create_unix_server(lambda: Echo(loop), path, start_serving=False)
    assert not server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await loop.create_unix_connection(lambda: Recorder(loop), path)
    await server.start_serving()
    _, client = await loop.create_unix_connection(lambda: Recorder(loop), path)
    await client.close()
    await stop(server)


async def test_a_stale_path_is_replaced_and_a_live_file_is_not(loop, tmp_path):
    stale, file = tmp_path / "stale", tmp_path / "file"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    server = await loop.create_unix_server(lambda: Echo(loop), stale)
    _, client = await loop.create_unix_connection(lambda: Recorder(loop), stale)
    await client.close()
    await stop(server)
    file.write_text("mine")
    with pytest.raises(OSError, match="is already in use") as info:
        await loop.create_unix_server(lambda: Echo(loop), file)
    assert info.value.errno == errno.EADDRINUSE
    assert file.read_text() == "mine"


@pytest.mark.not_on("uvloop", reason="removes none")
async def test_whether_the_path_goes_with_the_server(loop, tmp_path):
    goes, stays, moved = tmp_path / "goes", tmp_path / "stays", tmp_path / "moved"
    new = sys.version_info >= (3, 13)
    first = await loop.create_unix_server(lambda: Echo(loop), goes)
    second = await loop.create_unix_server(
        lambda: Echo(loop), stays, **({"cleanup_socket": False} if new else {})
    )
    third = await loop.create_unix_server(lambda: Echo(loop), moved)
    moved.unlink()
    moved.write_text("another's")
    for server in (first, second, third):
        await stop(server)
    assert goes.exists() is not new
    assert stays.exists()
    assert moved.read_text() == "another's"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("missing", FileNotFoundError), ("nobody", ConnectionRefusedError), ("x" * 200, OSError)],
)
async def test_what_can_not_be_connected_to(loop, tmp_path, path, kind):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "nobody"))
        with pytest.raises(kind) as info:
            await loop.create_unix_connection(lambda: Recorder(loop), str(tmp_path / path))
        if info.value.errno:
            assert info.value.strerror == os.strerror(info.value.errno)
        else:
            assert "path too long" in str(info.value)


async def test_wrong_arguments(loop, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        for create in (loop.create_unix_connection, loop.create_unix_server):
            with pytest.raises(ValueError, match="no"):
                await create(lambda: Recorder(loop))
            with pytest.raises(ValueError, match="UNIX Domain Stream Socket was expected"):
                await create(lambda: Recorder(loop), sock=tcp)
            with pytest.raises(ValueError, match="can not be specified at the same time"):
                await create(lambda: Recorder(loop), path, sock=unix)
    with pytest.raises(TypeError, match="SSLContext or None"):
        await loop.create_unix_server(lambda: Echo(loop), path, ssl=True)
    with pytest.raises(ValueError, match="server_hostname"):
        await loop.create_unix_connection(lambda: Recorder(loop), path, ssl=ssl.create_default_context())


async def test_sock_connect_and_sock_accept(loop, address):
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(os.fspath(address))
        listener.listen()
        listener.setblocking(False)
        client.setblocking(False)
        accepting = loop.create_task(loop.sock_accept(listener))
        await pending(loop, accepting)
        await loop.sock_connect(client, os.fspath(address))
        server, peername = await accepting
        with server:
            assert peername == ""
            assert server.getblocking() is False
            receiving = loop.create_task(loop.sock_recv(server, 100))
            await pending(loop, receiving)
            await loop.sock_sendall(client, b"hello")
            assert await receiving == b"hello"


@pytest.mark.not_on("asyncio", "uvloop", reason="connected, it says, when it is not")
async def test_sock_connect_waits_for_room_in_the_backlog(loop, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        first, second, third = (socket.socket(socket.AF_UNIX) for _ in range(3))
        with first, second, third:
            for sock in (first, second, third):
                sock.setblocking(False)
            await loop.sock_connect(first, path)
            waiting = loop.create_task(loop.sock_connect(second, path))
            cancelled = loop.create_task(loop.sock_connect(third, path))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            cancelled.cancel()
            await asyncio.wait([cancelled])
            listener.accept()[0].close()
            await waiting
            assert second.getpeername() == path
            listener.accept()[0].close()


async def test_nodelay_is_not_tried(loop, tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(socket.socket, "setsockopt", lambda *args: tried.append(args))
    server = await loop.create_unix_server(lambda: Echo(loop), tmp_path / "socket")
    _, client = await loop.create_unix_connection(lambda: Recorder(loop), pathlib.Path(tmp_path / "socket"))
    await client.close()
    await loops.turns()
    await stop(server)
    assert tried == []
