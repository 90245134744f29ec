"""Files on proact's loop, which has operations for files: ``_read_at``, ``_write_at``, ``_fsync``.

On io_uring each is an operation of the loop's ring. The readiness engines hand it to proact's pool of
threads, which are native: they block without the interpreter (Stevens, fig. 6.1), and one wake-up of the loop
may bring many results. Files are opened and closed on the spot, in plain calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from proact.lab.files.calls import Append, Call, Read, Sync
from proact.lab.models.asyncio_protocol import new_loop
from proact.lab.models.lanes import follow_all

if TYPE_CHECKING:
    from proact import EventLoop
    from proact.lab.files.work import Work

#: The kinds of operation that are used, named as in ``loop.stats()``.
KINDS: Final = ("read", "write", "fsync")


def run(work: Work, engine: str) -> None:
    """A task follows each lane."""
    loop: EventLoop = new_loop("proact", engine)
    work.how = f"{', '.join(KINDS)}: {carried_out(loop.engine_info())}; open and close: plain calls"

    async def make(_lane: int, call: Call) -> int:
        match call:
            case Read():
                return await loop._read_at(call.fd, call.buffer, call.offset)
            case Append():
                return await loop._write_at(call.fd, call.data, 0)  # O_APPEND overrides the offset
            case Sync():
                await loop._fsync(call.fd)
                return 0
            case _:
                return call.make()

    for lanes in work:
        loop.run_until_complete(follow_all(lanes, make))
    loop.close()


def carried_out(info: dict[str, Any]) -> str:
    """Which part carried out the operations, according to the loop's own report."""
    if not info["opcodes"]:
        return f"proact's pool of threads beside {info['chosen']}"
    other_ways = [line for line in info["fallbacks"] if line.partition(" ")[0] in KINDS]
    return "; ".join([f"operations of the loop's ring ({info['chosen']})", *other_ways])
