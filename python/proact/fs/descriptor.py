"""Owns: what all file objects have: the fd, whether it may be read, written and sought, and how it is closed.

All I/O is positional: the file object keeps its own position. Only what can't seek (a pipe, a tty, a socket) is
read and written where the kernel is.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from .turns import Turns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from _typeshed import ReadableBuffer, WriteableBuffer

    from .ways import Ways

__all__ = ["PIECE", "Descriptor", "Handed"]

PIECE = 1 << 20
"""Bytes: the most that one op reads, because a ring copies what is cached while the loop waits for it."""


class Handed(NamedTuple):
    """What an opened file is made of."""

    ways: Ways
    fd: int
    name: Any
    mode: str
    closefd: bool
    readable: bool
    writable: bool
    appends: bool
    seekable: bool
    position: int


class Descriptor(Turns):
    """The part of a file object that knows no buffer."""

    __slots__ = (
        "__weakref__",
        "_appends",
        "_at",
        "_awaited",
        "_closefd",
        "_fd",
        "_flying",
        "_landed",
        "_readable",
        "_seekable",
        "_ways",
        "_writable",
        "mode",
        "name",
    )

    def __init__(self, handed: Handed) -> None:
        super().__init__()
        (
            self._ways,
            self._fd,
            self.name,
            self.mode,
            self._closefd,
            self._readable,
            self._writable,
            self._appends,
            self._seekable,
            # Where the next read or write of the fd takes place.
            self._at,
        ) = handed
        # Whether an op has been submitted for the fd, which may be in flight still.
        self._awaited = False
        # Positional calls in flight, and what a close waits on for them.
        self._flying = 0
        self._landed: asyncio.Future[None] | None = None

    # What is known without I/O.

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} name={self.name!r} mode={self.mode!r}>"

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._fd < 0

    @property
    def closefd(self) -> bool:
        """Whether closing the file closes its fd."""
        return self._closefd

    def fileno(self) -> int:
        """The fd. The kernel's position of it is set to the file's, for others who use it, such as a child."""
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

    def _check_open(self) -> None:
        if self._fd < 0:
            raise ValueError("I/O operation on closed file.")

    def _check_readable(self) -> None:
        self._check_open()
        if not self._readable:
            raise io.UnsupportedOperation("File not open for reading")

    def _check_writable(self) -> None:
        self._check_open()
        if not self._writable:
            raise io.UnsupportedOperation("File not open for writing")

    def _position(self) -> int:
        """The position as a program sees it."""
        return self._at

    # One read, one write, at the position.

    def _read_now(self, size: int) -> bytes | None:
        """Read once and move on, if that needs no wait."""
        if not self._seekable:
            return None
        data = self._ways.try_read(self._fd, size, self._at)
        if data is not None:
            self._at += len(data)
        return data

    async def _read_once(self, size: int) -> bytes:
        """Read once and move on; within a turn. Cancelled, it has read nothing."""
        data = self._read_now(size)
        if data is None:
            if not self._seekable:
                self._awaited = True
                return await self._ways.receive(self._fd, size)
            self._awaited = True
            data = await self._ways.read(self._fd, size, self._at)
            self._at += len(data)
        return data

    async def _write_once(self, data: ReadableBuffer) -> int:
        """Write once and move on; within a turn."""
        self._awaited = True
        if not self._seekable:
            return await self._ways.write(self._fd, data, -1)
        if not self._appends:
            count = await self._ways.write(self._fd, data, self._at)
            self._at += count
            return count
        # The kernel writes at the end, and its position tells where that was.
        count = await self._ways.write(self._fd, data, -1)
        self._at = os.lseek(self._fd, 0, os.SEEK_CUR)
        return count

    # Positional calls, which need no turn.

    async def pread(self, size: int, offset: int) -> bytes:
        """Read at an offset: `size` bytes, or fewer at the end of the file. Nothing is buffered.

        Positional calls go on beside each other and beside all others, and change no position. They do not see
        what `write` holds back until `flush`.
        """
        self._check_readable()
        data = self._ways.try_read(self._fd, size, offset)
        if data is not None and len(data) in (size, 0):
            return data
        pieces = [data] if data else []
        count = sum(map(len, pieces))
        with self._flight():
            while count < size:
                piece = await self._ways.read(self._fd, min(size - count, PIECE), offset + count)
                if not piece:
                    break
                pieces.append(piece)
                count += len(piece)
        return b"".join(pieces)

    async def pread_into(self, buffer: WriteableBuffer, offset: int) -> int:
        """Read at an offset into a buffer until it is full or the file ends; the number of bytes.

        If this is cancelled, the kernel may go on for a while to write into the buffer.
        """
        self._check_readable()
        count = self._ways.try_read_into(self._fd, buffer, offset)
        with memoryview(buffer) as whole, whole.cast("B") as room:
            if count is None:
                count = 0
            elif count in (room.nbytes, 0):
                return count
            with self._flight():
                while count < room.nbytes:
                    more = await self._ways.read_into(self._fd, room[count : count + PIECE], offset + count)
                    if not more:
                        break
                    count += more
        return count

    async def preadv(self, buffers: Sequence[WriteableBuffer], offset: int) -> int:
        """Read once at an offset into several buffers, as `os.preadv`; the number of bytes.

        If this is cancelled, the kernel may go on for a while to write into the buffers.
        """
        self._check_readable()
        with self._flight():
            return await self._ways.readv(self._fd, buffers, offset)

    async def pwrite(self, data: ReadableBuffer, offset: int) -> int:
        """Write all of `data` at an offset; the number of bytes. Cancelled, it may have written some or all."""
        self._check_writable()
        with memoryview(data) as whole, whole.cast("B") as view:
            count = 0
            with self._flight():
                while count < view.nbytes:
                    count += await self._ways.write(self._fd, view[count:], offset + count)
            return count

    async def pwritev(self, buffers: Sequence[ReadableBuffer], offset: int) -> int:
        """Write several buffers once at an offset, as `os.pwritev`; the number of bytes, perhaps not all."""
        self._check_writable()
        with self._flight():
            return await self._ways.writev(self._fd, buffers, offset)

    @contextlib.contextmanager
    def _flight(self) -> Any:
        self._awaited = True
        self._flying += 1
        try:
            yield
        finally:
            self._flying -= 1
            if not self._flying and self._landed and not self._landed.done():
                self._landed.set_result(None)

    # The file as a whole.

    async def fsync(self, *, data_only: bool = False) -> None:
        """Write what is held back, and wait until the file is on its storage; without its times if `data_only`."""
        self._check_open()
        await self.flush()
        with self._flight():
            await self._ways.fsync(self._fd, data_only=data_only)

    async def flush(self) -> None:
        """Write what is held back."""
        self._check_open()

    async def close(self) -> None:
        """Write what is held back, and close the file, even if that fails.

        If this is cancelled, the file is closed all the same, perhaps later.
        """
        if self._fd < 0:
            return
        if self._busy or self._flying or self._has_rest():
            if self._seekable:
                await self._carry(self._close)
                return
            await self._enter()
            try:
                await self._close()
            finally:
                self._leave()
        elif self._awaited and self._closefd:
            await self._let_go()
        else:
            self._give_up()

    def _has_rest(self) -> bool:
        """Whether something was written and is held back."""
        return False

    async def _flush(self) -> None:
        """As `flush`, within a turn."""

    async def _close(self) -> None:
        if self._fd < 0:
            return
        try:
            await self._flush()
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        """Close the fd when no call uses it."""
        if not self._closefd:
            self._give_up()
            return
        fd, self._fd = self._fd, -1
        self._dropped()
        try:
            while self._flying:
                self._landed = asyncio.get_running_loop().create_future()
                await self._landed
        finally:
            await self._ways.close(fd)

    def _give_up(self) -> None:
        """Close the fd, which no call uses, at once."""
        if not self._closefd and self._seekable:
            # Whoever goes on with the fd goes on where this file was.
            os.lseek(self._fd, self._position(), os.SEEK_SET)
        fd, self._fd = self._fd, -1
        self._dropped()
        if self._closefd:
            os.close(fd)

    def _dropped(self) -> None:
        """The file was closed: what is buffered is of no use any more."""

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        # A file whose making failed has no fd.
        if getattr(self, "_fd", -1) < 0:
            return
        if self._closefd:
            warnings.warn(f"unclosed file {self!r}", ResourceWarning, source=self, stacklevel=2)
        try:
            self._rescue()
        finally:
            self._give_up()

    def _rescue(self) -> None:
        """Write what is held back, without a loop."""
