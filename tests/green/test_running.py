"""Programs of greenlets: run_main, deadlocks, stacks, the watchdog, and asyncio.run in greenlets."""

import asyncio
import gc
import io
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest
from support import loops

green = pytest.importorskip("proact.green")

#: Threads of other tests' pools are there still; the child uses none of them.
FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def test_run_main(engine, proact):
    def main(a, b=0):
        green.spawn(green.sleep, 60)
        green.sleep(0.001)
        return a + b

    assert green.run_main(main, 1, b=2, engine=engine) == 3
    with pytest.raises(ZeroDivisionError):
        green.run_main(lambda: 1 // 0, engine=engine)


async def test_run_main_is_no_part_of_another_loop(loop):
    with pytest.raises(RuntimeError, match=r"green\.spawn"):
        green.run_main(print)
    with pytest.raises(RuntimeError, match=r"green\.spawn"):
        await green.spawn(green.run_main, print)


def test_sigint_is_raised_in_main(engine, proact):
    seen = []

    def main():
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            green.sleep(60)
        except KeyboardInterrupt:
            green.sleep(0.001)
            seen.append("unwound")
            raise

    with pytest.raises(KeyboardInterrupt):
        green.run_main(main, engine=engine)
    assert seen == ["unwound"]


# Deadlocks are claimed only if no other thread is there, so these run in processes of their own.


def child(code, *args):
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60, env=os.environ
    )


def test_a_deadlock_raises(engine, proact):
    code = """
import sys
from proact import green
def hold(mine, other):
    with mine:
        green.sleep(0.001)
        with other:
            pass
def main():
    a, b = green.Lock(), green.Lock()
    both = [green.spawn(hold, a, b), green.spawn(hold, b, a)]
    try:
        for g in both: g.join()
    except green.Deadlock as error:
        print(error)
        both[0].kill()
        both[1].join()
        print("solved")
green.run_main(main, engine=sys.argv[1])
"""
    done = child(code, engine)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("solved")
    assert done.stdout.count("waits in Lock.") == 2
    assert "held by <Greenlet hold" in done.stdout
    assert "in hold" in done.stdout


def test_a_deadlock_under_asyncio(engine, proact):
    code = """
import sys, proact
from proact import green
async def main():
    await green.spawn(green.Queue().get)
try:
    proact.run(main(), engine=sys.argv[1])
except green.Deadlock as error:
    print(error)
"""
    done = child(code, engine)
    assert done.returncode == 0, done.stderr
    assert "Queue.get of <Queue 0 items, 1 getting" in done.stdout


def test_no_deadlock_while_a_thread_can_wake(inside):
    def main():
        event = green.Event()

        def wake():
            time.sleep(0.05)
            event.set()

        thread = threading.Thread(target=wake)
        thread.start()
        assert event.wait()
        thread.join()

    inside(main)


def test_stacks(inside):
    def inner(event):
        event.wait()

    def main():
        event = green.Event()
        g = green.spawn(inner, event)
        unborn = None
        green.sleep(0)
        unborn = green.spawn(inner, event)
        text = io.StringIO()
        green.stacks(text)
        assert "inner started" in text.getvalue()
        assert "waits in Event.wait of <Event unset, 1 waiting" in text.getvalue()
        assert "event.wait()" in text.getvalue()
        assert "has not begun" in text.getvalue()
        event.set()
        g.join()
        unborn.join()

    inside(main)


@pytest.mark.parametrize("model", ["spawned", "run"])
def test_stacks_of_native_calls(spawned, loop, model):
    """A greenlet that waits in a native call has no frame of proact's that tells for what."""

    def main():
        here, there = green.socketpair()
        plenty = b"x" * (1 << 22)

        def receives():
            return here.recv(10)

        def sends():
            here.sendall(plenty)

        def begin(fn):
            return green.spawn(fn) if model == "spawned" else loop.create_task(green.run(fn))

        begun = [begin(receives), begin(sends)]
        for _ in range(100):
            green.sleep(0)
            if loops.in_flight(loop) >= 2:
                break
        text = io.StringIO()
        green.stacks(text)
        told = text.getvalue()
        assert f"waits to receive from <socket.socket fd={here.fileno()}, family=" in told, told
        assert "return here.recv(10)" in told
        assert f"waits to send to <proact.green.sockets.socket fd={here.fileno()}" in told, told
        there.sendall(b"enough")
        while plenty:
            plenty = plenty[len(there.recv(1 << 20)) :]
        for one in begun:
            green.await_(one)
        here.close()
        there.close()

    spawned(main)


def test_the_watchdog_names_who_blocks(inside):
    told = []

    def block():
        end = time.monotonic() + 20
        while not told and time.monotonic() < end:
            pass

    def main():
        dog = green.watch(0.02, lambda greenlet, stack: told.append((greenlet, stack)))
        g = green.spawn(block)
        g.join()
        dog.stop()
        assert told[0][0] is g
        assert "in block" in told[0][1]

    inside(main)


def test_the_watchdog_logs(spawned, caplog):
    def main():
        green.watch(0.02)
        end = time.monotonic() + 20
        while not caplog.records and time.monotonic() < end:
            pass

    spawned(main)
    assert "has not yielded for 20 ms" in caplog.text


def test_asyncio_run_parks_the_greenlet(inside):
    async def inner(n):
        for _ in range(3):
            await asyncio.sleep(0.001)
        return n, id(asyncio.get_running_loop())

    def main():
        beside = []
        ticker = green.spawn(lambda: [(green.sleep(0), beside.append(1)) for _ in range(10)])
        both = [green.spawn(asyncio.run, inner(n)) for n in range(2)]
        first, mine = asyncio.run(inner(2))
        assert first == 2
        # They all ran on the loop that runs already.
        assert [g.get() for g in both] == [(0, mine), (1, mine)]
        assert beside
        ticker.join()
        with asyncio.Runner() as runner:
            assert runner.run(inner(3))[0] == 3
            assert runner.run(inner(4))[0] == 4
        with pytest.raises(ValueError):
            asyncio.run(None)

    inside(main)


def test_asyncio_run_elsewhere_is_as_before(loop):
    async def main():
        with pytest.raises(RuntimeError, match="running event loop"):
            asyncio.run(asyncio.sleep(0))

    with pytest.warns(RuntimeWarning):
        loop.run_until_complete(main())

    async def there():
        return asyncio.get_running_loop()

    assert asyncio.run(there()) is not loop
    assert loops.identify(loop)


@FORKS
def test_fork_gets_a_fresh_hub(spawned):
    def main():
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                asyncio._set_running_loop(None)
                thread = threading.Thread(
                    target=lambda: results.append(green.run_main(lambda: green.sleep(0.001) or 5))
                )
                results = []
                thread.start()
                thread.join()
                code = 0 if results == [5] else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    spawned(main)


@FORKS
def test_a_forked_child_may_begin_anew_within_a_greenlet(spawned):
    def main():
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if green.run_main(lambda: green.spawn(abs, -5).get(), watchdog=None) == 5 else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    spawned(main)


def test_a_loop_that_another_thread_closes_reports_its_greenlets(new_loop, unhandled):
    loop = new_loop()

    async def main():
        green.spawn(green.sleep, 60)
        await loops.turns()

    loop.run_until_complete(main())
    thread = threading.Thread(target=loop.close)
    thread.start()
    thread.join()
    assert "did not end" in unhandled.take_one().message


def test_each_thread_has_a_hub(proact):
    def program(n):
        results.append(
            green.run_main(lambda: (green.sleep(0.001), green.spawn(abs, -n).get())[1], watchdog=None)
        )

    results = []
    threads = [threading.Thread(target=program, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 1, 2, 3]


def test_importing_proact_imports_no_greenlet():
    done = child("import sys, proact; assert 'greenlet' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_without_the_package_the_error_names_it():
    code = """
import sys
sys.modules["greenlet"] = None
try:
    import proact.green
except ImportError as error:
    print(error)
"""
    assert "pip install proact[green]" in child(code).stdout


def test_settrace_sees_greenlets(spawned):
    seen = set()

    def trace(frame, event, arg):
        seen.add((frame.f_code.co_name, event))
        return trace

    def traced():
        green.sleep(0)

    def main():
        green.spawn(abs, -1).join()  # its greenlet is used again
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            green.spawn(traced).join()
            green.spawn(traced).join()
        finally:
            sys.settrace(before)

    spawned(main)
    assert ("traced", "call") in seen
    assert ("traced", "return") in seen


def test_a_closed_loop_that_had_greenlets_is_collected(engine):
    loop = loops.new_event_loop(engine)

    async def main():
        assert await green.spawn(lambda: green.sleep(0) or 1) == 1
        assert await green.run(lambda: green.sleep(0) or 2) == 2

    loop.run_until_complete(main())
    loop.close()
    gone = weakref.ref(loop)
    del loop, main
    gc.collect()
    assert gone() is None
