"""What the models on an event loop have in common: a task follows each lane and awaits its calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from proact.lab.files.calls import Call, Lane


async def follow_all(lanes: list[Lane], make: Callable[[int, Call], Awaitable[int]]) -> None:
    """Follow all lanes at once; ``make`` makes a call for the lane of that number."""

    async def follow(number: int, lane: Lane) -> None:
        for operation in lane:
            try:
                call = next(operation)
                while True:
                    call = operation.send(await make(number, call))
            except StopIteration:
                continue

    await asyncio.gather(*(follow(number, lane) for number, lane in enumerate(lanes)))
