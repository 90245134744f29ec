"""A cancelled sock_ operation has taken and sent nothing: the next operation gets the bytes, in order."""

import asyncio
import contextlib
import socket

import pytest
from support import loops, peers
from support.loops import pending
from support.protocols import Recorder

STREAM = {
    "recv": lambda loop, sock: loop.sock_recv(sock, 100),
    "recv_of_little": lambda loop, sock: loop.sock_recv(sock, 2),
    "recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(100)),
}
DATAGRAM = {
    "recv": lambda loop, sock: loop.sock_recv(sock, 100),
    "recvfrom": lambda loop, sock: loop.sock_recvfrom(sock, 100),
    "recvfrom_into": lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(100)),
}
RECEIVES = [(socket.SOCK_STREAM, name) for name in STREAM] + [(socket.SOCK_DGRAM, name) for name in DATAGRAM]
each_receive = pytest.mark.parametrize(
    ("kind", "method"),
    RECEIVES,
    ids=[f"{'stream' if kind == socket.SOCK_STREAM else 'datagram'}-{name}" for kind, name in RECEIVES],
)


def start(loop, kind, method, sock):
    return (STREAM if kind == socket.SOCK_STREAM else DATAGRAM)[method](loop, sock)


@contextlib.contextmanager
def pair(kind=socket.SOCK_STREAM):
    near, far = socket.socketpair(socket.AF_UNIX, kind)
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


async def within(awaitable):
    async with asyncio.timeout(peers.PATIENCE):
        return await awaitable


@each_receive
async def test_a_timeout_of_nothing(loop, kind, method):
    with pair(kind) as (near, far):
        far.send(b"hello")
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(start(loop, kind, method, near), 0)
        assert near.recv(100) == b"hello"


@each_receive
@pytest.mark.not_on("asyncio", "uvloop", reason="a receive that finds something is done in its first step")
@pytest.mark.parametrize("turns", [0, 1])
async def test_what_is_there_stays(loop, kind, method, turns):
    with pair(kind) as (near, far):

        async def receive():
            return await asyncio.wait_for(start(loop, kind, method, near), 5)

        far.send(b"0123456789")
        for _ in range(3):
            task = loop.create_task(receive())
            await loops.turns(turns)
            assert task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        assert near.recv(100) == b"0123456789"


@each_receive
async def test_what_comes_with_the_cancellation_stays(loop, kind, method):
    # The program's own recv gets the bytes too: asyncio has taken nothing from the socket.
    with pair(kind) as (near, far):
        for _ in range(20):
            task = loop.create_task(start(loop, kind, method, near))
            await pending(loop, task)
            far.send(b"hello")
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert near.recv(100) == b"hello"


@each_receive
@pytest.mark.not_on("asyncio", "uvloop", reason="loses what has arrived in the turn of the cancellation")
async def test_what_came_in_the_turn_of_the_cancellation_stays(loop, kind, method):
    with pair(kind) as (near, far):
        for _ in range(20):
            task = loop.create_task(start(loop, kind, method, near))
            await pending(loop, task)
            far.send(b"hello")
            loop.call_soon(loop.call_soon, task.cancel)
            await asyncio.wait([task])
            if task.cancelled():
                assert near.recv(100) == b"hello"
            else:
                while True:
                    with contextlib.suppress(BlockingIOError):
                        near.recv(100)
                        continue
                    break


@each_receive
async def test_the_next_receive_begins_in_the_turn_of_the_cancel(loop, kind, method):
    with pair(kind) as (near, far):
        for number in range(20):
            first = loop.create_task(start(loop, kind, method, near))
            await pending(loop, first)
            far.send(b"1%d" % number)
            first.cancel()
            second = loop.create_task(loop.sock_recv(near, 100))
            assert await within(second) == b"1%d" % number
            assert first.cancelled()


async def test_several_are_cancelled_before_one_that_stays(loop):
    with pair() as (near, far):
        tasks = [loop.create_task(loop.sock_recv(near, 3)) for _ in range(3)]
        await pending(loop, tasks[0])
        for task in tasks:
            task.cancel()
        last = loop.create_task(loop.sock_recv(near, 3))
        far.send(b"abcdef")
        assert await within(last) == b"abc"
        assert await within(loop.sock_recv(near, 3)) == b"def"
        assert all(task.cancelled() for task in tasks)


@pytest.mark.not_on("asyncio", "uvloop", reason="the second receive ends the first")
@pytest.mark.parametrize("cancelled", [(), (0,), (1,), (0, 1), (2,)], ids=str)
async def test_receives_of_one_socket_go_in_their_order(loop, cancelled):
    with pair() as (near, far):
        tasks = [loop.create_task(loop.sock_recv(near, 1)) for _ in range(4)]
        await pending(loop, tasks[0])
        for number in cancelled:
            tasks[number].cancel()
        far.send(b"abcd")
        left = [task for number, task in enumerate(tasks) if number not in cancelled]
        got = [await within(task) for task in left]
        assert got == [b"a", b"b", b"c", b"d"][: len(left)]
        assert await within(loop.sock_recv(near, 10)) == b"abcd"[len(left) :] if cancelled else True


async def test_a_transport_made_of_the_socket_has_it(loop):
    near, far = socket.socketpair()
    near.setblocking(False)
    with far:
        for turns in (0, 1, 2):
            task = loop.create_task(loop.sock_recv(near, 10))
            await loops.turns(turns)
            if turns == 2:
                far.send(b"fir")
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        far.send(b"st")
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=near)
        far.send(b", second")
        assert await within(protocol.received(13)) == b"first, second"
        transport.close()
        await protocol.lost


async def test_an_accept_takes_no_connection(loop):
    with peers.listening() as listener:
        for turns in (0, 1, 2, 3):
            task = loop.create_task(loop.sock_accept(listener))
            await loops.turns(turns)
            client = socket.create_connection(listener.getsockname())
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            with client:
                server, address = listener.accept()
                server.close()
                assert address == client.getsockname()


@pytest.mark.parametrize("method", ["sock_sendall", "sock_sendto"])
async def test_a_send_that_has_not_begun_sends_nothing(loop, method):
    kind = socket.SOCK_DGRAM if method == "sock_sendto" else socket.SOCK_STREAM
    with pair(kind) as (near, far):

        def begin():
            if method == "sock_sendall":
                return loop.sock_sendall(near, b"no")
            far.bind("")  # to an address that the kernel chooses
            return loop.sock_sendto(near, b"no", far.getsockname())

        task = loop.create_task(begin())
        task.cancel()
        await asyncio.wait([task])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(begin(), 0)
        with pytest.raises(BlockingIOError):
            far.recv(10)


async def test_a_cancelled_sendall_says_nothing_more(loop):
    # The cancelled bytes must not leave after the next send, nor from a buffer that its owner has back.
    with peers.tcp_pair(buffer=65536) as (near, far):
        data = bytearray(b"a" * (8 << 20))
        task = loop.create_task(loop.sock_sendall(near, data))
        await pending(loop, task)
        task.cancel()
        tail = loop.create_task(loop.sock_sendall(near, b"tail"))
        await asyncio.wait([task])
        del data[:]
        reading = loop.run_in_executor(None, peers.receive_all, far)
        await within(tail)
        near.shutdown(socket.SHUT_WR)
        received = await reading
        assert received.endswith(b"atail")
        assert received.count(b"a") == len(received) - 3


async def test_a_connect_is_tried_again(loop):
    with peers.listening() as server, socket.socket() as client:
        client.setblocking(False)
        task = loop.create_task(loop.sock_connect(client, server.getsockname()))
        await loops.turns(1)
        task.cancel()
        await asyncio.wait([task])
        await within(loop.sock_connect(client, server.getsockname()))
        assert client.getpeername() == server.getsockname()


@pytest.mark.parametrize("method", list(STREAM))
async def test_the_peer_sees_that_the_cancelled_task_closed_the_socket(loop, method):
    near, far = socket.socketpair()
    near.setblocking(False)
    far.settimeout(peers.PATIENCE)
    seen = []

    async def receive():
        try:
            await STREAM[method](loop, near)
        finally:
            near.close()
            # In the same step, without a turn of the loop.
            seen.append(far.recv(10))

    with far:
        task = loop.create_task(receive())
        await pending(loop, task)
        task.cancel()
        await asyncio.wait([task])
    assert seen == [b""]


class Numbered:
    """An object that claims to be a socket, with a number that no file has."""

    family = socket.AF_INET

    def fileno(self):
        return 1 << 30

    def gettimeout(self):
        return 0


@pytest.mark.not_on("asyncio", "uvloop", reason="call the socket's own methods")
async def test_a_number_that_is_no_file(loop):
    # A table by fd numbers must not grow to that size.
    sock = Numbered()
    for begin in (
        lambda: loop.sock_recv(sock, 1),
        lambda: loop.sock_recv_into(sock, bytearray(1)),
        lambda: loop.sock_sendall(sock, b"data"),
        lambda: loop._sock_when_readable(sock, print),
    ):
        with pytest.raises(OSError, match="Bad file descriptor"):
            await begin()
    for watch in (loop.add_reader, loop.add_writer):
        for file in (sock, sock.fileno()):
            with pytest.raises(OSError, match="Bad file descriptor"):
                watch(file, print)
    assert not loop.remove_reader(sock)
