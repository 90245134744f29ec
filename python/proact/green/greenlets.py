"""Owns: greenlets that run beside the program that spawned them, as tasks do."""

from __future__ import annotations

import asyncio
import concurrent.futures
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from .. import _core
from .hub import Hub, hub_here, hub_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextvars import Context
    from typing import ParamSpec

    _P = ParamSpec("_P")

__all__ = ["Bridge", "Greenlet", "Spawned", "current", "spawn", "spawn_threadsafe"]

_T = TypeVar("_T")


class _Unseen:
    """Reports an exception if no one has asked for it when the greenlet is gone."""

    __slots__ = ("_exception", "_name", "hub", "seen")

    def __init__(self, hub: Hub, exception: BaseException, name: str) -> None:
        self.hub, self._exception, self._name = hub, exception, name
        self.seen = False

    def __del__(self) -> None:
        if self.seen:
            return
        message = f"Exception of a greenlet was never retrieved: {self._name}"
        self.hub.report(message, self._exception, self._name)


class Spawned(greenlet):  # type: ignore[misc]
    """What carries a `Greenlet`, and then another one.

    The memory of its Python frames costs more than all else that a greenlet does, so it is used again.
    """

    __slots__ = ("hub", "job")

    hub: Hub
    job: Greenlet[Any]

    def run(self) -> None:
        """Do one job after the other."""
        rest = self.hub._rest
        while True:
            self.job._greenlet = self
            self.job._run()
            del self.job
            if not rest(self):
                return


class Bridge(greenlet):  # type: ignore[misc]
    """What carries a function that `green.run` calls, within the steps of a task; and then another one."""

    __slots__ = ("_done", "_error", "_fn", "_interrupts", "_value", "hub")

    hub: Hub
    _done: bool
    _error: BaseException | None
    _fn: Callable[[], Any]
    _value: Any
    # Exceptions that a timer has ordered, and how often the task was cancelled before that.
    _interrupts: list[tuple[BaseException, int]]

    def run(self) -> None:
        """Call one function after the other."""
        while True:
            try:
                self._value = self._fn()
            except BaseException as error:
                # Without this frame, which would make a circle.
                self._error = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
            self._done = True
            del self._fn
            self.parent.switch()


class Greenlet(Generic[_T]):
    """A function that runs beside the rest, as a task does; `spawn` makes and starts one.

    It is awaitable: `await g` is `g.get()` for a coroutine. As with a task, a coroutine that is cancelled
    while it awaits a greenlet kills it. An exception that no one asks for goes to the loop's exception
    handler.
    """

    __slots__ = (
        "__weakref__",
        "_args",
        "_done",
        "_exception",
        "_fn",
        "_greenlet",
        "_kwargs",
        "_links",
        "_start",
        "_unseen",
        "_value",
        "context",
        "hub",
    )

    def __init__(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> None:
        self.hub: Hub = hub_here()
        self._fn: Callable[..., _T] | None = fn
        self._args = args
        self._kwargs = kwargs
        self.context = copy_context()
        self._done: bool = False
        self._value: _T | GreenletExit | None = None
        self._exception: BaseException | None = None
        self._unseen: _Unseen | None = None
        self._links: list[Any] | None = None
        self._start: _core.Parking | None = None
        self._greenlet: Spawned | None = None

    def start(self) -> None:
        """Begin to run, in the next turn of the loop. `spawn` has done this."""
        hub = self.hub
        if self._start is not None or self._done:
            raise RuntimeError("the greenlet was started already")
        hub.check_thread()
        self._start = hub._start(self)
        hub.alive[self] = None

    def _run(self) -> None:
        try:
            assert self._fn is not None
            if len(self._args) == 1 and not self._kwargs:
                self._value = self._fn(self._args[0])
            else:
                self._value = self._fn(*self._args, **self._kwargs)
        except GreenletExit as ended:
            self._value = ended.with_traceback(None)
        except BaseException as error:
            # Without this frame, where its traceback would begin.
            self._fail(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                self._see()
                raise
        finally:
            self._end()
            # The frames of an exception refer to this one, and the greenlet to the exception: a circle.
            del self

    def _fail(self, error: BaseException) -> None:
        self._exception = error
        self._unseen = _Unseen(self.hub, error, repr(self))

    def _see(self) -> None:
        """Somebody asks for the exception, so it need not be reported."""
        if (unseen := self._unseen) is not None:
            unseen.seen = True
            self._unseen = None

    def _lost(self, error: BaseException) -> bool:
        """Its greenlet has ended by `error`, which a signal's handler raised outside of the function.

        Returns whether those who ask for the result get the error, so that nobody else need be told.
        """
        kept = not self._done
        if kept:
            self._fail(error)
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                self._see()
                kept = False
        self._end()
        return kept

    def _end(self) -> None:
        # If a signal's handler raises in here, `_lost` calls this again.
        self._done = True
        self._fn = self._args = self._kwargs = self.context = self._greenlet = None  # type: ignore[assignment]
        self.hub.ended(self)
        if (links := self._links) is not None:
            for parking in links:
                parking.wake()
            self._links = None

    @property
    def dead(self) -> bool:
        """Whether it has ended, by itself or by `kill`."""
        return self._done

    @property
    def value(self) -> _T | GreenletExit | None:
        """What the function returned; the GreenletExit that ended it; None before that."""
        return self._value

    @property
    def exception(self) -> BaseException | None:
        """What the function raised."""
        self._see()
        return self._exception

    def _link(self, parking: Any) -> None:
        if self._links is None:
            self._links = [parking]
        else:
            self._links.append(parking)

    def _ended(self) -> asyncio.Future[None]:
        """A future for coroutines, which has a result once the greenlet has ended."""
        future: asyncio.Future[None] = self.hub.loop.create_future()
        self._link(_Link(future))
        return future

    def _unlink(self, parking: Any) -> None:
        if self._links is not None and parking in self._links:
            self._links.remove(parking)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, at most `timeout` seconds; return whether it has."""
        if self._done:
            return True
        self.hub.check_thread()
        if self is current():
            raise RuntimeError("a greenlet cannot wait for its own end")
        parking = _core.Parking()
        self._link(parking)
        timer = None if timeout is None else self.hub.loop.call_later(timeout, parking.fire)
        try:
            parking.wait()
        finally:
            if timer is not None:
                timer.cancel()
            if not self._done:
                self._unlink(parking)
        return self._done

    def get(self, timeout: float | None = None) -> _T:
        """Wait until it has ended; return what the function returned, or raise what it raised.

        A greenlet that was killed returns the GreenletExit that ended it. Raises TimeoutError after `timeout`
        seconds, and the greenlet goes on.
        """
        if not self._done and not self.join(timeout):
            raise TimeoutError(f"{self!r} did not end within {timeout} s")
        try:
            return self._result()
        finally:
            # An exception refers to this frame, and the greenlet to the exception: that would be a circle.
            del self

    def _result(self) -> _T:
        try:
            self._raise()
            return self._value  # type: ignore[return-value]  # it is set: the greenlet has not failed
        finally:
            del self

    def _raise(self) -> None:
        if (error := self._exception) is not None:
            self._see()
            try:
                raise error
            finally:
                del error, self

    def __await__(self) -> Generator[Any, None, _T]:
        if not self.dead:
            try:
                yield from self._ended()
            except asyncio.CancelledError:
                while self in self.hub.alive:
                    # It may take time to unwind, and cancelling once more does not end it earlier.
                    self.kill(block=False)
                    try:
                        yield from self._ended()
                    except asyncio.CancelledError:
                        continue
                self._raise()
                raise
        try:
            return self._result()
        finally:
            del self

    def kill(
        self,
        exception: BaseException | type[BaseException] = GreenletExit,
        block: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Raise `exception` in the greenlet, where it waits; wait for its end, unless `block` is false.

        A greenlet that has not begun does not begin; one that has ended is left alone. In a coroutine this
        does not wait: await the greenlet. Raises RuntimeError in another thread.
        """
        self.hub.check_thread()
        if self._done:
            return
        error = exception() if isinstance(exception, type) else exception
        if self is current():
            raise error
        start: Any = self._start
        if start is None or start.stop():
            self._start = _NEVER
            if isinstance(error, GreenletExit):
                self._value = error
            else:
                self._fail(error)
            self._end()
            return
        self.hub.loop.call_soon(self._interrupt, error)
        if block and isinstance(getcurrent(), (Spawned, Bridge)):
            self.join(timeout)

    def _interrupt(self, error: BaseException) -> None:
        """Raise an exception where the greenlet waits; only the hub calls this."""
        if not self._done:
            self.hub._enter(self._greenlet, error)

    def __repr__(self) -> str:
        state = "dead" if self._done else "started" if self._start is not None else "new"
        name = getattr(self._fn, "__qualname__", None) or repr(self._fn)
        return f"<Greenlet {name if self._fn is not None else ''} {state} at {id(self):#x}>"


class _Link:
    """What wakes a coroutine that awaits a greenlet."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future

    def wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class _Never:
    def stop(self) -> bool:
        return False


_NEVER: Any = _Never()


def current() -> Greenlet[Any] | None:
    """The spawned greenlet that runs now; None in a coroutine, or in `green.run`."""
    here = getcurrent()
    return here.job if isinstance(here, Spawned) else None


def spawn(fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Greenlet[_T]:
    """Run `fn` in a greenlet of its own, from the next turn of the loop on, in a copy of the current
    context.
    """
    made = Greenlet(fn, *args, **kwargs)
    made.start()
    return made


def spawn_threadsafe(
    loop: asyncio.AbstractEventLoop, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
) -> concurrent.futures.Future[_T]:
    """Run `fn` in a greenlet of a loop that runs in another thread; return a future of its result.

    Cancelling the future before `fn` has begun prevents it.
    """
    outcome: concurrent.futures.Future[_T] = concurrent.futures.Future()
    context: Context = copy_context()

    def body() -> None:
        try:
            outcome.set_result(fn(*args, **kwargs))
        except GreenletExit as ended:
            outcome.set_exception(ended)
            raise
        except BaseException as error:
            outcome.set_exception(error)
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise

    def begin() -> None:
        hub_of(loop)
        if outcome.set_running_or_notify_cancel():
            spawn(body)

    loop.call_soon_threadsafe(begin, context=context)
    return outcome
