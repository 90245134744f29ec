"""Owns: temporary files that stay in memory until they have grown."""

from __future__ import annotations

import asyncio
import io
import os
from typing import TYPE_CHECKING, Any, Self

from .opening import open as open_file
from .temporary import unnamed

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from types import TracebackType

    from _typeshed import StrPath

__all__ = ["SpooledTemporaryFile"]


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
            fd = unnamed(dir, suffix, prefix)
            try:
                # Not its buffer, which could not be written to meanwhile.
                view = memoryview(self._raw.getvalue())
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

    async def aclose(self) -> None:
        """As `close`, by the name that anyio's files and `contextlib.aclosing` have for it."""
        await self.close()

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
        if self._file is None and size is not None and self._max_size and size > self._max_size:
            await self.rollover()
        count: int = await self._call("truncate", *(() if size is None else (size,)))
        return count

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line
