"""Files with POSIX AIO (Stevens, fig. 6.5): told by a signal when an operation is complete.

``aio_read``, ``aio_write`` and ``aio_fsync`` return at once; in glibc a helper thread blocks for them, one
for each fd: requests of one fd wait for each other, so a file that is open once is read by one at a time.
There is no AIO for open and close, which are made on the spot.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from proact.lab.files.calls import Append, Call, Operation, Read, Sync
from proact.lab.models.aiocb import COMPLETED, Block, library
from proact.lab.models.sigio import number

if TYPE_CHECKING:
    from proact.lab.files.calls import Lane
    from proact.lab.files.work import Work


class Follower:
    """A lane, its operation, and the request that this has under way."""

    def __init__(self, lane: Lane, block: Block) -> None:
        self.lane, self.block = lane, block
        self.operation: Operation | None = None

    def proceed(self, result: int | None = None) -> bool:
        """Go on with the result of a request until the next is under way. False at the lane's end."""
        while True:
            if self.operation is None:
                self.operation = next(self.lane, None)
                if self.operation is None:
                    return False
            try:
                call = next(self.operation) if result is None else self.operation.send(result)
            except StopIteration:
                self.operation = result = None
                continue
            if begin(call, self.block):
                return True
            result = call.make()


def begin(call: Call, block: Block) -> bool:
    """Hand a call over. False if AIO has none like it."""
    match call:
        case Read():
            block.read(call.fd, call.buffer, call.offset)
        case Append():
            block.write(call.fd, call.data)
        case Sync():
            block.sync(call.fd)
        case _:
            return False
    return True


def run(work: Work) -> None:
    """Follow all lanes with the completions as they come."""
    work.how = "aio_read, aio_write, aio_fsync: glibc's helper threads, one for each fd"
    signal.pthread_sigmask(signal.SIG_BLOCK, {COMPLETED})
    aio = library(work.concurrency)
    for lanes in work:
        followers = {each: Follower(lane, Block(aio, each)) for each, lane in enumerate(lanes)}
        running = {each for each, follower in followers.items() if follower.proceed()}
        while running:
            each = number(signal.sigwaitinfo({COMPLETED}))
            if not followers[each].proceed(followers[each].block.result()):
                running.discard(each)
