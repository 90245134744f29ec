"""Owns: `install`, which puts proact's files under aiofiles and anyio, where a loop of proact runs.

Nothing changes for the program: the same functions return objects of the same classes. Under these is a file
of `proact.open` in place of a blocking one in a thread. On any other loop (asyncio's own, trio) they do what
they did.
"""

from __future__ import annotations

import asyncio
import builtins
import functools
import importlib
import inspect
import pathlib
from typing import TYPE_CHECKING, Any

from proact import _core

from .opening import open as open_file
from .paths import Path
from .pieces import Batches
from .ways import of_running_loop

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["install", "uninstall"]

_undo: list[Callable[[], None]] = []


def install() -> list[str]:
    """Put proact's files under `aiofiles.open`, `anyio.open_file` and `anyio.Path`; the libraries that were
    found.

    Call it once, at any time, on any thread. It works for names that were imported before, too.
    """
    if _undo:
        uninstall()
    found = []
    for library, put in (("aiofiles", _put_under_aiofiles), ("anyio", _put_under_anyio)):
        try:
            importlib.import_module(library)
        except ImportError:
            continue
        put()
        found.append(library)
    return found


def uninstall() -> None:
    """Undo `install`. Files that are open stay as they are."""
    while _undo:
        _undo.pop()()


def _replace(owner: Any, name: str, value: Any) -> None:
    old = getattr(owner, name)
    setattr(owner, name, value)
    _undo.append(lambda: setattr(owner, name, old))


def _is_ours() -> bool:
    try:
        return isinstance(asyncio.get_running_loop(), _core.Scheduler)
    except RuntimeError:
        return False


async def _called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a method of a file of ours, be it a coroutine or not."""
    result = function(*args, **kwargs)
    return await result if inspect.isawaitable(result) else result


class _Caller:
    """In the place of a loop, for aiofiles: it asks it to call a file's methods in an executor."""

    def run_in_executor(self, _executor: object, function: Callable[..., Any], *args: Any) -> Any:
        return _called(function, *args)


def _put_under_aiofiles() -> None:
    threadpool = importlib.import_module("aiofiles.threadpool")
    base = importlib.import_module("aiofiles.base")
    plain_open = threadpool._open
    plain_exit = base.AiofilesContextManager.__aexit__
    caller = _Caller()

    @functools.wraps(plain_open)
    async def opened(
        file: Any, mode: str = "r", *args: Any, loop: Any = None, executor: Any = None, **kwargs: Any
    ) -> Any:
        if executor is not None or not _is_ours():
            return await plain_open(file, mode, *args, loop=loop, executor=executor, **kwargs)
        made: Any = await open_file(file, mode, *args, **kwargs)
        if "b" not in mode:
            kind = threadpool.AsyncTextIOWrapper
        elif kwargs.get("buffering", args[0] if args else -1) == 0:
            kind = threadpool.AsyncFileIO
        else:
            kind = threadpool.AsyncBufferedReader if made.readable() else threadpool.AsyncBufferedIOBase
        return kind(made, loop=caller, executor=None)

    async def leave(self: Any, kind: Any, error: Any, traceback: Any) -> Any:
        if getattr(self._obj, "_ref_loop", None) is not caller:
            return await plain_exit(self, kind, error, traceback)
        file, self._obj = self._obj, None
        await file.close()
        return None

    _replace(threadpool, "_open", opened)
    _replace(base.AiofilesContextManager, "__aexit__", leave)


# Methods of pathlib.Path that a loop of proact has a way of its own for.
_QUICK = {
    name
    for name, method in vars(Path).items()
    if inspect.iscoroutinefunction(method) and name in vars(pathlib.Path)
} - {"readlink", "rename", "replace", "resolve", "absolute", "expanduser", "copy", "move"}


class _Threads:
    """In the place of `anyio.to_thread`, for anyio's files: it asks it to call blocking functions."""

    def __init__(self, plain: Any, checkpoint: Callable[[], Any]) -> None:
        self._plain = plain
        self._checkpoint = checkpoint

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    async def run_sync(self, function: Any, *args: Any, limiter: Any = None, **how: bool) -> Any:
        options: dict[str, Any] = {}
        if isinstance(function, functools.partial):
            function, args, options = function.func, (*function.args, *args), function.keywords
        owner = getattr(function, "__self__", None)
        # A file of ours stays one, wherever it is used; all else may be limited, or on another loop.
        if not type(owner).__module__.startswith("proact.fs."):
            if limiter is not None or not _is_ours():
                called = functools.partial(function, **options) if options else function
                return await self._plain.run_sync(called, *args, limiter=limiter, **how)
            await self._checkpoint()
            if function is builtins.open:
                return await open_file(*args, **options)
            if isinstance(owner, pathlib.Path) and function.__name__ in _QUICK:
                return await getattr(Path(owner), function.__name__)(*args, **options)
            return await of_running_loop().call(lambda: function(*args, **options))
        await self._checkpoint()
        return await _called(function, *args, **options)


def _put_under_anyio() -> None:
    files = importlib.import_module("anyio._core._fileio")
    checkpoint = importlib.import_module("anyio.lowlevel").checkpoint_if_cancelled
    plain_iterator = files._PathIterator

    class Found:
        """Paths that a thread finds, many at a time."""

        def __init__(self, iterator: Any, kind: Callable[[pathlib.Path], Any]) -> None:
            self._found = aiter(Batches(lambda: iter(iterator), 512))
            self._kind = kind

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Any:
            return self._kind(await anext(self._found))

    def paths(iterator: Any, *args: Any) -> Any:
        if _is_ours() and len(args) == 2 and args[0] is None:
            return Found(iterator, args[1])
        return plain_iterator(iterator, *args)

    _replace(files, "to_thread", _Threads(files.to_thread, checkpoint))
    _replace(files, "_PathIterator", paths)
