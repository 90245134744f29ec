"""A file and its event loop: a loop that ends, that is closed, and another one that uses the same file."""

import asyncio
import gc
import os
import sys

import pytest
from support import loops

import proact


def run_elsewhere(loop, *mains):
    """Run each main in a loop of its own, one after the other, in another thread; what the last returns."""

    def run():
        for main in mains:
            with asyncio.Runner(
                loop_factory=lambda: loops.new_event_loop(getattr(loop, "engine", "asyncio"))
            ) as other:
                result = other.run(main())
        return result

    return asyncio.to_thread(run)


class Slow:
    """The ways of a file whose writes wait for `go`."""

    def __init__(self, ways):
        self.ways = ways
        self.go = asyncio.Event()

    def __getattr__(self, name):
        return getattr(self.ways, name)

    async def write(self, *args):
        await self.go.wait()
        return await self.ways.write(*args)


@pytest.mark.parametrize("mode", ["ab", "wb", "a"])
async def test_what_was_taken_outlives_a_cancel_of_all_tasks(loop, tmp_path, mode):
    """As `asyncio.run` does it when the main coroutine returns."""
    path = tmp_path / "log"
    file = await proact.open(path, mode)
    await file.write("taken\n" if mode == "a" else b"taken\n")
    buffer = getattr(file, "buffer", file)
    slow = buffer._ways = Slow(buffer._ways)
    flush = asyncio.ensure_future(file.flush())
    await loops.turns()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    slow.go.set()
    await asyncio.wait(others)
    assert flush.cancelled()
    assert path.read_bytes() == b"taken\n"
    await file.close()
    assert path.read_bytes() == b"taken\n"


@pytest.mark.parametrize("mode", ["wb", "w", "r+b", "ab", "a"])
@pytest.mark.parametrize("buffering", [0, -1])
async def test_the_position_comes_after_a_cancelled_write(loop, tmp_path, mode, buffering):
    binary = mode.endswith("b")
    if not (binary or buffering):
        buffering = 1
    path = tmp_path / "file"
    path.write_bytes(b"")
    async with proact.open(path, mode, buffering) as file:
        buffer = getattr(file, "buffer", file)
        slow = buffer._ways = Slow(buffer._ways)
        data = b"x\n" * 50_000
        write = asyncio.ensure_future(file.write(data if binary else data.decode()))
        await loops.turns()
        write.cancel()
        await asyncio.wait([write])
        assert write.cancelled()
        tell = asyncio.ensure_future(file.tell())
        await loops.turns()
        slow.go.set()
        assert await tell == len(data)
        if not binary:
            assert await file.seek(0, os.SEEK_CUR) == len(data)


USES = {
    "read": lambda file: file.read(3),
    "readline": lambda file: file.readline(),
    "write": lambda file: file.write(b"more" if hasattr(file, "pread") else "more"),
    "seek": lambda file: file.seek(0),
    "truncate": lambda file: file.truncate(0),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(("mode", "buffering"), [("r+b", 0), ("r+b", -1), ("r+", -1)])
async def test_another_loop_is_told_that_the_file_is_not_its_own(loop, tmp_path, mode, buffering, use):
    path = tmp_path / "file"
    path.write_bytes(b"content\n")

    async def intrude():
        with pytest.raises(RuntimeError, match="another event loop"):
            await USES[use](file)

    async with proact.open(path, mode, buffering) as file:
        await run_elsewhere(loop, intrude)
        assert len(await file.read()) == 8


async def test_no_positional_call_from_another_loop(loop, tmp_path):
    async def intrude():
        for call in (
            lambda: file.pread(3, 0),
            lambda: file.pwrite(b"x", 0),
            lambda: file.preadv([bytearray(3)], 0),
            lambda: file.fsync(),
        ):
            with pytest.raises(RuntimeError, match="another event loop"):
                await call()

    async with proact.open(tmp_path / "file", "w+b") as file:
        await run_elsewhere(loop, intrude)


@pytest.mark.parametrize(("mode", "buffering"), [("w+b", 0), ("w+b", -1), ("w+", -1)])
async def test_a_file_goes_on_when_its_loop_was_closed(loop, tmp_path, mode, buffering):
    path, kept = tmp_path / "file", []

    def data(text):
        return text.encode() if mode.endswith("b") else text

    async def begin():
        file = await proact.open(path, mode, buffering)
        kept.append(file)
        await file.write(data("one\ntwo\n"))
        await file.seek(0)
        assert await file.readline() == data("one\n")

    async def go_on():
        (file,) = kept
        assert await file.readline() == data("two\n")
        assert await file.tell() == 8
        await file.write(data("three\n"))
        await file.close()

    await run_elsewhere(loop, begin, go_on)
    assert path.read_bytes() == b"one\ntwo\nthree\n"


async def test_who_waits_when_the_loop_is_closed_is_dropped_in_silence(loop, monkeypatch):
    near, far = os.pipe()
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)

    def run():
        other = loops.new_event_loop(getattr(loop, "engine", "asyncio"))
        other.set_exception_handler(lambda *_: None)

        async def begin():
            file = await proact.open(near, "rb", closefd=False)
            tasks.extend(asyncio.ensure_future(file.read(9)) for _ in range(4))
            await loops.turns()

        tasks = []
        other.run_until_complete(begin())
        other.close()
        tasks.clear()
        gc.collect()

    await asyncio.to_thread(run)
    gc.collect()
    os.close(near)
    os.close(far)
    assert not [str(found.exc_value) for found in seen]


@pytest.mark.parametrize("mode", ["a+b", "w+b", "a+"])
@pytest.mark.parametrize("use", ["read", "readline", "seek", "peek"])
async def test_what_was_taken_outlives_a_call_that_flushes_first(loop, tmp_path, mode, use):
    path = tmp_path / "log"
    async with proact.open(path, mode) as file:
        buffer = getattr(file, "buffer", file)
        await file.write("taken\n" if mode == "a+" else b"taken\n")
        slow = buffer._ways = Slow(buffer._ways)
        calls = {"seek": lambda: buffer.seek(0), "peek": lambda _: buffer.peek(), **USES}
        task = asyncio.ensure_future(calls[use](file))
        await loops.turns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        later = asyncio.ensure_future(file.write("later\n" if mode == "a+" else b"later\n"))
        await loops.turns()
        slow.go.set()
        await later
    assert path.read_bytes() == b"taken\nlater\n"


async def test_an_encoder_is_not_ahead_of_the_file(loop, tmp_path):
    """A write that is cancelled before its turn leaves no trace, also in what comes after it."""
    path = tmp_path / "file"
    async with proact.open(path, "w", encoding="iso2022_jp") as file:
        slow = file.buffer._ways = Slow(file.buffer._ways)
        for text in ("a" * 100_000, "\u65e5"):
            task = asyncio.ensure_future(file.write(text))
            await loops.turns()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        slow.go.set()
        await file.write("\u65e5")
    assert path.read_text("iso2022_jp") == "a" * 100_000 + "\u65e5"


@pytest.mark.not_on("asyncio", "uvloop", reason="their threads end one call at a time, as they please")
async def test_many_reads_that_end_at_once_leave_room_for_others(loop, tmp_path):
    """A turn of the loop deals with a few of them, so that timers and sockets need not wait for all."""
    path = tmp_path / "file"
    path.write_bytes(bytes(64 * 4096))
    ended = most = 0
    over = False

    async def look():
        nonlocal most
        while not over:
            before = ended
            await asyncio.sleep(0)
            most = max(most, ended - before)

    async with proact.open(path, "rb", 0) as file:

        async def read(number):
            nonlocal ended
            # Not at once, but by the ring or by a thread.
            assert len(await file._ways.read(file.fileno(), 4096, 4096 * number)) == 4096
            ended += 1

        looking = asyncio.ensure_future(look())
        await asyncio.gather(*(read(number) for number in range(64)))
        over = True
        await looking
    assert ended == 64
    assert most <= 8
