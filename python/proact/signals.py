"""The signal handlers of a loop, and how a signal wakes it.

Python's own C handler writes the number of each signal to a socket pair that the loop watches. So a signal is
never lost between two runs, a wait ends at once, and the handlers run in the loop as callbacks do.
"""

from __future__ import annotations

import errno
import signal
import socket
import threading
from typing import TYPE_CHECKING

from . import _core

if TYPE_CHECKING:
    from asyncio import events

    from .loop import EventLoop

__all__ = ["Signals", "check"]


def check(number: int) -> None:
    """Raise TypeError or ValueError for what is no signal."""
    if not isinstance(number, int):
        raise TypeError(f"sig must be an int, not {number!r}")
    if number not in signal.valid_signals():
        raise ValueError(f"invalid signal number {number}")


class Signals:
    """Handlers by signal number; a context in which signals wake the loop, if it runs in the main thread."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._handlers: dict[int, events.Handle] = {}
        self._pair: tuple[socket.socket, socket.socket] | None = None
        # While the loop runs: the wake-up fd that was set before.
        self._previous: int | None = None

    def is_open(self) -> bool:
        """Whether the loop watches the socket pair."""
        return self._pair is not None

    def add(self, number: int, handle: events.Handle) -> None:
        """Set a handler. ValueError outside of the main thread, RuntimeError if it can't be caught."""
        if not _in_main_thread():
            raise ValueError("add_signal_handler() can only be called from the main thread")
        ours = self._open().fileno()
        previous = signal.set_wakeup_fd(ours, warn_on_full_buffer=False)
        if previous not in (-1, ours) and not self._loop.is_running():
            signal.set_wakeup_fd(previous, warn_on_full_buffer=False)
        self._handlers[number] = handle
        try:
            signal.signal(number, _ignore)
            signal.siginterrupt(number, False)
        except OSError as error:
            del self._handlers[number]
            if error.errno == errno.EINVAL:
                raise RuntimeError(f"sig {number} cannot be caught") from None
            raise

    def remove(self, number: int) -> bool:
        """Restore Python's default; whether there was a handler."""
        if self._handlers.pop(number, None) is None:
            return False
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        return True

    def close(self) -> None:
        """Restore what was there before, and let go of the loop."""
        for number in list(self._handlers):
            self.remove(number)
        self._close_pair()
        del self._loop

    def _close_pair(self) -> None:
        if self._pair is None:
            return
        receiver, sender = self._pair
        if _in_main_thread():
            current = signal.set_wakeup_fd(-1)
            if current not in (-1, sender.fileno()):
                signal.set_wakeup_fd(current, warn_on_full_buffer=False)
        self._loop._unwatch(receiver, False)
        receiver.close()
        sender.close()
        self._pair = None

    def __enter__(self) -> None:
        if _in_main_thread():
            self._previous = signal.set_wakeup_fd(self._open().fileno(), warn_on_full_buffer=False)

    def __exit__(self, *_: object) -> None:
        previous, self._previous = self._previous, None
        if previous is None or self._pair is None:
            return
        # With handlers of its own the loop keeps the fd, so that a signal between two runs is not lost.
        if not self._handlers:
            ours = self._pair[1].fileno()
            signal.set_wakeup_fd(-1 if previous == ours else previous, warn_on_full_buffer=False)

    def _open(self) -> socket.socket:
        """The end that Python's signal handler writes to."""
        if self._pair is None:
            self._pair = receiver, sender = socket.socketpair()
            receiver.setblocking(False)
            sender.setblocking(False)
            self._loop._watch(receiver, False, _core.Handle(self._read, ()))
        return self._pair[1]

    def _read(self) -> None:
        if self._pair is None:
            return
        try:
            numbers = self._pair[0].recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        for number in numbers:
            handle = self._handlers.get(number)
            if handle is None:
                continue
            if handle.cancelled():
                self.remove(number)
            else:
                self._loop.call_soon(handle._run)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _ignore(number: int, frame: object) -> None:
    """Only so that Python's C handler writes to the socket pair."""
