"""Appends with group commit: whole records in order, one fsync for many, errors and cancels of each."""

import asyncio
import errno
import os
import random
import resource
import signal

import pytest

from proact import fs


@pytest.fixture
def syncs(loop, monkeypatch):
    """Tells how many fsyncs there were."""
    made = []
    fsync = os.fsync

    def counted(fd):
        made.append(fd)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", counted)
    native = (lambda: loop.stats()["pooled"]) if hasattr(loop, "stats") else (lambda: 0)
    before = native()
    return lambda natively=True: len(made) + (native() - before if natively else 0)


async def test_one_after_the_other(loop, tmp_path):
    path = tmp_path / "log"
    for number in range(20):
        assert await fs.append(path, b"%02d\n" % number, fsync=number % 2 == 0) == 3
    assert path.read_bytes() == b"".join(b"%02d\n" % number for number in range(20))


async def test_many_share_one_fsync(loop, tmp_path, syncs):
    path = tmp_path / "log"
    path.touch()
    records = [b"%d:" % number + b"x" * number + b"\n" for number in range(500)]
    await asyncio.gather(*(fs.append(path, record, fsync=True) for record in records))
    assert path.read_bytes() == b"".join(records)
    assert 1 <= syncs() <= 3


async def test_each_returned_append_is_there(loop, tmp_path):
    path = tmp_path / "log"

    async def write(name):
        for number in range(20):
            record = b"%d-%d\n" % (name, number)
            await fs.append(path, record, fsync=True)
            assert record in path.read_bytes()

    await asyncio.gather(*map(write, range(20)))
    assert len(path.read_bytes().splitlines()) == 400


async def test_a_new_file_is_synced_with_its_directory(loop, tmp_path, syncs):
    # A native thread has looked for the file before.
    await fs.append(tmp_path / "new", b"x", fsync=True)
    assert syncs(natively=False) == 2
    await fs.append(tmp_path / "new", b"x")
    assert syncs(natively=False) == 2


async def test_errors(loop, tmp_path):
    for path, error in ((tmp_path, errno.EISDIR), (tmp_path / "none" / "log", errno.ENOENT)):
        tasks = [asyncio.create_task(fs.append(path, data)) for data in (b"1", b"")]
        for task in tasks:
            with pytest.raises(OSError) as caught:
                await task
            assert (caught.value.errno, caught.value.filename) == (error, os.fspath(path))
    (tmp_path / "file").touch()
    for name in ("file/", "file/below", "new/", "new/below"):
        for fsync in (False, True):
            with pytest.raises(OSError) as expected, open(f"{tmp_path}/{name}", "ab"):
                pass
            with pytest.raises(type(expected.value)) as caught:
                await fs.append(f"{tmp_path}/{name}", b"x", fsync=fsync)
            assert caught.value.filename == expected.value.filename
    with pytest.raises(TypeError):
        await fs.append(tmp_path / "log", "text")
    with pytest.raises(OSError) as caught:
        await fs.append("/dev/full", b"x")
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("fsync", [False, True])
async def test_full_storage_fails_only_what_was_not_written(loop, tmp_path, fsync):
    path = tmp_path / "log"
    path.touch()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1050, limit[1]))
    try:
        done = await asyncio.gather(
            *(fs.append(path, bytes([65 + number]) * 100, fsync=fsync) for number in range(20)),
            return_exceptions=True,
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    # None was synced.
    kept = 0 if fsync else 10
    assert done[:kept] == [100] * kept
    assert [error.errno for error in done[kept:]] == [errno.EFBIG] * (20 - kept)
    assert path.read_bytes()[:1000] == b"".join(bytes([65 + number]) * 100 for number in range(10))


async def test_cancelled(loop, tmp_path):
    path = tmp_path / "log"
    tasks = [asyncio.create_task(fs.append(path, b"%d\n" % number)) for number in range(100)]
    for task in tasks[::2]:
        task.cancel()
    await asyncio.sleep(0)
    for task in tasks[1::4]:
        task.cancel()
    await asyncio.wait(tasks)
    lines = {int(line) for line in path.read_bytes().splitlines()}
    assert lines >= set(range(3, 100, 4))
    assert not lines & set(range(0, 100, 2))


async def test_a_fifo_sees_no_writer_that_leaves_again(loop, fifo):
    reader = asyncio.create_task(asyncio.to_thread(fifo.read_bytes))
    await asyncio.sleep(0.01)
    assert await fs.append(fifo, b"record") == 6
    assert await reader == b"record"


async def test_the_loop_ends_in_the_middle(loop, fifo, freed):
    tasks = [asyncio.create_task(fs.append(fifo, b"x")) for _ in range(3)]
    await asyncio.sleep(0.01)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    await freed()


async def test_given_up_and_used_again(loop, tmp_path):
    path = tmp_path / "log"
    for turns in range(4):
        task = asyncio.create_task(fs.append(path, b"given up\n"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        async with asyncio.timeout(10):
            await asyncio.gather(fs.append(path, b"1\n"), fs.append(path, b"2\n", fsync=True))
    assert path.read_bytes().replace(b"given up\n", b"") == b"1\n2\n" * 4


@pytest.mark.parametrize("fsync", [False, True])
async def test_the_first_is_given_up_in_the_middle(loop, tmp_path, fsync):
    path = tmp_path / "log"
    path.touch()
    for turns in range(6):
        path.write_bytes(b"")
        first = asyncio.create_task(fs.append(path, b"first\n", fsync=fsync))
        for _ in range(turns):
            await asyncio.sleep(0)
        others = [asyncio.create_task(fs.append(path, b"%d\n" % number, fsync=fsync)) for number in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        others[1].cancel()
        async with asyncio.timeout(10):
            await asyncio.wait(others)
        assert others[0].result() == others[2].result() == 2
        lines = path.read_bytes().splitlines()
        assert [line for line in lines if line in (b"0", b"2")] == [b"0", b"2"]
        assert set(lines) <= {b"first", b"0", b"1", b"2"}
        assert len(set(lines)) == len(lines)
        assert not first.cancelled() or turns == 0 or lines.count(b"first") <= 1


async def test_what_comes_in_one_turn_is_one_group(loop, tmp_path, syncs):
    path = tmp_path / "log"
    path.touch()

    async def write():
        for number in range(10):
            await fs.append(path, b"%d\n" % number, fsync=True)

    await asyncio.gather(*(write() for _ in range(32)))
    assert len(path.read_bytes()) == 32 * 10 * 2
    assert syncs() <= 20


async def test_the_first_waits_for_a_reader(loop, fifo, tmp_path):
    """Once it is given up, what waits behind it goes on."""
    first = asyncio.create_task(fs.append(fifo, b"first"))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(fs.append(fifo, b"second"))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()

    def read():
        """The thread of the first one writes, too, and may be gone before the second one has opened."""
        data = fifo.read_bytes()
        return data if data.endswith(b"second") else data + fifo.read_bytes()

    reader = asyncio.create_task(asyncio.to_thread(read))
    async with asyncio.timeout(10):
        assert await second == 6
    assert (await reader).endswith(b"second")


@pytest.mark.parametrize("seed", range(20))
async def test_any_order_of_appends_and_cancels(loop, tmp_path, seed):
    choose = random.Random(seed)
    path = tmp_path / "log"
    path.touch()
    begun, done = set(), []

    async def write(name):
        for number in range(10):
            record = b"%d.%d\n" % (name, number)
            begun.add(record)
            await fs.append(path, record, fsync=choose.random() < 0.6)
            done.append(record)
            if choose.random() < 0.3:
                await asyncio.sleep(choose.choice([0, 0, 0.0001]))

    tasks = [asyncio.create_task(write(name)) for name in range(choose.randrange(1, 12))]
    for _ in range(choose.randrange(8)):
        await asyncio.sleep(choose.random() * 0.002)
        choose.choice(tasks).cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() or not task.exception() for task in tasks)
    # A cancelled append may still be carried out while this one is.
    await fs.append(path, b"end\n", fsync=True)
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(set(lines)) == len(lines)
    assert set(done) <= set(lines) <= begun | {b"end\n"}
    for name in range(len(tasks)):
        mine = [record for record in done if record.startswith(b"%d." % name)]
        assert [line for line in lines if line in mine] == mine
