"""Owns: files for greenlets: those of `proact.fs`, whose coroutines the greenlet waits for."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from .. import fs
from .bridge import await_

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

__all__ = ["File", "open"]


class File:
    """An open file with the methods of the builtin one: the greenlet waits while the engine works."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._file, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            result = value(*args, **kwargs)
            return await_(result) if inspect.isawaitable(result) else result

        call.__name__ = name
        # The next use finds it without asking.
        self.__dict__[name] = call
        return call

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return await_(self._file.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def __repr__(self) -> str:
        return f"<green {self._file!r}>"


def open(*args: Any, **kwargs: Any) -> File:
    """Open a file, with the arguments of `proact.open`, which are those of the builtin."""
    opened: list[File] = []

    async def opening() -> None:
        opened.append(File(await fs.open(*args, **kwargs)))

    try:
        await_(opening())
    except BaseException:
        # Interrupted when the file was open already.
        for file in opened:
            file.close()
        raise
    return opened[0]
