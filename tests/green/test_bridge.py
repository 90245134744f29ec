"""Plain code in coroutines, and coroutines in plain code."""

import asyncio
import contextvars
import time

import pytest
from support import loops

green = pytest.importorskip("proact.green")

VAR = contextvars.ContextVar("VAR", default=0)


async def test_run_is_a_part_of_the_task(loop):
    me = asyncio.current_task()
    VAR.set(1)

    def plain(a, b=0):
        assert asyncio.current_task() is me
        green.sleep(0.001)
        assert asyncio.current_task() is me
        VAR.set(VAR.get() + 1)
        return a + b

    assert await green.run(plain, 1, b=2) == 3
    assert VAR.get() == 2


async def test_run_raises_what_the_function_raises(loop):
    def fail():
        green.sleep(0)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        await green.run(fail)
    assert caught.traceback[-1].name == "fail"


async def test_cancelling_the_task_unwinds_the_function(loop):
    steps = []

    def wait():
        try:
            green.sleep(60)
        except asyncio.CancelledError:
            green.sleep(0.001)
            steps.append("unwound")
            raise

    task = loop.create_task(green.run(wait))
    await loops.turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert steps == ["unwound"]


async def test_timeouts_of_asyncio_hold(loop):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.005):
            await green.run(green.sleep, 60)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(green.run(green.sleep, 60), 0.005)


async def test_a_coroutine_that_is_closed_unwinds_the_function(loop):
    steps = []

    def wait():
        try:
            green.sleep(60)
        finally:
            steps.append("unwound")

    coroutine = green.run(wait)
    coroutine.send(None)
    coroutine.close()
    assert steps == ["unwound"]


def test_await_a_future(inside, loop):
    def main():
        done = loop.create_future()
        done.set_result(1)
        assert green.await_(done) == 1
        later = loop.create_future()
        loop.call_later(0.001, later.set_result, 2)
        assert green.await_(later) == 2
        failed = loop.create_future()
        loop.call_later(0.001, failed.set_exception, ValueError("it"))
        with pytest.raises(ValueError, match="it"):
            green.await_(failed)
        cancelled = loop.create_future()
        loop.call_soon(cancelled.cancel)
        with pytest.raises(asyncio.CancelledError):
            green.await_(cancelled)

    inside(main)


def test_await_a_coroutine(inside):
    async def answer():
        assert asyncio.current_task() is not None
        await asyncio.sleep(0.001)
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        return 42

    async def fail():
        await asyncio.sleep(0)
        raise ValueError("it")

    def main():
        assert green.await_(answer()) == 42
        with pytest.raises(ValueError, match="it"):
            green.await_(fail())

    inside(main)


def test_await_other_awaitables(inside, loop):
    class Awaitable:
        def __await__(self):
            yield from asyncio.sleep(0.001).__await__()
            return "its"

    def main():
        assert green.await_(Awaitable()) == "its"
        assert (
            green.await_(asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2), return_exceptions=True))
            == [
                1,
                2,
            ]
            if inside.kind == "bridge"
            else True
        )
        assert green.await_(green.spawn(abs, -3)) == 3

    inside(main)


def test_await_shares_the_context(inside):
    async def change():
        VAR.set(VAR.get() + 1)
        await asyncio.sleep(0)
        VAR.set(VAR.get() + 1)

    def main():
        VAR.set(5)
        green.await_(change())
        assert VAR.get() == 7
        # Within Context.run no task can have the same context.
        contextvars.copy_context().run(green.await_, change())
        assert VAR.get() == 7

    inside(main)


def test_killing_in_await_cancels_the_task_and_waits_for_its_clean_up(spawned):
    steps = []

    async def inner():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.002)
            steps.append("clean")
            raise

    def wait():
        try:
            green.await_(inner())
        finally:
            steps.append("unwound")

    def main():
        g = green.spawn(wait)
        green.sleep(0)
        green.sleep(0)
        g.kill()
        assert steps == ["clean", "unwound"]
        assert isinstance(g.get(), green.GreenletExit)

    spawned(main)


def test_recursion_of_run_and_await(inside, loop):
    def down(depth):
        if not depth:
            green.sleep(0.001)
            return 0
        return 1 + green.await_(green.run(down, depth - 1))

    assert inside(down, 20) == 20

    def fail(depth):
        if not depth:
            green.sleep(0)
            raise ValueError("deep")
        return green.await_(green.run(fail, depth - 1))

    with pytest.raises(ValueError, match="deep"):
        inside(fail, 20)


async def test_green_task(loop):
    me = asyncio.current_task()

    @green.green_task
    async def mixed(x):
        """Its text."""
        assert asyncio.current_task() is me
        green.sleep(0.001)
        await asyncio.sleep(0.001)
        green.sleep(0)
        async with asyncio.timeout(5):
            return x + await green.spawn(abs, -1)

    assert asyncio.iscoroutinefunction(mixed) if loops.REFERENCE else True
    assert mixed.__doc__ == "Its text."
    assert await mixed(1) == 2


async def test_green_task_is_cancelled_in_a_call_that_blocks(loop):
    @green.green_task
    async def block():
        green.sleep(60)

    task = loop.create_task(block())
    await loops.turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_many_at_once(loop):
    def plain(n):
        for _ in range(n % 7):
            green.sleep(0)
        return n

    assert await asyncio.gather(*(green.run(plain, n) for n in range(500))) == list(range(500))


# Timeouts.


def test_timeout_raises_itself(inside):
    def main():
        with pytest.raises(green.Timeout) as caught:
            with green.Timeout(0.005) as limit:
                green.sleep(60)
        assert caught.value is limit
        with green.Timeout(0.005, False):
            green.sleep(60)
        with pytest.raises(KeyError), green.Timeout(0.005, KeyError):
            green.sleep(60)
        with green.Timeout(60):
            green.sleep(0)
        with green.Timeout(None):
            green.sleep(0)
        # It was no cancellation.
        green.sleep(0.001)

    inside(main)


async def test_timeout_leaves_the_task_uncancelled(loop):
    def main():
        with green.Timeout(0.002, False):
            green.sleep(60)

    await green.run(main)
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)


def test_nested_timeouts(inside):
    def main():
        with green.Timeout(0.005) as outer:
            with pytest.raises(green.Timeout) as caught:
                with green.Timeout(60):
                    green.sleep(60)
            assert caught.value is outer
        with green.Timeout(60):
            with green.Timeout(0.002, False):
                green.sleep(60)

    inside(main)


def test_timeout_in_await(inside):
    steps = []

    async def inner():
        try:
            await asyncio.sleep(60)
        finally:
            steps.append("clean")

    def main():
        with green.Timeout(0.005, False):
            green.await_(inner())
        assert steps == ["clean"]

    inside(main)


async def test_a_cancellation_beats_a_timeout_of_the_same_turn(loop):
    def main():
        with green.Timeout(0.001, False):
            green.sleep(60)
        return "went on"

    task = loop.create_task(green.run(main))
    await loops.turns()
    time.sleep(0.005)  # the timer is due in the turn in which the task is cancelled
    loop.call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
