"""The loop calls the program's code in many places, and that code may raise. `table()` has a row for each
place.

The code raises once. Each row runs with an ordinary exception (`Oops`) and with one that stops a loop. The
test checks that

- the exception is reported once, or the program's own call raises it, as on asyncio;
- an exception that stops a loop leaves `run_forever`, and a second run completes the work that was under way;
- another connection is not disturbed, and the protocol concerned hears of its loss exactly once;
- nothing is left (as after every test: conftest.py).

A worked row:

    place("tcp Protocol.data_received", stream, "tcp", Recorder, "data_received",
          message="protocol.data_received() call failed", handler=True)

1. The place is `data_received` of a protocol over TCP; its name is the id of the test.
2. `stream` is the scenario: the test calls `stream(stage, "tcp", Recorder, "data_received")`. It connects a
   Recorder whose `data_received` raises after it has recorded its first call (`Stage.raising`). The peer
   sends 4 bytes and closes.
3. With `Oops`, the error ends the connection: the scenario checks that `connection_lost` got it, and the test
   that the exception handler got it once, with `message` in its text.
4. With `KeyboardInterrupt`, the exception leaves `run_forever` (`finish` catches it there and runs the loop
   again). The connection goes on: the scenario checks that the protocol has all 4 bytes.
5. `handler=True` adds the row "handler of tcp Protocol.data_received". There `data_received` raises `Oops`,
   and the exception handler that is told of it raises `KeyboardInterrupt`.
6. `how` is left at "reported". With "raised", the program's own call raises the exception instead.
"""

import asyncio
import contextlib
import functools
import io
import os
import signal
import socket
import ssl
from typing import NamedTuple

import pytest
from support import loops, peers, tls
from support.protocols import Buffered, Datagrams, Echo, Recorder, connected, serving

pytestmark = [
    pytest.mark.not_on("uvloop", reason="words it otherwise, and loses what stops the loop"),
    pytest.mark.not_on(
        "asyncio", reason="strands connections and leaves sockets open in a third of the rows"
    ),
]

STOPS = (KeyboardInterrupt, SystemExit)


class Oops(Exception):
    pass


class Stage:
    """The loop of a test, and the program's code, which raises `first` once."""

    def __init__(self, loop, error, by_handler):
        self.loop = loop
        self.exception = error("on purpose")
        self.first = Oops("for the handler") if by_handler else self.exception
        self.raised = 0
        self.contexts = []
        if by_handler:
            loop.set_exception_handler(self._handle)

    def _handle(self, _loop, context):
        self.contexts.append(context)
        raise self.exception

    def fail(self, *_):
        self.raised += 1
        if self.raised == 1:
            raise self.first

    def raising(self, kind, method, after=0):
        """A protocol that acts like `kind`, but raises at the end of `method`, after `after` calls."""
        calls = 0

        def overriding(protocol, *args):
            nonlocal calls
            result = getattr(kind, method)(protocol, *args)
            calls += 1
            if calls > after:
                self.fail()
            return result

        return functools.partial(type("Raising", (kind,), {method: overriding}), self.loop)

    def make(self, kind=Recorder):
        """A protocol factory that fails the first time."""
        self.fail()
        return kind(self.loop)

    async def failed(self):
        while not self.raised:
            await asyncio.sleep(0.001)
        await loops.turns()

    @contextlib.contextmanager
    def caught(self):
        """The code inside raises the exception."""
        with pytest.raises(type(self.exception)) as caught:
            yield
        assert caught.value is self.exception

    def ends(self):
        """Whether the exception is one that ends a connection."""
        return isinstance(self.first, Exception)


# Connections.

OVER = {"tcp": connected, "tls": tls.connected}
# The methods whose failure ends the connection; over TLS connection_made does, too.
ENDING = ("data_received", "eof_received", "get_buffer", "buffer_updated")


async def stream(stage, over, kind, method, size=4, after=0):
    data = peers.payload(size)
    made = stage.raising(kind, method, after)
    async with OVER[over](stage.loop, lambda: Recorder(stage.loop), made) as (peer, user):
        peer.transport.write(data)
        peer.transport.close()
        lost = await user.lost
        await peer.lost
    ends = stage.ends() and (method in ENDING or (over, method) == ("tls", "connection_made"))
    assert lost is (stage.first if ends else None)
    assert user.calls.count("connection_made") == user.calls.count("connection_lost") == 1
    if not ends:
        assert peers.digest(user.data) == peers.digest(data)


async def paused(stage, over, kind, method):
    """The bytes that were held back during a pause are all delivered, even if one delivery raises."""
    made = stage.raising(kind, method)
    async with OVER[over](stage.loop, lambda: Recorder(stage.loop), made) as (peer, user):
        user.transport.pause_reading()
        for piece in (b"one", b"two"):
            peer.transport.write(piece)
            await asyncio.sleep(0.005)
        peer.transport.close()
        await asyncio.sleep(0.005)
        user.transport.resume_reading()
        lost = await user.lost
    assert lost is (stage.first if stage.ends() else None)
    assert user.calls.count("connection_lost") == 1
    if not stage.ends():
        assert user.data == b"onetwo"


async def flow(stage, over, method, closing=False):
    data = peers.payload(1 << 20)
    made = stage.raising(Recorder, method)
    async with OVER[over](stage.loop, lambda: Recorder(stage.loop), made) as (peer, user):
        peer.transport.pause_reading()
        user.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        # Not from here: the write itself calls pause_writing, which may raise KeyboardInterrupt in this task.
        stage.loop.call_soon(user.transport.write, data[:-1])
        stage.loop.call_soon(user.transport.write, data[-1:])
        if closing:
            stage.loop.call_soon(user.transport.close)
        await loops.turns()
        peer.transport.resume_reading()
        assert peers.digest(await peer.received(len(data))) == peers.digest(data)
        await stage.failed()
        user.transport.close()
        assert await user.lost is None
        await peer.lost
    assert user.calls.count("pause_writing") == user.calls.count("resume_writing")


async def tls_client(stage):
    made = stage.raising(Recorder, "connection_made")
    async with serving(stage.loop, lambda: Echo(stage.loop), ssl=tls.server_context()) as server:
        options = {"ssl": tls.client_context(), "server_hostname": tls.NAME}
        connecting = stage.loop.create_connection(made, *server.address, **options)
        if stage.ends():
            with pytest.raises(Oops) as caught:
                await connecting
            assert caught.value is stage.first
        else:
            _, user = await connecting
            user.transport.write(b"whole")
            assert await user.received(5) == b"whole"
            assert await user.close() is None


async def writelines(stage, over):
    def pieces():
        yield b"never sent"
        stage.fail()

    async with OVER[over](stage.loop, lambda: Recorder(stage.loop), lambda: Recorder(stage.loop)) as ends:
        user, peer = ends
        with stage.caught():
            user.transport.writelines(pieces())
        user.transport.write(b"sent")
        assert await peer.received(4) == b"sent"


async def sendfile(stage):
    class File(io.BytesIO):
        def readinto(self, buffer):
            stage.fail()

    async with connected(stage.loop, lambda: Recorder(stage.loop), lambda: Recorder(stage.loop)) as ends:
        user, peer = ends
        with stage.caught():
            await stage.loop.sendfile(user.transport, File(b"file"))
        user.transport.write(b"sent")
        assert await peer.received(4) == b"sent"


async def server_name(stage):
    context = tls.server_context()
    context.sni_callback = stage.fail
    async with serving(stage.loop, lambda: Recorder(stage.loop), ssl=context) as server:
        options = {"ssl": tls.client_context(), "server_hostname": tls.NAME}
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await stage.loop.create_connection(lambda: Recorder(stage.loop), *server.address, **options)
        _, client = await stage.loop.create_connection(
            lambda: Recorder(stage.loop), *server.address, **options
        )
        await client.close()


# Datagrams, pipes, children.


async def datagrams(stage, method):
    made = stage.raising(Datagrams, method)
    _, user = await stage.loop.create_datagram_endpoint(made, local_addr=(peers.LOOPBACK, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for data in (b"one", b"two", b"three"):
            peer.sendto(data, user.transport.get_extra_info("sockname"))
        await user.received(3)
    user.transport.close()
    assert await user.lost is None
    assert [data for data, _ in user.datagrams] == [b"one", b"two", b"three"]


async def refused_datagram(stage):
    made = stage.raising(Datagrams, "error_received")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind((peers.LOOPBACK, 0))
        address = nobody.getsockname()
    _, user = await stage.loop.create_datagram_endpoint(made, remote_addr=address)
    user.transport.sendto(b"to nobody")
    await stage.failed()
    user.transport.close()
    assert await user.lost is None


async def datagram_flow(stage, method):
    made = stage.raising(Datagrams, method)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with far:
        _, user = await stage.loop.create_datagram_endpoint(made, sock=near)
        sent = 0

        def send():
            nonlocal sent
            user.transport.set_write_buffer_limits(high=1000)
            while "pause_writing" not in user.calls:
                sent += 1
                user.transport.sendto(bytes(1000))

        stage.loop.call_soon(send)
        await loops.turns()
        user.transport.close()
        far.setblocking(False)
        while sent:
            try:
                sent -= len(far.recv(2000)) // 1000
            except BlockingIOError:
                await asyncio.sleep(0.001)
        assert await user.lost is None


async def read_pipe(stage, method):
    near, far = os.pipe()
    _, user = await stage.loop.connect_read_pipe(stage.raising(Recorder, method), io.FileIO(near, "r"))
    os.write(far, b"data")
    os.close(far)
    assert await user.lost is None
    assert user.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]


async def write_pipe(stage, method):
    far, near = os.pipe()
    data = peers.payload(1 << 18)
    with io.FileIO(far, "r") as peer:
        os.set_blocking(far, False)
        _, user = await stage.loop.connect_write_pipe(stage.raising(Recorder, method), io.FileIO(near, "w"))
        stage.loop.call_soon(user.transport.write, data)
        stage.loop.call_soon(user.transport.write_eof)
        received = b""
        while (piece := peer.read(1 << 16)) != b"":
            received += piece or b""
            await asyncio.sleep(0)
        assert peers.digest(received) == peers.digest(data)
        assert await user.lost is None
    assert user.calls.count("pause_writing") == user.calls.count("resume_writing") == 1


class Child(asyncio.SubprocessProtocol):
    def __init__(self, loop):
        self.calls = []
        self.ended = loop.create_future()

    def connection_made(self, transport):
        self.calls.append("connection_made")

    def pipe_data_received(self, fd, data):
        self.calls.append("pipe_data_received")
        assert (fd, data) == (1, b"data\n")

    def pipe_connection_lost(self, fd, exc):
        self.calls.append("pipe_connection_lost")

    def process_exited(self):
        self.calls.append("process_exited")

    def connection_lost(self, exc):
        self.calls.append("connection_lost")
        self.ended.set_result(exc)


CHILD = {"stdin": None, "stderr": None}


async def child(stage, method):
    made = stage.raising(Child, method)
    transport, user = await stage.loop.subprocess_exec(made, "/bin/echo", "data", **CHILD)
    assert await user.ended is None
    transport.close()
    names = {
        "connection_made",
        "pipe_data_received",
        "pipe_connection_lost",
        "process_exited",
        "connection_lost",
    }
    assert set(user.calls) == names
    assert len(user.calls) == len(names)
    assert transport.get_returncode() == 0


# Factories.


async def server_factory(stage, create, connect):
    """The connection whose factory failed is closed, not left hanging, and the next one is served."""
    made = functools.partial(stage.make, Echo)
    server = await create(stage.loop, made)
    try:
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            _, client = await connect(stage.loop, server.sockets[0].getsockname())
            await client.lost
        _, client = await connect(stage.loop, server.sockets[0].getsockname())
        client.transport.write(b"next")
        assert await client.received(4) == b"next"
        await client.close()
    finally:
        server.close()
        await server.wait_closed()


def by_tcp(loop, address):
    return loop.create_connection(lambda: Recorder(loop), *address)


def by_tls(loop, address):
    options = {"ssl": tls.client_context(), "server_hostname": tls.NAME}
    return loop.create_connection(lambda: Recorder(loop), *address, **options)


def by_unix(loop, address):
    return loop.create_unix_connection(lambda: Recorder(loop), address)


SERVERS = {
    "create_server": (lambda loop, made: loop.create_server(made, peers.LOOPBACK, 0), by_tcp),
    "create_server over tls": (
        lambda loop, made: loop.create_server(made, peers.LOOPBACK, 0, ssl=tls.server_context()),
        by_tls,
    ),
    "create_unix_server": (
        lambda loop, made: loop.create_unix_server(made, f"\0proact-test-{os.getpid()}"),
        by_unix,
    ),
}


async def factory(stage, create):
    with peers.listening() as listener, stage.caught():
        await create(stage.loop, stage.make, listener.getsockname())


async def adopting_factory(stage):
    near, far = socket.socketpair()
    with far, stage.caught():
        await stage.loop.connect_accepted_socket(stage.make, near)


async def pipe_factory(stage, method, mode):
    with peers.pipe() as ends, io.FileIO(ends[mode == "w"], mode, closefd=False) as pipe, stage.caught():
        await getattr(stage.loop, method)(stage.make, pipe)


FACTORIES = {
    "create_connection": lambda loop, made, to: loop.create_connection(made, *to),
    "create_connection over tls": lambda loop, made, to: loop.create_connection(
        made, *to, ssl=tls.client_context(), server_hostname=tls.NAME
    ),
    "create_datagram_endpoint": lambda loop, made, to: loop.create_datagram_endpoint(made, local_addr=to),
    "subprocess_exec": lambda loop, made, _: loop.subprocess_exec(made, "/bin/true"),
    "subprocess_shell": lambda loop, made, _: loop.subprocess_shell(made, "true"),
}


# Callbacks.


async def callback(stage, schedule):
    with peers.pair() as (near, far):
        far.send(b"x")
        schedule(stage, near)
        await stage.failed()
        stage.loop.remove_reader(near)
        stage.loop.remove_writer(near)
        stage.loop.remove_signal_handler(signal.SIGUSR1)


def by_signal(stage, _):
    stage.loop.add_signal_handler(signal.SIGUSR1, stage.fail)
    signal.raise_signal(signal.SIGUSR1)


def by_future(stage, _):
    future = stage.loop.create_future()
    future.add_done_callback(stage.fail)
    future.set_result(None)


CALLBACKS = {
    "call_soon": lambda stage, _: stage.loop.call_soon(stage.fail),
    "call_later": lambda stage, _: stage.loop.call_later(0.001, stage.fail),
    "call_at": lambda stage, _: stage.loop.call_at(0, stage.fail),
    "call_soon_threadsafe": lambda stage, _: stage.loop.call_soon_threadsafe(stage.fail),
    "add_reader": lambda stage, sock: stage.loop.add_reader(sock, stage.fail),
    "add_writer": lambda stage, sock: stage.loop.add_writer(sock, stage.fail),
    "signal handler": by_signal,
    "done callback": by_future,
}


async def in_executor(stage):
    with stage.caught():
        await stage.loop.run_in_executor(None, stage.fail)


async def task_factory(stage):
    stage.loop.set_task_factory(stage.fail)
    coroutine = loops.turns()
    with stage.caught():
        stage.loop.create_task(coroutine)
    coroutine.close()
    stage.loop.set_task_factory(None)
    await stage.loop.create_task(loops.turns())


async def fileno(stage, method):
    class File:
        def fileno(self):
            stage.fail()

    with stage.caught():
        getattr(stage.loop, method)(File(), print)


class Place(NamedTuple):
    name: str
    scenario: object
    # Where the exception goes: "reported" to the exception handler, "raised" by the program's own call, or
    # "unraisable" if neither is possible.
    how: str = "reported"
    message: str = ""
    by_handler: bool = False


def place(name, scenario, *args, how="reported", message="", handler=False, **options):
    bound = functools.partial(scenario, **options)
    made = [Place(name, lambda stage: bound(stage, *args), how, message)]
    if handler:
        # The second row: the exception handler raises, too.
        made.append(made[0]._replace(name=f"handler of {name}", by_handler=True))
    return made


def table():
    for over in OVER:
        for kind, name in ((Recorder, "Protocol"), (Buffered, "BufferedProtocol")):
            reads = ("data_received",) if kind is Recorder else ("get_buffer", "buffer_updated")
            for method in ("connection_made", *reads, "eof_received", "connection_lost"):
                told = f"protocol.{method}() call failed" if over == "tcp" and method in ENDING else ""
                yield from place(
                    f"{over} {name}.{method}", stream, over, kind, method, message=told, handler=True
                )
            for method in reads:
                yield from place(
                    f"{over} {name}.{method} of bulk", stream, over, kind, method, size=2 << 20, after=3
                )
                yield from place(
                    f"{over} {name}.{method} after a pause", paused, over, kind, method, handler=True
                )
        for method in ("pause_writing", "resume_writing"):
            told = f"protocol.{method}() failed"
            yield from place(f"{over} {method}", flow, over, method, message=told, handler=True)
        yield from place(f"{over} writelines", writelines, over, how="raised")
    yield from place("tcp resume_writing, closing", flow, "tcp", "resume_writing", closing=True, handler=True)
    yield from place("tls Protocol.connection_made of a client", tls_client, handler=True)
    yield from place("sendfile's file", sendfile, how="raised")
    yield from place("sni_callback", server_name, how="unraisable")
    for method in ("connection_made", "datagram_received", "connection_lost"):
        yield from place(f"DatagramProtocol.{method}", datagrams, method, handler=True)
    yield from place("DatagramProtocol.error_received", refused_datagram, handler=True)
    for method in ("pause_writing", "resume_writing"):
        yield from place(f"DatagramProtocol.{method}", datagram_flow, method, handler=True)
    for method in ("connection_made", "data_received", "eof_received", "connection_lost"):
        yield from place(f"read pipe {method}", read_pipe, method, handler=True)
    for method in ("connection_made", "pause_writing", "resume_writing", "connection_lost"):
        yield from place(f"write pipe {method}", write_pipe, method, handler=True)
    for method in (name for name in vars(Child) if not name.startswith("_")):
        yield from place(f"SubprocessProtocol.{method}", child, method)
    for name, ways in SERVERS.items():
        yield from place(f"factory of {name}", server_factory, *ways, handler=True)
    for name, create in FACTORIES.items():
        yield from place(f"factory of {name}", factory, create, how="raised")
    yield from place("factory of connect_accepted_socket", adopting_factory, how="raised")
    for method, mode in (("connect_read_pipe", "r"), ("connect_write_pipe", "w")):
        yield from place(f"factory of {method}", pipe_factory, method, mode, how="raised")
    for name, schedule in CALLBACKS.items():
        yield from place(name, callback, schedule, handler=True)
    yield from place("run_in_executor", in_executor, how="raised")
    yield from place("task factory", task_factory, how="raised")
    for method in ("add_reader", "add_writer"):
        yield from place(f"{method}'s fileno()", fileno, method, how="raised")


def finish(loop, coroutine):
    """Run a coroutine to its end, through each KeyboardInterrupt or SystemExit; return those that came."""
    task = loop.create_task(coroutine)
    came = []
    while not task.done():
        try:
            loop.run_until_complete(task)
        except STOPS as error:
            came.append(error)
            assert not loop.is_running()
    task.result()
    return came


def cases():
    """Each row with its exceptions. A handler only raises those that stop a loop: asyncio catches others."""
    for row in table():
        errors = (KeyboardInterrupt,) if row.by_handler else (Oops, KeyboardInterrupt)
        for error in errors if row.name not in CALLBACKS else (Oops, *STOPS):
            yield pytest.param(row, error, id=f"{row.name}-{error.__name__}")


@pytest.mark.parametrize(("place", "error"), list(cases()))
def test_is_reported_once_and_breaks_nothing_else(new_loop, unhandled, place, error):
    stops = error in STOPS
    loop = new_loop()
    stage = Stage(loop, error, place.by_handler)

    async def scene():
        async with (
            asyncio.timeout(5),
            connected(loop, lambda: Recorder(loop), lambda: Echo(loop)) as (beside, _),
        ):
            await place.scenario(stage)
            beside.transport.write(b"alive")
            assert await beside.received(5) == b"alive"

    came = finish(loop, scene())
    assert stage.raised
    assert came == ([stage.exception] if stops and place.how == "reported" else [])
    if place.by_handler:
        (context,) = stage.contexts
        assert context["exception"] is stage.first
    elif place.how == "unraisable":
        assert "on purpose" in unhandled.take_one("unraisable").message
    elif place.how == "reported" and not stops:
        problem = unhandled.take_one()
        assert problem.exception is stage.exception
        assert place.message in problem.message
