"""Temporary files and directories: usable as those of tempfile are, and gone afterwards, cancels included."""

import asyncio
import os

import pytest

from proact import fs
from proact.fs import pool
from proact.fs.temporary import mkdtemp, mkstemp


@pytest.fixture
def place(tmp_path):
    yield tmp_path
    assert os.listdir(tmp_path) == []


async def test_unnamed(loop, place):
    async with fs.TemporaryFile(dir=place) as file:
        await file.write(b"one\ntwo\n")
        await file.seek(0)
        assert [line async for line in file] == [b"one\n", b"two\n"]
        assert os.listdir(place) == []
    assert file.closed
    file = await fs.TemporaryFile("w+", encoding="utf-16", dir=place)
    await file.write("ä")
    await file.seek(0)
    assert await file.read() == "ä"
    await file.close()


@pytest.mark.parametrize("has", [True, False])
async def test_where_files_need_a_name(loop, place, monkeypatch, has):
    if not has:
        monkeypatch.delattr(os, "O_TMPFILE")
    async with fs.TemporaryFile(dir=place, prefix="p", suffix="s") as file:
        assert os.fstat(file.fileno()).st_nlink == 0
        await file.write(b"x")


async def test_named(loop, place):
    async with fs.NamedTemporaryFile(dir=place, suffix=".txt", prefix="p") as file:
        assert os.listdir(place) == [os.path.basename(file.name)]
        assert os.path.basename(file.name).startswith("p") and file.name.endswith(".txt")
        await file.write(b"data")
        await file.flush()
        assert await fs.read_bytes(file.name) == b"data"
        await file.seek(0)
        assert [line async for line in file] == [b"data"]
    file = await fs.NamedTemporaryFile("w", dir=place)
    await file.write("text")
    await file.close()
    await file.close()


async def test_named_and_kept(loop, place):
    async with fs.NamedTemporaryFile(dir=place, delete=False) as file:
        await file.write(b"kept")
    assert await fs.read_bytes(file.name) == b"kept"
    os.unlink(file.name)
    async with fs.NamedTemporaryFile(dir=place, delete_on_close=False) as file:
        await file.write(b"there")
        await file.close()
        assert await fs.read_bytes(file.name) == b"there"
    assert not os.path.exists(file.name)
    async with fs.NamedTemporaryFile(dir=place) as file:
        os.unlink(file.name)


async def settled():
    async with asyncio.timeout(10):
        # What must be made surely is made later, by threads that nobody has given up.
        while any(pool.of_process().counts()[what] for what in ("busy", "queued", "lost")):
            await asyncio.sleep(0.001)


async def test_cancelled_at_any_point(loop, place):
    async def use(make):
        async with make(dir=place) as file:
            if hasattr(file, "write"):
                await file.write(b"x")

    for make in (fs.TemporaryFile, fs.NamedTemporaryFile, fs.TemporaryDirectory):
        for turns in range(60):
            task = asyncio.create_task(use(make))
            for _ in range(turns // 3):
                await asyncio.sleep(0)
            if turns % 3:
                await asyncio.sleep(0.0001 * turns)
            task.cancel()
            await asyncio.wait([task])
    await settled()


@pytest.mark.parametrize("mode", ["w+b", "w+"])
async def test_spooled(loop, place, mode):
    convert = (lambda text: text) if mode == "w+" else str.encode
    async with fs.SpooledTemporaryFile(10, mode, dir=place) as file:
        assert await file.write(convert("1234\n")) == 5
        assert file.name is None
        with pytest.raises(OSError):
            file.fileno()
        await file.write(convert("5678\n"))
        assert file.name is None
        await file.write(convert("9\n"))
        assert file.fileno() == file.name
        assert await file.tell() == 12
        await file.seek(0)
        assert [line async for line in file] == [convert(line) for line in ("1234\n", "5678\n", "9\n")]
        await file.seek(5)
        assert await file.readline() == convert("5678\n")
        assert await file.truncate(5) == 5
        await file.seek(0)
        assert await file.readlines() == [convert("1234\n")]
        assert not file.closed
    assert file.closed


async def test_spooled_on_demand(loop, place):
    async with fs.SpooledTemporaryFile(dir=place) as file:
        await asyncio.gather(*(file.write(b"%d" % number) for number in range(10)), file.rollover())
        await file.seek(2)
        await file.rollover()
        assert await file.tell() == 2
        assert await file.read() == b"23456789"
    with pytest.raises(ValueError):
        await file.read()
    with pytest.raises(ValueError):
        fs.SpooledTemporaryFile(mode="nonsense")


async def test_directory(loop, place):
    async with fs.TemporaryDirectory(dir=place, prefix="p") as name:
        assert os.path.basename(name).startswith("p")
        await fs.makedirs(os.path.join(name, "a", "b"))
        await fs.write_bytes(os.path.join(name, "a", "file"), b"x")
    directory = fs.TemporaryDirectory(dir=place)
    assert os.path.isdir(await directory)
    await directory.cleanup()
    async with fs.TemporaryDirectory(dir=place, delete=False) as name:
        pass
    os.rmdir(name)
    os.rmdir(await mkdtemp(dir=place))
    fd, name = await mkstemp(dir=place)
    os.close(fd)
    os.unlink(name)
