"""Owns: whole files in one await: read, written, and read by the thousand.

What is cached is read at once by the loop (`Ways.try_read_files`), and what is not by its ring or its native
threads (`Ways.read_file`). All else is one call in a thread of the pool that opens, works and closes: so a
cancel can't come between these steps, lose an fd or leave a temporary file behind.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
from typing import TYPE_CHECKING, Any

from .peers import read_fifo
from .pieces import in_pieces
from .ways import of_running_loop

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, StrOrBytesPath

    from .pieces import Stop

__all__ = ["read_bytes", "read_text", "sync_directory", "write_bytes", "write_text"]

PIECE = 8 << 20
"""Bytes that are read or written before a cancel is looked for."""

_LONG_TEXT = 1 << 20
"""Bytes of text from which on its decoding is left to a thread."""


async def read_bytes(path: StrOrBytesPath) -> bytes:
    """The content of a file.

    Raises what `open(path, "rb")` raises. A cancel ends the wait at once, even for a FIFO that nobody writes
    to.
    """
    ways = of_running_loop()
    tried = ways.try_read_files([path], 0)
    content = tried[0] if tried else None
    if content is None:
        async with ways.reading:
            content = await ways.read_file(path)
    if isinstance(content, int):
        return await read_fifo(content)
    if content is None:
        return await in_pieces(read_in_thread, path)
    if isinstance(content, OSError):
        raise content
    return content


async def read_text(
    path: StrOrBytesPath, encoding: str | None = None, errors: str | None = None, newline: str | None = None
) -> str:
    """The text in a file; the arguments are those of `open()`.

    Raises what `open(...).read()` raises, `UnicodeDecodeError` among it.
    """
    encoding = io.text_encoding(encoding)
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

    A new file has the permissions `mode`, less the umask. `fsync`: return when the content, and the name of a
    new file, are on storage. `atomic`: a reader, and a machine that crashes, sees the old content or the new
    one, never another; the file keeps its permissions and, if allowed, its owner, but it is a new inode; a
    symbolic link is followed. `atomic` includes `fsync`.

    Raises what `open(path, "wb")` and `write` raise, and OSError (EINVAL) if `atomic` is asked for what is
    not a regular file. Cancelled, an atomic write is carried out or leaves nothing behind; another write may
    be carried out, wholly or in part.
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
    encoding = io.text_encoding(encoding)

    def encode() -> bytes:
        raw = io.BytesIO()
        wrapper = io.TextIOWrapper(raw, encoding, errors, newline)
        wrapper.write(text)
        wrapper.flush()
        return raw.getvalue()

    data = encode() if len(text) < _LONG_TEXT else await of_running_loop().call(encode)
    await write_bytes(path, data, fsync=fsync, atomic=atomic, mode=mode)
    return len(text)


# In a thread.


def read_in_thread(stop: Stop, path: StrOrBytesPath) -> bytes:
    with open(path, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size <= PIECE:
            return file.read()
        pieces = []
        while piece := file.read(PIECE):
            pieces.append(piece)
            stop.check()
        return b"".join(pieces)


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
    old = _replaceable(path)
    target: Any = os.path.realpath(os.fspath(path))
    directory = os.path.dirname(target)
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
    if not os.path.basename(os.fspath(path)):
        # It names no file: the open tells why.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC))
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "only a regular file can be replaced", os.fspath(path))
    if not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        # The open tells why: the permissions, or a file system that is read-only.
        os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
    return status
