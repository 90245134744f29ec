"""Arguments and uses that a file refuses: with the errors of the builtin's files, and nothing has changed."""

import array
import asyncio
import contextlib
import copy
import ctypes
import gc
import os
import pickle
import subprocess
import sys
import warnings

import pytest
from support import loops

import proact
from proact import fs


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"first\nsecond\nthird\n")
    return path


def same_error(ours, builtins):
    assert type(ours.value) is type(builtins.value)
    assert str(ours.value) == str(builtins.value)


@pytest.mark.parametrize("mode", ["rb", "r"])
@pytest.mark.parametrize("method", ["read", "readline", "readlines"])
@pytest.mark.parametrize("size", [1.5, "2", b"2", 1 << 70])
async def test_a_size_that_is_none(loop, path, mode, method, size):
    with open(path, mode) as plain:
        async with proact.open(path, mode) as file:
            # In the middle of what was read ahead.
            assert await file.read(2) == plain.read(2)
            with pytest.raises((TypeError, OverflowError)) as builtins:
                getattr(plain, method)(size)
            with pytest.raises(builtins.type):
                await getattr(file, method)(size)
            assert await file.read(4) == plain.read(4)
            assert await file.tell() == plain.tell() == 6
            assert await file.readline() == plain.readline()


@pytest.mark.parametrize("buffering", [-1, 0])
async def test_a_buffer_that_takes_nothing(loop, path, buffering):
    """It is refused before anything is read: the position stays."""
    async with proact.open(path, "rb", buffering=buffering) as file:
        with open(path, "rb", buffering) as plain:
            for room in (b"bytes", memoryview(bytearray(6))[::2], memoryview(b"12"), "text"):
                with pytest.raises(TypeError):
                    plain.readinto(room)
                for call in (file.readinto, *([file.readinto1] if buffering else [])):
                    with pytest.raises(TypeError):
                        await call(room)
        assert await file.tell() == 0
        reader, writer = os.pipe()
        os.write(writer, b"kept")
        async with proact.open(reader, "rb", buffering) as pipe:
            with pytest.raises(TypeError):
                await pipe.readinto(b"bytes")
            assert await pipe.read(4) == b"kept"
        os.close(writer)


@pytest.mark.parametrize("buffering", [-1, 0])
async def test_odd_buffers_to_write(loop, path, buffering):
    async with proact.open(path, "r+b", buffering=buffering) as file:
        with open(path, "r+b", buffering) as plain:
            every_other = memoryview(b"abcdef")[::2]
            with pytest.raises(BufferError) as builtins:
                plain.write(every_other)
        for call in (file.write(every_other), file.pwrite(every_other, 0)):
            with pytest.raises(BufferError) as ours:
                await call
            same_error(ours, builtins)
        for nothing in ((ctypes.c_int * 0 * 3)(), array.array("i"), b"", memoryview(b"abc")[:0]):
            assert await file.write(nothing) == 0
            assert await file.pwrite(nothing, 3) == 0
        assert await file.readinto((ctypes.c_int * 0 * 3)()) == 0
        assert await file.write((ctypes.c_uint16 * 2)(0x4241, 0x4443)) == 4
    assert path.read_bytes() == b"ABCDt\nsecond\nthird\n"


@pytest.mark.parametrize("mode", ["rb", "r", "w"])
async def test_a_file_is_not_copied(loop, path, mode):
    """Two objects would close one fd, the second time perhaps another file's."""
    async with proact.open(path, mode) as file:
        for make in (copy.copy, copy.deepcopy, pickle.dumps):
            with open(path) as plain, pytest.raises(TypeError):
                make(plain)
            with pytest.raises(TypeError, match="cannot pickle"):
                make(file)
    async with proact.open(path, "rb", 0) as file:
        with pytest.raises(TypeError, match="cannot pickle"):
            copy.copy(file)


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_not_closed_and_warnings_are_errors(new_loop, path, mode):
    """The fd is closed and what was held back is written all the same, as by the builtin's files."""
    loop = new_loop()

    async def main():
        file = await proact.open(path, mode)
        await file.write("held back" if mode == "w" else b"held back")
        return file.fileno(), file

    fd, file = loop.run_until_complete(main())
    seen = []
    before, sys.unraisablehook = sys.unraisablehook, seen.append
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            del file
            gc.collect()
    finally:
        sys.unraisablehook = before
    assert [hook.exc_type for hook in seen] == [ResourceWarning]
    assert path.read_bytes() == b"held back"
    with pytest.raises(OSError):
        os.fstat(fd)


async def test_a_spool_that_is_extended(loop, tmp_path):
    async with fs.SpooledTemporaryFile(10, dir=tmp_path) as file:
        assert await file.truncate(5) == 5
        assert file.name is None
        assert await file.truncate(100) == 100
        assert file.name == file.fileno()
        assert await file.read() == bytes(100)


async def test_a_spool_whose_way_to_storage_is_cancelled(loop, tmp_path):
    """It stays in memory, and may be written to at once."""
    async with fs.SpooledTemporaryFile(10, dir=tmp_path) as file:
        for number in range(30):
            task = asyncio.ensure_future(file.write(b"x" * 1000))
            for _ in range(number % 5):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if file.name is not None:
                break
            await file.seek(0)
            assert await file.truncate() == 0
            for _ in range(3):
                assert await file.write(b"xy") == 2


async def test_direct_with_a_negative_size(loop, path):
    try:
        file = await proact.open(path, "rb", direct=True)
    except OSError as error:
        pytest.skip(f"no O_DIRECT here: {error}")
    async with file:
        for call in (file.pread(-1, 0), file.pread(10, -1), file.pread_into(bytearray(1), -1)):
            with pytest.raises(OSError, match="Invalid argument"):
                await call


@pytest.mark.parametrize("mode", ["rb", "r", "raw"])
async def test_a_cancelled_readlines_takes_nothing(loop, path, mode):
    lines = [b"%d\n" % number * (1 + number % 3) for number in range(3000)]
    path.write_bytes(b"".join(lines))
    text = path.read_text()
    expected = text if mode == "r" else text.encode()
    for turns in (1, 2, 3, 5, 20):
        async with proact.open(path, mode.replace("raw", "rb"), 0 if mode == "raw" else -1) as file:
            # As if nothing were cached.
            binary = getattr(file, "buffer", file)
            binary._ways = Slow(binary._ways)
            await file.readline()
            task = asyncio.ensure_future(file.readlines())
            await loops.turns(turns)
            if task.cancel():
                await asyncio.wait([task])
                assert await file.tell() == 2
                assert await file.readlines(1) == expected[2:].splitlines(True)[:1]
            binary._ways = binary._ways.ways
            assert (await file.read()) == expected[4 if task.cancelled() else len(expected) :]


class Slow:
    """The ways of a file of which nothing is cached."""

    def __init__(self, ways):
        self.ways = ways

    def __getattr__(self, name):
        return (lambda *_: None) if name.startswith("try_") else getattr(self.ways, name)


async def test_cancelled_readlines_of_a_pipe(loop):
    for mode in ("rb", "r"):
        near, far = os.pipe()
        async with proact.open(near, mode) as file:
            os.write(far, b"one\ntwo\nthr")
            task = asyncio.ensure_future(file.readlines())
            await loops.turns(10)
            assert task.cancel()
            await asyncio.wait([task])
            os.write(far, b"ee\n")
            os.close(far)
            found = await file.readlines()
            assert (
                "".join(found)
                if mode == "r"
                else b"".join(found) in ("one\ntwo\nthree\n", b"one\ntwo\nthree\n")
            )
            assert len(found) == 3


async def test_a_long_read_of_a_text_for_updating(loop, path):
    """After a read, a write without a seek goes where `open()` has read ahead to."""
    for size in (10, 9000, 12_000):
        left = []
        for run in (open, proact.open):
            path.write_bytes(b"\xc3\xa9" * 3000 + b"x" * 20_000)
            if run is open:
                with open(path, "r+", encoding="utf-8") as plain:
                    got = plain.read(size), plain.read(size)
                    plain.write("HERE")
            else:
                async with proact.open(path, "r+", encoding="utf-8") as file:
                    got = await file.read(size), await file.read(size)
                    await file.write("HERE")
            left.append((got, path.read_bytes().find(b"HERE")))
        assert left[0] == left[1]


async def test_closed_by_the_name_of_anyio(loop, path, tmp_path):
    for mode, buffering in (("r", -1), ("rb", -1), ("rb", 0)):
        async with contextlib.aclosing(await proact.open(path, mode, buffering)) as file:
            assert not file.closed
        assert file.closed
    async with contextlib.aclosing(fs.SpooledTemporaryFile()) as spool:
        await spool.write(b"x")
    assert spool.closed
    async with contextlib.aclosing(await fs.NamedTemporaryFile(dir=tmp_path)) as named:
        assert os.path.exists(named.name)
    assert named.closed and not os.path.exists(named.name)
    assert proact.Path("nul").is_reserved() is False


@pytest.mark.parametrize("end", ["pass", "raise SystemExit", "1 / 0", "import gc; f.me = f"])
@pytest.mark.parametrize("mode", ["wb", "w"])
def test_left_open_at_the_end_of_the_interpreter(loop, path, mode, end):
    """What was held back is written, as by the builtin's files."""
    data = b"kept" if mode == "wb" else "kept"
    run = "asyncio.run(main())" if loops.REFERENCE else f"proact.run(main(), engine={loop.engine!r})"
    program = f"""
import asyncio, proact
async def main():
    global f
    f = await proact.open({str(path)!r}, {mode!r})
    await f.write({data!r})
{run}
{end}
"""
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert path.read_text() == "kept", child.stderr
    assert "Exception ignored" not in child.stderr
