"""Owns: `tail`, the lines that are appended to a file as they come.

inotify tells of changes where it exists; elsewhere, and on file systems that it does not see (NFS, FUSE), the
file is looked at from time to time.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import ctypes
import os
from typing import TYPE_CHECKING, overload

from .names import is_same
from .ways import of_running_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from _typeshed import StrOrBytesPath

__all__ = ["tail"]

_CHUNK = 64 << 10

_UNSEEN = 1.0
"""Seconds after which a file is looked at although inotify told nothing."""

_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200


@overload
def tail(
    path: StrOrBytesPath,
    *,
    follow: bool = True,
    lines: int | None = 0,
    encoding: None = None,
    interval: float = 0.25,
) -> AsyncIterator[bytes]: ...
@overload
def tail(
    path: StrOrBytesPath,
    *,
    follow: bool = True,
    lines: int | None = 0,
    encoding: str,
    errors: str = "strict",
    interval: float = 0.25,
) -> AsyncIterator[str]: ...
async def tail(
    path: StrOrBytesPath,
    *,
    follow: bool = True,
    lines: int | None = 0,
    encoding: str | None = None,
    errors: str = "strict",
    interval: float = 0.25,
) -> AsyncIterator[bytes | str]:
    r"""The last `lines` lines of a file (all with None), then those that are appended, each with its `\n`.

    It yields bytes, or str with an `encoding` (in which `\n` is one byte). A line is yielded when its end is
    there. A file that shrinks is read from its start. If another file takes the path (rotation), the rest of
    the old one is read first, an unended line of it included; until there is a new one, it waits. Without
    `follow` it ends at the end of the file. `interval`: seconds between two looks, where there is no inotify.

    Raises what `open()` raises, if there is no file at the start.
    """
    decode = codecs.getdecoder(encoding) if encoding else None

    def shown(line: bytes) -> bytes | str:
        return decode(line, errors)[0] if decode else line

    with _changes(path, interval) if follow else contextlib.nullcontext() as changes:
        file = await _File.open(path)
        try:
            await file.go_back(lines)
            while True:
                async for line in file.lines():
                    yield shown(line)
                if changes is None:
                    break
                if not await file.is_current():
                    # It may have been written to since the last look, by those that had it open.
                    async for line in file.lines():
                        yield shown(line)
                    if rest := file.rest():
                        yield shown(rest)
                    file.close()
                    while (new := await _File.open_if_there(path)) is None:
                        await changes.wait()
                    file = new
                elif not file.has_more():
                    await changes.wait()
            if rest := file.rest():
                yield shown(rest)
        finally:
            file.close()


class _File:
    """A file that grows: where it was read to, and the start of a line that has no end yet."""

    def __init__(self, path: StrOrBytesPath, fd: int) -> None:
        self._path = path
        self._ways = of_running_loop()
        self._fd = fd
        self._offset = 0
        self._start = bytearray()

    @classmethod
    async def open(cls, path: StrOrBytesPath) -> _File:
        return cls(path, (await of_running_loop().open(path, os.O_RDONLY)).fd)

    @classmethod
    async def open_if_there(cls, path: StrOrBytesPath) -> _File | None:
        try:
            return await cls.open(path)
        except FileNotFoundError:
            return None

    def close(self) -> None:
        # A read that was cancelled may find another file there. Nobody takes what it reads.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    async def _read(self, size: int, offset: int) -> bytes:
        data = self._ways.try_read(self._fd, size, offset)
        return data if data is not None else await self._ways.read(self._fd, size, offset)

    async def go_back(self, lines: int | None) -> None:
        """Begin so many lines before the end."""
        if lines is None:
            return
        end = offset = self._ways.fstat(self._fd).st_size
        if not lines:
            self._offset = end
            return
        while offset > 0:
            before = max(offset - _CHUNK, 0)
            data = await self._read(offset - before, before)
            # An end of line at the very end of the file begins no line.
            last = len(data) - 1 if offset == end and data.endswith(b"\n") else len(data)
            while (last := data.rfind(b"\n", 0, last)) >= 0:
                lines -= 1
                if not lines:
                    self._offset = before + last + 1
                    return
            offset = before

    async def lines(self) -> AsyncIterator[bytes]:
        """The lines up to the present end."""
        if self._ways.fstat(self._fd).st_size < self._offset:
            self._offset = 0
            self._start.clear()
        while data := await self._read(_CHUNK, self._offset):
            self._offset += len(data)
            self._start += data
            if b"\n" in data:
                *ended, rest = bytes(self._start).split(b"\n")
                self._start = bytearray(rest)
                for line in ended:
                    yield line + b"\n"

    def rest(self) -> bytes:
        rest = bytes(self._start)
        self._start.clear()
        return rest

    def has_more(self) -> bool:
        return self._ways.fstat(self._fd).st_size != self._offset

    async def is_current(self) -> bool:
        """Whether the path still leads to this file."""
        try:
            status = await self._ways.stat(self._path)
        except FileNotFoundError:
            return False
        return is_same(status, self._ways.fstat(self._fd))


class _Changes:
    """Waits for a change, by an fd of inotify or for a while."""

    def __init__(self, fd: int, seconds: float) -> None:
        self._fd = fd
        self._seconds = seconds
        self._changed = asyncio.Event()

    def take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, _CHUNK)
        self._changed.set()

    async def wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await self._changed.wait()
        self._changed.clear()


@contextlib.contextmanager
def _changes(path: StrOrBytesPath, interval: float) -> Iterator[_Changes]:
    """Changes from now on, of the directory's files: a file that takes the path later is among them."""
    loop = asyncio.get_running_loop()
    fd = _watch(os.path.dirname(os.path.realpath(path)))
    changes = _Changes(fd, interval if fd < 0 else _UNSEEN)
    try:
        if fd >= 0:
            loop.add_reader(fd, changes.take)
        yield changes
    finally:
        if fd >= 0:
            loop.remove_reader(fd)
            os.close(fd)


def _watch(directory: str | bytes) -> int:
    """An fd of inotify for a directory; -1 where there is none, or no more."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "inotify_init1"):
        return -1
    fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        return -1
    mask = _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
    if libc.inotify_add_watch(fd, os.fsencode(directory), ctypes.c_uint32(mask)) < 0:
        os.close(fd)
        return -1
    return fd
