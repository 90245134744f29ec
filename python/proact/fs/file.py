"""Owns: what the file objects in binary mode have in common, and the one without a buffer: `RawFile`."""

from __future__ import annotations

import operator
import os
import sys
from typing import TYPE_CHECKING

from .positional import Positional, bytes_of, room_of
from .ways import PIECE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["FIRST", "BinaryFile", "RawFile", "size_of"]

FIRST = 8 * 1024
"""Bytes: how far a file is read ahead at first."""


def size_of(size: int | None) -> int:
    """The size that a program asks for, -1 for None. Raises what `open()`'s files raise."""
    if size is None:
        return -1
    try:
        size = operator.index(size)
    except TypeError:
        kind = type(size).__name__
        raise TypeError(f"argument should be integer or None, not {kind!r}") from None
    if not -sys.maxsize <= size <= sys.maxsize:
        raise OverflowError("cannot fit 'int' into an index-sized integer")
    return size


class BinaryFile(Positional):
    """What both kinds have in common."""

    if TYPE_CHECKING:
        # The two differ in these.

        async def read(self, size: int | None = -1, /) -> bytes: ...
        async def readline(self, size: int | None = -1, /) -> bytes: ...
        async def write(self, data: ReadableBuffer, /) -> int: ...

        def _put_back(self, taken: bytes) -> None: ...

    def _forget(self) -> None:
        """What was read ahead is not wanted any more, or not right any more."""

    async def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """All lines that are left, or so many that they have more than `hint` bytes."""
        hint = size_of(hint)
        lines: list[bytes] = []
        count = 0
        try:
            while line := await self.readline():
                lines.append(line)
                count += len(line)
                if 0 < hint < count:
                    break
        except BaseException:
            self._put_back(b"".join(lines))
            raise
        return lines

    async def writelines(self, lines: Iterable[ReadableBuffer], /) -> None:
        """Write each of these. Nothing is put between them."""
        self._check_open()
        for line in lines:
            await self.write(line)

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position, in bytes; the new position. Raises as `seek` of `open()`'s files does."""
        self._check_open()
        await self._enter()
        try:
            self._check_open()
            await self._flush_first()
            return self._seek(offset, whence)
        finally:
            self._leave()

    def _seek(self, offset: int, whence: int) -> int:
        if whence == os.SEEK_CUR:
            offset, whence = self._position() + offset, os.SEEK_SET
        # The kernel checks it.
        position = os.lseek(self._fd, offset, whence)
        self._forget()
        self._at = position
        return position

    async def tell(self) -> int:
        """The position, in bytes."""
        self._check_open()
        if not self._seekable:
            # It has none: the kernel's error.
            os.lseek(self._fd, 0, os.SEEK_CUR)
        # A write that was cancelled goes on, and moves it.
        await self._settle()
        self._check_open()
        return self._position()

    async def truncate(self, size: int | None = None, /) -> int:
        """Cut the file to a size in bytes, by default to the position, or extend it by zeros; the new size.

        If this is cancelled, it goes on.
        """
        self._check_writable()
        return await self._carry(lambda: self._truncate(size))

    async def _truncate(self, size: int | None) -> int:
        self._check_open()
        await self._flush()
        if size is None:
            size = self._position()
        self._awaited = True
        await self._ways.truncate(self._fd, size)
        position = self._position()
        self._forget()
        self._at = position
        return size


class RawFile(BinaryFile):
    """A file without a buffer: each `read` and `write` is one of the kernel's."""

    # What a call had taken from a pipe when it was cancelled.
    _back = b""

    def _read_now(self, size: int) -> bytes | None:
        if not self._back:
            return super()._read_now(size)
        data, self._back = self._back[:size], self._back[size:]
        return data

    def _put_back(self, taken: bytes) -> None:
        """A call has failed: what it has taken is read again."""
        if self._seekable:
            self._at -= len(taken)
        else:
            self._back = taken + self._back

    async def read(self, size: int | None = -1, /) -> bytes:
        """Read once, `size` bytes at most; by default to the end. Empty at the end of the file."""
        self._check_readable()
        if type(size) is not int or not -1 <= size <= PIECE:
            size = size_of(size)
        if size < 0:
            return await self.readall()
        if not self._busy:
            data = self._read_now(size)
            if data is not None:
                return data
        await self._enter()
        try:
            self._check_open()
            return await self._read_once(size)
        finally:
            self._leave()

    async def readall(self) -> bytes:
        """Read to the end of the file."""
        self._check_readable()
        await self._enter()
        pieces: list[bytes] = []
        try:
            self._check_open()
            while piece := await self._read_once(PIECE):
                pieces.append(piece)
            return b"".join(pieces)
        except BaseException:
            self._put_back(b"".join(pieces))
            raise
        finally:
            self._leave()

    async def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read once into a buffer; the number of bytes, 0 at the end of the file."""
        with room_of(buffer) as room:
            data = await self.read(room.nbytes)
            room[: len(data)] = data
            return len(data)

    async def readline(self, size: int | None = -1, /) -> bytes:
        """Read a line, or `size` bytes of it at most."""
        self._check_readable()
        limit = size_of(size)
        await self._enter()
        began, line = self._at, b""
        try:
            self._check_open()
            while limit < 0 or len(line) < limit:
                # What can't seek gives nothing back.
                want = FIRST if self._seekable else 1
                more = await self._read_once(want if limit < 0 else min(want, limit - len(line)))
                end = more.find(b"\n") + 1
                line += more[:end] if end else more
                if end or not more:
                    break
            if self._seekable:
                self._at = began + len(line)
            return line
        except BaseException:
            self._put_back(line)
            raise
        finally:
            self._leave()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def write(self, data: ReadableBuffer, /) -> int:
        """Write once; the number of bytes, perhaps fewer than there are.

        If this is cancelled, it goes on, except on what can't seek, where it may have been carried out.
        """
        self._check_writable()
        view = bytes_of(data)
        if self._seekable:
            return await self._carry(lambda: self._write(view))
        await self._enter()
        try:
            return await self._write(view)
        finally:
            self._leave()

    async def _write(self, data: ReadableBuffer) -> int:
        self._check_open()
        return await self._write_once(data)
