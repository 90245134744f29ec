"""Owns: temporary files and directories, as `tempfile` has them, on the files of `open`.

They are made and filled in a thread of the pool, where no cancel comes between making and owning them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from typing import TYPE_CHECKING, Any, Self

from . import names, pool
from .opening import open as open_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from _typeshed import StrPath

__all__ = [
    "NamedTemporaryFile",
    "TemporaryDirectory",
    "TemporaryFile",
    "mkdtemp",
    "mkstemp",
]


def unnamed(directory: Any, suffix: Any = None, prefix: Any = None) -> int:
    """In a thread: an fd of a file without a name."""
    directory = tempfile.gettempdir() if directory is None else os.fspath(directory)
    if hasattr(os, "O_TMPFILE"):
        # It fails where the file system has no such files.
        with contextlib.suppress(OSError):
            fd: int = os.open(directory, os.O_RDWR | os.O_EXCL | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
            return fd
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

    if TYPE_CHECKING:

        async def _make(self) -> Any: ...


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
            "", mode, buffering, encoding, errors, newline, opener=lambda *_: unnamed(dir, suffix, prefix)
        )

    async def _make(self) -> Any:
        file = await self._opening
        _rename(file, file.fileno())
        return file


class NamedTemporaryFile(_Made):
    """A file that is deleted when it is closed, as `tempfile.NamedTemporaryFile` makes it.

    `async with` or `await` it. Without `delete` it stays. Without `delete_on_close` it is deleted at the end
    of `async with`, and may be closed and opened again before.
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
        _rename(file, self._name)
        return _Named(file, self._name, *self._delete)

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._file.close()
        finally:
            await self._file._delete_now()


def _rename(file: Any, name: Any) -> None:
    """Have a file, be it binary or text, show another name."""
    getattr(file, "buffer", file).name = name


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

    async def aclose(self) -> None:
        """As `close`, by the name that anyio's files and `contextlib.aclosing` have for it."""
        await self.close()

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


class TemporaryDirectory:
    """A directory that is removed with all it holds: `async with TemporaryDirectory() as name`.

    As `tempfile.TemporaryDirectory`. Without `async with`: `name = await directory`, and `await cleanup()` at
    last.
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
