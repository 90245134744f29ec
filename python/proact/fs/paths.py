"""Owns: `Path`, a `pathlib.Path` whose methods that do I/O are coroutines or async iterators.

What only computes is as in pathlib: it returns at once, and a path where pathlib returns one. Methods that
pathlib has from some version of Python on exist from there on.
"""

from __future__ import annotations

import errno
import os
import pathlib
import stat as modes
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from . import names, whole
from .opening import Opening
from .opening import open as open_file
from .pieces import Batches
from .ways import of_running_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from _typeshed import ReadableBuffer, StrPath

__all__ = ["Path"]

_T = TypeVar("_T")

_BATCH = 512
"""Paths that a thread finds in one call."""

# What pathlib takes for "there is no such file" in the methods that answer True or False.
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP)


def _plain(path: Any) -> Any:
    return path._path if isinstance(path, Path) else path


class Path:
    """A path of the file system, as `pathlib.Path` has it.

    Equal to, and ordered and hashed like, a `pathlib.Path` of the same parts. `os.fspath(path)` gives a str.
    """

    __slots__ = ("__weakref__", "_path")

    def __init__(self, *args: StrPath) -> None:
        self._path = pathlib.Path(*map(_plain, args))

    @classmethod
    def _of(cls, path: pathlib.PurePath) -> Self:
        made = cls.__new__(cls)
        made._path = path if isinstance(path, pathlib.Path) else pathlib.Path(path)
        return made

    # Only computed.

    def __fspath__(self) -> str:
        return str(self._path)

    def __str__(self) -> str:
        return str(self._path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.as_posix()!r})"

    def __bytes__(self) -> bytes:
        return bytes(self._path)

    def __hash__(self) -> int:
        return hash(self._path)

    def __eq__(self, other: object) -> bool:
        return self._path.__eq__(_plain(other))

    def __lt__(self, other: Path | pathlib.PurePath) -> bool:
        return self._path.__lt__(_plain(other))

    def __le__(self, other: Path | pathlib.PurePath) -> bool:
        return self._path.__le__(_plain(other))

    def __gt__(self, other: Path | pathlib.PurePath) -> bool:
        return self._path.__gt__(_plain(other))

    def __ge__(self, other: Path | pathlib.PurePath) -> bool:
        return self._path.__ge__(_plain(other))

    def __truediv__(self, other: StrPath) -> Self:
        return self._of(self._path / _plain(other))

    def __rtruediv__(self, other: StrPath) -> Self:
        return self._of(_plain(other) / self._path)

    def __reduce__(self) -> tuple[type[Self], tuple[str, ...]]:
        return type(self), self.parts

    @property
    def parts(self) -> tuple[str, ...]:
        return self._path.parts

    @property
    def drive(self) -> str:
        return self._path.drive

    @property
    def root(self) -> str:
        return self._path.root

    @property
    def anchor(self) -> str:
        return self._path.anchor

    @property
    def parents(self) -> Sequence[Self]:
        return tuple(self._of(parent) for parent in self._path.parents)

    @property
    def parent(self) -> Self:
        return self._of(self._path.parent)

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def suffix(self) -> str:
        return self._path.suffix

    @property
    def suffixes(self) -> list[str]:
        return self._path.suffixes

    @property
    def stem(self) -> str:
        return self._path.stem

    def as_posix(self) -> str:
        return self._path.as_posix()

    def as_uri(self) -> str:
        return self._path.as_uri()

    def is_absolute(self) -> bool:
        return self._path.is_absolute()

    def is_reserved(self) -> bool:
        """Always False: only Windows reserves names."""
        return False

    def is_relative_to(self, other: StrPath, *more: StrPath) -> bool:
        return self._path.is_relative_to(_plain(other), *map(_plain, more))

    def relative_to(self, other: StrPath, *more: StrPath, **walk_up: bool) -> Self:
        """`walk_up` is there from Python 3.12 on."""
        return self._of(self._path.relative_to(_plain(other), *map(_plain, more), **walk_up))

    def joinpath(self, *others: StrPath) -> Self:
        return self._of(self._path.joinpath(*map(_plain, others)))

    def match(self, pattern: str, **case_sensitive: bool | None) -> bool:
        """`case_sensitive` is there from Python 3.12 on."""
        return self._path.match(_plain(pattern), **case_sensitive)

    def with_name(self, name: str) -> Self:
        return self._of(self._path.with_name(name))

    def with_stem(self, stem: str) -> Self:
        return self._of(self._path.with_stem(stem))

    def with_suffix(self, suffix: str) -> Self:
        return self._of(self._path.with_suffix(suffix))

    def with_segments(self, *segments: StrPath) -> Self:
        return type(self)(*segments)

    if sys.version_info >= (3, 13):
        parser: ClassVar[Any] = pathlib.Path.parser

        @classmethod
        def from_uri(cls, uri: str) -> Self:
            return cls._of(pathlib.Path.from_uri(uri))

        def full_match(self, pattern: StrPath, *, case_sensitive: bool | None = None) -> bool:
            return self._path.full_match(_plain(pattern), case_sensitive=case_sensitive)

    if sys.version_info >= (3, 14):

        @property
        def info(self) -> Any:
            """As in pathlib: its methods ask the disk when they are called, and block."""
            return self._path.info

    # Done by the loop.

    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Opening[Any]:
        """As `proact.open`: to be awaited, or for `async with`."""
        return open_file(self, mode, buffering, encoding, errors, newline)

    async def read_bytes(self) -> bytes:
        return await whole.read_bytes(self)

    async def read_text(
        self, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> str:
        return await whole.read_text(self, encoding, errors, newline)

    async def write_bytes(
        self, data: ReadableBuffer, *, fsync: bool = False, atomic: bool = False, mode: int = 0o666
    ) -> int:
        """As `proact.fs.write_bytes`."""
        return await whole.write_bytes(self, data, fsync=fsync, atomic=atomic, mode=mode)

    async def write_text(
        self,
        data: str,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *,
        fsync: bool = False,
        atomic: bool = False,
        mode: int = 0o666,
    ) -> int:
        """As `proact.fs.write_text`."""
        if not isinstance(data, str):
            raise TypeError(f"data must be str, not {type(data).__name__}")
        return await whole.write_text(
            self, data, encoding, errors, newline, fsync=fsync, atomic=atomic, mode=mode
        )

    async def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return await names.stat(self, follow_symlinks=follow_symlinks)

    async def lstat(self) -> os.stat_result:
        return await names.lstat(self)

    async def _mode(self, *, follow_symlinks: bool = True) -> int:
        """The mode of the file, 0 if there is none."""
        try:
            return (await names.stat(self, follow_symlinks=follow_symlinks)).st_mode
        except OSError as error:
            if error.errno not in _ABSENT and sys.version_info < (3, 14):
                raise
        except ValueError:
            pass
        return 0

    async def exists(self, *, follow_symlinks: bool = True) -> bool:
        return bool(await self._mode(follow_symlinks=follow_symlinks))

    async def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return modes.S_ISDIR(await self._mode(follow_symlinks=follow_symlinks))

    async def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return modes.S_ISREG(await self._mode(follow_symlinks=follow_symlinks))

    async def is_symlink(self) -> bool:
        return modes.S_ISLNK(await self._mode(follow_symlinks=False))

    async def is_socket(self) -> bool:
        return modes.S_ISSOCK(await self._mode())

    async def is_fifo(self) -> bool:
        return modes.S_ISFIFO(await self._mode())

    async def is_block_device(self) -> bool:
        return modes.S_ISBLK(await self._mode())

    async def is_char_device(self) -> bool:
        return modes.S_ISCHR(await self._mode())

    async def is_junction(self) -> bool:
        """Always False: only Windows has junctions."""
        return False

    async def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        try:
            await names.mkdir(self, mode)
        except FileNotFoundError:
            if not parents or self.parent == self:
                raise
            await self.parent.mkdir(parents=True, exist_ok=True)
            await self.mkdir(mode, parents=False, exist_ok=exist_ok)
        except OSError:
            # The kernel may refuse for another reason than that it exists: a read-only file system.
            if not exist_ok or not await self.is_dir():
                raise

    async def rename(self, target: StrPath) -> Self:
        """The new path."""
        await names.rename(self, target)
        return type(self)(target)

    async def replace(self, target: StrPath) -> Self:
        """The new path."""
        await names.replace(self, target)
        return type(self)(target)

    async def unlink(self, missing_ok: bool = False) -> None:
        try:
            await names.unlink(self)
        except FileNotFoundError:
            if not missing_ok:
                raise

    async def rmdir(self) -> None:
        await names.rmdir(self)

    async def symlink_to(self, target: StrPath, target_is_directory: bool = False) -> None:
        await names.symlink(target, self, target_is_directory)

    async def hardlink_to(self, target: StrPath) -> None:
        await names.link(target, self)

    # In a thread.

    async def _call(self, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        return await of_running_loop().call(lambda: function(*args, **kwargs))

    async def chmod(self, mode: int, *, follow_symlinks: bool = True) -> None:
        await self._call(self._path.chmod, mode, follow_symlinks=follow_symlinks)

    async def lchmod(self, mode: int) -> None:
        await self._call(self._path.lchmod, mode)

    async def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        await self._call(self._path.touch, mode, exist_ok)

    async def owner(self, **follow_symlinks: bool) -> str:
        """`follow_symlinks` is there from Python 3.13 on."""
        return await self._call(self._path.owner, **follow_symlinks)

    async def group(self, **follow_symlinks: bool) -> str:
        """`follow_symlinks` is there from Python 3.13 on."""
        return await self._call(self._path.group, **follow_symlinks)

    async def readlink(self) -> Self:
        return self._of(await self._call(self._path.readlink))

    async def resolve(self, strict: bool = False) -> Self:
        return self._of(await self._call(self._path.resolve, strict))

    async def absolute(self) -> Self:
        return self._of(await self._call(self._path.absolute))

    async def expanduser(self) -> Self:
        return self._of(await self._call(self._path.expanduser))

    @classmethod
    async def cwd(cls) -> Self:
        return cls._of(await of_running_loop().call(pathlib.Path.cwd))

    @classmethod
    async def home(cls) -> Self:
        return cls._of(await of_running_loop().call(pathlib.Path.home))

    async def is_mount(self) -> bool:
        return await self._call(self._path.is_mount)

    async def samefile(self, other_path: StrPath) -> bool:
        return names.is_same(await self.stat(), await names.stat(other_path))

    if sys.version_info >= (3, 14):

        async def copy(self, target: StrPath, **options: bool) -> Self:
            """The new path."""
            return self._of(await self._call(self._path.copy, _plain(target), **options))

        async def copy_into(self, target_dir: StrPath, **options: bool) -> Self:
            """The new path."""
            return self._of(await self._call(self._path.copy_into, _plain(target_dir), **options))

        async def move(self, target: StrPath) -> Self:
            """The new path."""
            return self._of(await self._call(self._path.move, _plain(target)))

        async def move_into(self, target_dir: StrPath) -> Self:
            """The new path."""
            return self._of(await self._call(self._path.move_into, _plain(target_dir)))

    # Found by a thread, many at a time.

    async def _found(self, make: Callable[[], Iterator[pathlib.Path]]) -> AsyncIterator[Self]:
        async for path in Batches(make, _BATCH):
            yield self._of(path)

    def iterdir(self) -> AsyncIterator[Self]:
        """The files in the directory; what `iterdir` of pathlib raises is raised when the first is asked
        for.
        """
        return self._found(self._path.iterdir)

    def glob(self, pattern: str, **options: bool | None) -> AsyncIterator[Self]:
        """`case_sensitive` is there from Python 3.12 on, `recurse_symlinks` from 3.13 on."""
        return self._found(lambda: iter(self._path.glob(_plain(pattern), **options)))

    def rglob(self, pattern: str, **options: bool | None) -> AsyncIterator[Self]:
        """`case_sensitive` is there from Python 3.12 on, `recurse_symlinks` from 3.13 on."""
        return self._found(lambda: iter(self._path.rglob(_plain(pattern), **options)))

    if sys.version_info >= (3, 12):

        async def walk(
            self,
            top_down: bool = True,
            on_error: Callable[[OSError], object] | None = None,
            follow_symlinks: bool = False,
        ) -> AsyncIterator[tuple[Self, list[str], list[str]]]:
            """As `pathlib.Path.walk`, whose list of directories may be changed on the way, too."""

            def walked() -> Iterator[tuple[pathlib.Path, list[str], list[str]]]:
                return self._path.walk(top_down, on_error, follow_symlinks)

            async for path, directories, files in Batches(walked, 1 if top_down else _BATCH):
                yield self._of(path), directories, files


os.PathLike.register(Path)
