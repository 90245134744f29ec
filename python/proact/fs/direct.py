"""Owns: files past the page cache (`O_DIRECT`): whole blocks move between storage and aligned memory."""

from __future__ import annotations

import errno
import mmap
from typing import TYPE_CHECKING

from .file import RawFile, bytes_of
from .positional import check_offset
from .ways import PIECE

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["DirectFile", "aligned_buffer"]

_BLOCK = 4096
"""Bytes: a multiple of what offsets and memory have to be aligned to, on all file systems with `O_DIRECT`."""

_KEPT = 64
"""How many buffers of `PIECE` bytes, or fewer, are kept to be used again."""

_free: dict[int, list[mmap.mmap]] = {}


def aligned_buffer(size: int) -> mmap.mmap:
    """Memory for `pread_into` and `pwrite` of a direct file without a copy: `size` bytes, or more."""
    return mmap.mmap(-1, max(_blocks(size), _BLOCK))


def _blocks(size: int) -> int:
    return (size + _BLOCK - 1) // _BLOCK * _BLOCK


def _take(size: int) -> mmap.mmap:
    """A buffer of so many bytes or more. It goes back by `_give`, if no op uses it any more."""
    size = 1 << (max(size, _BLOCK) - 1).bit_length()
    kept = _free.get(size)
    return kept.pop() if kept else aligned_buffer(size)


def _give(buffer: mmap.mmap) -> None:
    kept = _free.setdefault(len(buffer), [])
    if len(kept) * len(buffer) < _KEPT * PIECE:
        kept.append(buffer)


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
        room = _take(min(_blocks(before + size), PIECE))
        end = min(before + size, len(room))
        count = await self._ways.read_into(self._fd, memoryview(room)[: _blocks(end)], offset - before)
        data = room[before : max(min(count, end), before)]
        # Not so if this is cancelled: the kernel may still write into it.
        _give(room)
        return data

    async def _write_once(self, data: ReadableBuffer) -> int:
        view = bytes_of(data)[:PIECE]
        room = _take(view.nbytes)
        room[: view.nbytes] = view
        count = await super()._write_once(memoryview(room)[: view.nbytes])
        _give(room)
        return count

    async def pread(self, size: int, offset: int) -> bytes:
        """Read at an offset: `size` bytes, or fewer at the end of the file."""
        self._check_readable()
        check_offset(offset)
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
        self._check_readable()
        check_offset(offset)
        try:
            # Nothing is tried at once: RWF_NOWAIT waits for the disk if the page cache is passed by.
            return await self._pread_into(buffer, offset, 0)
        except OSError as error:
            if error.errno != errno.EINVAL or offset < 0:
                raise
        with bytes_of(buffer) as room:
            data = await self.pread(room.nbytes, offset)
            room[: len(data)] = data
            return len(data)

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
            room = _take(piece.nbytes)
            room[: piece.nbytes] = piece
            await super().pwrite(memoryview(room)[: piece.nbytes], offset + begin)
            _give(room)
        return view.nbytes
