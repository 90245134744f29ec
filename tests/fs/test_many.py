"""Many files in one await: contents and status in order, errors, other tasks in between, and cancels."""

import asyncio
import os

import pytest

from proact import fs


@pytest.fixture
def paths(tmp_path):
    made = []
    for number in range(700):
        path = tmp_path / f"{number}"
        path.write_bytes(b"%d " % number * (number % 50))
        made.append(path)
    return made


async def test_read_in_order(loop, paths):
    assert await fs.read_many(paths) == [path.read_bytes() for path in paths]
    assert await fs.read_many(map(str, paths), concurrency=1) == [path.read_bytes() for path in paths]
    assert await fs.read_many([]) == []


async def test_stat_in_order(loop, paths, tmp_path):
    (tmp_path / "link").symlink_to("none")
    assert [status.st_ino for status in await fs.stat_many(paths)] == [path.stat().st_ino for path in paths]
    (status,) = await fs.stat_many([tmp_path / "link"], follow_symlinks=False)
    assert status == os.lstat(tmp_path / "link")
    with pytest.raises(FileNotFoundError):
        await fs.stat_many([*paths, tmp_path / "link"])


@pytest.mark.parametrize("many", [fs.read_many, fs.stat_many])
async def test_errors(loop, paths, many, tmp_path):
    paths[300:300] = [tmp_path / "none"]
    with pytest.raises(FileNotFoundError) as caught:
        await many(paths)
    assert caught.value.filename == os.fspath(paths[300])
    found = await many(paths, return_exceptions=True)
    assert [index for index, result in enumerate(found) if isinstance(result, Exception)] == [300]
    assert isinstance(found[300], FileNotFoundError)
    with pytest.raises(ValueError, match="concurrency"):
        await many(paths, concurrency=0)
    with pytest.raises(TypeError):
        await many([*paths[:10], 3.5])


async def test_what_is_not_cached_is_read_too(loop, paths):
    for path in paths[::7]:
        with path.open("rb+") as file:
            os.fsync(file)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert await fs.read_many(paths, concurrency=3) == [path.read_bytes() for path in paths]


async def test_other_tasks_run_meanwhile(loop, paths):
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    await fs.read_many(paths * 3)
    assert turns > 5
    before = turns
    await fs.stat_many(paths * 3)
    assert turns > before + 5
    counting.cancel()


@pytest.mark.parametrize("many", [fs.read_many, fs.stat_many])
async def test_cancelled(loop, paths, many, fifo, freed):
    if many is fs.read_many:
        paths[200:200] = [fifo]
    for turns in range(0, 20, 3):
        task = asyncio.create_task(many(paths * 2))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    await freed()
