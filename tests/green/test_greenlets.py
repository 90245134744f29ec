"""Spawned greenlets: their start, their end, and how they are killed."""

import asyncio
import contextlib
import contextvars
import gc
import threading
import weakref

import pytest
from support import loops

green = pytest.importorskip("proact.green")
greenlet = pytest.importorskip("greenlet")

VAR = contextvars.ContextVar("VAR", default=0)


async def test_a_greenlet_is_awaitable(loop):
    def double(x):
        green.sleep(0)
        return 2 * x

    g = green.spawn(double, 4)
    assert not g.dead
    assert await g == 8
    assert await g == 8
    assert g.dead
    assert g.value == 8
    assert g.exception is None


async def test_exceptions_cross_unchanged(loop):
    error = ValueError("mine")

    def fail():
        green.sleep(0)
        raise error

    g = green.spawn(fail)
    with pytest.raises(ValueError) as caught:
        await g
    assert caught.value is error
    names = [entry.name for entry in caught.traceback]
    assert names[0] == "test_exceptions_cross_unchanged"
    assert names[-1] == "fail"
    assert g.exception is error


async def test_an_exception_that_nobody_asks_for_is_reported(loop, unhandled):
    def fail():
        raise ValueError("lost")

    green.spawn(fail)
    await loops.turns()
    gc.collect()
    problem = unhandled.take_one()
    assert "never retrieved" in problem.message
    assert str(problem.exception) == "lost"


def test_join_and_get(inside):
    def main():
        event = green.Event()
        g = green.spawn(lambda: event.wait() and 5)
        assert not g.join(0)
        with pytest.raises(TimeoutError):
            g.get(timeout=0)
        event.set()
        assert g.join()
        assert g.join()
        assert g.get() == 5

    inside(main)


def test_a_greenlet_cannot_join_itself(spawned):
    with pytest.raises(RuntimeError, match="own end"):
        spawned(lambda: green.current().join())


async def test_the_running_loop_is_hidden_in_spawned_greenlets_only(loop):
    seen = []

    def look():
        for _ in range(3):
            seen.append(asyncio._get_running_loop())
            green.sleep(0)

    async def task():
        for _ in range(3):
            assert asyncio.get_running_loop() is loop
            await asyncio.sleep(0)

    def callback():
        seen.append(asyncio.get_running_loop() is loop)

    g = green.spawn(look)
    loop.call_soon(callback)
    await asyncio.gather(task(), task())
    await g
    assert seen.count(None) == 3
    assert seen.count(True) == 1
    assert await green.run(asyncio.get_running_loop) is loop


def test_the_loop_is_shown_again_after_the_run(loop):
    def stop():
        loop.stop()

    async def main():
        green.spawn(green.sleep, 0)

    loop.run_until_complete(main())
    assert asyncio._get_running_loop() is None
    loop.run_until_complete(asyncio.sleep(0.001))
    assert asyncio._get_running_loop() is None


async def test_spawn_copies_the_context(loop):
    VAR.set(1)

    def change():
        assert VAR.get() == 1
        VAR.set(2)
        green.sleep(0)
        assert VAR.get() == 2

    def other():
        for _ in range(3):
            assert VAR.get() == 1
            green.sleep(0)

    first, second = green.spawn(change), green.spawn(other)
    VAR.set(3)
    await first
    await second
    assert VAR.get() == 3


# Killing.


async def test_killed_before_it_started(loop):
    g = green.spawn(pytest.fail, "it ran")
    g.kill(block=False)
    assert g.dead
    assert isinstance(await g, green.GreenletExit)
    g.kill()


def test_killed_while_it_waits(inside):
    ended = []

    def wait():
        try:
            green.sleep(60)
        finally:
            green.sleep(0)
            ended.append(True)

    def main():
        g = green.spawn(wait)
        green.sleep(0)
        g.kill()
        assert g.dead
        assert ended == [True]
        assert isinstance(g.get(), green.GreenletExit)
        g.kill()

    inside(main)


def test_killed_twice_before_it_ends(spawned):
    ends = []

    def wait():
        try:
            green.sleep(60)
        except green.GreenletExit:
            ends.append("first")
            try:
                green.sleep(60)
            except green.GreenletExit:
                ends.append("second")
                raise

    def main():
        g = green.spawn(wait)
        green.sleep(0)
        g.kill(block=False)
        green.sleep(0)
        assert ends == ["first"]
        g.kill()
        assert ends == ["first", "second"]

    spawned(main)


def test_killed_by_itself(spawned):
    def suicide():
        green.current().kill()

    def main():
        g = green.spawn(suicide)
        assert isinstance(g.get(), green.GreenletExit)

    spawned(main)


def test_killed_with_an_exception(spawned):
    def main():
        g = green.spawn(green.sleep, 60)
        green.sleep(0)
        g.kill(ValueError("why"))
        with pytest.raises(ValueError, match="why"):
            g.get()
        unborn = green.spawn(green.sleep, 60)
        unborn.kill(KeyError)
        with pytest.raises(KeyError):
            unborn.get()

    spawned(main)


async def test_killed_from_another_thread(loop):
    g = green.spawn(green.sleep, 60)
    await loops.turns()
    with pytest.raises(RuntimeError, match="another thread"):
        await asyncio.to_thread(g.kill)
    g.kill()
    await g


def test_a_stale_wake_up_wakes_nothing_else(spawned):
    """Killed after it was woken and before it went on: the wake-up comes too late."""
    order = []

    def wait(event):
        try:
            event.wait()
        except green.GreenletExit:
            green.sleep(0.005)
            order.append("slept")

    def main():
        event = green.Event()
        g = green.spawn(wait, event)
        green.sleep(0)
        g.hub.loop.call_soon(g._interrupt, green.GreenletExit())
        event.set()
        green.sleep(0)
        order.append("woken")
        g.join()
        assert order == ["woken", "slept"]

    spawned(main)


async def test_cancelling_who_awaits_kills_it(loop):
    unwound = []

    def wait():
        try:
            green.sleep(60)
        finally:
            green.sleep(0.001)
            unwound.append(True)

    g = green.spawn(wait)

    async def waiter():
        await g

    task = loop.create_task(waiter())
    await loops.turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert g.dead
    assert unwound == [True]


def test_greenlets_that_wait_when_the_loop_closes_end_in_order(new_loop):
    loop = new_loop()
    ended = []

    def wait(n):
        try:
            green.Event().wait()
        finally:
            green.sleep(0.001)
            ended.append(n)

    async def main():
        for n in range(5):
            green.spawn(wait, n)
        await loops.turns()

    loop.run_until_complete(main())
    loop.close()
    assert ended == [0, 1, 2, 3, 4]


def test_a_greenlet_that_does_not_end_is_reported_when_the_loop_closes(new_loop, unhandled):
    loop = new_loop()
    go_on = [True]

    def stubborn():
        while go_on[0]:
            try:
                green.sleep(60)
            except green.GreenletExit:
                pass

    async def main():
        g = green.spawn(stubborn)
        g.hub.close_limit = 0.05
        await loops.turns()

    loop.run_until_complete(main())
    loop.close()
    assert "did not end" in unhandled.take_one().message
    go_on[0] = False


def test_keyboard_interrupt_stops_the_loop(loop):
    def interrupt():
        raise KeyboardInterrupt

    async def main():
        green.spawn(interrupt)
        await asyncio.sleep(60)

    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


async def test_spawn_threadsafe(loop):
    def work(x):
        green.sleep(0.001)
        return x, threading.get_ident()

    def thread():
        return green.spawn_threadsafe(loop, work, 5).result(10)

    assert await asyncio.to_thread(thread) == (5, threading.get_ident())

    def fail():
        raise ValueError("there")

    def failing():
        with pytest.raises(ValueError, match="there"):
            green.spawn_threadsafe(loop, fail).result(10)

    await asyncio.to_thread(failing)


async def test_a_greenlet_that_ended_is_freed(loop):
    class Thing:
        pass

    thing = Thing()
    seen = weakref.ref(thing)
    g = green.spawn(lambda thing: green.sleep(0), thing)
    del thing
    await g
    assert seen() is None
    gone = weakref.ref(g)
    del g
    assert gone() is None


async def test_many(loop):
    count = []
    made = [green.spawn(lambda: (green.sleep(0), count.append(1))) for _ in range(2000)]
    for g in made:
        await g
    assert len(count) == 2000


def test_blocking_without_a_loop_says_what_to_do():
    with pytest.raises(RuntimeError, match="run_main"):
        green.sleep(1)
    with pytest.raises(RuntimeError, match="run_main"):
        green.spawn(print)


@pytest.mark.parametrize(
    "call",
    [
        lambda: green.sleep(0),
        lambda: green.sleep(1),
        lambda: green.Event().wait(),
        lambda: green.Queue().get(),
        lambda: green.await_(asyncio.sleep(0)),
    ],
    ids=["sleep(0)", "sleep", "event", "queue", "await_"],
)
async def test_blocking_in_a_coroutine_says_what_to_do(loop, call):
    with pytest.raises(RuntimeError, match=r"green\.run.*@green_task"):
        call()


def test_blocking_in_a_greenlet_of_others_says_what_to_do(inside):
    """For instance in one of SQLAlchemy's, on top of a greenlet that could wait."""

    def main():
        first, second = green.socketpair()
        calls = [lambda: green.sleep(1), lambda: first.recv(1), lambda: green.await_(asyncio.sleep(0))]
        with first, second:
            for call in calls:
                with pytest.raises(RuntimeError, match=r"<greenlet.greenlet object.*green\.spawn"):
                    greenlet.greenlet(call).switch()

    inside(main)


@pytest.mark.parametrize("way", ["get", "await", "run"])
async def test_an_exception_that_was_caught_is_freed_at_once(loop, way):
    """And with it what the frames in its traceback hold."""
    gone = []

    class Held:
        pass

    def fail():
        held = Held()
        gone.append(weakref.ref(held))
        green.sleep(0)
        raise ValueError

    async def once():
        with contextlib.suppress(ValueError):
            match way:
                case "get":
                    await green.run(green.spawn(fail).get)
                case "await":
                    await green.spawn(fail)
                case "run":
                    await green.run(fail)

    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            await once()
        # The greenlet that ended is let go of by what the loop does next.
        await asyncio.sleep(0)
        assert not [ref for ref in gone if ref() is not None]
    finally:
        gc.enable()
