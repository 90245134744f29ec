"""What is rare in programs of greenlets: killed at bad moments, signals, tracers, debuggers, garbage."""

import asyncio
import contextlib
import cProfile
import ctypes
import faulthandler
import gc
import io
import os
import pdb
import pstats
import random
import signal
import sys
import threading
import traceback
import weakref

import pytest
from support import loops

green = pytest.importorskip("proact.green")


def test_killed_in_finally(spawned):
    steps = []

    def victim():
        try:
            green.sleep(60)
        finally:
            steps.append("first")
            try:
                green.sleep(60)
            finally:
                steps.append("second")
                green.sleep(0.001)
                steps.append("third")

    def main():
        greenlet = green.spawn(victim)
        green.sleep(0)
        greenlet.kill(block=False)
        while not steps:
            green.sleep(0)
        greenlet.kill()
        assert greenlet.dead
        assert isinstance(greenlet.value, green.GreenletExit)
        assert steps == ["first", "second", "third"]

    spawned(main)


def test_a_kill_waits_until_a_call_in_c_has_returned(spawned):
    """A call that blocks in C blocks the loop too: nothing can come in between."""
    reader, writer = os.pipe()
    seen = []

    def victim():
        seen.append(os.read(reader, 1))
        seen.append("went on")
        green.sleep(60)
        seen.append("not reached")

    def main():
        greenlet = green.spawn(victim)
        killer = threading.Thread(
            target=lambda: (
                loop.call_soon_threadsafe(lambda: greenlet.kill(block=False)),
                os.write(writer, b"x"),
            )
        )
        loop = greenlet.hub.loop
        killer.start()
        greenlet.join()
        killer.join()
        assert isinstance(greenlet.value, green.GreenletExit)

    spawned(main)
    os.close(reader)
    os.close(writer)
    assert seen in ([b"x", "went on"], [])


def test_killed_within_calls_of_c_that_call_back(spawned):
    """sort, map and __del__ stand on the stack of C while the greenlet waits."""
    ended = []

    class Waits:
        def __init__(self, number):
            self.number = number

        def __lt__(self, other):
            green.sleep(60)
            return self.number < other.number

    def sorting():
        try:
            sorted([Waits(2), Waits(1)])
        finally:
            ended.append("sort")

    def mapping():
        try:
            list(map(green.sleep, [60, 60]))
        finally:
            ended.append("map")

    def main():
        made = [green.spawn(sorting), green.spawn(mapping)]
        green.sleep(0)
        for greenlet in made:
            greenlet.kill()
        assert ended == ["sort", "map"]

    spawned(main)


def test_waiting_in_del(spawned):
    done = []

    class Waits:
        def __del__(self):
            green.sleep(0.001)
            done.append("del")

    def main():
        def use():
            one = Waits()
            del one
            done.append("after")

        green.spawn(use).join()
        assert done == ["del", "after"]

    spawned(main)


def test_recursion_until_it_is_refused(inside):
    """The error of too deep a recursion is Python's, and the loop goes on."""

    def deep():
        green.sleep(0)
        return deep()

    with pytest.raises(RecursionError):
        inside(deep)
    assert inside(lambda: green.sleep(0.001)) is None


def test_a_huge_traceback_crosses(inside):
    def fail(depth):
        if depth:
            fail(depth - 1)
        green.sleep(0)
        raise ValueError("deep")

    with pytest.raises(ValueError, match="deep") as caught:
        inside(fail, 700)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert sum(frame.name == "fail" for frame in frames) == 701
    assert "".join(traceback.format_exception(caught.value)).count("raise ValueError") == 1


def test_a_long_chain_of_exceptions_crosses(inside):
    def fail(number):
        try:
            green.sleep(0)
            if number:
                fail(number - 1)
        finally:
            raise KeyError(number)

    with pytest.raises(KeyError) as caught:
        inside(fail, 100)
    error, number = caught.value, 0
    while error is not None:
        error, number = error.__context__, number + 1
    assert number == 101


def test_each_greenlet_has_its_own_handled_exception(inside):
    """`sys.exc_info()` and bare `raise` are those of the greenlet."""

    def one(kind):
        try:
            raise kind("mine")
        except kind:
            for _ in range(3):
                green.sleep(0)
                assert sys.exc_info()[0] is kind
            try:
                raise
            except kind as error:
                return error

    def main():
        made = [green.spawn(one, kind) for kind in (KeyError, ValueError, OSError)]
        green.sleep(0)
        assert sys.exc_info() == (None, None, None)
        assert [type(greenlet.get()) for greenlet in made] == [KeyError, ValueError, OSError]

    inside(main)


def test_generators_that_wait(inside):
    def numbers(many):
        for number in range(many):
            green.sleep(0)
            yield number

    def main():
        made = [green.spawn(lambda: list(numbers(5))) for _ in range(3)]
        assert list(numbers(5)) == [0, 1, 2, 3, 4]
        assert [greenlet.get() for greenlet in made] == [[0, 1, 2, 3, 4]] * 3

    inside(main)


def test_suspended_greenlets_are_freed_with_their_loop(new_loop):
    """Nobody refers to them, and nothing will ever wake them."""

    class Held:
        pass

    gone = []
    kinds = []

    def waits(how):
        held = Held()
        gone.append(weakref.ref(held))
        first, second = green.socketpair()
        with first, second:
            how(first)

    async def main():
        lock = green.Lock()
        lock._holder = "nobody"
        for how in (
            lambda sock: sock.recv(1),
            lambda sock: green.sleep(60),
            lambda sock: lock.acquire(),
            lambda sock: green.Queue().get(),
            lambda sock: green.await_(asyncio.Event().wait()),
            lambda sock: sock.sendall(bytes(10_000_000)),
        ):
            kinds.append(how)
            for _ in range(20):
                green.spawn(waits, how)
        while len(gone) < 20 * len(kinds):
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)

    loop = new_loop()
    loop.run_until_complete(main())
    closed = weakref.ref(loop)
    loop.close()
    assert not loops.in_flight(loop)
    assert not loop._hub.alive
    gc.collect()
    assert not [ref for ref in gone if ref() is not None]
    del loop
    gc.collect()
    # The fixture keeps the loop itself.
    assert closed() is not None


@pytest.mark.parametrize("raises", [False, True])
def test_a_signal_handler_runs_while_greenlets_wait(inside, raises):
    """An exception of the handler comes from where the loop is."""
    came = []

    class Stop(Exception):
        pass

    def handler(number, frame):
        came.append(number)
        if raises:
            raise Stop

    def main():
        os.kill(os.getpid(), signal.SIGUSR1)
        while not came:
            green.sleep(0.001)
        green.sleep(0.001)
        return "ended"

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        if raises:
            with pytest.raises(Stop):
                inside(main)
        else:
            assert inside(main) == "ended"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert came == [signal.SIGUSR1]


def test_a_handler_of_the_loop_wakes_a_greenlet(loop, inside):
    came = []

    def main():
        woken = green.Event()
        loop.add_signal_handler(signal.SIGUSR1, lambda: (came.append(1), woken.set()))
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert woken.wait(20)
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)

    inside(main)
    assert came == [1]


def test_a_profiler_counts_what_greenlets_do(inside):
    def leaf():
        return sum(range(100))

    def busy():
        for _ in range(10):
            leaf()
            green.sleep(0)

    def main():
        made = [green.spawn(busy) for _ in range(5)]
        for greenlet in made:
            greenlet.join()

    profile = cProfile.Profile()
    profile.enable()
    try:
        inside(main)
    finally:
        profile.disable()
    counts = {where[2]: calls for where, (_, calls, *_) in pstats.Stats(profile).stats.items()}
    assert counts["leaf"] == 50


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is new in 3.12")
def test_monitoring_sees_greenlets(inside):
    seen = []

    def leaf():
        return 1

    def busy():
        for _ in range(3):
            leaf()
            green.sleep(0)

    tool = sys.monitoring.PROFILER_ID
    sys.monitoring.use_tool_id(tool, "test")
    try:
        events = sys.monitoring.events
        sys.monitoring.register_callback(
            tool, events.PY_START, lambda code, offset: seen.append(code.co_name)
        )
        sys.monitoring.set_events(tool, events.PY_START)
        inside(lambda: [greenlet.join() for greenlet in [green.spawn(busy), green.spawn(busy)]])
    finally:
        sys.monitoring.set_events(tool, 0)
        sys.monitoring.free_tool_id(tool)
    assert seen.count("leaf") == 6


def test_a_tracer_set_in_a_greenlet_is_its_own(inside):
    lines = []

    def tracer(frame, event, arg):
        if frame.f_code.co_name == "traced":
            lines.append(event)
        return tracer

    def traced():
        green.sleep(0)
        return 1

    def main():
        sys.settrace(tracer)
        try:
            green.spawn(green.sleep, 0).join()
            traced()
        finally:
            sys.settrace(None)

    inside(main)
    assert lines == ["call", "line", "line", "return"]
    assert sys.gettrace() is None


def test_faulthandler_shows_the_greenlet_that_runs(inside, tmp_path):
    path = tmp_path / "dump"

    def the_one_that_runs():
        with path.open("w") as file:
            faulthandler.dump_traceback(file, all_threads=True)

    def the_one_that_waits():
        green.sleep(60)

    def main():
        waits = green.spawn(the_one_that_waits)
        green.sleep(0)
        the_one_that_runs()
        waits.kill()

    inside(main)
    assert "the_one_that_runs" in path.read_text()


def test_pdb_in_a_greenlet(inside):
    """Stepping over a call that waits stays in the greenlet, while others run."""
    others = []

    def beside():
        for _ in range(20):
            others.append(1)
            green.sleep(0)

    def debugged():
        number = 1
        debugger.set_trace()
        green.sleep(0.001)
        number += 1
        green.sleep(0.001)
        return number

    said = io.StringIO()
    commands = "next\nnext\nnext\np 'number is', number\nwhere\ncontinue\n"
    debugger = pdb.Pdb(stdin=io.StringIO(commands), stdout=said, nosigint=True, readrc=False)
    debugger.use_rawinput = False

    def main():
        made = green.spawn(beside)
        assert debugged() == 2
        made.join()

    try:
        inside(main)
    finally:
        sys.settrace(None)
    assert len(others) == 20
    assert "('number is', 2)" in said.getvalue()
    assert "debugged()" in said.getvalue()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.eager_task_factory is new in 3.12")
def test_under_the_eager_task_factory(loop):
    steps = []

    @green.green_task
    async def task(number):
        steps.append(number)
        green.sleep(0.001)
        await asyncio.sleep(0.001)
        with green.Timeout(60):
            green.sleep(0)
        return number

    def plain(number):
        green.sleep(0.001)
        assert asyncio.current_task() is not None
        return green.await_(task(number))

    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)
        made = [asyncio.create_task(task(number)) for number in range(3)]
        assert steps == [0, 1, 2]  # they have begun
        assert await asyncio.gather(*made) == [0, 1, 2]
        assert await asyncio.gather(*(asyncio.create_task(green.run(plain, n)) for n in range(3))) == [
            0,
            1,
            2,
        ]

        # One that never waits is done at once.
        done = asyncio.create_task(green.run(lambda: 7))
        assert done.done()
        assert done.result() == 7

        # Begun within another task's greenlet: by plain code, and in a spawned one.
        def begins():
            return asyncio.create_task(task(9))

        assert await (await green.run(begins)) == 9
        assert await green.spawn(lambda: green.await_(task(8))) == 8

        # Cancelled.
        ended = []

        def victim():
            try:
                green.sleep(60)
            finally:
                ended.append(asyncio.current_task())

        cancelled = asyncio.create_task(green.run(victim))
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert ended == [cancelled]

    loop.run_until_complete(main())
    assert not loop._hub.bridges


def test_the_context_of_a_greenlet_is_its_own_when_threads_differ(spawned):
    """What a patched package keeps in `threading.local` is the greenlet's; the real one is the thread's."""
    local = green.patch("threading").local()
    real = threading.local()

    def one(number):
        local.value = real.value = number
        green.sleep(0)
        green.sleep(0)
        return local.value, real.value

    def main():
        made = [green.spawn(one, number) for number in range(3)]
        assert [greenlet.get() for greenlet in made] == [(0, 2), (1, 2), (2, 2)]
        assert not hasattr(local, "value")

    spawned(main)


class Stop(BaseException):
    """What a signal's handler raises."""


@pytest.fixture
def a_signal_that_raises():
    """Returns what sends it without looking for it: the next bytecode that looks does."""

    def handler(number, frame):
        raise Stop

    before = signal.signal(signal.SIGUSR1, handler)
    send = ctypes.CDLL(None)["raise"]
    yield lambda loop: loop.call_soon(send, int(signal.SIGUSR1))
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("used", [False, True], ids=["new greenlet", "used greenlet"])
def test_a_handler_raises_before_a_greenlet_has_begun(loop, unhandled, a_signal_that_raises, used):
    """The exception is that of the greenlet, as if its function had raised it: nobody waits for ever."""

    async def main():
        if used:
            await green.spawn(int)
        pool = green.Pool(1)
        made = []
        async with asyncio.timeout(20):
            made.append(await green.run(pool.spawn, int))
            a_signal_that_raises(loop)
            second = green.spawn(int)
            made.append(second)
            ends = await asyncio.gather(*made, return_exceptions=True)
            assert await green.run(pool.apply, lambda: 7) == 7
            return ends

    try:
        ends = loop.run_until_complete(main())
    except Stop:
        ends = None  # it came while no greenlet ran
    unhandled.take("handler")
    assert ends is None or all(end == 0 or isinstance(end, Stop) for end in ends)
    assert not loop._hub.alive


def test_a_handler_raises_at_any_moment(new_loop, unhandled):
    """Nothing waits for ever, and nothing is left."""

    def handler(number, frame):
        raise Stop

    def spawns():
        for _ in range(2000):
            green.spawn(green.sleep, 0).join()

    async def runs():
        for _ in range(2000):
            await green.run(green.sleep, 0)

    async def main(kind):
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.02))
        try:
            async with asyncio.timeout(60):
                return await (green.spawn(spawns) if kind else runs())
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for number in range(20):
            loop = new_loop()
            with contextlib.suppress(Stop):
                loop.run_until_complete(main(number % 2))
            signal.setitimer(signal.ITIMER_REAL, 0)
            loop.close()
            assert loop._hub is None or not loop._hub.bridges
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    unhandled.take("handler")
