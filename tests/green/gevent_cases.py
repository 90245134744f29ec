"""Programs for tests/green/test_gevent.py: `python gevent_cases.py NAME` runs one, on GEVENT_LOOP's loop.

Each is a function that raises if something is wrong. A process runs one, because gevent has one hub a thread.
"""

import asyncio
import gc
import os
import signal
import socket as plain_socket
import sys
import threading
import time
import traceback


def deep(depth, call):
    """Call from far down the C stack, so that switching copies much of it."""
    return max(range(1), key=lambda _: deep(depth - 1, call) if depth else call())


def message_of(kind, call, *args):
    """The text of the error that a call raises."""
    try:
        call(*args)
    except kind as error:
        return str(error)
    raise AssertionError(f"{call} raised no {kind}")


def switches_in_every_kind():
    import gevent
    import greenlet

    hub = gevent.get_hub()
    loop = hub.loop
    ran = []

    def companion():
        while True:
            name = greenlet.getcurrent().parent.switch()
            ran.append(name)
            gc.collect(0)

    others = {}

    def switch(name):
        # There and back, twice, from within the callback, on stacks of different depth.
        other = others.get(name)
        if other is None:
            other = others[name] = greenlet.greenlet(companion)
            other.switch()
        deep(5, lambda: other.switch(name))
        other.switch(name)

    here, there = plain_socket.socketpair()
    there.send(b"x")
    watchers = {
        "io": loop.io(here.fileno(), 1),
        "io_events": loop.io(here.fileno(), 1),
        "timer": loop.timer(0.001),
        "timer_again": loop.timer(0.0, 0.001),
        "async": loop.async_(),
        "idle": loop.idle(),
        "prepare": loop.prepare(),
        "check": loop.check(),
        "signal": loop.signal(signal.SIGUSR1),
    }
    pid = os.posix_spawn("/bin/true", ["true"], os.environ)
    watchers["child"] = loop.child(pid)
    path = f"/tmp/gevent-case-{os.getpid()}"
    watchers["stat"] = loop.stat(path, 0.1)

    def called(name, *args):
        switch(name)
        if name != "timer_again" or ran.count(name) >= 6:
            watchers[name].stop()

    for name, watcher in watchers.items():
        if name == "timer_again":
            watcher.again(called, name)
        elif name == "io_events":
            watcher.start(lambda events: called("io_events", events), pass_events=True)
        else:
            watcher.start(called, name)
    loop.run_callback(switch, "callback")
    threading.Thread(target=loop.run_callback_threadsafe, args=(switch, "threadsafe")).start()
    threading.Thread(target=watchers["async"].send).start()
    os.kill(os.getpid(), signal.SIGUSR1)
    open(path, "w").close()
    loop.aio.call_soon(switch, "asyncio")
    loop.aio.call_later(0.001, switch, "asyncio timer")

    async def task():
        switch("task")
        await asyncio.sleep(0.001)
        switch("task")

    kept = loop.aio.create_task(task())
    assert gevent.wait(timeout=20)
    os.unlink(path)
    expected = {*watchers, "callback", "threadsafe", "asyncio", "asyncio timer", "task"}
    assert {name for name in ran if ran.count(name) >= 2} == expected, (expected ^ set(ran), ran)
    assert kept.done() and not kept.exception()
    assert not any(watcher.active for watcher in watchers.values())


def each_thread_has_its_own():
    import gevent

    loops = []

    def run():
        loops.append(gevent.get_hub().loop)
        gevent.joinall([gevent.spawn(gevent.sleep, 0.01) for _ in range(3)])
        gevent.get_hub().destroy()

    mine = gevent.get_hub().loop
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        gevent.sleep(0.01)
    assert len({id(loop) for loop in [*loops, mine]}) == 5
    # A hub whose thread ends without destroying it harms nobody.
    thread = threading.Thread(target=lambda: gevent.sleep(0.001))
    thread.start()
    thread.join()
    gc.collect()
    gevent.sleep(0.001)


def other_threads_wake_it():
    import gevent

    loop = gevent.get_hub().loop
    times = []
    forever = loop.async_()
    forever.start(lambda: times.append(time.monotonic()))

    def send():
        for _ in range(5):
            time.sleep(0.02)
            loop.run_callback_threadsafe(times.append, time.monotonic())
            time.sleep(0.02)
            forever.send()
        loop.run_callback_threadsafe(forever.close)

    thread = threading.Thread(target=send)
    thread.start()
    assert gevent.wait(timeout=10)
    thread.join()
    assert len(times) == 10, times


def a_forked_child_begins_anew():
    import gevent
    from gevent import socket

    hub = gevent.get_hub()
    here, there = socket.socketpair()
    told = []
    watcher = hub.loop.fork(ref=False)
    watcher.start(told.append, "forked")
    reader = gevent.spawn(here.recv, 10)
    gevent.sleep(0.001)
    parents = hub.loop.aio
    go_on, say_so = os.pipe()
    pid = gevent.os.fork()
    if pid == 0:
        code = 1
        try:
            gevent.sleep(0.01)
            # The parent's greenlet reads from the same socket, until it is killed.
            assert os.read(go_on, 1) == b"x"
            there.send(b"child")
            # The greenlet that waits in the child is woken there.
            assert reader.get(timeout=5) == b"child"
            assert hub.loop.aio is not parents
            assert told == ["forked"]

            async def task():
                await asyncio.sleep(0.001)

            kept = hub.loop.aio.create_task(task())
            gevent.sleep(0.05)
            assert kept.done()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    reader.kill()
    os.write(say_so, b"x")
    _, status = gevent.os.waitpid(pid, 0)
    assert status == 0, status
    assert hub.loop.aio is parents and told == []
    # The child took the bytes, and the parent's loop still works.
    there.send(b"parent")
    assert here.recv(10) == b"parent"


def a_message_costs_no_poll():
    import gevent
    from gevent import socket

    hub = gevent.get_hub()
    here, there = socket.socketpair()

    def echo():
        while data := there.recv(100):
            there.sendall(data)

    gevent.spawn(echo)

    def exchange(count):
        for _ in range(count):
            here.sendall(b"x")
            assert here.recv(100) == b"x"

    exchange(10)
    before = dict(hub.loop.aio.stats()["submitted"])
    calls = hub.loop.aio.stats()["syscalls"]
    exchange(500)
    after = hub.loop.aio.stats()
    assert after["submitted"] == before, (before, after["submitted"])
    # In each of the two directions: a send, a receive that finds nothing, the turn's own call, a receive.
    assert after["syscalls"] - calls <= 8.2 * 500, after["syscalls"] - calls


def a_reused_number_is_another_file():
    import gevent
    from gevent import socket

    loop = gevent.get_hub().loop
    for _ in range(50):
        here, there = socket.socketpair()
        reader = gevent.spawn(here.recv, 10)
        gevent.sleep(0)
        number = here.fileno()
        here.close()
        again, other = socket.socketpair()
        reader.join(timeout=5)
        assert isinstance(reader.exception, OSError), reader
        gevent.sleep(0)
        ends = [again, other, *socket.socketpair()]
        for end in ends:
            if end.fileno() == number:
                peer = ends[ends.index(end) ^ 1]
                waiting = gevent.spawn(end.recv, 10)
                gevent.sleep(0)
                peer.send(b"x")
                assert waiting.get(timeout=5) == b"x"
        for end in (there, *ends):
            end.close()
    assert loop.activecnt >= 0

    # Without a word to the loop: libev would notice because a new watcher is started.
    for _ in range(20):
        first, second = plain_socket.socketpair()
        watcher = loop.io(first.fileno(), 1)
        watcher.start(lambda: None)
        gevent.sleep(0.001)
        number = first.fileno()
        watcher.stop()
        first.close()
        second.close()
        first, second = plain_socket.socketpair()
        assert first.fileno() == number
        got = gevent.event.Event()
        watcher = loop.io(number, 1)
        watcher.start(got.set)
        second.send(b"x")
        assert got.wait(timeout=5)
        watcher.close()
        first.close()
        second.close()


def the_peer_sees_a_close_at_once():
    import gevent
    from gevent import socket

    for _ in range(20):
        here, there = socket.socketpair()
        reader = gevent.spawn(here.recv, 10)
        gevent.sleep(0.001)
        reader.kill()
        here.close()
        # The thread does not return to the loop here.
        plain = plain_socket.socket(fileno=os.dup(there.fileno()))
        plain.settimeout(5)
        assert plain.recv(10) == b""
        plain.close()
        there.close()


def several_watchers_share_an_fd():
    import gevent

    loop = gevent.get_hub().loop
    here, there = plain_socket.socketpair()
    calls = []
    watchers = [loop.io(here.fileno(), events) for events in (1, 1, 2, 3)]
    for index, watcher in enumerate(watchers):
        watcher.start(lambda events, index=index: calls.append((index, events)), pass_events=True)
    gevent.sleep(0)
    loop.run(once=True)
    assert {(2, 2), (3, 2)} <= set(calls) and not {(0, 1), (1, 1)} & set(calls), calls
    there.send(b"x")
    calls.clear()
    loop.run(once=True)
    loop.run(once=True)
    assert {(0, 1), (1, 1), (2, 2)} <= set(calls), calls
    assert {(3, 1), (3, 3)} & set(calls)
    watchers[0].stop()
    calls.clear()
    loop.run(once=True)
    assert (1, 1) in calls and 0 not in dict(calls)
    for watcher in watchers:
        watcher.close()
    assert loop.activecnt == 0


def priorities_and_references():
    import gevent

    loop = gevent.config.loop(default=False)
    order = []
    for priority in (0, -2, 2, 1):
        watcher = loop.timer(0.0, priority=priority)
        watcher.start(order.append, priority)
    loop.run()
    assert order == [2, 1, 0, -2], order

    def tick():
        order.append("tick")
        if order.count("tick") >= 5:
            endless.stop()

    endless = loop.timer(0.0, 0.001, ref=False)
    endless.start(tick)
    # It returns, because the timer does not count.
    loop.run()
    assert endless.active
    endless.ref = True
    loop.run()
    assert order.count("tick") == 5 and not endless.active
    message_of(TypeError, endless.start, None)

    # Functions that schedule each other don't keep timers from running.
    again = []

    def more():
        if not again:
            loop.run_callback(more)

    loop.run_callback(more)
    loop.timer(0.02).start(again.append, 1)
    loop.run()
    assert again == [1]
    assert loop.destroy() is True and loop.destroy() is None
    for refused in (lambda: loop.run_callback(print), lambda: loop.timer(1), loop.run):
        message_of(ValueError, refused)


def kills_and_timeouts_leave_nothing():
    import random

    import gevent
    import gevent.select
    from gevent import socket
    from gevent.event import Event
    from gevent.lock import Semaphore

    loop = gevent.get_hub().loop
    choose = random.Random(1)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    pairs = [socket.socketpair() for _ in range(20)]
    lock, event = Semaphore(0), Event()
    full = socket.socketpair()
    full[0].setblocking(False)
    while True:
        try:
            full[0].send(b"x" * 65536)
        except BlockingIOError:
            break
    full[0].setblocking(True)
    waits = [
        lambda number: pairs[number][0].recv(10),
        lambda number: pairs[number][1].recv_into(bytearray(5)),
        lambda number: listener.accept() if number == 0 else gevent.sleep(100),
        lambda number: full[0].send(b"x") if number == 0 else lock.acquire(),
        lambda number: event.wait(100),
        lambda number: gevent.select.select([pairs[number][0]], [], [], 100),
    ]
    ended = []

    def wait(what, number):
        try:
            with gevent.Timeout(choose.choice([0.0, 0.001, 0.01, 50]), False):
                waits[what](number)
        finally:
            ended.append(number)

    for _ in range(60):
        greenlets = [gevent.spawn(wait, what, number) for what in range(len(waits)) for number in range(20)]
        gevent.sleep(choose.choice([0, 0, 0.002]))
        choose.shuffle(greenlets)
        for greenlet in greenlets:
            greenlet.kill(block=choose.random() < 0.1)
        gevent.joinall(greenlets, timeout=20, raise_error=True)
        assert all(greenlet.dead for greenlet in greenlets)
    # What arrives after a kill is there for the next.
    for here, there in pairs:
        there.send(b"kept")
        assert here.recv(10) == b"kept"
    for end in (listener, *full, *(end for pair in pairs for end in pair)):
        end.close()
    gevent.sleep(0.001)
    assert (loop.activecnt, loop.pendingcnt) == (0, 0)
    loop.run(nowait=True)
    assert loop.aio.stats()["in_flight"] == 0, loop.aio.stats()
    assert gevent.wait(timeout=5) is True


def signals_stay_the_programs():
    import gevent
    from gevent import subprocess

    user = []
    signal.signal(signal.SIGCHLD, lambda *args: user.append(args[0]))
    before = signal.getsignal(signal.SIGUSR1)
    assert subprocess.check_output(["echo", "hello"]) == b"hello\n"
    gevent.sleep(0.01)
    assert user, "the program's own handler of SIGCHLD was not called"
    handler = signal.getsignal(signal.SIGCHLD)
    assert handler.__name__ == "<lambda>"

    caught = []
    watcher = gevent.signal_handler(signal.SIGUSR1, caught.append, 1)
    assert signal.getsignal(signal.SIGUSR1) is before
    os.kill(os.getpid(), signal.SIGUSR1)
    gevent.sleep(0.05)
    assert caught == [1]
    watcher.cancel()
    # Python's own handler works again afterwards.
    signal.signal(signal.SIGUSR1, lambda *_: caught.append("python"))
    watcher = gevent.signal_handler(signal.SIGUSR1, caught.append, 2)
    os.kill(os.getpid(), signal.SIGUSR1)
    gevent.sleep(0.05)
    watcher.cancel()
    os.kill(os.getpid(), signal.SIGUSR1)
    gevent.sleep(0.01)
    assert caught == [1, 2, "python"], caught


def children_are_collected_once():
    import gevent
    from gevent import subprocess

    pid = gevent.os.fork_and_watch()
    if pid == 0:
        os._exit(7)
    assert gevent.os.waitpid(-1, 0) == (pid, 7 << 8)
    children = [subprocess.Popen(["sh", "-c", f"exit {number}"]) for number in range(10)]
    assert [child.wait(timeout=10) for child in children] == list(range(10))
    # Somebody else collects the status first.
    loop = gevent.get_hub().loop
    pid = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitpid(pid, 0)
    watcher, ended = loop.child(pid), gevent.event.Event()
    watcher.start(ended.set)
    assert ended.wait(timeout=5)
    watcher.close()
    assert len(os.listdir("/proc/self/fd")) < 30


def errors_reach_the_hub():
    import gevent

    hub = gevent.get_hub()
    told = []
    hub.handle_error = lambda context, kind, value, tb: told.append((context, kind))
    watcher = hub.loop.timer(0.0)
    watcher.start(lambda: 1 / 0)
    callback = hub.loop.run_callback(lambda: [][0])
    here, there = plain_socket.socketpair()
    there.send(b"x")
    io = hub.loop.io(here.fileno(), 1)
    io.start(lambda: {}[0])
    gevent.sleep(0.01)
    assert (watcher, ZeroDivisionError) in told and (callback, IndexError) in told
    # The failing callback of an fd that stays ready is not called again and again.
    assert [kind for _, kind in told].count(KeyError) == 1 and not io.active
    del hub.handle_error

    hub.exception_stream = None
    hub.loop.run_callback(os.kill, os.getpid(), signal.SIGINT)
    message_of(KeyboardInterrupt, gevent.sleep, 5)
    # Life goes on.
    gevent.sleep(0.001)

    def leave():
        raise SystemExit(3)

    hub.loop.aio.call_soon(leave)
    assert message_of(SystemExit, gevent.sleep, 5) == "3"
    gevent.sleep(0.001)


def use_comes_before_the_hub():
    from proact.green import gevent_loop

    gevent_loop.use()
    import gevent

    assert isinstance(gevent.get_hub().loop, gevent_loop.Loop)
    gevent.sleep(0.001)
    gevent_loop.use()


def use_after_the_hub_is_refused():
    import gevent

    gevent.config.loop = "libev-cext"
    gevent.sleep(0)
    from proact.green import gevent_loop

    assert "before" in message_of(RuntimeError, gevent_loop.use)


def without_gevent():
    sys.modules["gevent"] = None  # type: ignore[assignment]
    import importlib

    import proact  # needs neither

    assert proact.__version__
    message = message_of(ImportError, importlib.import_module, "proact.green.gevent_loop")
    assert "pip install gevent" in message


def files_and_select_engines():
    import gevent

    loop = gevent.get_hub().loop
    # libev calls a regular file ready, whatever its backend says.
    with open(__file__) as file:
        watcher, ready = loop.io(file.fileno(), 1), gevent.event.Event()
        watcher.start(ready.set)
        assert ready.wait(timeout=5)
        watcher.close()
    for wrong, error in ((-1, ValueError), (999, OSError)):
        message_of(error, loop.io, wrong, 1)


def patching_after_the_loop_was_chosen():
    """gunicorn's worker does so. gevent warns of a class that it can't patch any more, for good reason."""
    import warnings

    import gevent

    gevent.get_hub()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from gevent import monkey

        monkey.patch_all()
    import ssl

    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("done")
