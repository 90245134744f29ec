"""Files with caio on asyncio's loop: io_uring where the machine has it, else kernel AIO or threads of C.

It reads into memory of its own, which is copied, and which is not aligned as O_DIRECT needs it. Files are
opened and closed on the spot, in plain calls: caio has no operation for that.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

from proact.lab.files.calls import Append, Call, Read, Sync
from proact.lab.models.lanes import follow_all

if TYPE_CHECKING:
    from proact.lab.files.calls import Lane
    from proact.lab.files.work import Work


def run(work: Work) -> None:
    """A task follows each lane."""
    # By name, because caio is optional and the type checker may not have it.
    kind: Any = importlib.import_module("caio").AsyncioContext
    work.how = f"{kind.__module__} on asyncio; open and close: plain calls"

    async def one_round(lanes: list[Lane]) -> None:
        context: Any = kind(max_requests=max(work.concurrency, 32))

        async def make(_lane: int, call: Call) -> int:
            match call:
                case Read():
                    data = await context.read(len(call.buffer), call.fd, call.offset)
                    call.buffer[: len(data)] = data
                    return len(data)
                case Append():
                    # O_APPEND overrides the offset.
                    count: int = await context.write(call.data, call.fd, 0)
                    return count
                case Sync():
                    await context.fsync(call.fd)
                    return 0
                case _:
                    return call.make()

        await follow_all(lanes, make)
        context.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        for lanes in work:
            runner.run(one_round(lanes))
