"""Files on an event loop without operations for files, such as asyncio's: ``run_in_executor``.

For each operation a thread is woken up, sleeps in blocking calls (Stevens, fig. 6.1), and wakes up the loop.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from proact.lab.files.calls import perform
from proact.lab.models.asyncio_protocol import new_loop

if TYPE_CHECKING:
    from proact.lab.files.calls import Lane
    from proact.lab.files.work import Work


def run(work: Work, package: str) -> None:
    """A task follows each lane; there is a thread for each of them."""
    work.how = "run_in_executor: a thread for each operation at once, in blocking calls"
    loop = new_loop(package, None)

    async def follow(lane: Lane) -> None:
        for operation in lane:
            await loop.run_in_executor(pool, perform, operation)

    async def follow_all(lanes: list[Lane]) -> None:
        await asyncio.gather(*map(follow, lanes))

    with ThreadPoolExecutor(work.concurrency) as pool:
        for lanes in work:
            loop.run_until_complete(follow_all(lanes))
    loop.close()
