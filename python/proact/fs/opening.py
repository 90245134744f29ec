"""Owns: `open`: its arguments, and what it makes of them."""

from __future__ import annotations

import errno
import io
import locale
import os
import stat
import sys
import warnings
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from . import pool
from .descriptor import Handed
from .file import BufferedFile, RawFile
from .text import TextFile
from .ways import of_running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

    from _typeshed import FileDescriptorOrPath

__all__ = ["Opening", "open"]

_F = TypeVar("_F", bound="BufferedFile | RawFile | TextFile", covariant=True)

_FLAGS = {
    "r": os.O_RDONLY,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
}


def _checked_mode(mode: str) -> tuple[str, bool, bool]:
    """The letter that says how to open it, whether for updating, whether in binary mode."""
    letters = set(mode)
    if letters - set("rwxab+t") or len(mode) > len(letters):
        raise ValueError(f"invalid mode: {mode!r}")
    if {"t", "b"} <= letters:
        raise ValueError("can't have text and binary mode at once")
    kinds = letters & set("rwxa")
    if len(kinds) != 1:
        raise ValueError("must have exactly one of create/read/write/append mode")
    return kinds.pop(), "+" in letters, "b" in letters


_checked = {mode: _checked_mode(mode) for mode in ("r", "rb", "w", "wb", "a", "ab")}


class Opening(Generic[_F]):
    """What `open` returns: `await` it, or use it with `async with`, which closes the file."""

    __slots__ = ("_args", "_file")

    def __init__(self, *args: Any) -> None:
        self._args = args

    def __await__(self) -> Generator[Any, None, _F]:
        return _opened(*self._args).__await__()  # type: ignore[return-value]

    async def __aenter__(self) -> _F:
        self._file = file = cast("_F", await _opened(*self._args))
        return file

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._file.close()


def open(
    file: FileDescriptorOrPath,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
) -> Opening[Any]:
    """Open a file as the builtin `open` does, with the same arguments, results and errors.

    Use it as `async with proact.open(...) as file` or as `file = await proact.open(...)`. It works on every loop.
    An `opener` is called in a thread. If this is cancelled, a file that is opened later is closed.
    """
    if not isinstance(file, int):
        file = os.fspath(file)
    if not isinstance(mode, str):
        raise TypeError(f"open() argument 'mode' must be str, not {type(mode).__name__}")
    kind, updating, binary = _checked.get(mode) or _checked_mode(mode)
    if binary:
        for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
            if value is not None:
                raise ValueError(
                    f"binary mode doesn't take {'a' if name == 'newline' else 'an'} {name} argument"
                )
        if buffering == 1:
            warnings.warn(
                "line buffering (buffering=1) isn't supported in binary mode, the default buffer size will be used",
                RuntimeWarning,
                stacklevel=2,
            )
    else:
        encoding = io.text_encoding(encoding)
    return Opening(file, mode, kind, updating, binary, buffering, encoding, errors, newline, closefd, opener)


async def _opened(
    file: Any,
    mode: str,
    kind: str,
    updating: bool,
    binary: bool,
    buffering: int,
    encoding: str,
    errors: str | None,
    newline: str | None,
    closefd: bool,
    opener: Callable[[str, int], int] | None,
) -> BufferedFile | RawFile | TextFile:
    ways = of_running_loop()
    flags = _FLAGS[kind]
    if updating:
        flags = flags & ~os.O_WRONLY | os.O_RDWR
    sys.audit("open", file, kind + "b" + "+" * updating, flags | os.O_CLOEXEC)
    owned = True
    if isinstance(file, int):
        if file < 0:
            raise ValueError("negative file descriptor")
        owned = closefd
        fd = file
        try:
            status = ways.fstat(fd)
        except OSError as error:
            raise OSError(error.errno, error.strerror, file) from None
        file_type = stat.S_IFMT(status.st_mode)
    elif not closefd:
        raise ValueError("Cannot use closefd=False with file name")
    elif opener is not None:
        fd = await pool.of_process().call(_called, opener, file, flags | os.O_CLOEXEC, undo=os.close)
        file_type = stat.S_IFMT(ways.fstat(fd).st_mode)
    else:
        fd, file_type, _ = await ways.open(file, flags)
    # Nothing is waited for from here on.
    try:
        if file_type == stat.S_IFDIR:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), file)
        return _made(
            ways,
            fd,
            file_type,
            file,
            mode,
            kind,
            updating,
            binary,
            buffering,
            encoding,
            errors,
            newline,
            owned,
        )
    except BaseException:
        if owned:
            os.close(fd)
        raise


def _called(opener: Callable[[str, int], int], file: str, flags: int) -> int:
    fd = opener(file, flags)
    if not isinstance(fd, int):
        raise TypeError("expected integer from opener")
    if fd < 0:
        raise ValueError(f"opener returned {fd}")
    os.set_inheritable(fd, False)
    return fd


def _made(
    ways: Any,
    fd: int,
    file_type: int,
    file: Any,
    mode: str,
    kind: str,
    updating: bool,
    binary: bool,
    buffering: int,
    encoding: str,
    errors: str | None,
    newline: str | None,
    owned: bool,
) -> BufferedFile | RawFile | TextFile:
    seekable, position = True, 0
    if file_type != stat.S_IFREG or kind == "a" or isinstance(file, int):
        try:
            position = os.lseek(fd, 0, os.SEEK_END if kind == "a" else os.SEEK_CUR)
        except OSError:
            seekable, position = False, -1
    line_buffering = False
    if buffering == 1 or (buffering < 0 and file_type == stat.S_IFCHR and os.isatty(fd)):
        buffering, line_buffering = -1, True
    if buffering < -1:
        buffering = -1
    shown = "rb+" if kind in "rw" and updating else kind + "b" + "+" * updating
    readable, writable = kind == "r" or updating, kind != "r" or updating
    handed = Handed(ways, fd, file, shown, owned, readable, writable, kind == "a", seekable, position)
    if buffering == 0:
        if not binary:
            raise ValueError("can't have unbuffered text I/O")
        return RawFile(handed)
    if updating and not seekable:
        raise io.UnsupportedOperation("File or stream is not seekable.")
    if binary:
        return BufferedFile(handed, buffering)
    if encoding == "locale":
        encoding = locale.getencoding()
    buffer = BufferedFile(handed, buffering)
    try:
        return TextFile(buffer, mode, encoding, errors, newline, line_buffering)
    except BaseException:
        # The fd is closed by the caller.
        buffer._fd = -1
        raise
