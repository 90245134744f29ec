"""Owns: the two ways between coroutines and plain code.

`run` calls plain code from a coroutine. The code runs in a greenlet within the steps of the coroutine's task:
when it waits, the task yields what it waits for. So `asyncio.current_task()`, timeouts, cancellation and
context variables are those of the task. `await_` is the other way: it waits for an awaitable in plain code.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import types
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from greenlet import GreenletExit, getcurrent

from .. import _core
from .greenlets import Bridge, Greenlet, Spawned
from .hub import Hub, hub_of, refuse
from .timeouts import limit_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from contextvars import Context
    from typing import NoReturn, ParamSpec

    _P = ParamSpec("_P")

__all__ = ["await_", "green_task", "run"]

_T = TypeVar("_T")

# At most this many greenlets are kept for other calls.
IDLE = 256


async def run(fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call plain code that may wait, as a part of this task.

    The code sees the context variables of the coroutine, and changes them. Cancelling the task raises
    CancelledError where the code waits.
    """
    hub = hub_of(asyncio.get_running_loop())
    bridge = hub.bridge()
    bridge._fn = functools.partial(fn, *args, **kwargs) if args or kwargs else fn
    del fn, args, kwargs  # an exception of theirs would refer to this frame, and make a circle
    hub.bridges[bridge] = None
    try:
        result: _T = await _steps(bridge)
    finally:
        hub.bridges.pop(bridge, None)
    return result


@types.coroutine
def _steps(bridge: Bridge) -> Generator[Any, Any, Any]:
    here = getcurrent()
    if bridge.parent is not here:
        bridge.parent = here
    bridge.gr_context = here.gr_context
    bridge._done = False
    bridge._error = bridge._value = None
    item = bridge.switch()
    while not bridge._done:
        try:
            sent = yield item
        except GeneratorExit:
            _adopt(bridge)
            bridge.throw(GreenletExit)
            if not _is_done(bridge):
                raise RuntimeError("plain code went on to wait although its coroutine was closed") from None
            with contextlib.suppress(GreenletExit):
                _finish(bridge)
            raise
        except BaseException as error:
            _adopt(bridge)
            item = bridge.throw(_interrupt(bridge, error))
        else:
            _adopt(bridge)
            item = bridge.switch(sent)
    return _finish(bridge)


def _is_done(bridge: Bridge) -> bool:
    return bridge._done


def _finish(bridge: Bridge) -> Any:
    """What the function returned or raised. The greenlet is free for another one."""
    error, value = bridge._error, bridge._value
    bridge._error = bridge._value = None
    bridge.gr_context = None
    bridge._interrupts.clear()
    idle = bridge.hub.idle_bridges
    if len(idle) < IDLE:
        idle.append(bridge)
    else:
        bridge.throw(GreenletExit)
    if error is not None:
        try:
            raise error
        finally:
            del error
    return value


def _adopt(bridge: Bridge) -> None:
    """Come back here when the greenlet waits: this step may run in another greenlet than the last one."""
    here = getcurrent()
    if bridge.parent is not here:
        bridge.parent = here


def _interrupt(bridge: Bridge, error: BaseException) -> BaseException:
    """What a step raises in the greenlet: the exception of a timer, if that is why the task was woken."""
    if not bridge._interrupts or not isinstance(error, asyncio.CancelledError):
        return error
    task = asyncio.current_task()
    assert task is not None
    ordered, cancelled_before = bridge._interrupts.pop(0)
    # Another cancellation has come: that one counts.
    return ordered if task.uncancel() <= cancelled_before else error


def await_(awaitable: Awaitable[_T], /) -> _T:
    """Wait for an awaitable in plain code; return its result, or raise what it raises.

    In `green.run`, its steps are steps of the task. In a spawned greenlet, a coroutine runs in a task of its
    own, in the context of the greenlet. If the greenlet is killed meanwhile, the task is cancelled, and its
    clean-up waited for.
    """
    here = getcurrent()
    if isinstance(here, Bridge):
        return _await_in_steps(here, awaitable)  # type: ignore[no-any-return]
    if not isinstance(here, Spawned):
        _refuse(awaitable)
    future: asyncio.Future[_T]
    if asyncio.isfuture(awaitable):
        future = awaitable
        if future.done():
            return future.result()
        if future.get_loop() is not here.hub.loop:
            raise RuntimeError(f"{future!r} is attached to a different loop")
    elif isinstance(awaitable, Greenlet):
        result: _T = awaitable.get()
        return result
    else:
        future = _make_task(here.hub, awaitable)
    try:
        _wait_for(future)
    except BaseException:
        _cancel(future)
        raise
    return future.result()


def _wait_for(future: asyncio.Future[Any]) -> None:
    """Wait until a future is done, whatever comes of it."""
    parking = _core.Parking()
    future.add_done_callback(parking.fire)
    try:
        parking.wait()
    except BaseException:
        future.remove_done_callback(parking.fire)
        raise


def _cancel(future: asyncio.Future[Any]) -> None:
    """Cancel what an interrupted greenlet waited for, and wait for its clean-up."""
    future.cancel()
    while not future.done():
        try:
            _wait_for(future)
        except BaseException:
            future.add_done_callback(_see)
            raise
    if not future.cancelled() and (error := future.exception()) is not None:
        raise error


def _see(future: asyncio.Future[Any]) -> None:
    """A task whose greenlet was interrupted twice: an exception of it is told to the loop by asyncio
    itself.
    """


def _make_task(hub: Hub, awaitable: Awaitable[_T]) -> asyncio.Task[_T]:
    coroutine = awaitable if asyncio.iscoroutine(awaitable) else _coroutine(awaitable)
    context = getcurrent().gr_context
    if context is None or not _is_free(context):
        context = copy_context()
    # A factory may begin the task at once, which only the loop may do.
    if hub.loop.get_task_factory() is None:
        task: asyncio.Task[_T] = hub.loop.create_task(coroutine, context=context)
        return task
    made: list[asyncio.Task[_T]] = []
    parking = _core.Parking()

    def make() -> None:
        made.append(hub.loop.create_task(coroutine, context=context))
        parking.fire()

    handle = hub.loop.call_soon(make)
    try:
        parking.wait()
    except BaseException:
        handle.cancel()
        if not made:
            coroutine.close()
        raise
    return made[0]


async def _coroutine(awaitable: Awaitable[_T]) -> _T:
    return await awaitable


def _is_free(context: Context) -> bool:
    """Whether a task may run in the context: not within `Context.run` of this greenlet."""
    try:
        context.run(_nothing)
    except RuntimeError:
        return False
    return True


def _nothing() -> None:
    pass


def _await_in_steps(here: Bridge, awaitable: Any) -> Any:
    if asyncio.isfuture(awaitable):
        future = awaitable
        while not future.done():
            if future.get_loop() is not here.hub.loop:
                raise RuntimeError(f"{future!r} is attached to a different loop")
            future._asyncio_future_blocking = True
            here.parent.switch(future)
        return future.result()
    return _drive(here, awaitable if asyncio.iscoroutine(awaitable) else _coroutine(awaitable))


def _drive(here: Bridge, coroutine: Any) -> Any:
    """Run the steps of a coroutine in this greenlet, and yield by the task what it yields."""
    try:
        item = coroutine.send(None)
        while True:
            try:
                sent = here.parent.switch(item)
            except GreenletExit:
                coroutine.close()
                raise
            except BaseException as error:
                item = coroutine.throw(error)
            else:
                item = coroutine.send(sent)
    except StopIteration as end:
        return end.value


def _refuse(awaitable: Any) -> NoReturn:
    with contextlib.suppress(AttributeError):
        awaitable.close()  # a coroutine that nobody will await
    refuse()
    raise AssertionError


def green_task(function: Callable[_P, Coroutine[Any, Any, _T]], /) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """Decorate a coroutine function: its steps run in a greenlet, so calls that wait are legal in it."""

    @functools.wraps(function)
    async def green(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await run(await_, function(*args, **kwargs))

    return inspect.markcoroutinefunction(green) if hasattr(inspect, "markcoroutinefunction") else green


_core.configure_green(Spawned, Bridge, refuse, limit_call)
