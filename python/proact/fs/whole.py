"""Owns: whole files in one await: read, written, and read by the thousand.

What is cached is read at once by the loop (`Ways.try_read_files`). All else is one call in a thread of the pool that
opens, works and closes: so a cancel can't come between these steps, lose an fd or leave a temporary file behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import secrets
import stat
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from .pieces import in_pieces
from .ways import of_running_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from _typeshed import ReadableBuffer, StrOrBytesPath

    from .pieces import Stop

__all__ = ["read_bytes", "read_many", "read_text", "stat_many", "sync_directory", "write_bytes", "write_text"]

_T = TypeVar("_T")

PIECE = 8 << 20
"""Bytes that are read or written before a cancel is looked for."""

_LONG_TEXT = 1 << 20
"""Bytes of text from which on its decoding is left to a thread."""

_IN_A_TURN = 64
"""Files whose status is looked up in one turn of the loop."""

_IN_A_CALL = 16
"""Files that a thread reads in one call."""


async def read_bytes(path: StrOrBytesPath) -> bytes:
    """The content of a file.

    Raises what `open(path, "rb")` raises. A cancel ends the wait at once, even for a FIFO that nobody writes to.
    """
    tried = of_running_loop().try_read_files([path], 0)
    content = tried[0] if tried else None
    if content is None:
        return await in_pieces(_read, path)
    if isinstance(content, OSError):
        raise content
    return content


async def read_text(
    path: StrOrBytesPath, encoding: str | None = None, errors: str | None = None, newline: str | None = None
) -> str:
    """The text in a file; the arguments are those of `open()`.

    Raises what `open(...).read()` raises, `UnicodeDecodeError` among it.
    """
    # Wrong arguments are told before anything is read.
    io.TextIOWrapper(io.BytesIO(), encoding, errors, newline).close()
    content = await read_bytes(path)

    def decode() -> str:
        return io.TextIOWrapper(io.BytesIO(content), encoding, errors, newline).read()

    return decode() if len(content) < _LONG_TEXT else await of_running_loop().call(decode)


async def write_bytes(
    path: StrOrBytesPath,
    data: ReadableBuffer,
    *,
    fsync: bool = False,
    atomic: bool = False,
    mode: int = 0o666,
) -> int:
    """Write a file, in place of what it held; the number of bytes.

    A new file has the permissions `mode`, less the umask. `fsync`: return when the content, and the name of a new
    file, are on storage. `atomic`: a reader, and a machine that crashes, sees the old content or the new one, never
    another; the file keeps its permissions and, if allowed, its owner, but it is a new inode; a symbolic link is
    followed. `atomic` includes `fsync`.

    Raises what `open(path, "wb")` and `write` raise, and OSError (EINVAL) if `atomic` is asked for what is not a
    regular file. Cancelled, an atomic write is carried out or leaves nothing behind; another write may be carried
    out, wholly or in part.
    """
    view = memoryview(data)
    view = view.cast("B") if view.c_contiguous and view.nbytes else memoryview(bytes(view))
    if atomic:
        await in_pieces(_replace, path, view, mode)
    else:
        await in_pieces(_write, path, view, mode, fsync)
    return view.nbytes


async def write_text(
    path: StrOrBytesPath,
    text: str,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    *,
    fsync: bool = False,
    atomic: bool = False,
    mode: int = 0o666,
) -> int:
    """Write a text file as `write_bytes` does; the number of characters.

    `encoding`, `errors` and `newline` are those of `open()`. The text is encoded before the file is touched.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be str, not {type(text).__name__}")

    def encode() -> bytes:
        raw = io.BytesIO()
        wrapper = io.TextIOWrapper(raw, encoding, errors, newline)
        wrapper.write(text)
        wrapper.flush()
        return raw.getvalue()

    data = encode() if len(text) < _LONG_TEXT else await of_running_loop().call(encode)
    await write_bytes(path, data, fsync=fsync, atomic=atomic, mode=mode)
    return len(text)


@overload
async def read_many(
    paths: Iterable[StrOrBytesPath], *, concurrency: int = 64, return_exceptions: Literal[False] = False
) -> list[bytes]: ...
@overload
async def read_many(
    paths: Iterable[StrOrBytesPath], *, concurrency: int = 64, return_exceptions: bool
) -> list[bytes | OSError]: ...
async def read_many(
    paths: Iterable[StrOrBytesPath], *, concurrency: int = 64, return_exceptions: bool = False
) -> Any:
    """The contents of many files, in the order of their paths.

    At most `concurrency` files that are not cached are read at a time. The first error ends all and is raised, or
    with `return_exceptions` each stands in the place of its content. Other tasks run meanwhile.
    """
    paths = list(paths)
    ways = of_running_loop()
    many = _Many[bytes](len(paths), concurrency, return_exceptions)

    async def read(first: int, last: int) -> None:
        found = await in_pieces(_read_each, paths[first:last])
        for index, content in enumerate(found, first):
            many.settle(index, content)

    async with many:
        start = 0
        while start < len(paths):
            tried = ways.try_read_files(paths, start)
            for index, content in enumerate(tried, start):
                if content is None:
                    await many.wait_for(read, index, index + 1)
                else:
                    many.settle(index, content)
            start += len(tried)
            if ways.tried_enough():
                await asyncio.sleep(0)
            if not tried:
                # Nothing can be tried on this loop, or other tasks have used up this turn.
                last = min(start + _IN_A_CALL, len(paths))
                await many.wait_for(read, start, last)
                start = last
    return many.results


@overload
async def stat_many(
    paths: Iterable[StrOrBytesPath],
    *,
    follow_symlinks: bool = True,
    concurrency: int = 64,
    return_exceptions: Literal[False] = False,
) -> list[os.stat_result]: ...
@overload
async def stat_many(
    paths: Iterable[StrOrBytesPath],
    *,
    follow_symlinks: bool = True,
    concurrency: int = 64,
    return_exceptions: bool,
) -> list[os.stat_result | OSError]: ...
async def stat_many(
    paths: Iterable[StrOrBytesPath],
    *,
    follow_symlinks: bool = True,
    concurrency: int = 64,
    return_exceptions: bool = False,
) -> Any:
    """The status of many files, in the order of their paths; errors and `concurrency` are those of `read_many`."""
    paths = list(paths)
    ways = of_running_loop()
    many = _Many[os.stat_result](len(paths), concurrency, return_exceptions)

    async def look(first: int, last: int) -> None:
        found = await in_pieces(_stat_each, paths[first:last], follow_symlinks)
        for index, status in enumerate(found, first):
            many.settle(index, status)

    async with many:
        for start in range(0, len(paths), _IN_A_TURN):
            last = min(start + _IN_A_TURN, len(paths))
            for index in range(start, last):
                try:
                    status = ways.try_stat(paths[index], follow=follow_symlinks)
                except OSError as error:
                    many.settle(index, error)
                    continue
                if status is None:
                    # What follows needs a disk, too, or this turn is used up.
                    await many.wait_for(look, index, last)
                    break
                many.settle(index, status)
            await asyncio.sleep(0)
    return many.results


class _Many(Generic[_T]):
    """Results in order, and the tasks that wait for those which can't be had at once."""

    def __init__(self, count: int, concurrency: int, return_exceptions: bool) -> None:
        if concurrency < 1:
            raise ValueError("concurrency must be 1 or more")
        self.results: list[_T | BaseException | None] = [None] * count
        self._return_exceptions = return_exceptions
        self._room = asyncio.Semaphore(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None

    def settle(self, index: int, result: _T | BaseException) -> None:
        if isinstance(result, BaseException) and not self._return_exceptions:
            raise result
        self.results[index] = result

    async def wait_for(self, work: Callable[[int, int], Awaitable[None]], first: int, last: int) -> None:
        """Start a task, as soon as there is room for one."""
        await self._room.acquire()
        if self._error:
            self._room.release()
            raise self._error

        async def run() -> None:
            try:
                await work(first, last)
            except Exception as error:
                self._error = self._error or error
            finally:
                self._room.release()

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: object, *_: object) -> None:
        try:
            while self._tasks and kind is None and not self._error:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
        if self._error and kind is None:
            raise self._error


# In a thread.


def _read(stop: Stop, path: StrOrBytesPath) -> bytes:
    with open(path, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size <= PIECE:
            return file.read()
        pieces = []
        while piece := file.read(PIECE):
            pieces.append(piece)
            stop.check()
        return b"".join(pieces)


def _read_each(stop: Stop, paths: list[StrOrBytesPath]) -> list[bytes | OSError]:
    return _each(stop, paths, lambda path: _read(stop, path))


def _stat_each(stop: Stop, paths: list[StrOrBytesPath], follow: bool) -> list[os.stat_result | OSError]:
    return _each(stop, paths, lambda path: os.stat(path, follow_symlinks=follow))


def _each(
    stop: Stop, paths: list[StrOrBytesPath], work: Callable[[StrOrBytesPath], _T]
) -> list[_T | OSError]:
    found: list[_T | OSError] = []
    for path in paths:
        stop.check()
        try:
            found.append(work(path))
        except OSError as error:
            found.append(error)
    return found


def _write_all(stop: Stop, fd: int, view: memoryview) -> None:
    while view:
        stop.check()
        view = view[os.write(fd, view[:PIECE]) :]


def _write(stop: Stop, path: StrOrBytesPath, view: memoryview, mode: int, fsync: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    is_new = False
    if fsync:
        # A new file is on storage when its directory is, too.
        try:
            fd = os.open(path, flags | os.O_EXCL, mode)
            is_new = True
        except FileExistsError:
            fd = os.open(path, flags | os.O_TRUNC, mode)
    else:
        fd = os.open(path, flags | os.O_TRUNC, mode)
    try:
        _write_all(stop, fd, view)
        if fsync:
            os.fsync(fd)
    finally:
        os.close(fd)
    if is_new:
        sync_directory(path)


def sync_directory(path: StrOrBytesPath) -> None:
    """Flush the directory that holds a file."""
    directory = os.path.dirname(os.path.abspath(os.fspath(path)))
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some file systems have no such thing.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def _replace(stop: Stop, path: StrOrBytesPath, view: memoryview, mode: int) -> None:
    target = os.path.realpath(os.fspath(path))
    directory = os.path.dirname(target)
    old = _replaceable(path)
    name = f".proact-{secrets.token_hex(8)}.tmp"
    temporary: Any = os.path.join(directory, os.fsencode(name) if isinstance(directory, bytes) else name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(temporary, flags, mode if old is None else old.st_mode & 0o700)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
    try:
        try:
            _write_all(stop, fd, view)
            if old is not None:
                made = os.fstat(fd)
                if (made.st_uid, made.st_gid) != (old.st_uid, old.st_gid):
                    with contextlib.suppress(PermissionError):
                        os.fchown(fd, old.st_uid, old.st_gid)
                os.fchmod(fd, stat.S_IMODE(old.st_mode))
            os.fsync(fd)
        finally:
            os.close(fd)
        stop.check()
        os.rename(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_directory(target)


def _replaceable(path: StrOrBytesPath) -> os.stat_result | None:
    """The status of the file that is to be replaced, if there is one."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "only a regular file can be replaced", os.fspath(path))
    if not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
    return status
