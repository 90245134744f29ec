"""Owns: what `os`, `os.path` and `shutil` do with names of files, as coroutines of the same signatures and
errors.
"""

from __future__ import annotations

import functools
import os
import shutil
import stat as modes
import sys
from typing import TYPE_CHECKING, Any, AnyStr, Generic, ParamSpec, TypeVar

from .pieces import Batches
from .ways import of_running_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from _typeshed import GenericPath, StrOrBytesPath

_P = ParamSpec("_P")
_T = TypeVar("_T")

_LINKS_FOLLOW = sys.version_info >= (3, 14)
"""Whether `os.link` follows a symbolic link if it is asked to: before, Linux makes a link to the link."""

_BATCH = 512
"""Directory entries that a thread lists in one call."""


def _threaded(function: Callable[_P, _T]) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """A blocking function as a coroutine, in a thread of the pool."""

    @functools.wraps(function)
    async def threaded(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await of_running_loop().call(lambda: function(*args, **kwargs))

    threaded.__module__ = __name__
    threaded.__doc__ = f"As `{function.__module__}.{function.__name__}`."
    return threaded


access = _threaded(os.access)
chmod = _threaded(os.chmod)
chown = _threaded(os.chown)
disk_usage = _threaded(shutil.disk_usage)
getcwd = _threaded(os.getcwd)
makedirs = _threaded(os.makedirs)
readlink = _threaded(os.readlink)
removedirs = _threaded(os.removedirs)
renames = _threaded(os.renames)
statvfs = _threaded(os.statvfs)
truncate = _threaded(os.truncate)
utime = _threaded(os.utime)

abspath = _threaded(os.path.abspath)
realpath = _threaded(os.path.realpath)
ismount = _threaded(os.path.ismount)


async def stat(
    path: int | StrOrBytesPath, *, dir_fd: int | None = None, follow_symlinks: bool = True
) -> os.stat_result:
    """As `os.stat`: at once, if the path is cached."""
    ways = of_running_loop()
    if isinstance(path, int):
        if follow_symlinks and dir_fd is None:
            try:
                return ways.fstat(path)
            except OSError as error:
                error.filename = path
                raise
    elif dir_fd is None:
        status = ways.try_stat(path, follow=follow_symlinks)
        return status if status is not None else await ways.stat(path, follow=follow_symlinks)
    return await ways.call(lambda: os.stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks))


async def lstat(path: StrOrBytesPath, *, dir_fd: int | None = None) -> os.stat_result:
    """As `os.lstat`: at once, if the path is cached."""
    if isinstance(path, int):
        raise TypeError("lstat: path should be string, bytes or os.PathLike, not int")
    return await stat(path, dir_fd=dir_fd, follow_symlinks=False)


async def mkdir(path: StrOrBytesPath, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    """As `os.mkdir`."""
    ways = of_running_loop()
    if dir_fd is None:
        await ways.mkdir(path, mode)
    else:
        await ways.call(lambda: os.mkdir(path, mode, dir_fd=dir_fd))


async def rmdir(path: StrOrBytesPath, *, dir_fd: int | None = None) -> None:
    """As `os.rmdir`."""
    ways = of_running_loop()
    if dir_fd is None:
        await ways.rmdir(path)
    else:
        await ways.call(lambda: os.rmdir(path, dir_fd=dir_fd))


async def unlink(path: StrOrBytesPath, *, dir_fd: int | None = None) -> None:
    """As `os.unlink`."""
    ways = of_running_loop()
    if dir_fd is None:
        await ways.unlink(path)
    else:
        await ways.call(lambda: os.unlink(path, dir_fd=dir_fd))


remove = unlink


async def rename(
    src: StrOrBytesPath, dst: StrOrBytesPath, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
) -> None:
    """As `os.rename`, which replaces a file."""
    ways = of_running_loop()
    if src_dir_fd is None and dst_dir_fd is None:
        await ways.rename(src, dst)
    else:
        await ways.call(lambda: os.rename(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd))


replace = rename


async def symlink(
    src: StrOrBytesPath, dst: StrOrBytesPath, target_is_directory: bool = False, *, dir_fd: int | None = None
) -> None:
    """As `os.symlink`; `target_is_directory` means nothing here."""
    ways = of_running_loop()
    if dir_fd is None:
        await ways.symlink(src, dst)
    else:
        await ways.call(lambda: os.symlink(src, dst, dir_fd=dir_fd))


async def link(
    src: StrOrBytesPath,
    dst: StrOrBytesPath,
    *,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
    follow_symlinks: bool = True,
) -> None:
    """As `os.link`."""
    ways = of_running_loop()
    if src_dir_fd is None and dst_dir_fd is None:
        await ways.link(src, dst, follow=follow_symlinks and _LINKS_FOLLOW)
    else:
        await ways.call(
            lambda: os.link(
                src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks
            )
        )


# os.path


async def _mode(path: int | StrOrBytesPath, *, follow_symlinks: bool = True) -> int:
    """The mode of a file; 0 if it can't be told, whatever the reason, as in `os.path`."""
    try:
        return (await (stat(path) if follow_symlinks else lstat(path))).st_mode  # type: ignore[arg-type]
    except (OSError, ValueError):
        return 0


async def exists(path: int | StrOrBytesPath) -> bool:
    """As `os.path.exists`."""
    return bool(await _mode(path))


async def lexists(path: StrOrBytesPath) -> bool:
    """As `os.path.lexists`."""
    return bool(await _mode(path, follow_symlinks=False))


async def isfile(path: int | StrOrBytesPath) -> bool:
    """As `os.path.isfile`."""
    return modes.S_ISREG(await _mode(path))


async def isdir(path: int | StrOrBytesPath) -> bool:
    """As `os.path.isdir`."""
    return modes.S_ISDIR(await _mode(path))


async def islink(path: StrOrBytesPath) -> bool:
    """As `os.path.islink`."""
    return modes.S_ISLNK(await _mode(path, follow_symlinks=False))


async def getsize(path: int | StrOrBytesPath) -> int:
    """As `os.path.getsize`: bytes."""
    return (await stat(path)).st_size


async def getmtime(path: int | StrOrBytesPath) -> float:
    """As `os.path.getmtime`: seconds since the epoch."""
    return (await stat(path)).st_mtime


async def getatime(path: int | StrOrBytesPath) -> float:
    """As `os.path.getatime`: seconds since the epoch."""
    return (await stat(path)).st_atime


async def getctime(path: int | StrOrBytesPath) -> float:
    """As `os.path.getctime`: seconds since the epoch."""
    return (await stat(path)).st_ctime


def is_same(first: os.stat_result, second: os.stat_result) -> bool:
    """As `os.path.samestat`."""
    return (first.st_ino, first.st_dev) == (second.st_ino, second.st_dev)


async def samefile(first: int | StrOrBytesPath, second: int | StrOrBytesPath) -> bool:
    """As `os.path.samefile`."""
    return is_same(await stat(first), await stat(second))


async def sameopenfile(first: int, second: int) -> bool:
    """As `os.path.sameopenfile`."""
    return is_same(await stat(first), await stat(second))


# Directories


listdir = _threaded(os.listdir)


class scandir(Generic[AnyStr]):  # noqa: N801
    """The entries of a directory as `os.DirEntry`: `async for entry in scandir(path)`.

    They come in batches that a thread lists. With `status` (the default) it also asks for the status of each,
    so that no method of an entry has to ask the disk again; without it, only that of symbolic links, for
    `is_dir()` and `is_file()`. `async with scandir(path) as entries` closes the directory when the block is
    left early.

    Raises what `os.scandir` raises, when the first entry is asked for.
    """

    def __init__(self, path: GenericPath[AnyStr] | int | None = None, *, status: bool = True) -> None:
        # None and an fd have names of type str.
        target: Any = path
        self._batches: Batches[os.DirEntry[AnyStr]] = Batches(lambda: _entries(target, status), _BATCH)

    def __aiter__(self) -> AsyncIterator[os.DirEntry[AnyStr]]:
        return self._batches.__aiter__()

    async def __aenter__(self) -> scandir[AnyStr]:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory."""
        self._batches.close()


def _entries(path: Any, status: bool) -> Iterator[Any]:
    with os.scandir(path) as entries:
        for entry in entries:
            try:
                # An entry keeps what it was told, so its methods need no disk from now on.
                if status:
                    entry.stat(follow_symlinks=False)
                if entry.is_symlink():
                    entry.stat()
                else:
                    entry.is_dir()
            except OSError:
                # It is gone, or leads nowhere. The caller sees that when he asks.
                pass
            yield entry


def walk(
    top: GenericPath[AnyStr],
    topdown: bool = True,
    onerror: Callable[[OSError], object] | None = None,
    followlinks: bool = False,
) -> AsyncIterator[tuple[AnyStr, list[AnyStr], list[AnyStr]]]:
    """As `os.walk`, whose list of directories may be changed on the way, too. `onerror` is called in a
    thread.
    """
    # A thread must not be ahead of a caller who may change the list.
    walked = Batches(lambda: os.walk(top, topdown, onerror, followlinks), 1 if topdown else _BATCH)
    return walked.__aiter__()
