"""Owns: the I/O of file objects: steps at the file's position, and calls at an offset of their own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING, TypeVar

from .descriptor import Descriptor
from .ways import PIECE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["Positional", "bytes_of", "check_offset", "room_of"]

_B = TypeVar("_B")
_T = TypeVar("_T")

_COLD = 16
"""Reads of which one is tried, after so many in a row that needed the disk."""


def check_offset(offset: int) -> None:
    """Raise OSError (EINVAL) for a negative offset, as the kernel does."""
    if offset < 0:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def bytes_of(data: ReadableBuffer) -> memoryview:
    """The bytes of an object that has some."""
    if isinstance(data, str):
        raise TypeError("a bytes-like object is required, not 'str'")
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("memoryview: underlying buffer is not C-contiguous")
    # What has several dimensions, one of them 0, can't be cast.
    return view.cast("B") if view.nbytes else memoryview(bytearray())


def room_of(buffer: WriteableBuffer) -> memoryview:
    """The bytes of an object that can be written to. Checked before anything is read, which would be lost."""
    view = memoryview(buffer)
    if view.readonly or not view.c_contiguous:
        kind = type(buffer).__name__
        raise TypeError(f"readinto() argument must be read-write bytes-like object, not {kind}")
    return bytes_of(view)


def _length(size: int) -> int:
    """The size of a read. Raises what `os.pread` raises."""
    if size > sys.maxsize:
        raise OverflowError("Python int too large to convert to C ssize_t")
    check_offset(size)
    return size


class Positional(Descriptor):
    """A file object without a buffer."""

    # Reads in a row that needed the disk.
    _cold = 0

    def _try(self, attempt: Callable[[int, _B, int], _T | None], what: _B, offset: int) -> _T | None:
        """Read at once, if that needs no disk. Of a file that is not cached most reads are not tried: a try
        that fails costs what the op costs.
        """
        cold = self._cold
        if cold >= _COLD and cold % _COLD:
            self._cold = cold + 1
            return None
        answer = attempt(self._fd, what, offset)
        if answer is None:
            self._cold = cold + (not self._ways.tried_enough())
        elif cold:
            self._cold = 0
        return answer

    # One read, one write, at the position.

    def _read_now(self, size: int) -> bytes | None:
        """Read once and move on, if that needs no wait."""
        if not self._seekable:
            return None
        data = self._try(self._ways.try_read, size, self._at)
        if data is not None:
            self._at += len(data)
        return data

    async def _read_once(self, size: int) -> bytes:
        """Read once and move on; within a turn. Cancelled, it has read nothing."""
        data = self._read_now(size)
        if data is None and self._ways.tried_enough():
            await asyncio.sleep(0)
            data = self._read_now(size)
        if data is None:
            self._awaited = True
            if not self._seekable:
                return await self._ways.receive(self._fd, size)
            data = await self._ways.read(self._fd, size, self._at)
            self._at += len(data)
        return data

    async def _write_once(self, data: ReadableBuffer) -> int:
        """Write once and move on; within a turn."""
        self._awaited = True
        count = await self._ways.write(self._fd, data, self._place())
        self._wrote(count)
        return count

    def _place(self) -> int:
        """The offset at which the next write takes place; -1 is the kernel's position."""
        return -1 if self._appends or not self._seekable else self._at

    def _wrote(self, count: int) -> None:
        """Move on after a write."""
        if not self._appends:
            self._at += count if self._seekable else 0
        elif self._seekable and count:
            # The kernel wrote at the end, and its position tells where that was.
            self._at = os.lseek(self._fd, 0, os.SEEK_CUR)

    # Calls that need no turn.

    @contextlib.contextmanager
    def _flight(self) -> Iterator[None]:
        self._check_loop()
        self._awaited = True
        self._flying += 1
        try:
            yield
        finally:
            self._flying -= 1
            self._tell_landed()

    def _tell_landed(self) -> None:
        if not self._flying and self._landed and not self._landed.done():
            self._landed.set_result(None)

    async def pread(self, size: int, offset: int) -> bytes:
        """Read at an offset: `size` bytes, or fewer at the end of the file. Nothing is buffered.

        Positional calls go on beside each other and beside all others, and change no position. They do not
        see what `write` holds back until `flush`.
        """
        self._check_readable()
        check_offset(offset)
        if size < 0 or size > PIECE:
            size = _length(size)
        ways = self._ways
        data = self._try(ways.try_read, size, offset)
        if data is None and self._cold < _COLD and ways.tried_enough():
            data = await ways.later(self._try, ways.try_read, size, offset)
        if data is None:
            # `_flight`, written out.
            self._awaited = True
            self._flying += 1
            try:
                data = await ways.read(self._fd, min(size, PIECE), offset)
            finally:
                self._flying -= 1
                if self._landed is not None:
                    self._tell_landed()
        count = len(data)
        if count in (size, 0):
            return data
        pieces = [data]
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
        check_offset(offset)
        count = self._try(self._ways.try_read_into, buffer, offset)
        size = memoryview(buffer).nbytes
        if count is None:
            count = 0
        elif count in (size, 0):
            return count
        with self._flight(), room_of(buffer) as room:
            while count < size:
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
        check_offset(offset)
        with self._flight():
            return await self._ways.readv(self._fd, buffers, offset)

    async def pwrite(self, data: ReadableBuffer, offset: int) -> int:
        """Write all of `data` at an offset; the number of bytes. Cancelled, it may have written any part."""
        self._check_writable()
        check_offset(offset)
        view = bytes_of(data)
        count = 0
        with self._flight():
            while count < view.nbytes:
                count += await self._ways.write(self._fd, view[count:], offset + count)
        return count

    async def pwritev(self, buffers: Sequence[ReadableBuffer], offset: int) -> int:
        """Write several buffers once at an offset, as `os.pwritev`; the number of bytes, perhaps not all."""
        self._check_writable()
        check_offset(offset)
        with self._flight():
            return await self._ways.writev(self._fd, buffers, offset)

    async def flush(self) -> None:
        """Write what is held back."""
        self._check_open()

    async def fsync(self, *, data_only: bool = False) -> None:
        """Write what is held back, and wait until the file is on its storage.

        `data_only` leaves out its times. A cancelled call may still be carried out.
        """
        self._check_open()
        await self.flush()
        self._check_open()
        with self._flight():
            await self._ways.fsync(self._fd, data_only=data_only)
