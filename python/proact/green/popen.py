"""Owns: `subprocess.Popen` for packages that are patched: the greenlet waits for the child and its pipes."""

from __future__ import annotations

import io
import os
import subprocess
from typing import TYPE_CHECKING, Any

from .. import _core
from .timeouts import Timeout

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["Popen"]

STREAMS = ("stdin", "stdout", "stderr")


class Pipe(io.RawIOBase):
    """The parent's end of a pipe. It never blocks; the greenlet waits instead."""

    def __init__(self, fd: int, writes: bool) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._writes = writes

    def fileno(self) -> int:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return self._fd

    def readable(self) -> bool:
        return not self._writes

    def writable(self) -> bool:
        return self._writes

    def readinto(self, buffer: WriteableBuffer) -> int:
        def attempt() -> int:
            return os.readv(self._fd, [buffer])

        return self._when(attempt)

    def write(self, data: ReadableBuffer) -> int:
        def attempt() -> int:
            return os.write(self._fd, data)

        return self._when(attempt)

    def _when(self, attempt: Any) -> int:
        try:
            done: int = attempt()
        except BlockingIOError:
            done = _core.green_when(self, self._writes, attempt)
        return done

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._fd)


def _green(stream: Any, buffered: bool) -> Any:
    """The same pipe, with the same encoding, as a file on which a greenlet waits."""
    writes = stream.writable()
    raw = Pipe(os.dup(stream.fileno()), writes)
    made: Any = raw
    if buffered:
        made = io.BufferedWriter(raw) if writes else io.BufferedReader(raw)
    if isinstance(stream, io.TextIOWrapper):
        made = io.TextIOWrapper(
            made,
            stream.encoding,
            stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
    stream.close()
    return made


class Popen(subprocess.Popen[Any]):
    """As `subprocess.Popen`. `wait`, `communicate` and the pipes make the greenlet wait, not its thread."""

    def __init__(self, args: Any, bufsize: int = -1, *more: Any, **options: Any) -> None:
        super().__init__(args, bufsize, *more, **options)
        for name in STREAMS:
            if (stream := getattr(self, name)) is not None:
                text = isinstance(stream, io.TextIOWrapper)
                setattr(self, name, _green(stream, text or bufsize != 0))

    def _wait(self, timeout: float | None) -> int:
        with Timeout(timeout, False):
            while self.poll() is None and timeout != 0:
                self._wait_for_end()
        code: int | None = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def _wait_for_end(self) -> None:
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            # The kernel is older than 5.3, or something forbids it.
            _core.green_sleep(0.01)
            return
        with os.fdopen(pidfd, "rb", 0) as ended:
            _core.green_when(ended, False, bool)
