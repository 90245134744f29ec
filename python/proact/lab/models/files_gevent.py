"""Files with gevent: its hub can't wait for them, so its thread pool does (Stevens, fig. 6.1, in threads).

A greenlet that asks for an operation is switched out until a thread has done it in blocking calls.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from proact.lab.files.calls import perform

if TYPE_CHECKING:
    from proact.lab.files.calls import Lane
    from proact.lab.files.work import Work


def run(work: Work) -> None:
    """A greenlet follows each lane; there is a thread for each of them."""
    # By name, because gevent is optional and the type checker may not have it.
    gevent: Any = importlib.import_module("gevent")
    pool: Any = importlib.import_module("gevent.threadpool").ThreadPool(work.concurrency)
    work.how = "gevent's thread pool: a thread for each operation at once, in blocking calls"

    def follow(lane: Lane) -> None:
        for operation in lane:
            pool.apply(perform, (operation,))

    for lanes in work:
        gevent.joinall([gevent.spawn(follow, lane) for lane in lanes], raise_error=True)
