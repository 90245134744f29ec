"""call_soon_threadsafe: any thread, nothing lost, and a sleeping loop wakes at once."""

import asyncio
import contextvars
import gc
import statistics
import threading
import time

import pytest
from support import peers

THREADS, CALLS = 8, 2000
NUMBER = contextvars.ContextVar("NUMBER", default=0)


def test_nothing_is_lost_and_each_thread_keeps_its_order(loop):
    seen = []
    done = 0

    def finished():
        nonlocal done
        done += 1
        if done == THREADS:
            loop.stop()

    def caller(thread):
        for call in range(CALLS):
            loop.call_soon_threadsafe(seen.append, (thread, call))
        loop.call_soon_threadsafe(finished)

    threads = [threading.Thread(target=caller, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    loop.run_forever()
    for thread in threads:
        thread.join()
    assert len(seen) == THREADS * CALLS
    for thread in range(THREADS):
        assert [call for caller, call in seen if caller == thread] == list(range(CALLS))


def test_wakes_a_sleeping_loop_within_milliseconds(loop):
    latencies = []

    def caller():
        latencies.clear()
        for _ in range(15):
            time.sleep(0.01)  # long enough for the loop to be asleep: it has no timer and no I/O
            loop.call_soon_threadsafe(
                lambda since: latencies.append(time.perf_counter() - since), time.perf_counter()
            )
        loop.call_soon_threadsafe(loop.stop)

    def median():
        with peers.thread(caller):
            loop.run_forever()
        return statistics.median(latencies)

    # The median, and the best of five, since other processes have the core for a while.
    assert any(median() < 0.005 for _ in range(5))


def test_wakes_a_loop_that_sleeps_until_a_far_timer(loop):
    timer = loop.call_later(3600, loop.stop)
    with peers.thread(lambda: (time.sleep(0.02), loop.call_soon_threadsafe(loop.stop))):
        loop.run_forever()
    timer.cancel()


def test_a_call_between_two_runs_is_not_lost(loop):
    seen = []
    for number in range(20):
        with peers.thread(loop.call_soon_threadsafe, seen.append, number):
            pass
        loop.run_until_complete(asyncio.sleep(0))
    assert seen == list(range(20))


def test_in_the_order_of_call_soon_when_called_from_the_loop_s_thread(loop):
    seen = []
    loop.call_soon(seen.append, 1)
    loop.call_soon_threadsafe(seen.append, 2)
    loop.call_soon(seen.append, 3)
    loop.run_until_complete(asyncio.sleep(0))
    assert seen == [1, 2, 3]


def test_the_handle_cancels(loop):
    seen = []
    loop.call_soon_threadsafe(seen.append, "cancelled").cancel()
    loop.run_until_complete(asyncio.sleep(0))
    assert seen == []


def test_on_a_closed_loop_it_is_an_error_and_not_a_crash(new_loop):
    loop = new_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon_threadsafe(print)


def test_closing_while_threads_still_call(new_loop):
    # The wake-up fd is closed while the threads call: each call either works or says that the loop is closed.
    for _ in range(5):
        loop = new_loop()
        running = threading.Event()
        outcomes = []

        def caller(loop=loop, running=running, outcomes=outcomes):
            try:
                while True:
                    loop.call_soon_threadsafe(int)
                    running.set()
            except RuntimeError as error:
                outcomes.append(str(error))

        with peers.thread(caller), peers.thread(caller):
            running.wait()
            loop.run_until_complete(asyncio.sleep(0.002))
            loop.close()
        assert outcomes == ["Event loop is closed"] * 2


def test_from_a_finaliser_that_runs_inside_the_loop_s_own_calls(loop):
    # A garbage collection may start inside any allocation of the core, also while the core holds a lock: no
    # deadlock.
    calls = 0

    def called():
        nonlocal calls
        calls += 1

    class Finalised:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            loop.call_soon_threadsafe(called)

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(300):
            Finalised()
            loop.call_soon_threadsafe(int).cancel()
            loop.call_soon([].append, [])
        gc.collect()
    finally:
        gc.set_threshold(*threshold)
    loop.run_until_complete(asyncio.sleep(0))
    assert calls == 300


def test_run_coroutine_threadsafe_brings_back_results_and_errors(loop):
    outcomes = []

    async def divide(by):
        await asyncio.sleep(0)
        return 1 / by

    def caller():
        outcomes.append(asyncio.run_coroutine_threadsafe(divide(4), loop).result(10))
        try:
            asyncio.run_coroutine_threadsafe(divide(0), loop).result(10)
        except ZeroDivisionError as error:
            outcomes.append(error)
        loop.call_soon_threadsafe(loop.stop)

    with peers.thread(caller):
        loop.run_forever()
    assert outcomes[0] == 0.25
    assert isinstance(outcomes[1], ZeroDivisionError)


async def test_run_in_executor_wakes_the_loop(loop):
    results = await asyncio.gather(*(loop.run_in_executor(None, pow, 2, number) for number in range(50)))
    assert results == [2**number for number in range(50)]


async def test_each_runs_in_its_own_copy_of_the_callers_context(loop):
    seen = []
    finished = asyncio.Event()

    def increase():
        NUMBER.set(NUMBER.get() + 1)
        seen.append(NUMBER.get())

    def caller():
        NUMBER.set(10)
        for _ in range(3):
            loop.call_soon_threadsafe(increase)
        loop.call_soon_threadsafe(finished.set)

    thread = threading.Thread(target=caller)
    thread.start()
    await finished.wait()
    thread.join()
    assert (seen, NUMBER.get()) == ([11, 11, 11], 0)
