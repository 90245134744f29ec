"""Operations on pipes and FIFOs that are cancelled, or time out, while they are in flight.

PROACT_FS_CANCELS=1000000   how many, on each engine (default: 2000)
"""

import asyncio
import os
import random

import pytest
from support import loops

import proact
from proact.fs.ways import of_running_loop

CANCELS = int(os.environ.get("PROACT_FS_CANCELS", "2000"))
AT_ONCE = 20
POISON = 0xAA

# One operation may hang in the pool of an asyncio loop until its peer comes.
only_proact = pytest.mark.skipif(bool(loops.REFERENCE), reason="counts the ops in flight of proact's loops")


class Pipe:
    """A pipe that nothing comes out of, or that nothing fits into."""

    def __init__(self, full):
        self.near, self.far = os.pipe()
        self.content = 0
        if full:
            os.set_blocking(self.far, False)
            try:
                while True:
                    self.content += os.write(self.far, bytes(1 << 16))
            except BlockingIOError:
                os.set_blocking(self.far, True)

    def drain(self):
        os.set_blocking(self.near, False)
        count = 0
        try:
            while got := os.read(self.near, 1 << 20):
                count += len(got)
        except BlockingIOError:
            pass
        os.set_blocking(self.near, True)
        return count

    def close(self):
        os.close(self.near)
        os.close(self.far)


async def begun(ways, kind, pipe, room):
    calls = {
        "read": lambda: ways.read(pipe.near, len(room), -1),
        "read_into": lambda: ways.read_into(pipe.near, room, -1),
        "readv": lambda: ways.readv(pipe.near, [memoryview(room)[:50], memoryview(room)[50:]], -1),
        "write": lambda: ways.write(pipe.far, room, -1),
        "writev": lambda: ways.writev(pipe.far, [room, b"more"], -1),
    }
    return await calls[kind]()


async def landed(loop):
    async with asyncio.timeout(30):
        turns = 0
        while loops.in_flight(loop):
            turns += 1
            await asyncio.sleep(0 if turns < 20 else 0.001)


async def give_up(loop, chance, task):
    """Cancel what is in flight, or let it time out."""
    if chance.random() < 0.7:
        task.cancel()
    else:

        async def limited():
            async with asyncio.timeout(chance.choice([0, 0.0005])):
                await task

        with pytest.raises(TimeoutError):
            await limited()
        return
    with pytest.raises(asyncio.CancelledError):
        await task


@only_proact
async def test_no_buffer_is_written_to_after_its_op(loop):
    ways, chance = of_running_loop(), random.Random(7)
    for _ in range(0, CANCELS, AT_ONCE):
        buffers, pipes, tasks = [], [], []
        for _ in range(AT_ONCE):
            kind = chance.choice(["read", "read_into", "readv", "write", "writev"])
            pipe = Pipe(full="write" in kind)
            room = bytearray([POISON]) * chance.choice([1, 100, 70_000])
            tasks.append(asyncio.ensure_future(begun(ways, kind, pipe, room)))
            buffers.append(room)
            pipes.append((pipe, kind))
        await loops.turns()
        assert loops.in_flight(loop) >= AT_ONCE
        assert not any(task.done() for task in tasks)
        for task in chance.sample(tasks, AT_ONCE):
            await give_up(loop, chance, task)
        await landed(loop)
        for (pipe, kind), room in zip(pipes, buffers, strict=True):
            # Nothing has come, so nothing was written into it; it is free, and other bytes don't get there.
            assert room.count(POISON) == len(room)
            room += b"\xaa"
            if "read" in kind:
                os.write(pipe.far, b"late bytes")
                await loops.turns(1)
                assert os.read(pipe.near, 100) == b"late bytes"
            else:
                assert pipe.drain() >= pipe.content
            assert room.count(POISON) == len(room)
            pipe.close()


@only_proact
async def test_a_buffer_has_what_came_or_nothing(loop):
    """The bytes come in the turn of the cancel: the op may have them, and writes nowhere else."""
    ways, chance = of_running_loop(), random.Random(8)
    for _ in range(CANCELS // 4):
        pipe = Pipe(full=False)
        room = bytearray([POISON]) * 64
        task = asyncio.ensure_future(ways.read_into(pipe.near, memoryview(room)[16:48], -1))
        await loops.pending(loop, task)
        if chance.random() < 0.5:
            os.write(pipe.far, b"x" * 40)
            task.cancel()
        else:
            task.cancel()
            os.write(pipe.far, b"x" * 40)
        await asyncio.wait([task])
        await landed(loop)
        left = pipe.drain()
        assert left in (8, 40)
        assert (
            room
            == bytearray([POISON]) * 16
            + (b"x" * 32 if left == 8 else bytearray([POISON]) * 32)
            + bytearray([POISON]) * 16
        )
        pipe.close()


@pytest.mark.parametrize("mode", ["rb", "r"])
@pytest.mark.parametrize("buffering", [0, -1])
async def test_the_bytes_of_a_pipe_are_read_once_each(loop, mode, buffering):
    if mode == "r" and not buffering:
        buffering = 1
    near, far = os.pipe()
    chance, sent, got, numbers = random.Random(9), [], [], iter(range(10**9))
    async with proact.open(near, mode, buffering) as file:
        for _ in range(CANCELS):
            call = chance.choice([file.readline, lambda: file.read(chance.randint(1, 9))])
            task = asyncio.ensure_future(call())
            for _ in range(chance.randint(0, 4)):
                if chance.random() < 0.6:
                    data = b"%d\n" % next(numbers)
                    data = data[: chance.randint(1, len(data))]
                    os.write(far, data)
                    sent.append(data)
                await loops.turns(chance.randint(0, 2))
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                got.append(task.result())
        os.close(far)
        got.append(await (file.readall() if hasattr(file, "readall") else file.read()))
    got = b"".join(piece if isinstance(piece, bytes) else piece.encode() for piece in got)
    assert got == b"".join(sent)


async def test_opens_of_fifos(loop, fifo, freed):
    before = len(os.listdir("/proc/self/fd"))
    chance = random.Random(10)
    for _ in range(0, CANCELS, AT_ONCE * 4):
        tasks = [
            asyncio.ensure_future(proact.open(fifo, chance.choice(["rb", "r"])).__aenter__())
            for _ in range(AT_ONCE)
        ]
        await asyncio.sleep(chance.choice([0, 0, 0.003]))
        assert not any(task.done() for task in tasks)
        for task in tasks:
            await give_up(loop, chance, task)
    await freed()
    await landed(loop)
    async with asyncio.timeout(30):
        # The fd of an open that has gone on in a thread is closed there.
        while len(os.listdir("/proc/self/fd")) > before:
            await asyncio.sleep(0.001)


async def test_the_position_after_cancels(loop, tmp_path):
    """Wherever an operation on a plain file is cancelled, the position is before it or after it."""
    path = tmp_path / "file"
    content = b"".join(b"%07d\n" % number for number in range(200_000))
    path.write_bytes(content)
    chance, cancelled = random.Random(11), 0
    for mode, buffering in (("rb", 0), ("rb", -1), ("r", -1)):
        async with proact.open(path, mode, buffering) as file:
            for _ in range(CANCELS // 6):
                # Not in the cache of the page that is read, so that the op waits.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                begin = chance.randrange(0, 190_000) * 8
                size = chance.choice([8, 8000, 80_000])
                await file.seek(begin)
                task = asyncio.ensure_future(file.read(size))
                await loops.turns(chance.randint(0, 3))
                task.cancel()
                await asyncio.wait([task])
                cancelled += task.cancelled()
                place = await file.tell()
                assert place == begin if task.cancelled() else begin <= place <= begin + size
                line = await file.readline()
                assert (line if mode == "r" else line.decode()) == content[place : place + 8].decode()
    assert cancelled


async def test_writes_go_on_when_they_are_cancelled(loop, tmp_path):
    """Never is older data written over newer data."""
    chance, path = random.Random(12), tmp_path / "file"
    for mode, buffering in (("r+b", 0), ("r+b", -1), ("r+b", 100)):
        path.write_bytes(b"")
        expected = bytearray()
        async with proact.open(path, mode, buffering) as file:
            for number in range(CANCELS // 4):
                data = bytes([number % 256]) * chance.choice([10, 1000, 100_000])
                begin = chance.choice([0, 500, 100_000])
                await file.seek(begin)
                await file.flush()
                task = asyncio.ensure_future(file.write(data))
                await loops.turns(chance.randint(1, 2))
                task.cancel()
                await asyncio.wait([task])
                flush = asyncio.ensure_future(file.flush())
                await loops.turns(chance.randint(0, 2))
                flush.cancel()
                # Both have begun, and so they are carried out in their turns.
                if len(expected) < begin:
                    expected += bytes(begin - len(expected))
                await file.seek(0, os.SEEK_END)
                await file.flush()
                expected[begin : begin + len(data)] = data
                assert path.read_bytes() == expected
