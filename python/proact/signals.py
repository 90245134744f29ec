"""The signal handlers of a loop, and how a signal wakes it.

Python's own C handler writes the number of each signal to a socket pair that the loop watches. So a signal is
never lost between two runs, a wait ends at once, and the handlers run in the loop as callbacks do.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import signal
import socket
import threading

from . import _core

TYPE_CHECKING = False

if TYPE_CHECKING:
    from asyncio import events

    from .loop import EventLoop

__all__ = ["Signals", "check"]


_Pair = tuple[socket.socket, socket.socket]

# The loops that run in the main thread, the outermost first. Each remembers the wake-up fd that was set
# before.
_entered: list[Signals] = []


def check(number: int) -> None:
    """Raise TypeError or ValueError unless the argument is a signal number."""
    if not isinstance(number, int):
        raise TypeError(f"sig must be an int, not {number!r}")
    if number not in signal.valid_signals():
        raise ValueError(f"invalid signal number {number}")


class _Notice:
    """The Python-level handler of the signals that a loop handles.

    When Python calls it, the signal's number is already in the socket pair, so it normally does nothing. But
    if another thread has closed the loop, it releases the pair: only the main thread, which runs this
    handler, can take the wake-up fd from Python.
    """

    def __init__(self) -> None:
        self.orphan: _Pair | None = None

    def __call__(self, number: int, frame: object) -> None:
        orphan, self.orphan = self.orphan, None
        if orphan is not None:
            _give_up(orphan)


class Signals:
    """The handlers of a loop by signal number. As a context manager it lets signals wake the loop while the
    loop runs in the main thread.
    """

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._handlers: dict[int, events.Handle] = {}
        self._pair: _Pair | None = None
        self._notice = _Notice()
        # While the loop runs: the wake-up fd that was set before.
        self._previous: int | None = None

    def is_open(self) -> bool:
        """Whether the loop watches the socket pair."""
        return self._pair is not None

    def add(self, number: int, handle: events.Handle) -> None:
        """Set a handler. Raises RuntimeError outside of the main thread, or if the signal can't be caught."""
        if not _in_main_thread():
            raise RuntimeError("add_signal_handler() can only be called from the main thread")
        ours = self._open().fileno()
        previous = signal.set_wakeup_fd(ours, warn_on_full_buffer=False)
        if previous not in (-1, ours) and not self._loop.is_running():
            signal.set_wakeup_fd(previous, warn_on_full_buffer=False)
        try:
            signal.signal(number, self._notice)
            signal.siginterrupt(number, False)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise RuntimeError(f"sig {number} cannot be caught") from None
            raise
        self._handlers[number] = handle

    def remove(self, number: int) -> bool:
        """Restore Python's default; return whether there was a handler. Raises ValueError outside of the main
        thread.
        """
        if number not in self._handlers:
            return False
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        del self._handlers[number]
        return True

    def close(self) -> None:
        """Restore all previous handlers, then raise ValueError if this is not the main thread."""
        with contextlib.ExitStack() as steps:
            for number in self._handlers:
                steps.callback(self.remove, number)

    def close_pair(self) -> None:
        """Drop the loop: no signal wakes it any more."""
        pair, self._pair = self._pair, None
        if pair is None:
            return
        with contextlib.ExitStack() as steps:
            if not self._hand_over(pair):
                steps.callback(_give_up, pair)
            self._loop._unwatch(pair[0], False)
        del self._loop

    def _hand_over(self, pair: _Pair) -> bool:
        """Called in another thread: make the main thread release the pair: Python may still write to it."""
        if _in_main_thread():
            return False
        for number in self._handlers:
            current: object = signal.getsignal(number)
            if current is self._notice:
                self._notice.orphan = pair
                # Pretend that the signal came. No other loop has a handler for it, or Python had its notice.
                _thread.interrupt_main(number)  # type: ignore[arg-type]  # any number, named or not
                return True
        return False

    def __enter__(self) -> None:
        if _in_main_thread():
            self._previous = signal.set_wakeup_fd(self._open().fileno(), warn_on_full_buffer=False)
            _entered.append(self)

    def __exit__(self, *_: object) -> None:
        previous, self._previous = self._previous, None
        if previous is None:
            return
        _entered.remove(self)
        # A loop with handlers keeps the fd between two runs, so that no signal is lost there.
        if self._pair is not None and not self._handlers:
            _set_wakeup_fd(-1 if previous == self._pair[1].fileno() else previous)

    def _open(self) -> socket.socket:
        """The end that Python's signal handler writes to."""
        if self._pair is None:
            receiver, sender = pair = socket.socketpair()
            try:
                receiver.setblocking(False)
                sender.setblocking(False)
                self._loop._watch(receiver, False, _core.Handle(self._read, ()))
            except BaseException:
                receiver.close()
                sender.close()
                raise
            self._pair = pair
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


def _set_wakeup_fd(fd: int) -> None:
    try:
        signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    except (OSError, ValueError):
        # The fd that was set before has been closed meanwhile.
        signal.set_wakeup_fd(-1)


def _give_up(pair: _Pair) -> None:
    """Close a pair, and make sure that Python does not write to the next file with its number."""
    ours = pair[1].fileno()
    with contextlib.ExitStack() as steps:
        for end in pair:
            steps.callback(end.close)
        if not _in_main_thread():
            return
        for other in _entered:
            if other._previous == ours:
                other._previous = -1
        current = signal.set_wakeup_fd(-1)
        if current not in (-1, ours):
            _set_wakeup_fd(current)
