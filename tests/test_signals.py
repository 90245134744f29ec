"""Signals: Ctrl-C while the loop sleeps or works, the loop's and Python's handlers, and floods of signals.

Signals that end a process are tested on child processes (tests/programs). The rest runs here, because pytest
has the main thread.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from support import children, leaks, loops, peers


@pytest.fixture(autouse=True)
def handlers_restored():
    """Closing a loop undoes everything that it did to the process's signals."""
    watched = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
    before = [signal.getsignal(number) for number in watched]
    yield
    after = [signal.getsignal(number) for number in watched]
    wakeup = signal.set_wakeup_fd(-1)
    for number, handler in zip(watched, before, strict=True):
        signal.signal(number, handler)
    assert after == before
    assert wakeup == -1, "the closed loop's wake-up fd is still installed"


def interrupt(name, engine, *args, wait_for="ready"):
    """Send SIGINT to an endless program when it is ready; return its exit code, output and stderr."""
    with children.program(name, *args, engine=engine) as child:
        assert children.line(child) == wait_for
        time.sleep(0.05)  # so that it sleeps, or is in the middle of its work
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=children.PATIENCE)
        return child.returncode, out.split(), err


@pytest.mark.parametrize("what", ["idle", "sleeping", "receiving", "busy", "computing"])
def test_ctrl_c_ends_run_with_its_finally_blocks_done(engine, what):
    code, printed, err = interrupt("interrupted.py", engine, what)
    assert printed == ["cancelled", "finally", "asyncgen"]
    assert code == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize("connected", [False, True])
def test_ctrl_c_ends_the_readme_s_server(engine, connected):
    """In 3.12 and 3.13 a cancelled `serve_forever` waits for its clients: CPython issue 123720."""
    with children.program("serving_forever.py", engine=engine) as child:
        port = int(children.line(child))
        with contextlib.ExitStack() as stack:
            if connected:
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                client.sendall(b"hello")
                assert client.recv(5) == b"hello"
            child.send_signal(signal.SIGINT)
            if connected and sys.version_info[:2] in ((3, 12), (3, 13)):
                with pytest.raises(subprocess.TimeoutExpired):
                    child.communicate(timeout=1)
                child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=children.PATIENCE)
        assert (out.split(), child.returncode) == (["closed"], -signal.SIGINT)
        assert err.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize("what", ["idle", "busy"])
def test_ctrl_c_interrupts_run_forever_which_can_run_again(engine, what):
    code, printed, err = interrupt("interrupted_forever.py", engine, what)
    assert (printed, code, err) == (["interrupted", "again", "closed"], 0, "")


def test_a_second_ctrl_c_interrupts_a_main_that_ignores_the_first(engine):
    with children.program("stubborn.py", engine=engine) as child:
        assert children.line(child) == "ready"
        child.send_signal(signal.SIGINT)
        assert children.line(child) == "ignored"
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=children.PATIENCE)
        assert child.returncode == -signal.SIGINT
        assert err.rstrip().endswith("KeyboardInterrupt")


def kill_later(number):
    """Signal this process from another one once it sleeps: a thread of ours would disturb its sleep."""
    pid = os.getpid()
    asleep = f"until sleep 0.03; grep -q '^State:.S' /proc/{pid}/status; do :; done"
    return subprocess.Popen(["sh", "-c", f"{asleep}; kill -{int(number)} {pid}"])


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


async def test_add_signal_handler(loop):
    called = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, called.set_result, "called")
    with kill_later(signal.SIGUSR1):
        assert await called == "called"
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGUSR1) is False


@pytest.mark.not_on("uvloop", reason="a signal from before the first turn is lost: it hangs")
def test_a_handler_set_before_the_loop_runs(loop):
    seen = []

    def handler():
        seen.append(asyncio.get_running_loop() is loop)
        loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, handler)
    os.kill(os.getpid(), signal.SIGUSR1)  # already before the first turn
    loop.run_forever()
    with kill_later(signal.SIGUSR1):
        loop.run_forever()
    assert seen == [True, True]
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_a_second_handler_replaces_the_first(loop):
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, "first")
    loop.add_signal_handler(signal.SIGUSR1, seen.append, "second")
    os.kill(os.getpid(), signal.SIGUSR1)
    await until(lambda: seen)
    assert seen == ["second"]
    loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.not_on("uvloop", reason="close() leaves its handlers installed")
async def test_several_signals_have_their_own_handlers(loop):
    seen = []
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, seen.append, number)
    for number in numbers:
        os.kill(os.getpid(), number)
    await until(lambda: len(seen) >= 3)
    assert sorted(seen) == sorted(numbers)
    loop.remove_signal_handler(signal.SIGUSR2)  # the rest is removed by close()


async def test_a_handler_that_fails_is_reported(loop, unhandled):
    loop.add_signal_handler(signal.SIGUSR1, lambda: 1 // 0)
    os.kill(os.getpid(), signal.SIGUSR1)
    await until(lambda: unhandled.problems)
    assert isinstance(unhandled.take_one().exception, ZeroDivisionError)
    loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (signal.SIGKILL, RuntimeError),
        (0, ValueError),
        (1000, ValueError),
        (-1, ValueError),
        ("USR1", TypeError),
    ],
)
def test_signals_that_cannot_be_handled(loop, number, error):
    with pytest.raises(error):
        loop.add_signal_handler(number, print)


def test_signal_handlers_belong_to_the_main_thread(loop):
    errors = []

    def thread():
        try:
            loop.add_signal_handler(signal.SIGUSR1, print)
        except (RuntimeError, ValueError) as error:
            errors.append(error)

    with peers.thread(thread):
        pass
    assert len(errors) == 1


@pytest.mark.not_on("uvloop", reason="refuses, and remains open")
@pytest.mark.parametrize("numbers", [(signal.SIGUSR1,), (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)])
def test_the_loop_is_closed_in_another_thread(new_loop, numbers):
    before = {number: signal.getsignal(number) for number in numbers}
    fds = leaks.open_fds()
    loop = new_loop()
    for number in numbers:
        loop.add_signal_handler(number, print, number)
    loop.run_until_complete(asyncio.sleep(0))
    errors = []

    def close():
        try:
            loop.close()
        except ValueError as error:  # only the main thread may restore the previous handlers
            errors.append(error)

    with peers.thread(close):
        pass
    assert loop.is_closed() and len(errors) == 1
    assert not leaks.difference(fds, leaks.open_fds())
    if loops.REFERENCE:
        signal.set_wakeup_fd(-1)  # asyncio leaves the closed one
    for number in numbers:
        signal.raise_signal(number)  # still caught, but no loop handles it
        signal.signal(number, before[number])


def test_a_loop_is_closed_while_another_one_runs(new_loop):
    # The other loop, at its end, must not restore the wake-up fd of the closed one.
    first, second = new_loop(), new_loop()
    first.add_signal_handler(signal.SIGUSR1, print)
    first.run_until_complete(asyncio.sleep(0))

    async def main():
        first.close()

    second.run_until_complete(main())
    assert signal.set_wakeup_fd(-1) == -1


def test_the_wakeup_fd_of_somebody_else_is_closed_meanwhile(loop, proact):
    near, far = socket.socketpair()
    near.setblocking(False)
    signal.set_wakeup_fd(near.fileno())

    async def main():
        near.close()
        far.close()

    loop.run_until_complete(main())
    assert signal.set_wakeup_fd(-1) == -1


def test_removing_a_handler_in_another_thread_changes_nothing(loop, proact):
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)

    def remove():
        with pytest.raises(ValueError, match="main thread"):
            loop.remove_signal_handler(signal.SIGUSR1)

    with peers.thread(remove):
        pass
    signal.raise_signal(signal.SIGUSR1)
    loop.run_until_complete(until(lambda: seen))
    assert loop.remove_signal_handler(signal.SIGUSR1) is True


@pytest.mark.not_on("uvloop", reason="sets a handler for a coroutine function without a word")
def test_a_coroutine_function_is_no_signal_handler(loop):
    async def handler():
        pass

    with pytest.raises(TypeError, match="coroutines cannot be used"):
        loop.add_signal_handler(signal.SIGUSR1, handler)


def test_a_handler_of_python_s_own_runs_while_the_loop_sleeps(loop):
    seen = []

    def handler(number, _frame):
        seen.append(number)
        loop.call_soon_threadsafe(loop.stop)

    signal.signal(signal.SIGUSR1, handler)
    try:
        with kill_later(signal.SIGUSR1):
            loop.run_forever()  # no timer and no I/O: nothing else can wake it
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    assert seen == [signal.SIGUSR1]


@pytest.mark.not_on("uvloop", reason="an exception of a Python signal handler is lost: it hangs")
def test_an_exception_of_such_a_handler_leaves_the_loop_usable(loop):
    class Alarm(Exception):
        pass

    def handler(*_):
        raise Alarm

    signal.signal(signal.SIGUSR1, handler)
    try:
        with kill_later(signal.SIGUSR1):
            with pytest.raises(Alarm):
                loop.run_forever()
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    assert not loop.is_running()
    assert loop.run_until_complete(asyncio.sleep(0, "alive")) == "alive"


def test_the_wait_goes_on_after_a_signal_that_is_nobody_s_business(loop):
    # The waiting system call is interrupted (EINTR); its timeout must neither fail nor start over for
    # ever.
    signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        # Signals for far longer than the wait: a wait that started over with each signal would outlast them
        # all.
        with subprocess.Popen(["sh", "-c", f"while kill -USR1 {os.getpid()}; do sleep 0.02; done"]) as killer:
            start = time.monotonic()
            loop.run_until_complete(asyncio.sleep(0.1))
            elapsed = time.monotonic() - start
            killer.kill()
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    assert 0.099 <= elapsed < 5


# asyncio prints a traceback for each signal that finds its wake-up fd full (278 fit): 20,000 of them say
# nothing more.
FLOOD = 200 if loops.REFERENCE else 20_000


@pytest.mark.not_on("uvloop", reason="changes the handling of SIGINT for good")
def test_a_flood_of_signals_neither_blocks_nor_loses_the_last(loop):
    # Far more than the wake-up fd's buffer holds, all before the loop comes round: signals may coalesce, as
    # they do in the kernel, but the loop stays alive, and what comes afterwards is seen.
    count = 0

    def handler():
        nonlocal count
        count += 1

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, handler)
        for _ in range(FLOOD):
            os.kill(os.getpid(), signal.SIGUSR1)
        flooded = None
        while flooded != count or not count:  # until no more signals come
            flooded = count
            await loops.turns(20)
        assert flooded <= FLOOD
        os.kill(os.getpid(), signal.SIGUSR1)
        await until(lambda: count > flooded)
        assert count == flooded + 1

    loop.run_until_complete(main())
    loop.remove_signal_handler(signal.SIGUSR1)


def test_signals_while_data_flows(loop):
    # Signals interrupt system calls; no transfer may fail or lose a byte for it.
    data = peers.payload(32 << 20)
    seen = []

    async def main(near, far):
        async def receive():
            received = bytearray()
            while len(received) < len(data):
                received += await loop.sock_recv(far, 50_000)
            return received

        received, _ = await asyncio.gather(receive(), loop.sock_sendall(near, data))
        assert received == data

    signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    main_thread = threading.get_ident()
    stop = threading.Event()

    def flood():
        while not stop.wait(0.0002):
            signal.pthread_kill(main_thread, signal.SIGUSR1)

    try:
        with peers.tcp_pair(buffer=32768) as (near, far), peers.thread(flood):
            try:
                loop.run_until_complete(main(near, far))
            finally:
                stop.set()
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    assert seen, "no signal arrived: nothing was tested"


def test_the_loop_of_another_thread_leaves_signals_alone(new_loop):
    before = signal.set_wakeup_fd(-1)
    assert before == -1

    def run():
        loop = new_loop()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()

    with peers.thread(run):
        pass
    assert signal.set_wakeup_fd(-1) == -1
