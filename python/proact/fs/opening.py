"""Owns: `open`: its arguments, and what it makes of them."""

from __future__ import annotations

import errno
import fcntl
import io
import locale
import operator
import os
import stat
import sys
import warnings
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast, overload

from . import pool
from .buffered import BufferedFile
from .direct import DirectFile
from .file import RawFile
from .text import TextFile
from .ways import Ways, of_running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType
    from typing import Literal

    from _typeshed import FileDescriptorOrPath, OpenBinaryMode, OpenTextMode

__all__ = ["Opening", "open"]

_F = TypeVar("_F", covariant=True)

_FLAGS = {
    "r": os.O_RDONLY,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
}

_MOST = 2**31 - 1
"""Bytes: the largest buffer that `open()` takes."""

_SIMPLE = (stat.S_IFREG, stat.S_IFDIR)


class _Mode(NamedTuple):
    flags: int
    readable: bool
    writable: bool
    appends: bool
    binary: bool
    # As a binary file shows its mode, and as an audit hook sees it.
    shown: str
    audited: str


_modes: dict[str, _Mode] = {}


def _mode(mode: str) -> _Mode:
    letters = set(mode)
    if letters - set("rwxab+t") or len(mode) > len(letters):
        raise ValueError(f"invalid mode: {mode!r}")
    if {"t", "b"} <= letters:
        raise ValueError("can't have text and binary mode at once")
    kinds = letters & set("rwxa")
    if len(kinds) != 1:
        raise ValueError("must have exactly one of create/read/write/append mode")
    kind, plus = kinds.pop(), "+" if "+" in letters else ""
    flags = _FLAGS[kind] | os.O_CLOEXEC
    if plus:
        flags = flags & ~os.O_WRONLY | os.O_RDWR
    # Before Python 3.15 a file for reading and writing does not show that it was emptied.
    emptied = "w" if sys.version_info >= (3, 15) else "r"
    shown = (emptied if plus and kind == "w" else kind) + "b" + plus
    reads, writes = kind == "r" or bool(plus), kind != "r" or bool(plus)
    made = _Mode(flags, reads, writes, kind == "a", "b" in letters, shown, kind + plus)
    _modes[mode] = made
    return made


_READS = _mode("rb")


class Opening(Generic[_F]):
    """What `open` returns. Await it, or use it with `async with`, which closes the file."""

    __slots__ = ("_buffering", "_closefd", "_file", "_mode", "_opened", "_opener", "_shown", "_text")

    def __init__(
        self,
        file: Any,
        shown: str,
        mode: _Mode,
        buffering: int,
        text: tuple[str, str | None, str | None],
        closefd: bool,
        opener: Callable[[str, int], int] | None,
    ) -> None:
        self._file = file
        self._shown = shown
        self._mode = mode
        self._buffering = buffering
        self._text = text
        self._closefd = closefd
        self._opener = opener

    def __await__(self) -> Generator[Any, Any, _F]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> _F:
        ways, file, mode = of_running_loop(), self._file, self._mode
        sys.audit("open", file, mode.audited, mode.flags)
        tried = None
        if self._opener is None and self._closefd and not isinstance(file, int):
            if not ways.waiting:
                tried = ways.try_open(file, mode.flags)
            if tried is None and (ways.waiting or ways.tried_enough()):
                tried = await ways.later(ways.try_open, file, mode.flags)
        if tried and tried[1] == stat.S_IFREG and mode is _READS and self._buffering == -1:
            # Most files: nothing is left to look at, nor to wait for.
            self._opened: Any = BufferedFile._of_regular(ways, tried[0], file)
        else:
            self._opened = await self._open(ways, tried)
        return cast("_F", self._opened)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._opened._close_now():
            await self._opened.close()

    async def _open(self, ways: Ways, opened: tuple[int, int, int] | None) -> Any:
        file, flags = self._file, self._mode.flags
        if isinstance(file, int):
            return self._wrap(ways, file)
        if not self._closefd:
            raise ValueError("Cannot use closefd=False with file name")
        if self._opener is not None:
            fd = await pool.of_process().call(_call_opener, self._opener, file, flags, undo=os.close)
            kind = _kind(ways, fd)
        else:
            if opened is None or opened[1] not in _SIMPLE:
                opened = await ways.open(file, flags, tried=opened)
            fd, kind, _ = opened
        # Nothing is waited for from here on, so nobody can lose the fd.
        try:
            if kind == stat.S_IFDIR:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), file)
            return self._make(ways, fd, kind)
        except BaseException:
            os.close(fd)
            raise

    def _wrap(self, ways: Ways, fd: int) -> Any:
        """Make a file of an fd that is open already."""
        if fd < 0:
            raise ValueError("negative file descriptor")
        kind = _kind(ways, fd)
        if kind == stat.S_IFDIR:
            # The fd stays open, as with `open()`.
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), fd)
        try:
            return self._make(ways, fd, kind)
        except BaseException:
            if self._closefd:
                os.close(fd)
            raise

    def _make(self, ways: Ways, fd: int, kind: int) -> Any:
        flags, readable, writable, appends, binary, shown, _ = self._mode
        buffering = self._buffering
        seekable, position, lines = True, 0, buffering == 1
        ours = self._opener is None and not isinstance(self._file, int)
        if appends or kind != stat.S_IFREG or not ours:
            try:
                position = os.lseek(fd, 0, os.SEEK_END if appends else os.SEEK_CUR)
            except OSError as error:
                if appends and error.errno != errno.ESPIPE:
                    raise
                seekable, position = False, -1
            if seekable and not (ours and kind == stat.S_IFREG) and not _takes_offsets(fd, readable):
                seekable, position = False, -1
            lines = lines or (buffering < 0 and kind == stat.S_IFCHR and os.isatty(fd))
        made = (ways, fd, self._file, shown, self._closefd, readable, writable, appends, seekable, position)
        if buffering == 0:
            if not binary:
                raise ValueError("can't have unbuffered text I/O")
            if isinstance(self._file, int) or self._opener:
                flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            return (DirectFile if flags & os.O_DIRECT else RawFile)(*made)
        if readable and writable and not seekable:
            raise io.UnsupportedOperation("File or stream is not seekable.")
        buffer = BufferedFile(*made)
        if buffering > 1:
            buffer._fix(buffering)
        if binary:
            return buffer
        encoding, errors, newline = self._text
        try:
            if encoding == "locale":
                encoding = locale.getencoding()
            return TextFile(buffer, self._shown, encoding, errors, newline, lines)
        except BaseException:
            # The caller closes the fd.
            buffer._fd = -1
            raise


def _kind(ways: Ways, fd: int) -> int:
    return stat.S_IFMT(ways.fstat(fd).st_mode)


def _takes_offsets(fd: int, readable: bool) -> bool:
    """Whether a file can be read or written at an offset. An eventfd or timerfd can't, though it "seeks"."""
    try:
        # Nothing is read or written: the kernel looks at the file first.
        _ = os.preadv(fd, [], 0) if readable else os.pwritev(fd, [], 0)
    except OSError as error:
        return error.errno != errno.ESPIPE
    return True


def _call_opener(opener: Callable[[str, int], int], file: str, flags: int) -> int:
    fd = opener(file, flags)
    if not isinstance(fd, int):
        raise TypeError("expected integer from opener")
    if fd < 0:
        raise ValueError(f"opener returned {fd}")
    os.set_inheritable(fd, False)
    return fd


@overload
def open(
    file: FileDescriptorOrPath,
    mode: OpenTextMode = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
    *,
    direct: bool = False,
) -> Opening[TextFile]: ...
@overload
def open(
    file: FileDescriptorOrPath,
    mode: OpenBinaryMode,
    buffering: Literal[0],
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
    *,
    direct: bool = False,
) -> Opening[RawFile]: ...
@overload
def open(
    file: FileDescriptorOrPath,
    mode: OpenBinaryMode,
    buffering: Literal[-1, 1] = -1,
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
    *,
    direct: bool = False,
) -> Opening[BufferedFile]: ...
@overload
def open(
    file: FileDescriptorOrPath,
    mode: OpenBinaryMode,
    buffering: int,
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
    *,
    direct: bool = False,
) -> Opening[BufferedFile | RawFile]: ...
@overload
def open(
    file: FileDescriptorOrPath,
    mode: str,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
    *,
    direct: bool = False,
) -> Opening[BufferedFile | RawFile | TextFile]: ...
def open(
    file: FileDescriptorOrPath,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
    *,
    direct: bool = False,
) -> Opening[Any]:
    """Open a file as the builtin `open` does, with the same arguments, results and errors.

    Use it as `async with proact.open(...) as file` or as `file = await proact.open(...)`, on any loop. An
    `opener` is called in a thread. If this is cancelled, a file that is opened later is closed.

    `direct`: past the page cache (`O_DIRECT`), in binary mode and without a buffer. The open raises OSError
    (EINVAL) if the file system has no such way.
    """
    if not isinstance(file, int):
        file = operator.index(cast("Any", file)) if hasattr(file, "__index__") else os.fspath(file)
    made = _modes.get(mode) or _mode(_checked("mode", mode))
    if buffering != -1:
        buffering = max(operator.index(buffering), -1)
        if buffering > _MOST:
            raise OverflowError("buffering is greater than maximum")
    if encoding is not None or errors is not None or newline is not None:
        for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
            if value is not None:
                _checked(name, value)
    if made.binary:
        if encoding is not None or errors is not None or newline is not None:
            named = "encoding" if encoding is not None else "errors" if errors is not None else "newline"
            raise ValueError(
                f"binary mode doesn't take {'a' if named == 'newline' else 'an'} {named} argument"
            )
        if buffering == 1:
            message = "line buffering (buffering=1) isn't supported in binary mode"
            warnings.warn(f"{message}, the default buffer size will be used", RuntimeWarning, stacklevel=2)
        encoding = ""
    else:
        if newline not in (None, "", "\n", "\r", "\r\n"):
            raise ValueError(f"illegal newline value: {newline}")
        encoding = io.text_encoding(encoding)
    if direct:
        if not made.binary or buffering > 0:
            raise ValueError("direct I/O is in binary mode and has no buffer")
        made = made._replace(flags=made.flags | os.O_DIRECT)
        buffering = 0
    return Opening(file, mode, made, buffering, (encoding, errors, newline), closefd, opener)


def _checked(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"open() argument {name!r} must be str, not {type(value).__name__}")
    return value
