"""Files with io_uring (Stevens, fig. 6.5): operations go in, completions come out, as on connections.

A read, a write or an fsync is one operation, with its offset, whether its data is in memory or not. If the
kernel can't do an operation without blocking, such as an fsync, it hands it to threads of its own
(``iou-wrk``), at most four for each core (io_uring_register_iowq_max_workers(3)). Files are opened and closed
on the spot, in plain calls: ``proact.Ring`` has no operation for that.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import proact
from proact.lab.files.calls import Append, Call, Follower, Read, Sync

if TYPE_CHECKING:
    from proact.lab.files.work import Work


def run(work: Work) -> None:
    """Follow all lanes with the completions as they come: one system call a turn."""
    work.how = "read, write, fsync: operations of a ring; open and close: plain calls"
    with proact.Ring() as ring:

        def begin(call: Call, follower: Follower) -> bool:
            match call:
                case Read():
                    ring.read(call.fd, call.buffer, call.offset, data=follower)
                case Append():
                    ring.write(call.fd, call.data, 0, data=follower)  # O_APPEND overrides the offset
                case Sync():
                    ring.fsync(call.fd, data=follower)
                case _:
                    return False
            return True

        for lanes in work:
            running = sum(Follower(lane, begin).proceed() for lane in lanes)
            while running:
                for completion in ring.wait():
                    if completion.result < 0:
                        raise OSError(-completion.result, os.strerror(-completion.result))
                    running -= not completion.data.proceed(completion.result)
