"""loop.sock_recvfrom, sock_recvfrom_into and sock_sendto on the program's sockets."""

import asyncio
import contextlib
import socket

import pytest
from support import loops, peers
from support.loops import pending

pytestmark = pytest.mark.not_on("uvloop", reason="has none of them")


@contextlib.contextmanager
def datagrams(family=socket.AF_INET, host=peers.LOOPBACK):
    """Two sockets, bound and not connected, non-blocking."""
    near, far = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
    with near, far:
        for sock in (near, far):
            sock.setblocking(False)
            sock.bind((host, 0))
        yield near, far


@contextlib.contextmanager
def full(tmp_path):
    """A Unix socket whose receiver's queue is full: (the socket, the receiver, the number of queued
    datagrams).
    """
    near, far = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    with near, far:
        far.bind(str(tmp_path / "far"))
        near.setblocking(False)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                near.sendto(b"filling", far.getsockname())
                count += 1
        yield near, far, count


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
@pytest.mark.parametrize("waiting", [False, True], ids=["there", "waiting"])
async def test_recvfrom(loop, family, host, waiting):
    with datagrams(family, host) as (near, far):
        if not waiting:
            far.sendto(b"data", near.getsockname())
        task = loop.create_task(loop.sock_recvfrom(near, 100))
        if waiting:
            await pending(loop, task)
            far.sendto(b"data", near.getsockname())
        assert await task == (b"data", far.getsockname())


async def test_recvfrom_takes_one_at_a_time_and_what_fits(loop):
    with datagrams() as (near, far):
        for data in (b"first", b"", b"third"):
            far.sendto(data, near.getsockname())
        assert (await loop.sock_recvfrom(near, 2))[0] == b"fi"
        assert (await loop.sock_recvfrom(near, 100))[0] == b""
        assert (await loop.sock_recvfrom(near, 100))[0] == b"third"


@pytest.mark.parametrize("waiting", [False, True], ids=["there", "waiting"])
@pytest.mark.parametrize(("count", "filled"), [(0, b"012345"), (4, b"0123\0\0")])
async def test_recvfrom_into(loop, waiting, count, filled):
    with datagrams() as (near, far):
        buffer = bytearray(6)
        if not waiting:
            far.sendto(b"0123456789", near.getsockname())
        task = loop.create_task(loop.sock_recvfrom_into(near, buffer, count))
        if waiting:
            await pending(loop, task)
            far.sendto(b"0123456789", near.getsockname())
        assert await task == (count or 6, far.getsockname())
        assert buffer == filled


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_sendto(loop, kind):
    with datagrams() as (near, far):
        assert await loop.sock_sendto(near, kind(b"data"), far.getsockname()) == 4
        assert far.recvfrom(10) == (b"data", near.getsockname())
        assert await loop.sock_sendto(near, b"", far.getsockname()) == 0
        assert far.recvfrom(10) == (b"", near.getsockname())


async def test_sendto_waits_for_room(loop, tmp_path):
    with full(tmp_path) as (near, far, count):
        task = loop.create_task(loop.sock_sendto(near, b"last", far.getsockname()))
        await loops.turns()
        assert not task.done()
        received = [far.recv(10) for _ in range(count)]
        assert await task == 4
        assert received == [b"filling"] * count
        assert far.recv(10) == b"last"


async def test_cancelled_it_takes_and_sends_nothing(loop, tmp_path):
    with datagrams() as (near, far):
        buffer = bytearray(10)
        for start in (
            lambda: loop.sock_recvfrom(near, 100),
            lambda: loop.sock_recvfrom_into(near, buffer),
        ):
            task = loop.create_task(start())
            await pending(loop, task)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            far.sendto(b"next", near.getsockname())
            assert (await loop.sock_recvfrom(near, 100))[0] == b"next"
        assert buffer == bytes(10)
    with full(tmp_path) as (near, far, count):
        task = loop.create_task(loop.sock_sendto(near, b"cancelled", far.getsockname()))
        await loops.turns()
        task.cancel()
        await asyncio.wait([task])
        far.setblocking(False)
        assert [far.recv(10) for _ in range(count)] == [b"filling"] * count
        with pytest.raises(BlockingIOError):
            far.recv(10)


@pytest.mark.not_on("asyncio", reason="permits one")
async def test_many_receivers_of_one_socket(loop):
    with datagrams() as (near, far):
        tasks = [loop.create_task(loop.sock_recvfrom(near, 100)) for _ in range(10)]
        await pending(loop, tasks[0])
        for number in range(10):
            far.sendto(b"%d" % number, near.getsockname())
        received = await asyncio.gather(*tasks)
        assert sorted(data for data, _ in received) == [b"%d" % number for number in range(10)]


async def test_a_refusal_is_told(loop):
    with datagrams() as (near, far):
        near.connect(far.getsockname())
        task = loop.create_task(loop.sock_recvfrom(near, 100))
        await pending(loop, task)
        far.close()
        near.send(b"is anybody there?")
        with pytest.raises(ConnectionRefusedError):
            await task


async def test_errors(loop):
    with datagrams() as (near, far):
        with pytest.raises(OSError, match="too long"):
            await loop.sock_sendto(near, b"x" * 70_000, far.getsockname())
        with pytest.raises(TypeError):
            await loop.sock_sendto(near, "text", far.getsockname())
        with pytest.raises(TypeError):
            await loop.sock_sendto(near, b"data", None)
        with pytest.raises(ValueError, match="negative"):
            await loop.sock_recvfrom(near, -1)
        with pytest.raises(TypeError):
            await loop.sock_recvfrom_into(near, b"read only")
        loop.set_debug(True)
        far.setblocking(True)
        for start in (
            lambda: loop.sock_recvfrom(far, 10),
            lambda: loop.sock_recvfrom_into(far, bytearray(10)),
            lambda: loop.sock_sendto(far, b"", near.getsockname()),
        ):
            with pytest.raises(ValueError, match="the socket must be non-blocking"):
                await start()
