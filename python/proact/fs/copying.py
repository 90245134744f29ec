"""Owns: copies, moves and removals of files and trees, as `shutil` has them, off the loop, and ended by a
cancel.

The content of a file is copied by the best way that the two files allow: shared extents (reflink), then
`copy_file_range(2)`, which stays in the kernel or even on the server, then `sendfile(2)`, then reads and
writes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import sys
from typing import TYPE_CHECKING, Any

from .pieces import in_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed import StrOrBytesPath, StrPath

    from .pieces import Stop

__all__ = ["copy", "copy2", "copyfile", "copymode", "copystat", "copytree", "move", "rmtree"]

_PIECE = 32 << 20
"""Bytes that are copied before a cancel is looked for."""

_BUFFER = 256 << 10
"""Bytes that go through this process at a time, where no other way is left."""

_FICLONE = 0x40049409

# What the kernel says of a way that these two files don't allow.
_NOT_THIS_WAY = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EBADF,
    errno.ETXTBSY,
    errno.EPERM,
    errno.ENOTTY,
    errno.ENOTSOCK,
    errno.EACCES,
}


async def copyfile(src: StrOrBytesPath, dst: StrOrBytesPath, *, follow_symlinks: bool = True) -> Any:
    """As `shutil.copyfile`: the content of a file; returns `dst`.

    Raises what `shutil.copyfile` raises. Cancelled, it leaves a part of the copy.
    """
    return await in_pieces(_copyfile, src, dst, follow_symlinks=follow_symlinks)


async def copymode(src: StrOrBytesPath, dst: StrOrBytesPath, *, follow_symlinks: bool = True) -> None:
    """As `shutil.copymode`: the permissions of a file."""
    await in_pieces(lambda _: shutil.copymode(src, dst, follow_symlinks=follow_symlinks))


async def copystat(src: StrOrBytesPath, dst: StrOrBytesPath, *, follow_symlinks: bool = True) -> None:
    """As `shutil.copystat`: permissions, times, extended attributes."""
    await in_pieces(lambda _: shutil.copystat(src, dst, follow_symlinks=follow_symlinks))


async def copy(src: StrPath, dst: StrPath, *, follow_symlinks: bool = True) -> Any:
    """As `shutil.copy`: content and permissions, to a file or into a directory; returns the path of the
    copy.
    """

    def work(stop: Stop) -> Any:
        target = _inside(src, dst)
        _copyfile(stop, src, target, follow_symlinks=follow_symlinks)
        shutil.copymode(src, target, follow_symlinks=follow_symlinks)
        return target

    return await in_pieces(work)


async def copy2(src: StrPath, dst: StrPath, *, follow_symlinks: bool = True) -> Any:
    """As `shutil.copy2`: content and all of `copystat`; returns the path of the copy."""
    return await in_pieces(_copy2, src, dst, follow_symlinks=follow_symlinks)


async def copytree(
    src: StrPath,
    dst: StrPath,
    symlinks: bool = False,
    ignore: Callable[[Any, list[str]], Iterable[str]] | None = None,
    copy_function: Callable[[str, str], object] | None = None,
    ignore_dangling_symlinks: bool = False,
    dirs_exist_ok: bool = False,
) -> Any:
    """As `shutil.copytree`; returns `dst`. `ignore` and `copy_function` are plain functions, called in a
    thread.

    Raises what `shutil.copytree` raises. Cancelled, it leaves a part of the copy.
    """

    def work(stop: Stop) -> Any:
        return shutil.copytree(
            src,
            dst,
            symlinks,
            ignore,
            _stoppable(stop, copy_function),
            ignore_dangling_symlinks,
            dirs_exist_ok,
        )

    return await in_pieces(work)


async def move(src: StrPath, dst: StrPath, copy_function: Callable[[str, str], object] | None = None) -> Any:
    """As `shutil.move`: renamed, or copied and removed; returns the new path. Cancelled, it may be carried
    out.
    """
    return await in_pieces(lambda stop: shutil.move(src, dst, _stoppable(stop, copy_function)))


async def rmtree(
    path: StrOrBytesPath,
    ignore_errors: bool = False,
    *,
    onexc: Callable[[Callable[..., Any], Any, OSError], object] | None = None,
) -> None:
    """As `shutil.rmtree`: a directory and all that it holds; no symbolic link is followed.

    `onexc(function, path, error)` is called in a thread, for each file that can't be removed. Cancelled, it
    leaves what it has not yet removed.
    """
    await in_pieces(_rmtree, path, ignore_errors, onexc)


# In a thread.


def _inside(src: StrPath, dst: StrPath) -> Any:
    return os.path.join(dst, os.path.basename(src)) if os.path.isdir(dst) else dst


def _stoppable(stop: Stop, function: Callable[[str, str], object] | None) -> Callable[..., object]:
    def copied(src: str, dst: str, **options: bool) -> object:
        stop.check()
        return function(src, dst) if function else _copy2(stop, src, dst, **options)

    return copied


def _copy2(stop: Stop, src: StrPath, dst: StrPath, *, follow_symlinks: bool = True) -> Any:
    target = _inside(src, dst)
    _copyfile(stop, src, target, follow_symlinks=follow_symlinks)
    shutil.copystat(src, target, follow_symlinks=follow_symlinks)
    return target


def _is_same(src: StrOrBytesPath, dst: StrOrBytesPath) -> bool:
    try:
        return os.path.samefile(src, dst)
    except OSError:
        return False


def _copyfile(stop: Stop, src: Any, dst: Any, *, follow_symlinks: bool) -> Any:
    if _is_same(src, dst):
        raise shutil.SameFileError(f"{src!r} and {dst!r} are the same file")
    for path in (src, dst):
        try:
            is_fifo = stat.S_ISFIFO(os.stat(path).st_mode)
        except OSError:
            continue
        if is_fifo:
            raise shutil.SpecialFileError(f"`{os.fspath(path)}` is a named pipe")
    if not follow_symlinks and os.path.islink(src):
        os.symlink(os.readlink(src), dst)
        return dst
    with open(src, "rb", buffering=0) as source:
        try:
            with open(dst, "wb", buffering=0) as target:
                _copy_content(stop, source.fileno(), target.fileno())
        except IsADirectoryError as error:
            # `open()` says this of a directory that is not there, too.
            if not os.path.exists(dst):
                raise FileNotFoundError(f"Directory does not exist: {dst}") from error
            raise
        except OSError as error:
            if error.filename is None:
                error.filename, error.filename2 = src, dst
            raise
    return dst


def _copy_content(stop: Stop, source: int, target: int) -> None:
    if _cloned(source, target):
        return
    status = os.fstat(source)
    if status.st_blocks * 512 < status.st_size and stat.S_ISREG(os.fstat(target).st_mode):
        end = 0
        while (begin := _seek_data(source, end)) >= 0:
            end = os.lseek(source, begin, os.SEEK_HOLE)
            os.lseek(source, begin, os.SEEK_SET)
            os.lseek(target, begin, os.SEEK_SET)
            _copy_to(stop, source, target, end)
        # A hole at the end.
        os.ftruncate(target, status.st_size)
    else:
        _copy_to(stop, source, target, None)


def _seek_data(fd: int, offset: int) -> int:
    """Where the next bytes are that are not a hole; -1 if there are none."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return -1
        raise


def _copy_to(stop: Stop, source: int, target: int, end: int | None) -> None:
    """Copy from the positions on to `end`, or to the end of the file."""
    for way in (os.copy_file_range, _sendfile):
        if _copied(stop, way, source, target, end):
            return
    # What another way has copied is behind both positions.
    while piece := os.read(source, _room(source, _BUFFER, end)):
        stop.check()
        view = memoryview(piece)
        while view:
            view = view[os.write(target, view) :]


def _room(source: int, most: int, end: int | None) -> int:
    return most if end is None else min(most, end - os.lseek(source, 0, os.SEEK_CUR))


def _cloned(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _sendfile(source: int, target: int, count: int) -> int:
    return os.sendfile(target, source, None, count)


def _copied(
    stop: Stop, way: Callable[[int, int, int], int], source: int, target: int, end: int | None
) -> bool:
    """Copy in one way; False if it does not lead to the end."""
    some = False
    while room := _room(source, _PIECE, end):
        stop.check()
        try:
            count = way(source, target, room)
        except OSError as error:
            if error.errno in _NOT_THIS_WAY:
                return False
            raise
        if not count:
            # Files in /proc have content but no size, and some ways copy nothing of them.
            return some
        some = True
    return True


def _rmtree(
    stop: Stop,
    path: Any,
    ignore_errors: bool,
    onexc: Callable[[Callable[..., Any], Any, OSError], object] | None,
) -> None:
    path = os.fspath(path)

    def failed(function: Callable[..., Any], name: Any, error: OSError) -> None:
        # Until Python 3.12 shutil leaves the name out where no system call has failed.
        if error.errno is not None or sys.version_info >= (3, 13):
            error.filename = name
        if onexc is not None and not ignore_errors:
            onexc(function, name, error)
        elif not ignore_errors:
            raise error

    try:
        status = os.lstat(path)
    except OSError as error:
        return failed(os.lstat, path, error)
    if stat.S_ISLNK(status.st_mode):
        if not os.path.exists(path):
            return failed(os.open, path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
        return failed(os.path.islink, path, OSError("Cannot call rmtree on a symbolic link"))
    if not stat.S_ISDIR(status.st_mode):
        return failed(os.scandir, path, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))

    def unreadable(error: OSError) -> None:
        failed(os.scandir, error.filename, error)

    # It follows no link, even if somebody puts one in the place of a directory meanwhile: it compares what it
    # opened.
    for place, directories, files, fd in os.fwalk(path, topdown=False, onerror=unreadable):
        for name in files:
            stop.check()
            try:
                os.unlink(name, dir_fd=fd)
            except FileNotFoundError:
                pass
            except OSError as error:
                failed(os.unlink, os.path.join(place, name), error)
        for name in directories:
            stop.check()
            try:
                is_link = stat.S_ISLNK(os.lstat(name, dir_fd=fd).st_mode)
                (os.unlink if is_link else os.rmdir)(name, dir_fd=fd)
            except FileNotFoundError:
                pass
            except OSError as error:
                failed(os.rmdir, os.path.join(place, name), error)
    try:
        os.rmdir(path)
    except OSError as error:
        failed(os.rmdir, path, error)
    return None
