"""The states of a loop (stopped, running, closed), and every call in a state where it does not belong."""

import asyncio
import sys
import threading

import pytest


async def value(result=42):
    await asyncio.sleep(0)
    return result


def test_run_until_complete_returns_or_raises_what_the_coroutine_does(loop):
    async def fail():
        raise ZeroDivisionError

    assert loop.run_until_complete(value()) == 42
    with pytest.raises(ZeroDivisionError):
        loop.run_until_complete(fail())
    assert loop.run_until_complete(loop.create_task(value(1))) == 1
    future = loop.create_future()
    loop.call_soon(future.set_result, 2)
    assert loop.run_until_complete(future) == 2
    assert loop.run_until_complete(future) == 2  # the future is already done


def test_the_running_loop_is_known_inside_and_forgotten_outside(loop):
    async def inside():
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is not None
        assert loop.is_running()

    assert not loop.is_running()
    loop.run_until_complete(inside())
    assert not loop.is_running()
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


@pytest.mark.not_on("uvloop", reason="words the message differently")
def test_a_running_loop_cannot_be_run_again(loop, new_loop):
    other = new_loop()
    errors = []

    async def inside():
        for run in (loop.run_forever, other.run_forever):
            with pytest.raises(RuntimeError) as info:
                run()
            errors.append(str(info.value))
        for run in (loop.run_until_complete, other.run_until_complete):
            with pytest.raises(RuntimeError) as info:
                run(asyncio.Future(loop=loop if run == loop.run_until_complete else other))
            errors.append(str(info.value))
        assert asyncio.get_running_loop() is loop

    loop.run_until_complete(inside())
    already, another = (
        "This event loop is already running",
        "Cannot run the event loop while another loop is running",
    )
    assert errors == [already, another, already, another]


def test_a_loop_that_runs_in_another_thread_cannot_be_run_here(loop):
    running = threading.Event()
    thread = threading.Thread(target=loop.run_forever)
    loop.call_soon(running.set)
    thread.start()
    running.wait()
    with pytest.raises(RuntimeError, match="already running"):
        loop.run_forever()
    with pytest.raises(RuntimeError, match="running"):
        loop.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.mark.not_on("uvloop", reason="stop() takes effect a turn later")
def test_stop_ends_the_turn_that_is_under_way(loop):
    seen = []

    def callback():
        seen.append("before")
        loop.stop()
        loop.call_soon(seen.append, "next run")

    loop.call_soon(callback)
    loop.call_soon(seen.append, "same turn")
    loop.run_forever()
    assert seen == ["before", "same turn"]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == ["before", "same turn", "next run"]


def test_stop_before_running_gives_one_turn(loop):
    seen = []
    loop.call_soon(seen.append, "ran")
    loop.stop()
    loop.run_forever()
    assert seen == ["ran"]


def test_stopping_before_the_future_is_done_is_an_error(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="Event loop stopped before Future completed"):
        loop.run_until_complete(future)
    # The future is still pending: only the run has ended.
    loop.call_soon(future.set_result, "late")
    assert loop.run_until_complete(future) == "late"


def test_close(new_loop):
    loop = new_loop()
    assert not loop.is_closed()
    loop.run_until_complete(value())
    loop.close()
    assert loop.is_closed()
    loop.close()
    assert loop.is_closed()
    assert not loop.is_running()


def test_a_loop_that_never_ran_can_be_closed(new_loop):
    loop = new_loop()
    loop.close()
    assert loop.is_closed()


def test_closing_a_running_loop_is_an_error(loop):
    async def inside():
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.close()
        return await value()

    assert loop.run_until_complete(inside()) == 42


@pytest.mark.parametrize(
    "call",
    [
        lambda loop: loop.call_soon(print),
        lambda loop: loop.call_soon_threadsafe(print),
        lambda loop: loop.call_later(0, print),
        lambda loop: loop.call_later(1, print),
        lambda loop: loop.call_at(1e9, print),
        lambda loop: loop.run_forever(),
        lambda loop: loop.run_in_executor(None, print),
        lambda loop: loop.add_reader(0, print),
        lambda loop: loop.add_writer(0, print),
        lambda loop: loop.add_signal_handler(10, print),
    ],
    ids=["soon", "threadsafe", "later0", "later1", "at", "forever", "executor", "reader", "writer", "signal"],
)
def test_a_closed_loop_refuses(new_loop, call):
    loop = new_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        call(loop)


def test_a_closed_loop_refuses_coroutines(new_loop):
    loop = new_loop()
    loop.close()
    for call in (loop.create_task, loop.run_until_complete):
        coroutine = value()
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            call(coroutine)
        coroutine.close()


def test_a_closed_loop_still_answers_what_cannot_hurt(new_loop):
    loop = new_loop()
    loop.close()
    assert not loop.is_running()
    assert not loop.remove_reader(0)
    assert not loop.remove_writer(0)
    assert loop.time() > 0
    assert "closed" in repr(loop)


def test_a_future_of_another_loop_is_refused(loop, new_loop):
    with pytest.raises(ValueError, match="belong"):
        loop.run_until_complete(new_loop().create_future())


@pytest.mark.parametrize("thing", [42, None, "main", value], ids=["int", "none", "text", "function"])
def test_what_is_no_coroutine_is_refused(loop, thing):
    with pytest.raises(TypeError, match="coroutine"):
        loop.create_task(thing)
    with pytest.raises(TypeError, match=r"asyncio\.Future, a coroutine or an awaitable"):
        loop.run_until_complete(thing)
    assert loop.run_until_complete(value()) == 42


def test_awaiting_what_is_no_awaitable_fails_the_task_only(loop):
    async def wrong():
        await 42

    with pytest.raises(TypeError, match="await"):
        loop.run_until_complete(wrong())
    assert loop.run_until_complete(value()) == 42


def test_task_factory(loop):
    made = []

    def factory(loop, coroutine, **options):
        made.append(coroutine.__name__)
        return asyncio.Task(coroutine, loop=loop, **options)

    assert loop.get_task_factory() is None
    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    assert loop.run_until_complete(value()) == 42
    assert made == ["value"]
    with pytest.raises(TypeError):
        loop.set_task_factory(42)
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks(loop):
    async def main():
        steps = []

        async def step():
            steps.append("started")
            await asyncio.sleep(0)
            steps.append("finished")

        task = loop.create_task(step())
        assert steps == ["started"]
        await task
        assert steps == ["started", "finished"]

    loop.set_task_factory(asyncio.eager_task_factory)
    loop.run_until_complete(main())


def test_asynchronous_generators_are_finished(new_loop):
    loop = new_loop()
    seen = []

    async def numbers():
        try:
            while True:
                yield len(seen)
        finally:
            seen.append("closed")

    async def main():
        async for _ in generator:
            break

    generator = numbers()
    loop.run_until_complete(main())
    assert seen == []
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert seen == ["closed"]


@pytest.mark.not_on("uvloop", reason="has no turns of its own to make")
def test_a_turn_that_is_made_by_hand(loop):
    seen = []
    loop.call_soon(lambda: loop.call_soon(seen.append, "second"))
    loop.call_soon(seen.append, "first")
    loop._run_once()
    assert seen == ["first"]
    loop._run_once()
    assert seen == ["first", "second"]


def test_a_turn_within_a_callback_goes_on_with_the_turn_around_it(loop):
    seen = []

    def callback():
        seen.append("begins")
        loop.call_soon(seen.append, "next turn")
        loop._run_once()
        seen.append("ends")

    for step in (callback, lambda: seen.append("same turn")):
        loop.call_soon(step)
    loop._run_once()
    assert seen == ["begins", "same turn", "next turn", "ends"]


def test_an_error_within_such_a_turn_leaves_the_rest_for_later(loop):
    seen = []

    def callback():
        with pytest.raises(KeyboardInterrupt):
            loop._run_once()
        seen.append("ends")

    def interrupt():
        raise KeyboardInterrupt

    for step in (callback, interrupt, lambda: seen.append("rest")):
        loop.call_soon(step)
    loop._run_once()
    assert seen == ["ends"]
    loop._run_once()
    assert seen == ["ends", "rest"]


def test_an_executor_of_ones_own(loop):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, thread_name_prefix="ours") as executor:
        loop.set_default_executor(executor)
        name = loop.run_until_complete(loop.run_in_executor(None, lambda: threading.current_thread().name))
    assert name.startswith("ours")


def test_the_loop_runs_again_after_every_kind_of_end(loop):
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert loop.run_until_complete(value()) == 42
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(cancelled())


async def cancelled():
    asyncio.current_task().cancel()
    await asyncio.sleep(0)
