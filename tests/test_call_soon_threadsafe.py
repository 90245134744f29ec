"""call_soon_threadsafe: any thread, nothing lost, and a sleeping loop wakes at once."""

import asyncio
import contextlib
import contextvars
import gc
import signal
import statistics
import sys
import threading
import time

import pytest
from support import loops, peers

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


# Since Python 3.14, a thread that cancels or asks waits while the callback runs, and knows what has happened.

WAITS = sys.version_info >= (3, 14) and loops.REFERENCE != "uvloop"


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("question", ["cancel", "cancelled"])
@pytest.mark.skipif(not WAITS, reason="asyncio's handles wait since Python 3.14")
def test_another_thread_waits_for_a_callback_that_runs(loop, question, debug):
    loop.set_debug(debug)
    loop.slow_callback_duration = 60
    begun = threading.Event()
    ended = []
    answers = []

    def callback():
        begun.set()
        time.sleep(0.05)  # long enough for the other thread to ask
        ended.append(True)

    def ask():
        handle = loop.call_soon_threadsafe(callback)
        begun.wait()
        answers.append((getattr(handle, question)(), list(ended)))
        assert handle.cancelled() is (question == "cancel")
        loop.call_soon_threadsafe(loop.stop)

    with peers.thread(ask):
        loop.run_forever()
    assert answers == [(None if question == "cancel" else False, [True])]


@pytest.mark.skipif(WAITS, reason="asyncio's handles wait since Python 3.14")
def test_another_thread_does_not_wait_for_a_callback_that_runs(loop):
    begun, asked = threading.Event(), threading.Event()

    def callback():
        begun.set()
        assert asked.wait(peers.PATIENCE)

    def ask():
        handle = loop.call_soon_threadsafe(callback)
        begun.wait()
        handle.cancel()
        asked.set()
        loop.call_soon_threadsafe(loop.stop)

    with peers.thread(ask):
        loop.run_forever()


@pytest.mark.parametrize("debug", [False, True])
def test_a_callback_may_cancel_its_own_handle(loop, debug):
    loop.set_debug(debug)
    seen = []

    def callback():
        handles[0].cancel()
        seen.append(handles[0].cancelled())
        raise KeyError("reported all the same")

    handles = [loop.call_soon_threadsafe(callback)]
    errors = []
    loop.set_exception_handler(lambda loop, context: errors.append(context["exception"]))
    loop.run_until_complete(asyncio.sleep(0))
    # It does not count as running any more.
    with peers.thread(lambda: seen.append(handles[0].cancelled())):
        pass
    assert seen == [True, True]
    assert [type(error) for error in errors] == [KeyError]


@pytest.mark.skipif(not WAITS, reason="asyncio's handles wait since Python 3.14")
def test_ctrl_c_ends_the_wait(loop):
    begun, over = threading.Event(), threading.Event()

    def callback():
        begun.set()
        assert over.wait(peers.PATIENCE)
        loop.stop()

    def interrupt():
        time.sleep(0.02)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    handle = loop.call_soon_threadsafe(callback)
    with peers.thread(loop.run_forever):
        begun.wait()
        try:
            with pytest.raises(KeyboardInterrupt), peers.thread(interrupt):
                handle.cancel()
        finally:
            over.set()


@pytest.mark.parametrize("debug", [False, True])
def test_cancelled_by_many_threads_it_runs_at_most_once(loop, debug):
    loop.set_debug(debug)
    runs = []
    cancelled = []

    def ask(number):
        for _ in range(100):
            handle = loop.call_soon_threadsafe(runs.append, number)
            handle.cancel()
            cancelled.append(handle.cancelled())
        loop.call_soon_threadsafe(done.append, number)
        loop.call_soon_threadsafe(lambda: len(done) == 4 and loop.stop())

    done = []
    with contextlib.ExitStack() as threads:
        for number in range(4):
            threads.enter_context(peers.thread(ask, number))
        loop.run_forever()
    assert cancelled == [True] * 400
    assert len(runs) <= 400


@pytest.mark.not_on("uvloop", reason="its handles are of a class of its own")
@pytest.mark.parametrize("debug", [False, True])
def test_isinstance_sees_asyncios_handles(loop, debug):
    loop.set_debug(debug)
    shared = getattr(asyncio.events, "_ThreadSafeHandle", asyncio.Handle)
    soon, later = loop.call_soon(int), loop.call_later(3600, int)
    anywhere = loop.call_soon_threadsafe(int)
    assert isinstance(soon, asyncio.Handle) and not isinstance(soon, asyncio.TimerHandle)
    assert isinstance(later, asyncio.TimerHandle)
    assert isinstance(anywhere, shared)
    for handle in (soon, later, anywhere):
        handle.cancel()


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
