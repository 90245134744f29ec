"""Files with POSIX AIO (Stevens, fig. 6.5): a signal tells when an operation is complete.

``aio_read``, ``aio_write`` and ``aio_fsync`` return at once. In glibc a helper thread blocks for them, one
for each fd. Requests of one fd wait for each other, so a file that is open once is read by one thread at a
time. AIO has no open and close, so these are made on the spot.
"""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

from proact.lab.files.calls import Append, Call, Follower, Read, Sync
from proact.lab.models.aiocb import COMPLETED, Block, library
from proact.lab.models.sigio import number

if TYPE_CHECKING:
    from proact.lab.files.work import Work


def begin(block: Block, call: Call, follower: Follower) -> bool:
    """Hand a call over. False if AIO has no such call."""
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
        blocks = [Block(aio, each) for each in range(len(lanes))]
        followers = [Follower(lane, partial(begin, block)) for lane, block in zip(lanes, blocks, strict=True)]
        running = sum(follower.proceed() for follower in followers)
        while running:
            each = number(signal.sigwaitinfo({COMPLETED}))
            running -= not followers[each].proceed(blocks[each].result())
