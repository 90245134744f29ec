"""Waits that spin before they sleep: `spin=`, what ends a spin, when the loop stops, and its counters."""

import asyncio
import math
import os
import signal
import socket
import sys
import threading
import time

import pytest

LONG = 0.01
"""The longest spin: longer than what the tests wait for."""


@pytest.fixture
def spinning(proact, engine, new_loop):
    """Makes a loop of this engine that spins for so many seconds."""
    loops = []

    def make(seconds):
        loops.append(proact.new_event_loop(engine, spin=seconds))
        return loops[-1]

    yield make
    for loop in loops:
        loop.close()


def spins(loop):
    return loop.stats()["spin"]


def echoes(peer, count):
    """In another thread: sends back what comes, without Python's lock while it waits."""

    def serve():
        for _ in range(count):
            peer.sendall(peer.recv(100))

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def at_last(attempt):
    """Try again until an attempt succeeds: other programs may take the core at any time."""
    ends = time.monotonic() + 60
    while not attempt():
        assert time.monotonic() < ends


async def ping(ours, count):
    loop = asyncio.get_running_loop()
    for number in range(count):
        await loop.sock_sendall(ours, str(number).encode())
        assert await loop.sock_recv(ours, 100) == str(number).encode()


# What is accepted.


@pytest.mark.parametrize("value", [-1e-9, -1, 0.0100001, 50, math.nan, math.inf, -math.inf, True])
def test_seconds_out_of_range(proact, engine, value):
    with pytest.raises(ValueError, match=r"spin: seconds from 0 to 0\.01"):
        proact.new_event_loop(engine, spin=value)


@pytest.mark.parametrize("value", ["50e-6", None, b"", [1]])
def test_no_number(proact, engine, value):
    with pytest.raises(TypeError):
        proact.new_event_loop(engine, spin=value)


def test_every_way_to_ask_for_it(proact, engine):
    async def limit():
        return spins(asyncio.get_running_loop())["limit"]

    assert proact.run(limit(), engine=engine, spin=50e-6) == 50e-6
    assert proact.run(limit(), engine=engine) == 0
    with asyncio.Runner(loop_factory=lambda: proact.EventLoop(engine, spin=1e-3)) as runner:
        assert runner.run(limit()) == 1e-3

    found = []
    stop = threading.Event()

    async def serve(sock):
        found.append(await limit())
        stop.set()
        return await asyncio.get_running_loop().create_server(asyncio.Protocol, sock=sock)

    proact.serve_threads(serve, workers=1, engine=engine, spin=2e-3, stop=stop)
    assert found == [2e-3]


def test_a_bad_value_does_not_run_the_coroutine(proact, engine):
    async def main():
        raise AssertionError

    coroutine = main()
    with pytest.raises(ValueError, match="spin"):
        proact.run(coroutine, engine=engine, spin=-1)
    coroutine.close()


def test_a_subclass_may_choose_it(proact, engine):
    class Mine(proact.EventLoop):
        def __init__(self, *args):
            super().__init__(*args, spin=1e-3)

    loop = Mine(engine)
    assert spins(loop)["limit"] == 1e-3
    loop.close()
    assert spins(loop)["limit"] == 1e-3


async def test_it_is_off_by_default(proact, loop):
    await asyncio.sleep(0.001)
    assert spins(loop) == {"limit": 0, "spins": 0, "paid": 0, "skipped": 0, "seconds": 0}


# What ends a spin. A loop that loses its core sleeps from then on, so each try is short and has a new loop.


def test_a_timer_that_is_due_soon(spinning):
    @at_last
    def attempt():
        loop = spinning(LONG)
        before = loop.stats()["wait_seconds"]
        began = time.monotonic()
        loop.run_until_complete(asyncio.sleep(0.002))
        assert time.monotonic() - began >= 0.002
        found = spins(loop)
        return found["paid"] == found["spins"] == 1 and loop.stats()["wait_seconds"] == before


def test_an_answer_that_comes_soon(spinning):
    # The other thread needs Python's lock for every answer: a spin that kept it would end in vain.
    @at_last
    def attempt():
        loop = spinning(LONG)
        ours, peer = socket.socketpair()
        with ours, peer:
            ours.setblocking(False)
            thread = echoes(peer, 3)
            loop.run_until_complete(ping(ours, 3))
            thread.join()
        return spins(loop)["paid"] >= 3


def test_a_callback_of_another_thread(spinning):
    @at_last
    def attempt():
        loop = spinning(LONG)

        async def woken():
            future = loop.create_future()
            threading.Timer(0.001, loop.call_soon_threadsafe, (future.set_result, None)).start()
            await future

        loop.run_until_complete(woken())
        return spins(loop)["paid"] >= 1


def test_no_callback_of_another_thread_is_lost(spinning):
    loop = spinning(30e-6)
    count = 2000
    left = threading.Semaphore(0)

    async def main():
        done = loop.create_future()

        def call():
            for _ in range(count):
                loop.call_soon_threadsafe(left.release)
                left.acquire()
            loop.call_soon_threadsafe(done.set_result, None)

        thread = threading.Thread(target=call)
        thread.start()
        await done
        thread.join()

    loop.run_until_complete(main())


def test_a_signal(spinning):
    loop = spinning(LONG)
    got = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, got.set_result, None)
    threading.Timer(0.001, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    loop.run_until_complete(got)
    loop.remove_signal_handler(signal.SIGUSR1)


# When the loop stops spinning.


def test_it_backs_off_when_spins_do_not_pay(spinning):
    loop = spinning(50e-6)

    async def main():
        for _ in range(80):
            await asyncio.sleep(0.001)

    loop.run_until_complete(main())
    found = spins(loop)
    # Nine spins until the first pause; then pauses of 16 and of 32 waits, with a spin on trial between them.
    # A timer that is due within the spin counts as paid, and a core that is lost begins a long pause.
    assert found["spins"] <= 30
    assert found["skipped"] >= 40
    assert found["spins"] + found["skipped"] >= 80
    assert found["seconds"] < 0.02


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="threads do not wait for each other without the GIL",
)
def test_it_stops_while_another_thread_holds_the_lock(spinning):
    loop = spinning(LONG)
    stop = False

    def work():
        while not stop:
            sum(range(100))

    async def main():
        for _ in range(40):
            await asyncio.sleep(0.001)

    thread = threading.Thread(target=work)
    thread.start()
    loop.run_until_complete(main())
    stop = True
    thread.join()
    assert spins(loop)["spins"] <= 10
    assert spins(loop)["skipped"] >= 30


def test_it_begins_again_when_they_pay(spinning):
    @at_last
    def attempt():
        loop = spinning(500e-6)
        for _ in range(12):
            loop.run_until_complete(asyncio.sleep(0.002))
        before = spins(loop)
        # Timers within the limit: all waits pay. There are as many as the longest pause of so many failures.
        for _ in range(120):
            loop.run_until_complete(asyncio.sleep(100e-6))
        return before["skipped"] > 0 and spins(loop)["paid"] - before["paid"] >= 16


def test_a_spin_on_the_ring_makes_no_system_call(spinning):
    @at_last
    def attempt():
        loop = spinning(LONG)
        loop.run_until_complete(asyncio.sleep(0))
        before = loop.stats()["syscalls"]
        loop.run_until_complete(asyncio.sleep(0.005))
        made = loop.stats()["syscalls"] - before
        looked_often = spins(loop)["seconds"] >= 0.004
        if loop.engine == "io_uring" and not any("taskrun" in line for line in loop.stats()["fallbacks"]):
            return looked_often and made < 20
        return looked_often and made > 20
