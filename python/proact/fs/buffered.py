"""Owns: the buffered file object in binary mode: what is read ahead, and what is held back to be written."""

from __future__ import annotations

import asyncio
import io
import operator
import os
import sys
from typing import TYPE_CHECKING

from proact import _core

from .file import FIRST, BinaryFile, RawFile, size_of
from .positional import bytes_of, room_of
from .ways import PIECE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["BufferedFile"]

_MOST = 256 * 1024
"""Bytes: how far a file is read ahead after it has been read in order for a while."""

_HELD = 64 * 1024
"""Bytes: how much is held back, unless `buffering` says it."""


class BufferedFile(BinaryFile):
    """A file that is read ahead, and that holds back what is written until there is enough of it."""

    # The bytes that were read ahead: `_left` of them, in `_ahead` from `_next` on, and in `_more`.
    _ahead = b""
    _next = 0
    _left = 0
    _more: list[bytes] | tuple[()] = ()
    # The iterator that has the lines just before `_next`, some of which it has not given out yet.
    _lines: _core.Lines[bytes] | None = None
    # Whether an iteration was interrupted by other calls.
    _mixed = False
    # What is held back. It begins at the fd's position.
    _out: bytes | bytearray = b""
    # Whether it is the turn of an fsync, during which writes are held back as ever.
    _syncs = False
    # How far to read ahead, and whether the program has said so.
    _window = FIRST
    _fixed = False

    def _fix(self, buffering: int) -> None:
        """Take the size of the buffer, in bytes, that the program asks for."""
        self._window = buffering
        self._fixed = True

    def _position(self) -> int:
        if self._lines is not None:
            self._fold()
        return self._at - self._left + len(self._out)

    # Reading.

    def _fold(self) -> None:
        """Put the lines that were not taken back."""
        if self._lines is None:
            return
        rest, self._lines = self._lines.rest(), None
        if rest:
            self._mixed = True
            self._next -= rest
            self._left += rest

    def _join(self) -> None:
        if self._more:
            self._ahead = b"".join((self._ahead[self._next :], *self._more))
            self._more = ()
            self._next = 0

    def _take(self, size: int) -> bytes:
        """Bytes that were read ahead."""
        self._join()
        begin = self._next
        self._next += size
        self._left -= size
        if not self._left:
            data = self._ahead[begin:] if begin else self._ahead
            self._ahead, self._next = b"", 0
            return data
        return self._ahead[begin : self._next]

    def _forget(self) -> None:
        if self._lines is not None:
            self._fold()
        self._at -= self._left
        self._ahead, self._next, self._left = b"", 0, 0
        self._more = ()
        if not self._fixed:
            self._window = FIRST

    def _drop(self) -> None:
        if self._lines is not None:
            self._fold()
        if self._left or self._out:
            self._ahead, self._left, self._more, self._out = b"", 0, (), b""

    def _put_back(self, taken: bytes) -> None:
        """A call has failed: what it has taken is read again."""
        if taken and self._fd >= 0 and not self._out:
            self._fold()
            self._join()
            self._ahead = taken + self._ahead[self._next :]
            self._next = 0
            self._left += len(taken)

    def _keep(self, piece: bytes) -> bytes:
        if not self._left:
            self._ahead, self._next = piece, 0
        elif self._more:
            self._more.append(piece)
        else:
            self._more = [piece]
        self._left += len(piece)
        return piece

    async def _fill(self, want: int = 0) -> bytes:
        """Read ahead, once: the bytes, empty at the end of the file. They are kept."""
        size = min(max(want, self._window), PIECE)
        if not self._fixed and self._window < _MOST and self._left == 0:
            self._window *= 2
        return self._keep(await self._read_once(size))

    async def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, or fewer at the end of the file; by default to the end."""
        if type(size) is not int or not -1 <= size <= PIECE:
            size = size_of(size)
        if 0 < size <= self._left and self._lines is None and not self._busy:
            return self._take(size)
        self._check_readable()
        if size < -1:
            raise ValueError("read length must be non-negative or -1")
        if size < 0 and self._seekable and not (self._busy or self._left or self._out or self._lines):
            rest = self._ways.try_read_rest(self._fd, self._at)
            if rest is not None:
                self._at += len(rest)
                return rest
        await self._enter()
        try:
            self._check_open()
            self._fold()
            if self._out:
                await self._flush_first()
            if size < 0:
                return await self._read_rest()
            while self._left < size and await self._fill(size - self._left):
                pass
            return self._take(min(size, self._left))
        finally:
            self._leave()

    async def _read_rest(self) -> bytes:
        if not self._seekable:
            while await self._fill(PIECE):
                pass
            return self._take(self._left)
        self._awaited = True
        rest = await self._ways.read_rest(self._fd, self._at)
        self._at += len(rest)
        if not self._left:
            return rest
        self._keep(rest)
        return self._take(self._left)

    async def read1(self, size: int = -1, /) -> bytes:
        """What was read ahead, or what one read brings: `size` bytes at most."""
        size = size_of(operator.index(size))
        self._check_readable()
        await self._enter()
        try:
            self._check_open()
            self._fold()
            if self._out:
                await self._flush_first()
            if not size:
                return b""
            if not self._left:
                await self._fill(max(size, 0))
            return self._take(self._left if size < 0 else min(size, self._left))
        finally:
            self._leave()

    async def peek(self, size: int = 0, /) -> bytes:
        """What was read ahead, or what one read brings, without moving on."""
        size_of(operator.index(size))
        self._check_readable()
        await self._enter()
        try:
            self._check_open()
            self._fold()
            if self._out:
                await self._flush_first()
            if not self._left:
                await self._fill()
            self._join()
            return self._ahead[self._next :]
        finally:
            self._leave()

    async def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer, if the file has so many bytes; the number of bytes."""
        with room_of(buffer) as room:
            data = await self.read(room.nbytes)
            room[: len(data)] = data
            return len(data)

    async def readinto1(self, buffer: WriteableBuffer, /) -> int:
        """As `read1`, into a buffer; the number of bytes."""
        with room_of(buffer) as room:
            data = await self.read1(room.nbytes)
            room[: len(data)] = data
            return len(data)

    async def readline(self, size: int | None = -1, /) -> bytes:
        """Read a line with its end, or `size` bytes of it at most; empty at the end of the file."""
        limit = -1 if size == -1 else size_of(size)
        if self._left and limit < 0 and self._lines is None and not self._busy and not self._more:
            end = self._ahead.find(b"\n", self._next) + 1
            if end:
                return self._take(end - self._next)
        self._check_readable()
        await self._enter()
        try:
            self._check_open()
            self._fold()
            if self._out:
                await self._flush_first()
            self._join()
            found = self._ahead.find(b"\n", self._next) + 1
            count = found - self._next if found else self._left
            while not found and not 0 <= limit <= count:
                piece = await self._fill()
                if not piece:
                    break
                found = piece.find(b"\n") + 1
                count += found or len(piece)
            return self._take(count if limit < 0 else min(count, limit))
        finally:
            self._leave()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _core.Lines(self._more_lines)

    async def _more_lines(self, feed: _core.Lines[bytes]) -> bytes:
        """The next line. The ones after it are fed to the iterator, as many as were read ahead."""
        self._check_readable()
        self._fold()
        if not (self._busy or self._mixed or self._out):
            self._join()
            begin, end = self._next, self._ahead.rfind(b"\n") + 1
            if end > begin:
                first = self._ahead.find(b"\n", begin) + 1
                self._lines = feed
                self._left -= end - begin
                self._next = end
                feed.feed(self._ahead, first, end)
                return self._ahead[begin:first]
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    # Writing.

    async def write(self, data: ReadableBuffer, /) -> int:
        """Write all of `data`; the number of bytes. What is held back may be written later (`flush`)."""
        self._check_writable()
        view = bytes_of(data)
        is_free = not self._busy or (self._syncs and not self._waiting)
        if is_free and len(self._out) + view.nbytes <= self._limit():
            self._hold(view)
        elif self._seekable:
            await self._carry(lambda: self._write(view))
        else:
            await self._enter()
            try:
                await self._write(view)
            finally:
                self._leave()
        return view.nbytes

    def _limit(self) -> int:
        return self._window if self._fixed else _HELD

    def _hold(self, data: ReadableBuffer) -> None:
        if self._left or self._lines is not None:
            self._forget()
        if self._out:
            self._out += data
        else:
            self._out = bytearray(data)

    async def _write(self, data: memoryview) -> None:
        self._check_open()
        if len(self._out) + data.nbytes > self._limit():
            await self._flush()
        self._hold(data)
        if len(self._out) > self._limit():
            await self._flush()

    def _has_rest(self) -> bool:
        return bool(self._out)

    async def flush(self) -> None:
        """Write what is held back.

        If this is cancelled, it goes on, except on what can't seek: there some of it, or all, may be lost.
        """
        self._check_open()
        if not self._busy and not self._out:
            return
        if self._seekable:
            await self._carry(self._flush)
            return
        await self._enter()
        try:
            await self._flush()
        finally:
            self._leave()

    async def _flush(self) -> None:
        if not self._out:
            return
        # Nothing changes what the kernel reads.
        data, self._out = self._out, b""
        done = 0
        try:
            while done < len(data):
                done += await self._write_once(memoryview(data)[done:] if done else data)
        except OSError:
            # Nothing of the rest was written.
            self._out = bytearray(data[done:])
            raise
        except BaseException:
            # Cancelled, and perhaps written. To write it twice does no harm at a position of our own.
            if self._seekable and not self._appends:
                self._out = bytearray(data[done:])
            raise

    async def fsync(self, *, data_only: bool = False) -> None:
        if not (self._seekable and 0 < len(self._out) <= PIECE):
            await super().fsync(data_only=data_only)
            return
        self._check_writable()
        await self._carry(lambda: self._flush_and_sync(data_only))

    async def _flush_and_sync(self, data_only: bool) -> None:
        self._check_open()
        data, self._out = self._out, b""
        self._awaited = self._syncs = True
        done = 0
        try:
            # One hop to a thread, not two.
            done, error = await self._ways.write_sync(self._fd, data, self._place(), data_only=data_only)
            if error:
                raise error
        except asyncio.CancelledError:
            # Perhaps written. To write it twice does no harm at a position of our own.
            done = len(data) if self._appends else 0
            raise
        finally:
            self._syncs = False
            if done < len(data):
                # Nothing of the rest was written.
                self._out = bytearray(data[done:]) + self._out
            self._wrote(done)

    async def detach(self) -> RawFile:
        """Write what is held back, and give the file to a `RawFile`, which goes on at the position.

        What is called on this object afterwards raises ValueError.
        """
        self._check_open()
        await self._enter()
        try:
            self._check_open()
            await self._flush()
            await self._land()
            position, ahead = self._position(), b""
            if not self._seekable:
                position, ahead = self._at, self._take(self._left)
            kind = (self.closefd, self._readable, self._writable, self._appends, self._seekable)
            file = RawFile(self._ways, self._fd, self.name, self.mode, *kind, position)
            file._awaited, file._back = self._awaited, ahead
            self._fd, self._gone = -1, "raw stream has been detached"
            self._drop()
            return file
        finally:
            self._leave()

    def _rescue(self) -> None:
        data, self._out = self._out, b""
        if not self._seekable:
            return
        if not self._appends:
            os.lseek(self._fd, self._at, os.SEEK_SET)
        while data:
            data = data[os.write(self._fd, data) :]

    def _seek(self, offset: int, whence: int) -> int:
        if not self._seekable:
            raise io.UnsupportedOperation("File or stream is not seekable.")
        if whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, os.SEEK_DATA, os.SEEK_HOLE):
            raise ValueError(f"whence value {whence} unsupported")
        offset = operator.index(offset)
        if abs(offset) > sys.maxsize:
            raise ValueError("cannot fit 'int' into an offset-sized integer")
        self._fold()
        if whence == os.SEEK_CUR:
            offset, whence = self._position() + offset, os.SEEK_SET
        if whence == os.SEEK_SET:
            begin = self._at - self._left
            # Pieces are joined only to be read: joining a long line takes memory that may not be there.
            if begin <= offset <= self._at and not self._more:
                # It was read ahead already.
                self._take(offset - begin)
                return offset
        return super()._seek(offset, whence)
