"""Owns: what all file objects have: the fd, whether it may be read, written and sought, and how it is closed.

All I/O is positional: the file object keeps its own position. Only what can't seek (a pipe, a tty, a socket)
is read and written where the kernel is.
"""

from __future__ import annotations

import asyncio
import io
import os
import warnings
from asyncio import get_running_loop
from typing import TYPE_CHECKING, Any

from .turns import Turns
from .ways import of_running_loop

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .ways import Ways

__all__ = ["Descriptor"]


class Descriptor(Turns):
    """The part of a file object that knows nothing of reading and writing."""

    # These have no default in the class, which would make each access of an object's own slow.
    # Whether an op has been submitted for the fd, which may be in flight still.
    _awaited: bool
    # Calls in flight that need no turn, and what a close waits on for them.
    _flying: int
    _landed: asyncio.Future[None] | None
    _readable: bool
    # Why there is no fd, if there is none.
    _gone = "I/O operation on closed file."
    # What most files are: regular, and read from their begin.
    mode = "rb"
    closefd = True
    _seekable = True
    _writable = _appends = False
    # Where the next read or write of the fd takes place.
    _at = 0

    def __init__(
        self,
        ways: Ways,
        fd: int,
        name: Any,
        mode: str,
        closefd: bool,
        readable: bool,
        writable: bool,
        appends: bool,
        seekable: bool,
        position: int,
    ) -> None:
        self._loop = get_running_loop()
        self._ways = ways
        self._fd = fd
        self._readable = readable
        self._awaited, self._flying, self._landed = False, 0, None
        self.name = name
        self.mode = mode
        self.closefd = closefd
        self._writable = writable
        self._appends = appends
        self._seekable = seekable
        self._at = position

    @classmethod
    def _of_regular(cls, ways: Ways, fd: int, name: Any) -> Self:
        """A regular file that was opened to be read. It is as with `__init__`, in a third of its time."""
        file = cls.__new__(cls)
        file._loop = get_running_loop()
        file._ways = ways
        file._fd = fd
        file._readable = True
        file._awaited, file._flying, file._landed = False, 0, None
        file.name = name
        return file

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} name={self.name!r} mode={self.mode!r}>"

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._fd < 0

    def fileno(self) -> int:
        """The fd. Its position in the kernel is set to the file's, for others who use it, such as a child."""
        self._check_open()
        if self._seekable:
            os.lseek(self._fd, self._position(), os.SEEK_SET)
        return self._fd

    def isatty(self) -> bool:
        """Whether the file is a terminal."""
        self._check_open()
        return os.isatty(self._fd)

    def readable(self) -> bool:
        """Whether the file may be read."""
        self._check_open()
        return self._readable

    def writable(self) -> bool:
        """Whether the file may be written."""
        self._check_open()
        return self._writable

    def seekable(self) -> bool:
        """Whether the file has positions: not so a pipe, a terminal or a socket."""
        self._check_open()
        return self._seekable

    def _move(self) -> None:
        if self._flying:
            raise RuntimeError(f"{self!r} is in use on another event loop")
        super()._move()
        self._ways = of_running_loop()

    def _check_open(self) -> None:
        if self._fd < 0:
            raise ValueError(self._gone)

    def _check_readable(self) -> None:
        if self._fd >= 0 and self._readable and get_running_loop() is self._loop:
            return
        self._check_open()
        if get_running_loop() is not self._loop:
            self._move()
        if not self._readable:
            raise io.UnsupportedOperation("File not open for reading")

    def _check_writable(self) -> None:
        self._check_open()
        if get_running_loop() is not self._loop:
            self._move()
        if not self._writable:
            raise io.UnsupportedOperation("File not open for writing")

    # What the kinds of files differ in.

    def _position(self) -> int:
        """The position as a program sees it."""
        return self._at

    def _has_rest(self) -> bool:
        """Whether something was written and is held back."""
        return False

    async def _flush(self) -> None:
        """Write what is held back; within a turn."""

    async def _flush_first(self) -> None:
        """Flush before another operation, within its turn. A cancel of that loses nothing."""
        if not self._has_rest():
            return
        if self._seekable:
            await self._see_through(self._flush)
        else:
            await self._flush()

    def _rescue(self) -> None:
        """Write what is held back, without a loop."""

    def _drop(self) -> None:
        """Drop what is buffered: the file was closed."""

    # The end.

    async def close(self) -> None:
        """Write what is held back, and close the file, even if that fails.

        If this is cancelled, the file is closed all the same, perhaps later.
        """
        if self._close_now():
            return
        if self._seekable:
            await self._carry(self._close)
            return
        await self._enter()
        try:
            await self._close()
        finally:
            self._leave()

    async def aclose(self) -> None:
        """As `close`, by the name that anyio's files and `contextlib.aclosing` have for it."""
        await self.close()

    def _close_now(self) -> bool:
        """Close the file, unless something has to be waited for."""
        if self._fd < 0:
            return True
        if self._busy or self._awaited or self._has_rest():
            return False
        self._give_up()
        return True

    async def _close(self) -> None:
        if self._fd < 0:
            return
        try:
            await self._flush()
        finally:
            if self.closefd:
                await self._let_go()
            else:
                self._give_up()

    async def _let_go(self) -> None:
        """Close the fd as soon as no call uses it."""
        fd, self._fd = self._fd, -1
        self._drop()
        try:
            await self._land()
        finally:
            await self._ways.close(fd)

    async def _land(self) -> None:
        """Wait for the calls that need no turn."""
        while self._flying:
            self._landed = asyncio.get_running_loop().create_future()
            await self._landed

    def _give_up(self) -> None:
        """Close the fd at once."""
        if not self.closefd and self._seekable:
            # Others who use the fd go on where this file was.
            os.lseek(self._fd, self._position(), os.SEEK_SET)
        fd, self._fd = self._fd, -1
        self._drop()
        if self.closefd:
            os.close(fd)

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        # A file that could not be made has no fd.
        if getattr(self, "_fd", -1) < 0:
            return
        try:
            # It may raise, if the program makes errors of warnings.
            if self.closefd:
                warnings.warn(f"unclosed file {self!r}", ResourceWarning, source=self, stacklevel=2)
        finally:
            try:
                self._rescue()
            finally:
                self._give_up()
