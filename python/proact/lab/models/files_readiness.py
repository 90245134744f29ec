"""Files for the models that wait for readiness, and for blocking I/O: these models block (Stevens, fig. 6.1).

A regular file is never "not ready", whether its data is in memory or not: select and poll report it ready,
epoll and libevent refuse it, O_NONBLOCK changes nothing, O_ASYNC brings no signal. So however many operations
are wanted at once, the one thread sleeps in each of them until its data is there, and does one after the
other. Each run asks the kernel anew about a file, one that has just left the page cache.
"""

from __future__ import annotations

import errno
import os
import select
import signal
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proact.lab.files.calls import perform
from proact.lab.models import libevent, sigio

if TYPE_CHECKING:
    from proact.lab.files.work import Work


def run(work: Work, model: str) -> None:
    """Do the first operation of each lane, then the second of each, and so on."""
    work.how = f"blocking calls, one after the other{tried(model, work.files.large)}"
    for lanes in work:
        for at_once in zip_longest(*lanes):
            for operation in filter(None, at_once):  # a lane may be shorter than the others
                perform(operation)


def tried(model: str, path: str) -> str:
    """The outcome of asking for the readiness of a file, in the way of ``model``."""
    if model == "blocking":
        return ""  # this model does not ask
    with Path(path).open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        state = "in memory" if in_memory(file.fileno()) else "not in memory"
        try:
            said = TRIALS[model](file.fileno())
        except OSError as error:
            said = f"{model} refuses it, {errno.errorcode[error.errno or 0]}"
    return f"; of a file that is {state}: {said}"


def in_memory(fd: int) -> bool:
    """Whether the first page of a file can be read without waiting for the device."""
    try:
        return os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT) == 1
    except OSError:
        return False


def try_nonblocking(fd: int) -> str:
    os.set_blocking(fd, False)
    return f"pread with O_NONBLOCK waits and returns {len(os.pread(fd, 512, 512))} bytes"


def try_select(fd: int) -> str:
    ready = select.select([fd], [fd], [], 0)
    return f"select reports {len(ready[0] + ready[1])} of 2 states ready at once"


def try_poll(fd: int) -> str:
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLOUT)
    return f"poll reports {sum(states.bit_count() for _, states in poll.poll(0))} of 2 states ready at once"


def try_epoll(fd: int) -> str:
    select.epoll().register(fd, select.EPOLLIN)
    return "epoll takes it"


def try_libevent(fd: int) -> str:
    event = libevent.library()
    callback = libevent.callback(lambda fd: None)
    new = event.event_new(event.event_base_new(), fd, libevent.READ | libevent.PERSIST, callback, None)
    return f"libevent {'takes' if event.event_add(new, None) == 0 else 'refuses'} it"


def try_sigio(fd: int) -> str:
    signal.pthread_sigmask(signal.SIG_BLOCK, {sigio.CHANGED})
    sigio.arm(fd)
    os.pread(fd, 512, 512)
    return f"O_ASYNC brings {'a' if signal.sigtimedwait({sigio.CHANGED}, 0.02) else 'no'} signal"


TRIALS: Final = {
    "nonblocking": try_nonblocking,
    "select": try_select,
    "poll": try_poll,
    "epoll": try_epoll,
    "libevent": try_libevent,
    "sigio": try_sigio,
}
