"""Files that are not plain: FIFOs, terminals, devices, /proc, holes, offsets past 4 GiB, changing files."""

import asyncio
import io
import os
import pty
import sys
import tty

import pytest
from support import loops

import proact
from proact import fs
from proact.fs import pool

FAR = (5 << 30) + 7


def open_fds():
    return set(os.listdir("/proc/self/fd"))


async def test_far_offsets_and_holes(loop, tmp_path):
    path = tmp_path / "sparse"
    async with proact.open(path, "w+b") as file:
        assert await file.seek(FAR) == FAR
        await file.write(b"far away")
        assert await file.tell() == FAR + 8
        assert await file.seek(-8, os.SEEK_END) == FAR
        assert await file.read() == b"far away"
        assert await file.pread(4, FAR + 4) == b"away"
        assert await file.pwrite(b"!", FAR + 8) == 1
        assert await file.seek(FAR - 3) == FAR - 3
        assert await file.read(5) == b"\0\0\0fa"
        assert await file.seek(0, os.SEEK_DATA) >= FAR - (1 << 20)
        await file.seek(0)
        assert await file.read(10_000) == bytes(10_000)
        assert await file.truncate(6 << 30) == 6 << 30
        assert path.stat().st_blocks < 1000
        assert await file.truncate(3) == 3
        await file.seek(0)
        assert await file.read() == b"\0\0\0"
        for offset in (-1, 1 << 63):
            with pytest.raises((OSError, ValueError)):
                await file.seek(offset)


async def test_a_growing_and_shrinking_file(loop, tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    async with proact.open(path, "rb") as file, proact.open(path) as text:
        assert await file.read() == b"one\n"
        assert await text.readline() == "one\n"
        assert await file.readline() == b""
        assert await text.readline() == ""
        with path.open("ab") as other:
            other.write(b"two\nthree\n")
        assert await file.readline() == b"two\n"
        assert await text.readline() == "two\n"
        assert await file.read() == b"three\n"
        path.write_bytes(b"")
        assert await file.read() == b""
        assert await file.read(10) == b""
        assert await file.tell() == 14
        assert await file.seek(0) == 0
        path.write_bytes(b"new")
        assert await file.read() == b"new"


@pytest.mark.parametrize(
    "path", ["/proc/self/status", "/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"]
)
async def test_files_whose_size_is_not_known(loop, path):
    if not os.path.exists(path):
        pytest.skip(f"{path} does not exist here")
    with open(path) as file:
        expected = file.readline()
    async with proact.open(path) as file:
        content = await file.read()
        assert content.startswith(expected)
        assert await file.seek(0) == 0
        assert await file.readline() == expected
    async with proact.open(path, "rb", buffering=0) as file:
        assert (await file.readall()).startswith(expected.encode())
        assert await file.readline() == b""


async def test_devices(loop):
    async with proact.open("/dev/null", "r+b") as file:
        assert await file.write(b"x" * 100_000) == 100_000
        await file.flush()
        assert await file.read() == b""
    async with proact.open("/dev/zero", "rb") as file:
        assert await file.read(300_000) == bytes(300_000)


# FIFOs.


async def test_the_open_of_a_fifo_waits_for_its_peer(loop, fifo):
    for first, second in (("rb", "wb"), ("wb", "rb")):
        opening = asyncio.ensure_future(proact.open(fifo, first).__aenter__())
        await asyncio.sleep(0.02)
        assert not opening.done()
        async with asyncio.timeout(10):
            two = await proact.open(fifo, second)
            one = await opening
        ends = (one, two) if first == "rb" else (two, one)
        assert not one.seekable()
        with pytest.raises(io.UnsupportedOperation):
            await ends[0].seek(0)
        with pytest.raises(OSError, match="Illegal seek"):
            await ends[1].tell()
        await ends[1].write(b"line\nrest")
        await ends[1].close()
        assert await ends[0].readline() == b"line\n"
        assert await ends[0].read() == b"rest"
        await ends[0].close()


@pytest.mark.parametrize("mode", ["rb", "wb", "r", "ab"])
async def test_a_cancelled_open_of_a_fifo_loses_nothing(loop, fifo, freed, mode):
    before = open_fds()
    for _ in range(5):
        opening = asyncio.ensure_future(proact.open(fifo, mode).__aenter__())
        await asyncio.sleep(0.002)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), proact.open(fifo, mode):
            pass
    await freed()
    async with asyncio.timeout(10):
        while loops.in_flight(loop):
            await asyncio.sleep(0.001)
    assert open_fds() == before
    # The peers' bytes reach the one who opens it next.
    async with asyncio.timeout(10):
        writing = asyncio.ensure_future(proact.open(fifo, "wb").__aenter__())
        async with proact.open(fifo, "rb") as reader:
            async with await writing as writer:
                await writer.write(b"bytes")
            assert await reader.read() == b"bytes"


@pytest.mark.parametrize("buffering", [-1, 0])
async def test_a_cancelled_read_takes_nothing(loop, fifo, buffering):
    async with proact.open(os.open(fifo, os.O_RDWR), "rb", buffering=buffering) as file:
        fd = os.open(fifo, os.O_WRONLY)
        for number in range(50):
            reading = asyncio.ensure_future(file.read(1))
            await loops.turns(number % 3)
            if number % 2:
                os.write(fd, b"%d" % (number % 10))
                await loops.turns(number % 4)
            if reading.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await reading
                if number % 2:
                    assert await file.read(1) == b"%d" % (number % 10)
            else:
                assert reading.result() == b"%d" % (number % 10)
        os.close(fd)


async def test_a_cancelled_write_to_a_full_pipe(loop):
    reader, writer = os.pipe()
    async with proact.open(writer, "wb", buffering=0) as file:
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, bytes(1 << 16))
        except BlockingIOError:
            pass
        os.set_blocking(writer, True)
        for _ in range(5):
            writing = asyncio.ensure_future(file.write(b"x" * 1000))
            await asyncio.sleep(0.002)
            assert not writing.done()
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
        while len(os.read(reader, 1 << 20)) == 1 << 20:
            pass
        async with asyncio.timeout(10):
            # On other loops the threads of the writes have to end.
            while loops.in_flight(loop) or pool.of_process().counts()["lost"]:
                await asyncio.sleep(0.001)
        os.set_blocking(reader, False)
        try:
            os.read(reader, 1 << 20)
        except BlockingIOError:
            pass
        assert await file.write(b"end") == 3
        assert os.read(reader, 10).endswith(b"end")
    os.close(reader)


async def test_text_over_a_pipe(loop):
    reader, writer = os.pipe()
    async with proact.open(reader) as incoming:
        async with proact.open(writer, "w", buffering=1) as outgoing:
            await outgoing.write("first\nsec")
            assert await incoming.readline() == "first\n"
            waiting = asyncio.ensure_future(incoming.readline())
            await asyncio.sleep(0.005)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await outgoing.write("ond €\nthird")
            # What the cancelled call had read is not lost.
            assert await incoming.readline() == "second €\n"
        assert [line async for line in incoming] == ["third"]


# Terminals.


async def test_a_terminal(loop):
    near, far = pty.openpty()
    tty.setraw(far)
    async with proact.open(far, "r") as terminal, proact.open(near, "wb", buffering=0) as keyboard:
        assert terminal.isatty()
        assert not terminal.seekable()
        assert terminal.line_buffering
        reading = asyncio.ensure_future(terminal.readline())
        await asyncio.sleep(0.002)
        assert not reading.done()
        await keyboard.write(b"typed\n")
        async with asyncio.timeout(10):
            assert await reading == "typed\n"
        async with proact.open(os.dup(far), "w") as screen:
            assert screen.line_buffering
            await screen.write("shown\n")
            assert os.read(near, 100) == b"shown\n"


async def test_updating_needs_positions(loop, fifo):
    with pytest.raises(io.UnsupportedOperation, match="not seekable"):
        await proact.open(os.open(fifo, os.O_RDWR), "r+b")
    async with proact.open(os.open(fifo, os.O_RDWR), "r+b", buffering=0) as file:
        assert isinstance(file, fs.RawFile)
        await file.write(b"both ways")
        assert await file.read(100) == b"both ways"


@pytest.mark.parametrize("flags", [0, os.EFD_NONBLOCK])
async def test_an_fd_that_seeks_but_takes_no_offset(loop, flags):
    """lseek succeeds on an eventfd, and pread fails: so it is read where it is."""
    fd = os.eventfd(5, flags)
    async with proact.open(fd, "rb", buffering=0, closefd=False) as file:
        assert not file.seekable()
        assert await file.read(8) == (5).to_bytes(8, sys.byteorder)
        task = asyncio.ensure_future(file.read(100))
        await loops.turns()
        assert not task.done()
        async with proact.open(fd, "wb", closefd=False) as other:
            assert await other.write((7).to_bytes(8, sys.byteorder)) == 8
        assert await task == (7).to_bytes(8, sys.byteorder)
    os.close(fd)


async def test_two_files_read_one_fd(loop):
    near, far = os.pipe()
    seen = []
    loop.add_reader(near, seen.append, None)
    async with (
        proact.open(near, "rb", buffering=0, closefd=False) as first,
        proact.open(near, "rb", buffering=0, closefd=False) as second,
    ):
        tasks = [asyncio.ensure_future(file.read(3)) for file in (first, second)]
        await loops.turns()
        async with asyncio.timeout(10):
            os.write(far, b"abc")
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            os.write(far, b"def")
            assert sorted(await asyncio.gather(*tasks)) == [b"abc", b"def"]
            # The reader of the program is not replaced.
            seen.clear()
            os.write(far, b"x")
            while not seen:
                await asyncio.sleep(0)
    assert loop.remove_reader(near)
    os.close(near)
    os.close(far)


async def test_an_fd_that_does_not_block_is_waited_for(loop):
    near, far = os.pipe()
    os.set_blocking(far, False)
    data = os.urandom(300_000)
    got = bytearray()
    async with (
        proact.open(near, "rb", buffering=0) as reader,
        proact.open(far, "wb") as writer,
        asyncio.timeout(10),
    ):
        task = asyncio.ensure_future(writer.write(data))
        await loops.turns()
        while len(got) < len(data):
            got += await reader.read(10_000)
            if task.done():
                await writer.flush()
        assert await task == len(data)
    assert got == data
