"""Ctrl-C and SIGTERM both end a command in good order, with everything that it has started or made."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from proact.cli.error import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class StoppedError(CommandError):
    """Ctrl-C or SIGTERM has ended the command; its exit code is a shell's for that signal."""


@contextmanager
def stoppable(*, loop: bool = False) -> Iterator[None]:
    """Inside this context, SIGTERM does what Ctrl-C does; raise StoppedError after either has ended it.

    A second Ctrl-C is ignored: it would interrupt the cleaning up, which kills what does not end in a second.
    ``loop``: an event loop runs inside, which handles interrupts itself.
    """
    ended_by = signal.SIGINT

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.default_int_handler(number, frame)

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal ended_by
        ended_by = signal.SIGTERM
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the cleaning up
        handler = signal.getsignal(signal.SIGINT)
        # A loop handles interrupts itself; a shell may have set SIGINT to be ignored.
        (handler if callable(handler) else interrupt)(number, frame)

    before = signal.signal(signal.SIGTERM, terminate)
    interrupted = signal.getsignal(signal.SIGINT)
    if not loop and interrupted is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        how = "interrupted" if ended_by == signal.SIGINT else "terminated"
        raise StoppedError(how, exit_code=128 + ended_by) from None
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupted)
