"""Appends with group commit: whole records in order, one fsync for many, errors and cancels of each."""

import asyncio
import errno
import os
import resource
import signal
import threading

import pytest

from proact import fs


@pytest.fixture
def syncs(monkeypatch):
    """The fsyncs so far."""
    made = []
    fsync = os.fsync

    def counted(fd):
        made.append(fd)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", counted)
    return made


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
    assert 1 <= len(syncs) <= 3


async def test_groups_do_not_wait_for_each_others_fsync(loop, tmp_path, monkeypatch):
    path = tmp_path / "log"
    path.touch()
    begun, go_on, fsync = [], threading.Event(), os.fsync

    def slow(fd):
        begun.append(path.read_bytes())
        go_on.wait(10)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", slow)
    tasks = []
    try:
        for number in range(3):
            tasks += [asyncio.create_task(fs.append(path, b"%d" % number, fsync=True)) for _ in range(2)]
            async with asyncio.timeout(5):
                while len(begun) <= number:
                    await asyncio.sleep(0.001)
        unsynced = asyncio.create_task(fs.append(path, b"-"))
    finally:
        go_on.set()
    await asyncio.gather(*tasks, unsynced)
    assert begun == [b"00", b"0011", b"001122"]
    assert path.read_bytes() == b"001122-"


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
    await fs.append(tmp_path / "new", b"x", fsync=True)
    assert len(syncs) == 2
    await fs.append(tmp_path / "new", b"x")
    assert len(syncs) == 2


async def test_errors(loop, tmp_path):
    for path, error in ((tmp_path, errno.EISDIR), (tmp_path / "none" / "log", errno.ENOENT)):
        tasks = [asyncio.create_task(fs.append(path, data)) for data in (b"1", b"")]
        for task in tasks:
            with pytest.raises(OSError) as caught:
                await task
            assert (caught.value.errno, caught.value.filename) == (error, os.fspath(path))
    with pytest.raises(TypeError):
        await fs.append(tmp_path / "log", "text")
    with pytest.raises(OSError) as caught:
        await fs.append("/dev/full", b"x")
    assert caught.value.errno == errno.ENOSPC


async def test_full_storage_fails_only_what_was_not_written(loop, tmp_path):
    path = tmp_path / "log"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1050, limit[1]))
    try:
        done = await asyncio.gather(
            *(fs.append(path, bytes([65 + number]) * 100) for number in range(20)), return_exceptions=True
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert done[:10] == [100] * 10
    assert [error.errno for error in done[10:]] == [errno.EFBIG] * 10
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


async def test_a_cancelled_group_leaves_the_rest_to_others(loop, tmp_path):
    path = tmp_path / "log"
    for turns in range(6):
        before = asyncio.all_tasks()
        first = asyncio.create_task(fs.append(path, b"first\n", fsync=True))
        await asyncio.sleep(0)
        groups = asyncio.all_tasks() - before - {first}
        for _ in range(turns):
            await asyncio.sleep(0)
        later = [asyncio.create_task(fs.append(path, b"later\n", fsync=number > 2)) for number in range(6)]
        await asyncio.sleep(0)
        for task in groups:
            task.cancel()
        async with asyncio.timeout(10):
            done = await asyncio.gather(first, *later, return_exceptions=True)
        lost = sum(isinstance(one, BaseException) for one in done)
        assert path.read_bytes().count(b"\n") >= 7 - lost
        path.unlink()


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
