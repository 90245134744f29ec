"""loop.sock_recv, sock_recv_into, sock_sendall, sock_connect and sock_accept on the program's sockets."""

import asyncio
import errno
import os
import socket
import ssl

import pytest
from support import peers
from support.loops import pending
from support.protocols import heard


async def accept(loop, listener):
    sock, _ = await loop.sock_accept(listener)
    return sock


async def receive(loop, sock, count, chunk=1 << 16):
    data = bytearray()
    while len(data) < count:
        part = await loop.sock_recv(sock, chunk)
        assert part, f"end of file after {len(data)} of {count} bytes"
        assert len(part) <= chunk
        data += part
    return data


@pytest.mark.parametrize("chunk", [1, 7, 1000, 65536, 1 << 20])
async def test_recv_what_is_there_already(loop, chunk):
    data = peers.payload(min(5000, 50 * chunk))
    with peers.tcp_pair() as (near, far):
        far.sendall(data)
        assert await receive(loop, near, len(data), chunk) == data


async def test_recv_waits_for_data(loop):
    with peers.tcp_pair() as (near, far):
        task = loop.create_task(loop.sock_recv(near, 100))
        await pending(loop, task)
        far.send(b"data")
        data = await task
        assert data == b"data"
        assert type(data) is bytes


async def test_recv_gives_no_more_than_asked_for_and_keeps_the_rest(loop):
    with peers.tcp_pair() as (near, far):
        task = loop.create_task(loop.sock_recv(near, 3))
        await pending(loop, task)
        far.send(b"abcdef")
        assert await task == b"abc"
        assert await loop.sock_recv(near, 100) == b"def"


async def test_recv_at_end_of_file(loop):
    with peers.tcp_pair() as (near, far):
        task = loop.create_task(loop.sock_recv(near, 100))
        await pending(loop, task)
        far.shutdown(socket.SHUT_WR)
        assert await task == b""
        assert await loop.sock_recv(near, 100) == b""  # and again
        assert await loop.sock_recv_into(near, bytearray(10)) == 0


async def test_recv_after_a_reset(loop):
    with peers.tcp_pair() as (near, far):
        task = loop.create_task(loop.sock_recv(near, 100))
        await pending(loop, task)
        peers.reset(far)
        with pytest.raises(ConnectionResetError):
            await task


async def test_recv_on_a_socket_that_is_not_connected(loop):
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(OSError) as info:
            await loop.sock_recv(sock, 1)
        assert info.value.errno == errno.ENOTCONN


async def test_recv_on_a_closed_socket(loop):
    sock = socket.socket()
    sock.setblocking(False)
    sock.close()
    with pytest.raises((OSError, ValueError)):
        await loop.sock_recv(sock, 1)


@pytest.mark.not_on("uvloop", reason="hangs")
async def test_recv_of_a_negative_size(loop):
    with peers.tcp_pair() as (near, _):
        with pytest.raises(ValueError, match="negative"):
            await loop.sock_recv(near, -1)


@pytest.mark.parametrize("waiting", [False, True], ids=["there", "waiting"])
@pytest.mark.parametrize(
    "make",
    [bytearray, lambda size: memoryview(bytearray(size)), lambda size: memoryview(bytearray(size + 4))[2:-2]],
    ids=["bytearray", "memoryview", "slice"],
)
async def test_recv_into(loop, make, waiting):
    with peers.tcp_pair() as (near, far):
        buffer = make(10)
        if not waiting:
            far.send(b"hello")
        task = loop.create_task(loop.sock_recv_into(near, buffer))
        if waiting:
            await pending(loop, task)
            far.send(b"hello")
        assert await task == 5
        assert bytes(buffer) == b"hello\0\0\0\0\0"
        far.send(b"0123456789more")
        assert await loop.sock_recv_into(near, buffer) == 10
        assert bytes(buffer) == b"0123456789"
        assert await loop.sock_recv(near, 10) == b"more"


async def test_recv_into_what_cannot_be_written(loop):
    with peers.tcp_pair() as (near, far):
        far.send(b"kept")
        for buffer in (b"constant", "text", 42, memoryview(b"read-only")):
            with pytest.raises((TypeError, BufferError)):
                await loop.sock_recv_into(near, buffer)
        assert await loop.sock_recv(near, 10) == b"kept"


async def test_the_buffer_of_a_pending_recv_into_cannot_be_pulled_away(loop):
    # The kernel writes into this memory when data comes: the buffer may refuse to shrink, or be empty by
    # then, but nothing may write to it after it was freed.
    with peers.tcp_pair() as (near, far):
        for _ in range(20):
            buffer = bytearray(100_000)
            task = loop.create_task(loop.sock_recv_into(near, buffer))
            await pending(loop, task)
            try:
                del buffer[:]
            except BufferError:
                pass
            others = [bytearray(100_000) for _ in range(5)]
            far.send(b"\xff" * 1000)
            count = await task
            assert bytes(buffer[:count]) == b"\xff" * min(count, len(buffer))
            assert not any(any(other) for other in others)
            if count == 0:
                assert await loop.sock_recv(near, 1000) == b"\xff" * 1000


async def test_after_recv_into_the_buffer_is_free_again(loop):
    with peers.tcp_pair() as (near, far):
        buffer = bytearray(10)
        far.send(b"x")
        await loop.sock_recv_into(near, buffer)
        buffer += b"grows"  # BufferError while the buffer is exported


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_sendall_of_eight_mebibytes_to_a_slow_reader(loop, kind):
    data = peers.payload(8 << 20)
    with peers.tcp_pair(buffer=65536) as (near, far):
        task = loop.create_task(loop.sock_sendall(near, kind(data)))
        await pending(loop, task)
        received = await heard(loop, far, len(data))
        assert await task is None
        assert peers.digest(received) == peers.digest(data)


@pytest.mark.parametrize("data", [b"", bytearray(), b"x", memoryview(b"xyz")[1:2]])
async def test_sendall_of_little(loop, data):
    with peers.tcp_pair() as (near, far):
        assert await loop.sock_sendall(near, data) is None
        near.close()
        assert peers.receive_all(far) == bytes(data)


async def test_sendall_keeps_the_order_of_its_calls(loop):
    with peers.tcp_pair(buffer=65536) as (near, far):
        expected = b"".join(b"%6d" % number for number in range(50_000))

        async def send():
            for number in range(0, len(expected), 6000):
                await loop.sock_sendall(near, expected[number : number + 6000])

        received, _ = await asyncio.gather(receive(loop, far, len(expected)), send())
        assert received == expected


@pytest.mark.not_on("uvloop", reason="takes a None for no data")
async def test_sendall_of_what_is_no_data(loop):
    with peers.tcp_pair() as (near, far):
        for data in ("text", 42, None):
            with pytest.raises(TypeError):
                await loop.sock_sendall(near, data)
        near.close()
        assert peers.receive_all(far) == b""


async def test_sendall_to_a_peer_that_has_gone(loop):
    with peers.tcp_pair(buffer=65536) as (near, far):
        task = loop.create_task(loop.sock_sendall(near, bytes(8 << 20)))
        await pending(loop, task)
        peers.reset(far)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await task
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await loop.sock_sendall(near, b"more")


async def test_both_directions_at_once(loop):
    data = peers.payload(1 << 20)
    with peers.tcp_pair(buffer=65536) as (near, far):
        there, back, _, _ = await asyncio.gather(
            receive(loop, far, len(data)),
            receive(loop, near, len(data)),
            loop.sock_sendall(near, data),
            loop.sock_sendall(far, data[::-1]),
        )
        assert there == data
        assert back == data[::-1]


async def test_connect_and_accept(loop):
    with peers.listening() as listener, socket.socket() as client:
        client.setblocking(False)
        task = loop.create_task(loop.sock_accept(listener))
        await pending(loop, task)
        assert await loop.sock_connect(client, listener.getsockname()) is None
        server, address = await task
        with server:
            assert isinstance(server, socket.socket)
            assert address == client.getsockname()
            assert server.getpeername() == client.getsockname()
            assert server.gettimeout() == 0
            assert not os.get_inheritable(server.fileno())
            await loop.sock_sendall(client, b"hello")
            assert await loop.sock_recv(server, 10) == b"hello"


@pytest.mark.not_on("uvloop", reason="connects in a later turn")
async def test_a_connect_is_on_its_way_when_its_task_has_begun(loop):
    with peers.listening(blocking=True) as listener, socket.socket() as client:
        client.setblocking(False)
        listener.settimeout(peers.PATIENCE)
        task = loop.create_task(loop.sock_connect(client, listener.getsockname()))
        await asyncio.sleep(0)
        # The loop makes no turn meanwhile.
        server, address = listener.accept()
        with server:
            await task
            assert address == client.getsockname()


async def test_accept_what_waits_already(loop):
    with peers.listening() as listener:
        clients = [socket.create_connection(listener.getsockname()) for _ in range(20)]
        for client in clients:
            server, address = await loop.sock_accept(listener)
            assert address == client.getsockname()
            server.close()
            client.close()


async def test_several_accepts_wait_for_several_connections(loop):
    # One after the other, because asyncio has room for one waiter per socket.
    with peers.listening() as listener:
        for _ in range(20):
            task = loop.create_task(accept(loop, listener))
            await asyncio.sleep(0)
            with socket.socket() as client:
                client.setblocking(False)
                await loop.sock_connect(client, listener.getsockname())
                (await task).close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_connect_resolves_names(loop, host):
    with peers.listening() as listener, socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, (host, listener.getsockname()[1]))
        assert client.getpeername() == listener.getsockname()


async def test_connect_over_ipv6(loop):
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 on this machine: {error}")
    with listener, socket.socket(socket.AF_INET6) as client:
        listener.setblocking(False)
        client.setblocking(False)
        await loop.sock_connect(client, listener.getsockname())
        server, address = await loop.sock_accept(listener)
        with server:
            assert address == client.getsockname()
            assert len(address) == 4


async def test_connect_and_accept_on_a_unix_socket(loop, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        client.setblocking(False)
        await loop.sock_connect(client, path)
        server, _ = await loop.sock_accept(listener)
        with server:
            await loop.sock_sendall(server, b"unix")
            assert await loop.sock_recv(client, 10) == b"unix"


async def test_connect_to_a_unix_socket_that_does_not_exist(loop, tmp_path):
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        with pytest.raises(FileNotFoundError):
            await loop.sock_connect(client, str(tmp_path / "missing"))


async def test_connect_refused(loop):
    with peers.refusing() as address, socket.socket() as client:
        client.setblocking(False)
        with pytest.raises(ConnectionRefusedError):
            await loop.sock_connect(client, address)


async def test_connect_a_socket_that_is_connected(loop):
    # Connected by a blocking call: after a non-blocking one Linux lets the first further connect() pass.
    with peers.listening() as listener, socket.create_connection(listener.getsockname()) as client:
        client.setblocking(False)
        with pytest.raises(OSError) as info:
            await loop.sock_connect(client, listener.getsockname())
        assert info.value.errno == errno.EISCONN


async def test_accept_on_a_socket_that_does_not_listen(loop):
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(OSError) as info:
            await loop.sock_accept(sock)
        assert info.value.errno == errno.EINVAL


def calls(loop, sock, address):
    """Every sock_ method with valid arguments."""
    return {
        "sock_recv": lambda: loop.sock_recv(sock, 1),
        "sock_recv_into": lambda: loop.sock_recv_into(sock, bytearray(1)),
        "sock_sendall": lambda: loop.sock_sendall(sock, b"x"),
        "sock_connect": lambda: loop.sock_connect(sock, address),
        "sock_accept": lambda: loop.sock_accept(sock),
    }


METHODS = ["sock_recv", "sock_recv_into", "sock_sendall", "sock_connect", "sock_accept"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.not_on("uvloop", reason="refuses them in debug mode only")
async def test_tls_sockets_are_refused(loop, method):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with context.wrap_socket(socket.socket(), server_hostname="host", do_handshake_on_connect=False) as sock:
        sock.setblocking(False)
        with pytest.raises(TypeError, match="SSLSocket"):
            await calls(loop, sock, ("127.0.0.1", 1))[method]()


WAYS = {
    "create_task": lambda loop, awaitable: loop.create_task(awaitable),
    "ensure_future": lambda loop, awaitable: asyncio.ensure_future(awaitable, loop=loop),
    "gather": lambda loop, awaitable: asyncio.gather(awaitable),
    "wait_for": lambda loop, awaitable: asyncio.wait_for(awaitable, 10),
    "shield": lambda loop, awaitable: asyncio.shield(awaitable),
    "await": lambda loop, awaitable: awaitable,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_what_they_return_works_wherever_a_coroutine_does(loop, way):
    with peers.listening() as listener, socket.socket() as client:
        client.setblocking(False)
        await way(loop, loop.sock_connect(client, listener.getsockname()))
        accepted = await way(loop, loop.sock_accept(listener))
        server, _ = accepted[0] if way is WAYS["gather"] else accepted
        with server:
            await way(loop, loop.sock_sendall(client, b"abcd"))
            assert await way(loop, loop.sock_recv(server, 2)) in (b"ab", [b"ab"])
            assert await way(loop, loop.sock_recv_into(server, bytearray(2))) in (2, [2])


async def test_run_coroutine_threadsafe_takes_one(loop):
    with peers.tcp_pair() as (near, far):
        far.send(b"x")
        assert (
            await loop.run_in_executor(
                None, lambda: asyncio.run_coroutine_threadsafe(loop.sock_recv(near, 1), loop).result(10)
            )
            == b"x"
        )


def test_run_until_complete_takes_one(loop):
    with peers.tcp_pair() as (near, far):
        far.send(b"x")
        assert loop.run_until_complete(loop.sock_recv(near, 1)) == b"x"


@pytest.mark.parametrize("kind", ["detached from a task", "from a callback"])
async def test_many_sockets_at_once(loop, kind):
    count = 100
    pairs = [socket.socketpair() for _ in range(count)]
    try:
        for near, far in pairs:
            near.setblocking(False)
            far.setblocking(False)
        if kind == "from a callback":
            tasks = []
            loop.call_soon(
                lambda: tasks.extend(loop.create_task(loop.sock_recv(near, 10)) for near, _ in pairs)
            )
            await asyncio.sleep(0)
        else:
            tasks = [loop.create_task(loop.sock_recv(near, 10)) for near, _ in pairs]
        await pending(loop, tasks[-1], ops=count)
        for number, (_, far) in enumerate(pairs):
            far.send(b"%d" % number)
        assert await asyncio.gather(*tasks) == [b"%d" % number for number in range(count)]
    finally:
        for sock in sum(pairs, ()):
            sock.close()


async def test_the_socket_of_a_transport_is_the_transport_s(loop):
    from support.protocols import Recorder, connected

    async with connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (client, _):
        sock = socket.socket(fileno=client.transport.get_extra_info("socket").fileno())
        try:
            for method in ("sock_recv", "sock_recv_into"):
                with pytest.raises(RuntimeError, match="is used by transport"):
                    await calls(loop, sock, None)[method]()
        finally:
            sock.detach()


async def test_a_future_that_somebody_holds_is_not_used_again(loop):
    with peers.pair() as (near, far):
        held = []
        for number in range(5):
            task = loop.create_task(loop.sock_recv(near, 10))
            await asyncio.sleep(0)
            held.append(task._fut_waiter)
            far.send(b"x")
            assert await task == b"x"
            assert len({id(future) for future in held}) == number + 1
        assert all(future.done() and future.result() is None for future in held)
