"""`proact.serve_threads`: one port, several loops, each in its own thread."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest


class Serving:
    """serve_threads in a thread of its own; `address` once it serves."""

    def __init__(self, proact, engine, factory, **options):
        self.stop = threading.Event()
        self.ready = threading.Event()
        self.address = None
        self.error = None
        self._call = lambda: proact.serve_threads(
            factory, engine=engine, started=self._started, stop=self.stop, **options
        )
        self.thread = threading.Thread(target=self._run)

    def _started(self, address):
        self.address = address
        self.ready.set()

    def _run(self):
        try:
            self._call()
        except BaseException as error:
            self.error = error
        self.ready.set()

    def __enter__(self):
        self.thread.start()
        assert self.ready.wait(30)
        return self

    def __exit__(self, *exc):
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


async def echo(reader, writer):
    # Python 3.11 logs a cancelled client as an error.
    with contextlib.closing(writer), contextlib.suppress(asyncio.CancelledError):
        while data := await reader.read(1000):
            writer.write(b"%d:%b" % (threading.get_ident(), data))
            await writer.drain()


def serve_echo(sock):
    return asyncio.start_server(echo, sock=sock)


def asked(address, message=b"hello"):
    """One request; the thread that answered, and the answer."""
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(message)
        thread, _, answer = client.recv(1000).partition(b":")
    return int(thread), answer


def test_every_worker_serves(proact, engine):
    with Serving(proact, engine, serve_echo, workers=3) as serving:
        threads = set()
        deadline = time.monotonic() + 30
        # The kernel chooses by a hash: the chance that 200 connections miss one of three is 1e-35.
        while len(threads) < 3 and time.monotonic() < deadline:
            thread, answer = asked(serving.address)
            assert answer == b"hello"
            threads.add(thread)
        assert len(threads) == 3
        assert threading.get_ident() not in threads
    assert serving.error is None
    with pytest.raises(ConnectionRefusedError):
        asked(serving.address)


def test_a_stop_waits_for_connections(proact, engine):
    with (
        Serving(proact, engine, serve_echo, workers=2, grace=30) as serving,
        socket.create_connection(serving.address, timeout=20) as client,
    ):
        client.sendall(b"1")
        assert client.recv(100).endswith(b":1")
        serving.stop.set()
        while True:
            # Until no worker accepts any more.
            try:
                asked(serving.address)
            except OSError:
                break
        client.sendall(b"2")
        assert client.recv(100).endswith(b":2")
        assert serving.thread.is_alive()
    assert serving.error is None


def test_grace_ends(proact, engine):
    with (
        Serving(proact, engine, serve_echo, workers=2, grace=0.05) as serving,
        socket.create_connection(serving.address, timeout=20) as client,
    ):
        client.sendall(b"1")
        assert client.recv(100).endswith(b":1")
        serving.stop.set()
        assert client.recv(100) == b""
    assert serving.error is None


def test_a_worker_that_fails_stops_all(proact, engine):
    numbers = iter([1, 2])

    async def factory(sock):
        if next(numbers) == 2:
            raise LookupError("no server")
        return await serve_echo(sock)

    with Serving(proact, engine, factory, workers=2) as serving:
        serving.thread.join(30)
    assert isinstance(serving.error, LookupError)


def test_a_factory_that_makes_no_server(proact, engine):
    """It is told at once, not at the stop."""
    with Serving(proact, engine, lambda sock: asyncio.sleep(0), workers=1) as serving:
        serving.thread.join(30)
    assert isinstance(serving.error, TypeError)
    assert serving.address is None


def test_several_that_fail(proact, engine):
    both = threading.Barrier(2, timeout=20)

    async def factory(sock):
        both.wait()
        raise LookupError("no server")

    with Serving(proact, engine, factory, workers=2) as serving:
        serving.thread.join(30)
    assert isinstance(serving.error, ExceptionGroup)
    assert len(serving.error.exceptions) == 2


def test_a_connection_goes_to_the_other_worker(proact, engine):
    """Workers hand a connection round: each line is answered by another thread."""
    loops = []

    async def client(reader, writer):
        line = await reader.readline()
        writer.write(b"%d\n" % threading.get_ident())
        await writer.drain()
        if line == b"end\n":
            writer.close()
            return
        here = asyncio.get_running_loop()
        other = next(loop for loop in loops if loop is not here)

        def factory():
            reader = asyncio.StreamReader(loop=other)
            return asyncio.StreamReaderProtocol(reader, client, loop=other)

        await here.hand_over(writer.transport, other, factory)

    def factory(sock):
        loops.append(asyncio.get_running_loop())
        return asyncio.start_server(client, sock=sock)

    with (
        Serving(proact, engine, factory, workers=2) as serving,
        socket.create_connection(serving.address, timeout=20) as sock,
        sock.makefile("rw") as file,
    ):
        # All lines at once: what one worker has read and not used goes along.
        file.write("go\n" * 20 + "end\n")
        file.flush()
        threads = [int(line) for line in file]
        assert len(threads) == 21
        assert len(set(threads)) == 2
        assert all(one != two for one, two in itertools.pairwise(threads))
    assert serving.error is None


def test_the_address_is_taken(proact):
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        proact.serve_threads(serve_echo, *other.getsockname(), workers=2)


def test_a_second_server_of_the_address(proact, engine):
    """It does not share the connections of the first, as sockets with SO_REUSEPORT may."""
    with Serving(proact, engine, serve_echo, workers=2) as first:
        with pytest.raises(OSError, match="in use"):
            proact.serve_threads(serve_echo, *first.address, workers=2)
        asked(first.address)
    assert first.error is None
    with Serving(proact, engine, serve_echo, workers=2, port=first.address[1]) as again:
        asked(again.address)


def test_no_workers(proact):
    with pytest.raises(ValueError, match="workers"):
        proact.serve_threads(serve_echo, workers=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(proact, engine, number):
    """In the main thread: the first signal ends it gracefully, a second one at once."""
    program = textwrap.dedent("""
        import asyncio, sys, proact

        async def client(reader, writer):
            writer.write(await reader.readline())
            await reader.read()

        proact.serve_threads(
            lambda sock: asyncio.start_server(client, sock=sock), workers=2, engine=sys.argv[1], grace=60,
            started=lambda address: print(address[1], flush=True))
        print("ended", flush=True)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program, engine], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as child:
        port = int(child.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            sock.sendall(b"hello\n")
            assert sock.recv(100) == b"hello\n"
            child.send_signal(number)
            with contextlib.suppress(OSError):
                while True:
                    socket.create_connection(("127.0.0.1", port), timeout=20).close()
            assert child.poll() is None
            child.send_signal(number)
            assert child.stdout.readline() == "ended\n"
    assert child.returncode == 0


def test_a_factory_that_never_ends(proact, engine):
    begun = threading.Event()

    async def factory(sock):
        begun.set()
        async with await serve_echo(sock) as server:
            await server.serve_forever()

    serving = Serving(proact, engine, factory, workers=2, grace=0.05)
    serving.thread.start()
    assert begun.wait(20)
    serving.__exit__()
    assert serving.error is None
    assert serving.address is None


def test_the_backlog(proact, engine):
    """The factory's server has listened again, with a backlog of its own."""
    socks = []

    def factory(sock):
        socks.append(sock)
        return serve_echo(sock)

    with Serving(proact, engine, factory, workers=1, backlog=321):
        # tcpi_sacked of a listener is its backlog.
        info = socks[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        assert int.from_bytes(info[28:32], sys.byteorder) == 321


def test_a_thread_that_cannot_be_started(proact, engine, monkeypatch):
    start, started = threading.Thread.start, []

    def fail_third(thread):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    sockets = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(threading.Thread, "start", fail_third)
    with pytest.raises(RuntimeError, match="start new thread") as raised:
        proact.serve_threads(serve_echo, workers=5, engine=engine)
    # The traceback still holds the workers.
    assert len(os.listdir("/proc/self/fd")) == sockets
    assert raised.tb
    assert not any(thread.is_alive() for thread in started)


class Moving:
    """A factory of servers that hand every connection to another worker, whose `echo` answers.

    With `on_request` a connection stays until its first line comes.
    """

    def __init__(self, on_request=False):
        self.on_request = on_request
        self.loops = []
        self.has = threading.Event()

    def __call__(self, sock):
        self.loops.append(asyncio.get_running_loop())
        return asyncio.start_server(self.client, sock=sock)

    async def client(self, reader, writer):
        here = asyncio.get_running_loop()
        other = next(loop for loop in self.loops if loop is not here)
        self.has.set()
        if self.on_request and not await reader.readline():
            writer.close()
            return

        def factory():
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=other), echo, loop=other)

        with contextlib.suppress(ConnectionAbortedError):
            await here.hand_over(writer.transport, other, factory)


def closed_to_new_ones(serving):
    """Stop it, and wait until no worker accepts any more."""
    serving.stop.set()
    with contextlib.suppress(OSError):
        while True:
            socket.create_connection(serving.address, timeout=20).close()


@contextlib.contextmanager
def one_client(proact, engine, factory, grace):
    """Two workers, and a client of theirs; in the end none of them has failed."""
    with (
        Serving(proact, engine, factory, workers=2, grace=grace) as serving,
        socket.create_connection(serving.address, timeout=20) as client,
    ):
        yield serving, client
    assert serving.error is None


def test_a_stop_waits_for_connections_that_were_handed_over(proact, engine):
    with one_client(proact, engine, Moving(), 25) as (serving, client):
        client.sendall(b"1")
        assert client.recv(100).endswith(b":1")
        closed_to_new_ones(serving)
        client.sendall(b"2")
        assert client.recv(100).endswith(b":2")
        assert serving.thread.is_alive()
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
        # It does not use up the time that connections have.
        serving.thread.join(20)
        assert not serving.thread.is_alive()


def test_a_connection_is_handed_over_during_a_stop(proact, engine):
    """To a worker that has none itself."""
    moving = Moving(on_request=True)
    with one_client(proact, engine, moving, 25) as (serving, client):
        assert moving.has.wait(20)
        closed_to_new_ones(serving)
        client.sendall(b"go\n")
        client.sendall(b"2")
        assert client.recv(100).endswith(b":2")


def test_grace_ends_for_connections_that_were_handed_over(proact, engine):
    with one_client(proact, engine, Moving(), 0.05) as (serving, client):
        client.sendall(b"1")
        assert client.recv(100).endswith(b":1")
        serving.stop.set()
        assert client.recv(100) == b""


@pytest.mark.skipif(sys.version_info < (3, 13), reason="there asyncio's server does not know its connections")
def test_grace_ends_for_protocols(proact, engine):
    """They have no tasks that could be cancelled, and hear that the connection is lost."""
    events = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(b"hello")

        def connection_lost(self, exc):
            events.append(exc)

    async def factory(sock):
        return await asyncio.get_running_loop().create_server(Protocol, sock=sock)

    with (
        Serving(proact, engine, factory, workers=2, grace=0.05) as serving,
        socket.create_connection(serving.address, timeout=20) as client,
    ):
        assert client.recv(100) == b"hello"
        serving.stop.set()
        assert client.recv(100) == b""
    assert serving.error is None
    assert events == [None]


def test_a_third_signal_does_what_it_did_before(proact, engine):
    """A worker that blocks its loop can't be ended otherwise."""
    program = textwrap.dedent("""
        import asyncio, sys, time, proact

        async def client(reader, writer):
            writer.write(b"hello")
            await writer.drain()
            time.sleep(1000)

        proact.serve_threads(
            lambda sock: asyncio.start_server(client, sock=sock), workers=2, engine=sys.argv[1],
            started=lambda address: print(address[1], flush=True))
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program, engine], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as child:
        try:
            port = int(child.stdout.readline())
            with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
                assert sock.recv(100) == b"hello"
                deadline = time.monotonic() + 30
                while child.poll() is None and time.monotonic() < deadline:
                    child.send_signal(signal.SIGTERM)
                    time.sleep(0.02)
                assert child.returncode == -signal.SIGTERM
        finally:
            child.kill()
