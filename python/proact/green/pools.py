"""Owns: groups of greenlets of which a limited number runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from greenlet import GreenletExit

from .greenlets import Greenlet
from .locks import Semaphore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import ParamSpec, Self

    _P = ParamSpec("_P")

__all__ = ["Pool"]

_T = TypeVar("_T")


class Pool:
    """At most `size` greenlets at a time; `spawn` waits while there are so many (None: no limit).

    As a context manager it waits for its greenlets at the end, and kills them if the block raises.
    """

    def __init__(self, size: int | None = None) -> None:
        if size is not None and size < 1:
            raise ValueError("a pool has room for at least one greenlet")
        self.size = size
        self._room = None if size is None else Semaphore(size)
        self._greenlets: dict[Greenlet[Any], None] = {}

    def __len__(self) -> int:
        return len(self._greenlets)

    def spawn(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Greenlet[_T]:
        """As `green.spawn`, as soon as there is room."""
        if self._room is not None:
            self._room.acquire()
        try:
            made = Greenlet(fn, *args, **kwargs)
            made._link(_Member(self, made))
            made.start()
        except BaseException:
            if self._room is not None:
                self._room.release()
            raise
        self._greenlets[made] = None
        return made

    def apply(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run `fn` in the pool; return its result."""
        return self.spawn(fn, *args, **kwargs).get()

    def map(self, fn: Callable[..., _T], *iterables: Iterable[Any]) -> list[_T]:
        """The results for all arguments, in order. If one raises, or the caller is killed, the rest is
        killed.
        """
        made: list[Greenlet[_T]] = []
        try:
            made.extend(self.spawn(fn, *args) for args in zip(*iterables, strict=False))
            return [greenlet.get() for greenlet in made]
        except BaseException:
            for greenlet in made:
                greenlet.kill(block=False)
            raise

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all have ended, at most `timeout` seconds; return whether they have."""
        loop = None
        end = 0.0
        for greenlet in list(self._greenlets):
            if timeout is not None:
                loop = loop or greenlet.hub.loop
                end = end or loop.time() + timeout
                timeout = max(0.0, end - loop.time())
            greenlet.join(timeout)
        return not self._greenlets

    def kill(self, exception: BaseException | type[BaseException] = GreenletExit, block: bool = True) -> None:
        """Kill all; wait for their end, unless `block` is false."""
        for greenlet in list(self._greenlets):
            greenlet.kill(exception, block=False)
        if block:
            self.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        self.join()

    def __repr__(self) -> str:
        return f"<Pool of {self.size}, {len(self)} running, at {id(self):#x}>"


class _Member:
    """Makes room when a greenlet has ended."""

    __slots__ = ("_greenlet", "_pool")

    def __init__(self, pool: Pool, greenlet: Greenlet[Any]) -> None:
        self._pool, self._greenlet = pool, greenlet

    def wake(self) -> None:
        if self._pool._greenlets.pop(self._greenlet, self) is self:
            return  # it was told before
        if self._pool._room is not None:
            self._pool._room.release()
