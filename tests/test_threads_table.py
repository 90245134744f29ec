"""The table of docs/guide/threads.md: each call, from eight threads at once, on a loop under load.

A call either always works, or is always refused with RuntimeError and changes nothing. Whatever it is, the
loop goes on: no callback is lost or run twice, no byte is lost, and nothing is reported.
"""

import asyncio
import concurrent.futures
import contextlib
import fnmatch
import functools
import inspect
import os
import pathlib
import re
import socket
import threading
import weakref

import pytest
from support import links, peers
from support.protocols import Echo, Recorder

from proact import _core

pytestmark = [
    pytest.mark.not_on("asyncio", "uvloop", reason="not thread-safe, and does not tell"),
    pytest.mark.usefixtures("switching"),
]

TRANSPORTS = (
    "StreamTransport",
    "TLSTransport",
    "DatagramTransport",
    "ReadPipeTransport",
    "WritePipeTransport",
)
THREADS = 8
CALLS = 25  # by each thread


class Load:
    """Work of the loop's own thread while others call: callbacks, timers, transports and sockets."""

    def __init__(self, loop):
        self.loop = loop
        self.ending = False
        self.scheduled = self.ran = 0

    def again(self):
        self.ran += 1
        if not self.ending:
            self.scheduled += 2
            self.loop.call_soon(self.note)
            self.loop.call_later(0, self.again)

    def note(self):
        self.ran += 1

    async def echo(self):
        near, far = socket.socketpair()
        client, echo = Recorder(self.loop), Echo(self.loop)
        await self.loop.create_connection(lambda: client, sock=near)
        await self.loop.create_connection(lambda: echo, sock=far)
        sent = b""
        while not self.ending:
            sent += b"%d," % len(sent)
            client.transport.write(sent[len(client.data) :])
            assert await client.received(len(sent)) == sent
        for protocol in (client, echo):
            protocol.transport.abort()
            await protocol.lost

    async def sockets(self):
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            far.setblocking(False)
            while not self.ending:
                await self.loop.sock_sendall(near, b"ping")
                assert await self.loop.sock_recv(far, 100) == b"ping"

    async def around(self, calls):
        """Carry the load while `calls` are made."""
        self.scheduled += 1
        self.loop.call_soon(self.again)
        carried = [asyncio.ensure_future(work) for work in (self.echo(), self.sockets())]
        try:
            return await calls
        finally:
            self.ending = True
            async with asyncio.timeout(peers.PATIENCE):
                await asyncio.gather(*carried)
                while self.ran < self.scheduled:
                    await asyncio.sleep(0)
            assert self.ran == self.scheduled


async def from_threads(loop, call, count=CALLS):
    """Call `call(number)` from each of the threads; return the outcomes: True, or the RuntimeError."""
    together = threading.Barrier(THREADS)

    def many(thread):
        together.wait(peers.PATIENCE)
        outcomes = []
        for number in range(count):
            try:
                call(thread * count + number)
                outcomes.append(True)
            except RuntimeError as error:
                outcomes.append(error)
        return outcomes

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        asked = [loop.run_in_executor(pool, many, thread) for thread in range(THREADS)]
        async with asyncio.timeout(peers.PATIENCE):
            lists = await Load(loop).around(asyncio.gather(*asked))
    return [outcome for outcomes in lists for outcome in outcomes]


async def works(loop, call):
    outcomes = await from_threads(loop, call)
    assert outcomes == [True] * THREADS * CALLS


async def is_refused(loop, call):
    outcomes = await from_threads(loop, call)
    assert len(outcomes) == THREADS * CALLS
    told = {str(outcome) for outcome in outcomes}
    assert told == {"Non-thread-safe operation: the event loop is in use by another thread"}


# Scheduling.

WAYS = {
    "call_soon_threadsafe": lambda loop, callback, number: loop.call_soon_threadsafe(callback, number),
    "call_soon": lambda loop, callback, number: loop.call_soon(callback, number),
    "call_later": lambda loop, callback, number: loop.call_later(0, callback, number),
    "call_at": lambda loop, callback, number: loop.call_at(loop.time(), callback, number),
}


@pytest.mark.parametrize("way", WAYS)
async def test_every_callback_runs_once(loop, way):
    ran = []
    await works(loop, lambda number: WAYS[way](loop, ran.append, number))
    async with asyncio.timeout(peers.PATIENCE):
        while len(ran) < THREADS * CALLS:
            await asyncio.sleep(0)
    assert sorted(ran) == list(range(THREADS * CALLS))


async def test_a_sleeping_loop_is_woken(loop):
    for _ in range(20):
        done = loop.create_future()
        left = [None] * THREADS

        def told(left=left, done=done):
            left.pop()
            if not left:
                done.set_result(None)

        with contextlib.ExitStack() as threads:
            for _ in range(THREADS):
                threads.enter_context(peers.thread(lambda: loop.call_soon_threadsafe(told)))
            async with asyncio.timeout(peers.PATIENCE):
                await done


async def test_coroutines_are_run(loop):
    async def answer(number):
        await asyncio.sleep(0)
        return number

    made = []
    await works(loop, lambda number: made.append(asyncio.run_coroutine_threadsafe(answer(number), loop)))
    async with asyncio.timeout(peers.PATIENCE):
        answers = await asyncio.gather(*map(asyncio.wrap_future, made))
    assert sorted(answers) == list(range(THREADS * CALLS))


@pytest.mark.parametrize("way", WAYS)
async def test_a_cancelled_callback_runs_at_most_once(loop, way):
    ran, cancelled = [], []

    def call(number):
        handle = WAYS[way](loop, ran.append, number)
        handle.cancel()
        assert handle.cancelled()
        cancelled.append(number)

    await works(loop, call)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(cancelled) == THREADS * CALLS
    assert len(ran) == len(set(ran))


LOOKS = {
    "get_context": lambda handle: handle.get_context(),
    "cancelled": lambda handle: handle.cancelled(),
    "repr": repr,
    "weakref": weakref.ref,
}


@pytest.mark.parametrize("look", LOOKS)
async def test_looking_at_a_handle_loses_no_callback(loop, look):
    handles = [loop.call_soon(int)]
    ran = made = 0
    ending = False

    def callback():
        nonlocal ran
        ran += 1

    async def schedule():
        nonlocal made
        while not ending:
            for _ in range(10):
                handles[0] = loop.call_soon(callback)
                made += 1
            await asyncio.sleep(0)

    scheduling = asyncio.ensure_future(schedule())
    await works(loop, lambda _: [LOOKS[look](handles[0]) for _ in range(50)])
    ending = True
    await scheduling
    for _ in range(2):
        await asyncio.sleep(0)
    assert ran == made > 0


# The loop.

LOOP_WORKS = {
    "time": lambda loop: loop.time(),
    "is_running": lambda loop: loop.is_running(),
    "is_closed": lambda loop: loop.is_closed(),
    "get_debug": lambda loop: loop.get_debug(),
    "engine": lambda loop: loop.engine,
    "repr": repr,
    "create_future": lambda loop: loop.create_future(),
    "set_debug": lambda loop: loop.set_debug(False),
    "slow_callback_duration": lambda loop: setattr(loop, "slow_callback_duration", 9.0),
    "get_task_factory": lambda loop: loop.get_task_factory(),
    "set_task_factory": lambda loop: loop.set_task_factory(None),
    "get_exception_handler": lambda loop: loop.get_exception_handler(),
    "set_exception_handler": lambda loop: loop.set_exception_handler(loop.get_exception_handler()),
}


@pytest.mark.parametrize("name", LOOP_WORKS)
async def test_looking_at_the_loop(loop, name):
    await works(loop, lambda _: LOOP_WORKS[name](loop))


async def test_a_task_can_be_made(loop):
    ran = []

    async def work(number):
        ran.append(number)

    tasks = []
    await works(loop, lambda number: tasks.append(loop.create_task(work(number))))
    await asyncio.gather(*tasks)
    assert sorted(ran) == list(range(THREADS * CALLS))


async def test_executors(loop):
    made = []
    await works(loop, lambda number: made.append(loop.run_in_executor(None, int, number)))
    async with asyncio.timeout(peers.PATIENCE):
        assert sorted(await asyncio.gather(*made)) == list(range(THREADS * CALLS))
    await works(loop, lambda number: loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1)))


async def test_errors_are_reported_once(loop, unhandled):
    await works(loop, lambda number: loop.call_exception_handler({"message": str(number)}))
    told = sorted(int(problem.message) for problem in unhandled.take())
    assert told == list(range(THREADS * CALLS))
    await works(loop, lambda number: loop.default_exception_handler({"message": str(number)}))
    assert len(unhandled.take("log")) == THREADS * CALLS


LOOP_REFUSES = {
    "stats": lambda loop, sock: loop.stats(),
    "engine_info": lambda loop, sock: loop.engine_info(),
    "add_reader": lambda loop, sock: loop.add_reader(sock, print),
    "add_writer": lambda loop, sock: loop.add_writer(sock, print),
    "sock_recv": lambda loop, sock: loop.sock_recv(sock, 1).send(None),
    "sock_sendall": lambda loop, sock: loop.sock_sendall(sock, b"x").send(None),
    "a read of a file": lambda loop, sock: loop._read_at(0, bytearray(1), 0).send(None),
}


@pytest.mark.parametrize("name", LOOP_REFUSES)
async def test_what_the_loop_refuses(loop, name):
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        before = loop.stats()
        await is_refused(loop, lambda _: LOOP_REFUSES[name](loop, near))
        after = loop.stats()
        assert [after[key] for key in ("readers", "slots")] == [before[key] for key in ("readers", "slots")]
        far.setblocking(False)
        with pytest.raises(BlockingIOError):
            far.recv(1)


@pytest.mark.parametrize("name", ["run_forever", "run_until_complete", "close"])
async def test_running_and_closing_it(loop, name):
    arguments = (loop.create_future(),) if name == "run_until_complete" else ()
    outcomes = await from_threads(loop, lambda _: getattr(loop, name)(*arguments))
    assert {type(outcome) for outcome in outcomes} == {RuntimeError}


@pytest.mark.parametrize("side", ["reader", "writer"])
async def test_a_watch_is_removed_once(loop, side):
    with contextlib.ExitStack() as files:
        watched = []
        for _ in range(CALLS):
            near, far = map(files.enter_context, socket.socketpair())
            near.setblocking(False)
            getattr(loop, f"add_{side}")(near, lambda: None)
            watched.append((near, far))
        removed = []
        await works(
            loop, lambda number: removed.append(getattr(loop, f"remove_{side}")(watched[number % CALLS][0]))
        )
        assert removed.count(True) == CALLS
        assert loop.stats()["readers"] == 0


async def test_operations_can_be_closed(loop):
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        before = loop.stats()["slots"]
        begun = [loop.sock_recv(near, 1) for _ in range(THREADS * CALLS)]
        for operation in begun:
            operation.send(None)
        await works(loop, lambda number: begun[number].close())
        async with asyncio.timeout(peers.PATIENCE):
            while loop.stats()["slots"] > before:
                await asyncio.sleep(0)
        # The socket can be used as before.
        far.send(b"x")
        async with asyncio.timeout(peers.PATIENCE):
            assert await loop.sock_recv(near, 1) == b"x"


# Transports.

STREAMS = ["tcp", "unix", "tls"]
KINDS = [*STREAMS, "datagram", "read pipe", "write pipe"]
WRITING = [*STREAMS, "write pipe"]
READING = [*STREAMS, "datagram", "read pipe"]


@pytest.mark.parametrize("kind", KINDS)
async def test_looking_at_a_transport(loop, kind):
    async with links.opened(loop, kind) as (protocol, _, _):
        transport = protocol.transport
        looks = [transport.is_closing, transport.get_protocol, transport.__repr__]
        looks += [
            functools.partial(transport.get_extra_info, name) for name in ("socket", "peername", "nothing")
        ]
        if kind in READING:
            looks.append(transport.is_reading)
        if kind != "read pipe":
            looks += [transport.get_write_buffer_size, transport.get_write_buffer_limits]
        if kind in WRITING:
            looks.append(transport.can_write_eof)
        if kind == "tls":
            looks += [transport.get_read_buffer_size, transport.get_read_buffer_limits]
        await works(loop, lambda _: [look() for look in looks])
        assert transport.get_protocol() is protocol
        sock = transport.get_extra_info("socket")
        if sock is not None:
            # One socket shares the fd; had a second one been dropped, it would be closed.
            os.fstat(sock.fileno())


def changes(kind):
    """The calls that change a transport of this kind."""
    yield "set_protocol", lambda transport: transport.set_protocol(asyncio.Protocol())
    if kind != "read pipe":
        yield "set_write_buffer_limits", lambda transport: transport.set_write_buffer_limits(9, 3)
    if kind in READING:
        yield "pause_reading", lambda transport: transport.pause_reading()
        yield "resume_reading", lambda transport: transport.resume_reading()
    if kind in WRITING:
        yield "write", lambda transport: transport.write(b"x")
        yield "writelines", lambda transport: transport.writelines([b"x", b"y"])
    if kind in ("tcp", "unix", "write pipe"):
        yield "write_eof", lambda transport: transport.write_eof()
    if kind == "tls":
        yield "set_read_buffer_limits", lambda transport: transport.set_read_buffer_limits(9, 3)
    if kind == "datagram":
        yield "sendto", lambda transport: transport.sendto(b"x")


CHANGES = [(kind, name) for kind in KINDS for name, _ in changes(kind)]


@pytest.mark.parametrize(("kind", "name"), CHANGES)
async def test_changes_of_a_transport_are_refused(loop, kind, name):
    change = dict(changes(kind))[name]
    async with links.opened(loop, kind) as (protocol, read, write):
        transport = protocol.transport
        limits = kind != "read pipe" and transport.get_write_buffer_limits()
        await is_refused(loop, lambda _: change(transport))
        assert transport.get_protocol() is protocol
        assert not transport.is_closing()
        assert kind == "read pipe" or transport.get_write_buffer_limits() == limits
        if kind in READING:
            assert transport.is_reading()
            write(b"in")
            async with asyncio.timeout(peers.PATIENCE):
                while not (protocol.datagrams if kind == "datagram" else protocol.data):
                    await asyncio.sleep(0)
        if kind in WRITING:
            transport.write(b"out")
            assert await loop.run_in_executor(None, read, 100) == b"out"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["close", "abort"])
async def test_a_transport_ends_once(loop, kind, end):
    if kind == "read pipe":
        end = "close"  # it has no abort
    async with links.opened(loop, kind) as (protocol, read, _):
        await works(loop, lambda _: getattr(protocol.transport, end)())
        if kind == "tls" and end == "close":
            # The peer has to answer.
            assert await loop.run_in_executor(None, read, 100) == b""
        async with asyncio.timeout(peers.PATIENCE):
            await protocol.lost
        await asyncio.sleep(0)
        assert protocol.calls.count("connection_lost") == 1
        assert protocol.transport.is_closing()


async def test_a_server_is_closed_once(loop):
    servers = [await loop.create_server(asyncio.Protocol, peers.LOOPBACK, 0) for _ in range(CALLS)]
    addresses = [server.sockets[0].getsockname() for server in servers]
    await works(loop, lambda number: servers[number % CALLS].close())
    for server, address in zip(servers, addresses, strict=True):
        async with asyncio.timeout(peers.PATIENCE):
            await server.wait_closed()
        await asyncio.sleep(0)
        with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
            sock.connect(address)


async def test_a_server_that_another_thread_closes_is_closed_in_the_loop_s_turn(loop):
    """asyncio's `close` would drop the sockets at once, and wake the waiters without the loop."""
    server = await loop.create_server(asyncio.Protocol, peers.LOOPBACK, 0)
    waiting = asyncio.ensure_future(server.wait_closed())
    await asyncio.sleep(0)
    before = repr(server)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(server.close).result(peers.PATIENCE)
    assert len(server.sockets) == 1
    assert repr(server) == before
    assert before.startswith("<Server sockets=(<asyncio.TransportSocket")
    async with asyncio.timeout(peers.PATIENCE):
        await waiting
    assert server.sockets == ()


def test_a_server_of_a_closed_loop_is_closed_in_any_thread(new_loop):
    loop = new_loop()
    server = loop.run_until_complete(loop.create_server(asyncio.Protocol, peers.LOOPBACK, 0))
    loop.close()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(server.close).result(peers.PATIENCE)
    assert server.sockets == ()


# Stopping.


def test_a_stop_from_each_thread(loop):
    """A loop that has something to do stops; no stop is lost."""
    turns = [0]

    def again():
        turns[0] += 1
        loop.call_soon(again)

    loop.call_soon(again)
    for _ in range(20):
        together = threading.Barrier(THREADS + 1)

        def stop(together=together):
            together.wait(peers.PATIENCE)
            loop.stop()

        with contextlib.ExitStack() as threads:
            for _ in range(THREADS):
                threads.enter_context(peers.thread(stop))
            loop.call_soon(together.wait, peers.PATIENCE)
            loop.run_forever()
    before = turns[0]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert turns[0] >= before > 0


async def test_debug_mode_refuses_what_does_not_wake_the_loop(loop):
    loop.set_debug(True)
    try:
        for way in ("call_soon", "call_later", "call_at"):
            outcomes = await from_threads(loop, lambda number, way=way: WAYS[way](loop, int, number))
            assert {str(outcome) for outcome in outcomes} == {
                "Non-thread-safe operation invoked on an event loop other than the current one"
            }
        await works(loop, lambda number: loop.call_soon_threadsafe(int, number))
    finally:
        loop.set_debug(False)


# The table itself.

# Of a TLS transport as the protocol of the transport below it.
AS_A_PROTOCOL = {name for name in dir(asyncio.BufferedProtocol) + dir(asyncio.Protocol) if name[0] != "_"}


def test_every_method_has_its_row(loop):
    page = (pathlib.Path(__file__).parent.parent / "docs" / "guide" / "threads.md").read_text()
    rows = re.findall(r"(?m)^\| ([^|]*) \|", page)
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    patterns = {name.removeprefix("loop.").partition("(")[0] for name in names}
    kinds = [type(loop), _core.Handle, _core.TimerHandle, *(getattr(_core, kind) for kind in TRANSPORTS)]
    missing = [
        f"{kind.__name__}.{name}"
        for kind in kinds
        for name in dir(kind)
        if not name.startswith("_")
        and name not in AS_A_PROTOCOL
        and not inspect.iscoroutinefunction(getattr(kind, name))
        and not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    ]
    assert not missing, missing


# A loop that does not run.


def test_a_loop_that_stands_still(loop):
    """Calls of several threads wait for each other, and none is lost; the loop may begin to run meanwhile."""

    async def open_pair():
        near, far = socket.socketpair()
        await loop.create_connection(lambda: protocol, sock=near)
        return far

    protocol = Recorder(loop)
    far = loop.run_until_complete(open_pair())
    written, refused = [], []

    def write():
        for _ in range(CALLS):
            try:
                protocol.transport.write(b"x")
                written.append(1)
            except RuntimeError:
                refused.append(1)

    async def meanwhile():
        for _ in range(50):
            await asyncio.sleep(0)

    with far, contextlib.ExitStack() as threads:
        far.setblocking(False)
        for _ in range(THREADS):
            threads.enter_context(peers.thread(write))
        for _ in range(20):
            loop.run_until_complete(meanwhile())
        threads.pop_all().close()
        assert len(written) + len(refused) == THREADS * CALLS
        got = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                got += far.recv(1 << 16)
        assert len(got) == len(written)
        loop.run_until_complete(protocol.close())


def test_a_loop_goes_from_thread_to_thread(loop):
    """Eight threads want to run it: one does at a time, and the others are told."""
    ran, runs, refused = [], [], []

    def run():
        for number in range(CALLS):
            loop.call_soon(ran.append, number)
            try:
                loop.run_forever()
                runs.append(number)
            except RuntimeError as error:
                refused.append(error)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        # Whichever runs it has to stop, until all have had their turns.
        loop.call_soon_threadsafe(loop.stop)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert len(ran) == len(runs) + len(refused) == THREADS * CALLS
    assert len(runs) >= 1
    assert not loop.is_running()
