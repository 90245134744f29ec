"""Files at an offset on the loop: ops on a ring, threads on other engines, with equal results."""

import asyncio
import errno
import os
import resource
import signal
import sys
import tempfile

import pytest
from support import loops, peers

pytestmark = pytest.mark.skipif(bool(loops.REFERENCE), reason="asyncio has no files")


def is_held(buffer):
    """Whether the buffer is exported: then it can't be resized."""
    try:
        buffer.append(0)
    except BufferError:
        return True
    buffer.pop()
    return False


@pytest.fixture
def file():
    with tempfile.TemporaryFile() as file:
        yield file


@pytest.fixture
def zeros():
    """A file that takes a while to fill a large buffer."""
    with open("/dev/zero", "rb", buffering=0) as file:
        yield file


async def all_ended(loop):
    async with asyncio.timeout(5):
        while loops.in_flight(loop):
            await asyncio.sleep(0.001)
    await loops.turns()


async def test_written_and_read_back(loop, file):
    content = peers.payload(100_000)
    for offset in range(0, 100_000, 10_000):
        assert await loop._write_at(file, content[offset : offset + 10_000], offset) == 10_000
    assert await loop._fsync(file) is None
    assert await loop._fsync(file.fileno(), data_only=True) is None
    buffer = bytearray(50_000)
    assert await loop._read_at(file.fileno(), buffer, 30_000) == 50_000
    assert buffer == content[30_000:80_000]
    assert await loop._read_at(file, buffer, 99_990) == 10
    assert await loop._read_at(file, buffer, 200_000) == 0
    assert file.tell() == 0


async def test_written_and_flushed_in_one_go(loop, file):
    assert await loop._write_sync(file, b"12345", 0) == (5, None)
    assert await loop._write_sync(file.fileno(), bytearray(b"67"), 3, data_only=True) == (2, None)
    assert await loop._write_sync(file, b"", -1) == (0, None)
    file.seek(0)
    assert file.read() == b"12367"
    with open(os.devnull, "rb") as read_only, pytest.raises(OSError) as caught:
        await loop._write_sync(read_only, b"x", 0)
    assert caught.value.errno == errno.EBADF
    near, far = os.pipe()
    with open(near, "rb"), open(far, "wb") as pipe:
        # It takes the bytes, and can't be flushed.
        count, error = await loop._write_sync(pipe, b"x", -1)
        assert (count, type(error), error.errno) == (1, OSError, errno.EINVAL)


async def test_appended_and_flushed_in_one_go(loop, tmp_path):
    path = tmp_path / "file"
    assert await loop._append_sync(path, b"x") is None
    assert await loop._append_sync(tmp_path, b"x") is None
    path.touch()
    for record in (b"123", bytearray(b"4"), b""):
        assert await loop._append_sync(str(path), record) == (len(record), None)
    assert path.read_bytes() == b"1234"
    with pytest.raises(ValueError, match="null"):
        await loop._append_sync("\0", b"x")
    with pytest.raises(TypeError):
        await loop._append_sync(path, "text")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, limit[1]))
    try:
        for expected in (2, 0):
            count, error = await loop._append_sync(path, b"567")
            assert (count, error.errno) == (expected, errno.EFBIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"123456"


async def test_many_at_once(loop, file):
    content = peers.payload(200 * 512)
    pieces = [bytearray(512) for _ in range(200)]
    written = (loop._write_at(file, content[i * 512 : (i + 1) * 512], i * 512) for i in range(200))
    assert await asyncio.gather(*written) == [512] * 200
    read = (loop._read_at(file, piece, i * 512) for i, piece in enumerate(pieces))
    assert await asyncio.gather(*read) == [512] * 200
    assert b"".join(pieces) == content


async def test_failures(loop, file):
    buffer = bytearray(10)
    with peers.tcp_pair() as (near, _), open(os.devnull, "rb") as read_only:
        closed = os.dup(file.fileno())
        os.close(closed)
        for operation, error in (
            (loop._read_at(closed, buffer, 0), errno.EBADF),
            (loop._fsync(closed), errno.EBADF),
            (loop._read_at(near, buffer, 1), errno.ESPIPE),
            (loop._fsync(near), errno.EINVAL),
            (loop._write_at(read_only, buffer, 0), errno.EBADF),
        ):
            with pytest.raises(OSError, match=os.strerror(error)) as caught:
                await operation
            assert caught.value.errno == error
    assert not is_held(buffer)


async def test_bad_arguments(loop, file):
    for call, kind in (
        (lambda: loop._read_at(file, bytearray(1), -2), ValueError),
        (lambda: loop._write_at(file, b"x", -2), ValueError),
        (lambda: loop._read_at(file, b"read-only", 0), TypeError),
        (lambda: loop._write_at(file, "text", 0), TypeError),
        (lambda: loop._fsync(-1), ValueError),
    ):
        with pytest.raises(kind):
            call()


async def test_the_buffer_is_held_as_long_as_it_may_be_written_to(loop, zeros):
    buffer = bytearray(b"x" * (16 << 20))
    references = sys.getrefcount(buffer), sys.getrefcount(zeros)
    operation = loop._read_at(zeros, buffer, 0)
    operation.send(None)
    assert loops.in_flight(loop) == 1
    operation.close()
    del operation
    assert is_held(buffer)
    await all_ended(loop)
    assert not is_held(buffer)
    assert (sys.getrefcount(buffer), sys.getrefcount(zeros)) == references


async def test_a_cancelled_task(loop, zeros):
    buffer = bytearray(16 << 20)
    for turns in range(3):
        task = loop.create_task(loop._read_at(zeros, buffer, 0))
        await loops.turns(turns)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            assert 0 < task.result() <= len(buffer)  # this device may be read short
    await all_ended(loop)
    assert not is_held(buffer)


def test_closing_the_loop(new_loop, zeros):
    loop = new_loop()
    buffer = bytearray(16 << 20)
    operation = loop._read_at(zeros, buffer, 0)
    loop.close()
    del operation
    assert not is_held(buffer)
    with pytest.raises(RuntimeError, match="closed"):
        loop._read_at(zeros, buffer, 0)


async def test_an_open_that_is_cancelled_when_it_is_over(loop, tmp_path):
    """The op has completed, and its task is cancelled before it goes on: the fd is closed, not lost.

    The watch for leaks fails this test if one is left open.
    """
    for end in ("throw", "close", "collect"):
        opening = loop._open_file(tmp_path / end, os.O_RDWR | os.O_CREAT, 0o600)
        future = opening.send(None)
        while not future.done():
            await asyncio.sleep(0.001)
        assert (tmp_path / end).exists()
        if end == "throw":
            with pytest.raises(asyncio.CancelledError):
                opening.throw(asyncio.CancelledError())
        elif end == "close":
            opening.close()
        del opening
