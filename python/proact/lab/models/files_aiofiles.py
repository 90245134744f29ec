"""Files with aiofiles on asyncio's loop: a thread makes each call of a blocking file object (fig. 6.1).

A file object has one position, so each lane opens the files that it reads; aiofiles has no ``pread``.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from typing import TYPE_CHECKING, Any

from proact.lab.files.calls import Append, Call, Close, Open, Read, Sync
from proact.lab.models.lanes import follow_all

if TYPE_CHECKING:
    from proact.lab.files.calls import Lane
    from proact.lab.files.work import Work


async def reopened(fd: int, mode: str) -> Any:
    """A file object of its own, with a position of its own, of a file that is open."""
    # By name, because aiofiles is optional and the type checker may not have it.
    opened: Any = importlib.import_module("aiofiles").open
    direct = await asyncio.to_thread(_flags, fd) & os.O_DIRECT
    return await opened(
        f"/proc/self/fd/{fd}", mode, buffering=0, opener=lambda path, flags: os.open(path, flags | direct)
    )


def _flags(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_GETFL)


def run(work: Work) -> None:
    """A task follows each lane."""
    work.how = "aiofiles on asyncio: a thread for each call of a blocking file object"
    opened: Any = importlib.import_module("aiofiles").open
    files: dict[tuple[int, int], Any] = {}

    async def of(lane: int, fd: int, mode: str) -> Any:
        if (lane, fd) not in files:
            files[lane, fd] = await reopened(fd, mode)
        return files[lane, fd]

    async def make(lane: int, call: Call) -> int:
        match call:
            case Open():
                file = await opened(call.path, "rb", buffering=0)
                files[lane, file.fileno()] = file
                number: int = file.fileno()
                return number
            case Read():
                file = await of(lane, call.fd, "rb")
                if await file.tell() != call.offset:
                    await file.seek(call.offset)
                count: int = await file.readinto(call.buffer)
                return count
            case Append():
                written: int = await (await of(lane, call.fd, "ab")).write(call.data)
                return written
            case Sync():
                await asyncio.to_thread(os.fsync, call.fd)
            case Close():
                await files.pop((lane, call.fd)).close()
        return 0

    async def one_round(lanes: list[Lane]) -> None:
        await follow_all(lanes, make)
        for file in files.values():
            await file.close()
        files.clear()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        for lanes in work:
            runner.run(one_round(lanes))


async def read(fd: int, offset: int, buffer: memoryview) -> int:
    """Read a piece of a file that is open, for the mixed workload."""
    file = await reopened(fd, "rb")
    try:
        await file.seek(offset)
        count: int = await file.readinto(buffer)
        return count
    finally:
        await file.close()
