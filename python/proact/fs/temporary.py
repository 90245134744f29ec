"""Owns: temporary files and directories, as `tempfile` has them, on the files of `open`.

They are made and filled in a thread of the pool, where no cancel comes between making and owning them.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import tempfile
from typing import TYPE_CHECKING, Any, Self

from . import names, pool
from .opening import open as open_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterable
    from types import TracebackType

    from _typeshed import StrPath

__all__ = [
    "NamedTemporaryFile",
    "SpooledTemporaryFile",
    "TemporaryDirectory",
    "TemporaryFile",
    "mkdtemp",
    "mkstemp",
]


def _unnamed(directory: Any, suffix: Any = None, prefix: Any = None) -> int:
    """In a thread: an fd of a file without a name."""
    directory = tempfile.gettempdir() if directory is None else os.fspath(directory)
    if hasattr(os, "O_TMPFILE"):
        # It fails where the file system has no such files.
        with contextlib.suppress(OSError):
            return os.open(directory, os.O_RDWR | os.O_EXCL | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    fd, name = tempfile.mkstemp(suffix, prefix, directory)
    os.unlink(name)
    return fd


class _Made:
    """What makes a file when it is awaited or entered, and closes it at the end of `async with`."""

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._make().__await__()

    async def __aenter__(self) -> Any:
        self._file = file = await self._make()
        return file

    async def __aexit__(self, *_: object) -> None:
        await self._file.close()

    async def _make(self) -> Any:
        raise NotImplementedError


class TemporaryFile(_Made):
    """A file without a name, as `tempfile.TemporaryFile` makes it: `async with` or `await` it."""

    def __init__(
        self,
        mode: str = "w+b",
        buffering: int = -1,
        encoding: str | None = None,
        newline: str | None = None,
        suffix: str | None = None,
        prefix: str | None = None,
        dir: StrPath | None = None,  # noqa: A002
        *,
        errors: str | None = None,
    ) -> None:
        self._opening = open_file(
            "", mode, buffering, encoding, errors, newline, opener=lambda *_: _unnamed(dir, suffix, prefix)
        )

    async def _make(self) -> Any:
        file = await self._opening
        getattr(file, "buffer", file).name = file.fileno()
        return file


class NamedTemporaryFile(_Made):
    """A file that is deleted when it is closed, as `tempfile.NamedTemporaryFile` makes it.

    `async with` or `await` it. Without `delete` it stays. Without `delete_on_close` it is deleted at the end of
    `async with`, and may be closed and opened again before.
    """

    def __init__(
        self,
        mode: str = "w+b",
        buffering: int = -1,
        encoding: str | None = None,
        newline: str | None = None,
        suffix: str | None = None,
        prefix: str | None = None,
        dir: StrPath | None = None,  # noqa: A002
        delete: bool = True,
        *,
        errors: str | None = None,
        delete_on_close: bool = True,
    ) -> None:
        self._name: Any = None
        self._given_up = False

        def make(*_: Any) -> int:
            fd, self._name = tempfile.mkstemp(suffix, prefix, dir)
            if self._given_up:
                _delete(self._name)
            return fd

        self._opening = open_file("", mode, buffering, encoding, errors, newline, opener=make)
        self._delete = delete, delete_on_close

    async def _make(self) -> Any:
        try:
            file = await self._opening
        except BaseException:
            # The thread may make the file only now.
            self._given_up = True
            if self._name is not None:
                _delete(self._name)
            raise
        getattr(file, "buffer", file).name = self._name
        return _Named(file, self._name, *self._delete)

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._file.close()
        finally:
            await self._file._delete_now()


def _delete(name: Any) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)


class _Named:
    """A file and its name. All that is not here is the file's."""

    def __init__(self, file: Any, name: Any, delete: bool, delete_on_close: bool) -> None:
        self.file = file
        self.name = name
        self.delete = delete
        self._on_close = delete_on_close

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.file!r}>"

    def __aiter__(self) -> AsyncIterator[Any]:
        lines: AsyncIterator[Any] = self.file.__aiter__()
        return lines

    async def __anext__(self) -> Any:
        return await self.file.__anext__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.close()
        finally:
            await self._delete_now()

    async def close(self) -> None:
        """Close the file, and delete it if that was asked for."""
        try:
            await self.file.close()
        finally:
            if self._on_close:
                await self._delete_now()

    async def _delete_now(self) -> None:
        if not self.delete:
            return
        self.delete = False
        try:
            await names.unlink(self.name)
        except FileNotFoundError:
            pass
        except asyncio.CancelledError:
            _delete(self.name)
            raise

    def __del__(self) -> None:
        if self.delete:
            _delete(self.name)


class SpooledTemporaryFile:
    """A file in memory that becomes one on storage when it grows past `max_size` bytes (never with 0).

    As `tempfile.SpooledTemporaryFile`, with `async with` and coroutines. `fileno()` needs a file on storage:
    `await rollover()` makes it one.
    """

    def __init__(
        self,
        max_size: int = 0,
        mode: str = "w+b",
        buffering: int = -1,
        encoding: str | None = None,
        newline: str | None = None,
        suffix: str | None = None,
        prefix: str | None = None,
        dir: StrPath | None = None,  # noqa: A002
        *,
        errors: str | None = None,
    ) -> None:
        self._raw = io.BytesIO()
        self._memory: Any = self._raw
        if "b" not in mode:
            encoding = io.text_encoding(encoding)
            self._memory = io.TextIOWrapper(self._raw, encoding, errors, newline, write_through=True)
        self._file: Any = None
        self._max_size = max_size
        self._turn = asyncio.Lock()
        self._mode = mode

        def make(*_: Any) -> int:
            fd = _unnamed(dir, suffix, prefix)
            try:
                view = self._raw.getbuffer()
                while view:
                    view = view[os.write(fd, view) :]
                os.lseek(fd, 0, os.SEEK_SET)
            except BaseException:
                os.close(fd)
                raise
            return fd

        # Wrong arguments are told here.
        self._opening = open_file("", mode, buffering, encoding, errors, newline, opener=make)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __await__(self) -> Generator[Any, Any, Self]:
        return self.__aenter__().__await__()

    @property
    def closed(self) -> bool:
        return bool((self._file or self._memory).closed)

    @property
    def name(self) -> Any:
        """The fd's number, or None while the file is in memory."""
        return None if self._file is None else self._file.fileno()

    @property
    def mode(self) -> str:
        return self._mode

    @property
    def encoding(self) -> str:
        encoding: str = (self._file or self._memory).encoding
        return encoding

    @property
    def errors(self) -> str | None:
        errors: str | None = (self._file or self._memory).errors
        return errors

    @property
    def newlines(self) -> Any:
        return (self._file or self._memory).newlines

    def fileno(self) -> int:
        """Raises `io.UnsupportedOperation` while the file is in memory."""
        number: int = (self._file or self._memory).fileno()
        return number

    def isatty(self) -> bool:
        return False

    def readable(self) -> bool:
        return bool((self._file or self._memory).readable())

    def writable(self) -> bool:
        return bool((self._file or self._memory).writable())

    def seekable(self) -> bool:
        return True

    async def _call(self, name: str, *args: Any) -> Any:
        if self._file is None:
            async with self._turn:
                if self._file is None:
                    result = getattr(self._memory, name)(*args)
                    if self._max_size and self._raw.tell() > self._max_size:
                        await self._roll_over()
                    return result
        return await getattr(self._file, name)(*args)

    async def _roll_over(self) -> None:
        position = self._memory.tell()
        file = await self._opening
        try:
            await file.seek(position)
        except BaseException:
            await file.close()
            raise
        self._file = file
        self._memory.close()

    async def rollover(self) -> None:
        """Put the file on storage now."""
        async with self._turn:
            if self._file is None:
                await self._roll_over()

    async def close(self) -> None:
        """Close the file, which is then gone."""
        async with self._turn:
            self._memory.close()
            if self._file is not None:
                await self._file.close()

    async def read(self, *args: Any) -> Any:
        return await self._call("read", *args)

    async def read1(self, *args: Any) -> Any:
        return await self._call("read1", *args)

    async def readinto(self, buffer: Any) -> int:
        count: int = await self._call("readinto", buffer)
        return count

    async def readline(self, *args: Any) -> Any:
        return await self._call("readline", *args)

    async def readlines(self, *args: Any) -> list[Any]:
        lines: list[Any] = await self._call("readlines", *args)
        return lines

    async def write(self, data: Any) -> int:
        """Write; the file is put on storage if it has become too long."""
        count: int = await self._call("write", data)
        return count

    async def writelines(self, lines: Iterable[Any]) -> None:
        await self._call("writelines", lines)

    async def flush(self) -> None:
        await self._call("flush")

    async def seek(self, *args: Any) -> int:
        position: int = await self._call("seek", *args)
        return position

    async def tell(self) -> int:
        position: int = await self._call("tell")
        return position

    async def truncate(self, size: int | None = None) -> int:
        count: int = await self._call("truncate", *(() if size is None else (size,)))
        return count

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line


class TemporaryDirectory:
    """A directory that is removed with all it holds: `async with TemporaryDirectory() as name`.

    As `tempfile.TemporaryDirectory`. Without `async with`: `name = await directory`, and `await cleanup()` at last.
    """

    def __init__(
        self,
        suffix: str | None = None,
        prefix: str | None = None,
        dir: StrPath | None = None,  # noqa: A002
        ignore_cleanup_errors: bool = False,
        *,
        delete: bool = True,
    ) -> None:
        self.name: Any = None
        self._args = suffix, prefix, dir
        self._ignore = ignore_cleanup_errors
        self._delete = delete
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    async def _make(self) -> str:
        def make() -> tempfile.TemporaryDirectory[str]:
            return tempfile.TemporaryDirectory(*self._args, ignore_cleanup_errors=self._ignore)

        if self._delete:
            self._directory = await pool.of_process().call(make, undo=lambda made: made.cleanup())
            self.name = self._directory.name
        else:
            self.name = await mkdtemp(*self._args)
        name: str = self.name
        return name

    def __await__(self) -> Generator[Any, Any, str]:
        return self._make().__await__()

    async def __aenter__(self) -> str:
        return await self._make()

    async def __aexit__(self, *_: object) -> None:
        if self._delete:
            await self.cleanup()

    async def cleanup(self) -> None:
        """Remove the directory, unless it was made to stay. Cancelled, it is removed all the same."""
        if self._directory is not None:
            await pool.of_process().call(self._directory.cleanup, surely=True)


async def mkstemp(
    suffix: str | None = None,
    prefix: str | None = None,
    dir: StrPath | None = None,  # noqa: A002
    text: bool = False,
) -> tuple[int, str]:
    """As `tempfile.mkstemp`: the fd and the name of a new file, which the caller closes and deletes."""

    def undo(made: tuple[int, str]) -> None:
        os.close(made[0])
        _delete(made[1])

    return await pool.of_process().call(lambda: tempfile.mkstemp(suffix, prefix, dir, text), undo=undo)


async def mkdtemp(
    suffix: str | None = None,
    prefix: str | None = None,
    dir: StrPath | None = None,  # noqa: A002
) -> str:
    """As `tempfile.mkdtemp`: the name of a new directory, which the caller removes."""
    return await pool.of_process().call(lambda: tempfile.mkdtemp(suffix, prefix, dir), undo=os.rmdir)
