"""Owns: files past the page cache (`O_DIRECT`): whole blocks move between storage and aligned memory."""

from __future__ import annotations

import errno
from asyncio import get_running_loop
from typing import TYPE_CHECKING, Any

from proact import _core

from .file import RawFile
from .positional import bytes_of, check_offset, room_of
from .ways import PIECE

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["DirectFile", "aligned_buffer"]

_BLOCK = 4096
"""Bytes: a multiple of what offsets and memory have to be aligned to, on all file systems with `O_DIRECT`."""


def aligned_buffer(size: int) -> memoryview:
    """Memory for `pread_into` and `pwrite` of a direct file without a copy: `size` bytes, or more."""
    room = _room(size)
    # Its last user may have left something.
    room[:] = bytes(len(room))
    return room


def _blocks(size: int) -> int:
    return (size + _BLOCK - 1) // _BLOCK * _BLOCK


def _room(size: int) -> memoryview:
    """Whole blocks of memory, which is another's once nobody uses it any more, be it an op."""
    # It has a buffer, which Python's types can say from 3.12 on.
    memory: Any = _core.Aligned(max(_blocks(size), _BLOCK))
    return memoryview(memory)


class DirectFile(RawFile):
    """A file without a buffer, not even the kernel's.

    Reads may be of any size at any offset. Writes have to be of whole blocks at offsets of whole blocks, most
    often of 512 or 4096 bytes: others raise OSError (EINVAL).
    """

    def _read_now(self, size: int) -> bytes | None:
        return None

    async def _read_once(self, size: int) -> bytes:
        self._awaited = True
        data = await self._read_blocks(size, self._at)
        self._at += len(data)
        return data

    async def _read_blocks(self, size: int, offset: int) -> bytes:
        """Read once the blocks that hold these bytes."""
        before = offset % _BLOCK
        end = min(before + size, PIECE)
        room = _room(end)
        count = await self._ways.read_into(self._fd, room, offset - before)
        return bytes(room[before : min(count, end)])

    async def _write_once(self, data: ReadableBuffer) -> int:
        view = bytes_of(data)[:PIECE]
        room = _room(view.nbytes)[: view.nbytes]
        room[:] = view
        return await super()._write_once(room)

    async def pread(self, size: int, offset: int) -> bytes:
        """Read at an offset: `size` bytes, or fewer at the end of the file."""
        self._check_readable()
        check_offset(offset)
        check_offset(size)
        pieces = []
        with self._flight():
            while size and (piece := await self._read_blocks(size, offset)):
                pieces.append(piece)
                size -= len(piece)
                offset += len(piece)
        return b"".join(pieces)

    async def pread_into(self, buffer: WriteableBuffer, offset: int) -> int:
        """Read at an offset into a buffer; the number of bytes. Without a copy, if both are aligned.

        If this is cancelled, the kernel may go on for a while to write into the buffer.
        """
        if self._fd < 0 or not self._readable or get_running_loop() is not self._loop:
            self._check_readable()
        if offset < 0:
            check_offset(offset)
        # Nothing is tried at once: RWF_NOWAIT waits for the disk if the page cache is passed by.
        # Nothing is called that need not be: a fast disk answers in the time of a few calls.
        self._awaited = True
        self._flying += 1
        try:
            count = await self._ways.read_into(self._fd, buffer, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            count = -1
        finally:
            self._flying -= 1
            if self._landed is not None:
                self._tell_landed()
        if not count or count == (buffer if type(buffer) is memoryview else memoryview(buffer)).nbytes:
            return count
        with room_of(buffer) as room:
            count = max(count, 0)
            data = await self.pread(room.nbytes - count, offset + count)
            room[count : count + len(data)] = data
            return count + len(data)

    async def pwrite(self, data: ReadableBuffer, offset: int) -> int:
        """Write blocks at an offset; the number of bytes. Without a copy, if `data` is aligned."""
        try:
            return await super().pwrite(data, offset)
        except OSError as error:
            if error.errno != errno.EINVAL or offset < 0:
                raise
        view = bytes_of(data)
        for begin in range(0, view.nbytes, PIECE):
            piece = view[begin : begin + PIECE]
            room = _room(piece.nbytes)[: piece.nbytes]
            room[:] = piece
            await super().pwrite(room, offset + begin)
        return view.nbytes
