"""What `loop.stats()` and `fs.threads()` tell about files: which way the work went, and the threads."""

import asyncio
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from support import loops

import proact
from proact import fs

only_proact = pytest.mark.skipif(bool(loops.REFERENCE), reason="loop.stats() is proact's")

COUNTS = {"at_once", "refused_by_file", "refused_by_budget", "by_engine", "by_pool"}


class Change:
    """How the counts of files change meanwhile."""

    def __init__(self, loop):
        self._loop, self._before = loop, loop.stats()["files"]

    def __getitem__(self, name):
        return self._loop.stats()["files"][name] - self._before[name]

    @property
    def waited(self):
        return self["by_engine"] + self["by_pool"]


async def until(holds):
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


@only_proact
async def test_what_is_cached_goes_at_once(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    async with proact.open(path, "rb") as file:
        change = Change(loop)
        assert set(loop.stats()["files"]) == COUNTS
        for _ in range(5):
            assert await file.pread(7, 0) == b"content"
        assert (change["at_once"], change.waited) == (5, 0)
    assert (await fs.Path(path).stat()).st_size == 7
    assert [status.st_size for status in await fs.stat_many([path] * 5)] == [7] * 5
    assert (change["at_once"], change.waited) == (11, 0)


def forget(path, size):
    """Make a file, of which nothing is in the page cache, if the file system allows that."""
    path.write_bytes(bytes(size))
    with path.open("rb+") as plain:
        os.fsync(plain)
        os.posix_fadvise(plain.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@only_proact
async def test_whole_files_that_are_not_cached(loop, tmp_path):
    paths = [tmp_path / f"file{number}" for number in range(20)]
    for path in paths:
        forget(path, 5000)
    change = Change(loop)
    assert await fs.read_bytes(paths[0]) == bytes(5000)
    assert await fs.read_many(paths[1:]) == [bytes(5000)] * 19
    # An open and a read of each.
    waited = change["by_engine" if loop.engine == "io_uring" else "by_pool"]
    assert waited == change.waited == 2 * change["refused_by_file"]
    forget(paths[0], 5000)
    found = await fs.read_many([paths[0], tmp_path / "none", tmp_path], return_exceptions=True)
    assert found[0] == bytes(5000)
    assert [type(error) for error in found[1:]] == [FileNotFoundError, IsADirectoryError]


@only_proact
async def test_what_is_not_cached_waits(loop, tmp_path):
    path = tmp_path / "file"
    forget(path, 1 << 20)
    async with proact.open(path, "rb", buffering=0) as file:
        change = Change(loop)
        for page in range(0, 1 << 20, 1 << 17):
            assert await file.pread(4096, page) == bytes(4096)
        waited = change["by_engine" if loop.engine == "io_uring" else "by_pool"]
        assert waited == change["refused_by_file"] == change.waited
        assert change["at_once"] == 8 - waited


@only_proact
async def test_writes_wait(loop, tmp_path):
    async with proact.open(tmp_path / "file", "wb", buffering=0) as file:
        change, pooled = Change(loop), loop.stats()["pooled"]
        await file.write(b"x")
        await file.fsync()
        assert change.waited == 2
        assert loop.stats()["pooled"] - pooled == change["by_pool"] == (0 if loop.engine == "io_uring" else 2)


@only_proact
async def test_what_is_held_back_is_written_and_synced_in_one_go(loop, tmp_path):
    async with proact.open(tmp_path / "file", "wb") as file:
        change = Change(loop)
        for _ in range(3):
            await file.write(b"x")
            await file.fsync()
        assert change.waited == change["by_pool"] == 3
        await file.fsync()
        assert change.waited == 4
    await fs.append(tmp_path / "file", b"1", fsync=True)
    change = Change(loop)
    await asyncio.gather(*(fs.append(tmp_path / "file", b"2", fsync=True) for _ in range(9)))
    assert change.waited == change["by_pool"] == 1
    assert (tmp_path / "file").read_bytes() == b"xxx1" + b"2" * 9


@only_proact
async def test_a_turn_has_a_budget(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    async with proact.open(path, "rb", buffering=0) as file:
        change = Change(loop)
        reads = [file.pread(1, 0) for _ in range(300)]
        # A coroutine's first step, all in this turn of the loop.
        left = []
        for read in reads:
            with suppress(StopIteration):
                read.send(None)
                left.append(read)
        assert 0 < change["refused_by_budget"] <= len(left) == 300 - change["at_once"]
        for read in left:
            read.close()
    await until(lambda: not loop.stats()["pool"]["busy"])


@only_proact
async def test_the_native_threads_are_bounded_named_and_replaced(loop, fifo, tmp_path):
    if loop.engine == "io_uring":
        assert loop.stats()["pool"]["threads"] == 0
        return

    def pool():
        return loop.stats()["pool"]

    # An open that may wait, which `proact.open` never asks of the pool.
    limit = pool()["limit"]
    opens = [asyncio.ensure_future(hanging(loop, fifo)) for _ in range(limit + 24)]
    await until(lambda: pool()["busy"] == limit)
    assert pool() == {"threads": limit, "busy": limit, "queued": 24, "lost": 0, "limit": limit}
    names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    assert names.count("proact-pool\n") >= limit
    waits = asyncio.ensure_future(fs.mkdir(tmp_path / "made"))
    await asyncio.sleep(0)
    for task in opens:
        task.cancel()
    await asyncio.wait(opens, timeout=10)
    await asyncio.wait_for(waits, 10)
    assert (tmp_path / "made").is_dir()
    assert limit <= pool()["lost"] <= limit + 24
    with open(fifo, "r+b", buffering=0):
        await until(lambda: not pool()["lost"])
    assert pool()["threads"] <= limit


async def hanging(loop, fifo):
    os.close(await loop._open_file(fifo, os.O_RDONLY, 0o666))


async def test_opens_of_fifos_keep_no_other_file_waiting(loop, tmp_path):
    fifos = [tmp_path / f"fifo{number}" for number in range(60)]
    for each in fifos:
        os.mkfifo(each)
    opens = [asyncio.ensure_future(reader(each)) for each in fifos]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(20), proact.open(tmp_path / "file", "wb", buffering=0) as file:
        await file.write(b"x")
        await file.fsync()
    for task in opens:
        task.cancel()
    await asyncio.wait(opens, timeout=10)


async def reader(path):
    async with proact.open(path, "rb"):
        pass


async def test_the_threads_of_python(loop, tmp_path):
    gates = [threading.Event() for _ in range(2)]
    calls = [asyncio.ensure_future(fs.pool.of_process().call(gate.wait)) for gate in gates]
    await until(lambda: fs.threads()["busy"] >= 2 and not fs.threads()["queued"])
    assert set(fs.threads()) == {"threads", "busy", "queued", "lost", "limit"}
    assert fs.threads()["threads"] <= fs.threads()["limit"] == fs.pool.LIMIT
    calls[0].cancel()
    await asyncio.wait(calls[:1], timeout=10)
    assert fs.threads()["lost"] == 1
    for gate in gates:
        gate.set()
    assert await calls[1]
    await until(lambda: not fs.threads()["lost"])
