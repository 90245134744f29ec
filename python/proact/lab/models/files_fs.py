"""Files with ``proact.fs``: ``proact.open``, ``pread_into``, ``write``, ``fsync``, ``close``.

What the kernel has in memory comes at once. The rest waits in the loop's ring or, on engines without one,
in a thread of proact's pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import proact
from proact.lab.files.calls import Append, Call, Close, Open, Read, Sync
from proact.lab.models.asyncio_protocol import new_loop
from proact.lab.models.files_proact import carried_out
from proact.lab.models.lanes import follow_all

if TYPE_CHECKING:
    from typing import Literal

    from proact import EventLoop
    from proact.fs import RawFile
    from proact.lab.files.calls import Lane
    from proact.lab.files.work import Work


def run(work: Work) -> None:
    """A task follows each lane."""
    loop: EventLoop = new_loop("proact", "auto")
    work.how = f"proact.fs: {carried_out(loop.engine_info())}"

    async def one_round(lanes: list[Lane]) -> None:
        files: dict[int, RawFile] = {}

        async def of(fd: int, mode: Literal["rb", "ab"]) -> RawFile:
            if fd not in files:
                files[fd] = await proact.open(fd, mode, 0, closefd=False)
            return files[fd]

        async def make(_lane: int, call: Call) -> int:
            match call:
                case Open():
                    file = await proact.open(call.path, "rb", 0)
                    files[file.fileno()] = file
                    return file.fileno()
                case Read():
                    return await (await of(call.fd, "rb")).pread_into(call.buffer, call.offset)
                case Append():
                    return await (await of(call.fd, "ab")).write(call.data)
                case Sync():
                    await (await of(call.fd, "ab")).fsync()
                case Close():
                    await files.pop(call.fd).close()
            return 0

        await follow_all(lanes, make)
        for file in files.values():
            await file.close()

    for lanes in work:
        loop.run_until_complete(one_round(lanes))
    loop.close()


async def read(fd: int, offset: int, buffer: memoryview) -> int:
    """Read a piece of a file that is open, for the mixed workload."""
    async with proact.open(fd, "rb", 0, closefd=False) as file:
        return await file.pread_into(buffer, offset)
