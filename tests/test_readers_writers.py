"""add_reader and add_writer: level-triggered callbacks for the program's own file descriptors."""

import asyncio
import contextlib
import os
import socket

import pytest
from support import loops, peers
from support.protocols import Recorder, connected


async def until(condition):
    """Let the loop turn until something holds; pytest's timeout is the limit."""
    while not condition():
        await asyncio.sleep(0.0005)


@pytest.mark.not_on("uvloop", reason="remove_reader returns None")
async def test_fires_again_while_there_is_data_left(loop):
    with peers.pipe() as (reading, writing):
        seen = []
        loop.add_reader(reading, lambda: seen.append(os.read(reading, 1)))
        os.write(writing, b"level")
        await until(lambda: len(seen) == 5)
        await asyncio.sleep(0.01)
        # Exactly one call per byte: a spurious call would have raised BlockingIOError.
        assert seen == [b"l", b"e", b"v", b"e", b"l"]
        assert loop.remove_reader(reading)


async def test_fires_on_and_on_while_nobody_reads(loop):
    with peers.pair() as (near, far):
        calls = []
        loop.add_reader(near, calls.append, None)
        far.send(b"x")
        await until(lambda: len(calls) >= 20)
        # One call per turn: each call must be able to take the data that would cause the next one.
        turns = len(calls)
        await asyncio.sleep(0)
        assert len(calls) - turns <= 2
        loop.remove_reader(near)


async def test_does_not_fire_before_there_is_data(loop):
    with peers.pair() as (near, far):
        calls = []
        loop.add_reader(near, calls.append, None)
        await asyncio.sleep(0.02)
        assert calls == []
        far.send(b"x")
        await until(lambda: calls)
        loop.remove_reader(near)


@pytest.mark.parametrize("kind", ["fd", "object"])
@pytest.mark.not_on("uvloop", reason="remove_reader returns None")
async def test_takes_an_fd_or_an_object_with_one(loop, kind):
    with peers.pair() as (near, far):
        calls = []
        loop.add_reader(near if kind == "object" else near.fileno(), calls.append, None)
        far.send(b"x")
        await until(lambda: calls)
        # A reader added by its socket can be removed by its number, and vice versa: it is the same fd.
        assert loop.remove_reader(near.fileno() if kind == "object" else near) is True


async def test_passes_arguments(loop):
    with peers.pair() as (near, far):
        called = loop.create_future()
        loop.add_reader(near, lambda *args: called.done() or called.set_result(args), 1, "two")
        far.send(b"x")
        assert await called == (1, "two")
        loop.remove_reader(near)


@pytest.mark.not_on("uvloop", reason="remove_reader returns None")
async def test_the_last_callback_replaces_the_one_before(loop):
    with peers.pair() as (near, far):
        first, second = [], []
        loop.add_reader(near, first.append, None)
        far.send(b"x")
        await until(lambda: first)
        loop.add_reader(near, second.append, None)
        before = len(first)
        await until(lambda: second)
        await asyncio.sleep(0.01)
        assert len(first) == before
        assert loop.remove_reader(near) is True
        assert loop.remove_reader(near) is False


async def test_replacing_before_the_first_turn(loop):
    with peers.pair() as (near, far):
        first, second = [], []
        far.send(b"x")
        loop.add_reader(near, first.append, None)
        loop.add_reader(near, second.append, None)
        await until(lambda: second)
        assert first == []
        loop.remove_reader(near)


async def test_a_removed_callback_is_not_called_any_more(loop):
    with peers.pair() as (near, far):
        calls = []
        loop.add_reader(near, calls.append, None)
        far.send(b"x")
        await until(lambda: calls)
        loop.remove_reader(near)
        before = len(calls)
        await asyncio.sleep(0.01)
        assert len(calls) == before


@pytest.mark.not_on("uvloop", reason="remove_reader returns None")
async def test_removing_inside_the_callback_makes_it_the_last_call(loop):
    with peers.pair() as (near, far):
        calls = []

        def once():
            calls.append(loop.remove_reader(near))

        loop.add_reader(near, once)
        far.send(b"x")
        await until(lambda: calls)
        await asyncio.sleep(0.01)
        assert calls == [True]


async def test_one_callback_removes_another_that_is_ready_too(loop):
    # Both are readable in the same turn: whichever runs first, the other must not be called after its
    # removal.
    with peers.pair() as (near1, far1), peers.pair() as (near2, far2):
        calls = []

        def callback(mine, other):
            calls.append(mine)
            loop.remove_reader(mine)
            loop.remove_reader(other)

        loop.add_reader(near1, callback, near1, near2)
        loop.add_reader(near2, callback, near2, near1)
        far1.send(b"x")
        far2.send(b"x")
        await until(lambda: calls)
        await asyncio.sleep(0.01)
        assert len(calls) == 1


async def test_removing_and_adding_inside_the_callback(loop):
    with peers.pair() as (near, far):
        seen = []

        def first():
            loop.remove_reader(near)
            loop.add_reader(near, second)
            seen.append("first")

        def second():
            seen.append("second")
            loop.remove_reader(near)

        loop.add_reader(near, first)
        far.send(b"x")
        await until(lambda: len(seen) == 2)
        assert seen == ["first", "second"]


@pytest.mark.not_on("uvloop", reason="remove_reader returns None")
async def test_removing_what_was_never_added(loop):
    with peers.pair() as (near, _):
        assert loop.remove_reader(near) is False
        assert loop.remove_writer(near) is False
        loop.add_reader(near, print)
        assert loop.remove_writer(near) is False
        assert loop.remove_reader(near) is True
        assert loop.remove_reader(near) is False


@pytest.mark.not_on("uvloop", reason="remove_reader returns None")
async def test_adding_and_removing_within_one_turn_leaves_nothing(loop):
    with peers.pair() as (near, far):
        calls = []
        far.send(b"x")
        for _ in range(50):
            loop.add_reader(near, calls.append, None)
            loop.add_writer(near, calls.append, None)
            assert loop.remove_reader(near) is True
            assert loop.remove_writer(near) is True
        await asyncio.sleep(0.01)
        assert calls == []


@pytest.mark.not_on("uvloop", reason="remove_writer returns None")
async def test_a_writer_fires_while_there_is_room_and_waits_while_there_is_none(loop):
    with peers.pair() as (near, far):
        calls = []
        loop.add_writer(near, calls.append, None)
        await until(lambda: len(calls) >= 5)
        loop.remove_writer(near)
        peers.fill(near)
        calls.clear()
        loop.add_writer(near, calls.append, None)
        await asyncio.sleep(0.02)
        assert calls == []
        while not calls:
            with contextlib.suppress(BlockingIOError):
                far.recv(1 << 20)
            await asyncio.sleep(0.001)
        assert loop.remove_writer(near) is True


@pytest.mark.not_on("uvloop", reason="remove_reader returns None")
async def test_reader_and_writer_of_one_fd_are_two(loop):
    with peers.pair() as (near, far):
        reads, writes = [], []
        loop.add_reader(near, lambda: reads.append(near.recv(1)))
        loop.add_writer(near, writes.append, None)
        await until(lambda: len(writes) >= 3)
        assert reads == []
        far.send(b"ab")
        await until(lambda: len(reads) == 2)
        # Removing one leaves the other.
        assert loop.remove_reader(near) is True
        before = len(writes)
        await until(lambda: len(writes) > before)
        assert loop.remove_writer(near) is True
        loop.add_reader(near, lambda: reads.append(near.recv(1)))
        far.send(b"c")
        await until(lambda: len(reads) == 3)
        before = len(writes)
        await asyncio.sleep(0.01)
        assert len(writes) == before
        assert loop.remove_reader(near) is True


async def test_end_of_file_makes_readable(loop):
    with peers.pipe() as (reading, writing):
        seen = []

        def readable():
            seen.append(os.read(reading, 10))
            loop.remove_reader(reading)

        loop.add_reader(reading, readable)
        os.close(writing)
        await until(lambda: seen)
        assert seen == [b""]


async def test_a_broken_pipe_makes_writable(loop):
    with peers.pipe() as (reading, writing):
        os.set_blocking(writing, False)
        try:
            while True:
                os.write(writing, b"\0" * 65536)
        except BlockingIOError:
            pass
        errors = []

        def writable():
            try:
                os.write(writing, b"x")
            except BrokenPipeError as error:
                errors.append(error)
                loop.remove_writer(writing)

        loop.add_writer(writing, writable)
        await asyncio.sleep(0.01)
        assert errors == []
        os.close(reading)
        await until(lambda: errors)


async def test_a_connection_waiting_makes_its_listener_readable(loop):
    with peers.listening() as listener, socket.socket() as client:
        accepted = []
        loop.add_reader(listener, lambda: accepted.append(listener.accept()[0]))
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        await until(lambda: accepted)
        loop.remove_reader(listener)
        accepted[0].close()


async def test_many_at_once(loop):
    count = 300
    pipes = [os.pipe() for _ in range(count)]
    seen = set()
    try:

        def readable(number, fd):
            seen.add((number, os.read(fd, 10)))
            loop.remove_reader(fd)

        for number, (reading, _) in enumerate(pipes):
            loop.add_reader(reading, readable, number, reading)
        for number, (_, writing) in enumerate(pipes):
            os.write(writing, str(number).encode())
        await until(lambda: len(seen) == count)
        assert seen == {(number, str(number).encode()) for number in range(count)}
    finally:
        for fds in pipes:
            for fd in fds:
                os.close(fd)


async def test_a_reader_that_never_rests_does_not_starve_timers(loop):
    with peers.pair() as (near, far):
        far.send(b"x")
        loop.add_reader(near, lambda: None)
        start = loop.time()
        await asyncio.sleep(0.03)
        assert 0.028 <= loop.time() - start < 5
        loop.remove_reader(near)


@pytest.mark.parametrize(
    "fd", [-1, "stdin", None, object(), 1.5], ids=["negative", "str", "None", "object", "float"]
)
@pytest.mark.not_on("uvloop", reason="TypeError where selectors say ValueError")
def test_what_is_no_fd(loop, fd):
    for method in (loop.add_reader, loop.add_writer):
        with pytest.raises(ValueError, match="Invalid file"):
            method(fd, print)


@pytest.mark.not_on("uvloop", reason="looks at the fd in the next turn only")
@pytest.mark.parametrize("side", ["reader", "writer"])
def test_an_fd_that_is_not_open(loop, side):
    add, remove = getattr(loop, f"add_{side}"), getattr(loop, f"remove_{side}")
    with peers.pair() as (near, _):
        fd = os.dup(near.fileno())
    os.close(fd)
    for number in (fd, 1 << 30):
        with pytest.raises(OSError, match="Bad file descriptor"):
            add(number, print)
        assert remove(number) is False


@pytest.mark.not_on("uvloop", reason="watches it")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_is_always_ready_can_t_be_watched(loop, what, tmp_path):
    (tmp_path / "file").touch()
    fd = os.open(tmp_path / "file" if what == "file" else tmp_path, os.O_RDONLY)
    try:
        for add in (loop.add_reader, loop.add_writer):
            with pytest.raises(PermissionError):
                add(fd, print)
    finally:
        os.close(fd)


@pytest.mark.not_on("uvloop", reason="keeps the socket open")
@pytest.mark.parametrize("side", ["reader", "writer"])
@pytest.mark.parametrize("turns", [0, 2])
async def test_removing_a_socket_that_is_closed(loop, side, turns):
    add, remove = getattr(loop, f"add_{side}"), getattr(loop, f"remove_{side}")
    near, far = socket.socketpair()
    near.setblocking(False)
    far.settimeout(peers.PATIENCE)
    with far:
        add(near, lambda: None)
        await loops.turns(turns)
        near.close()
        assert remove(near) is True
        # At once: the engine's interest does not keep it open.
        assert far.recv(1) == b""
        with pytest.raises(ValueError, match="Invalid file descriptor"):
            remove(near)


async def test_a_socket_that_is_removed_and_closed_is_gone_at_once(loop):
    near, far = socket.socketpair()
    near.setblocking(False)
    far.settimeout(peers.PATIENCE)
    with far:
        loop.add_reader(near, lambda: None)
        await loops.turns(2)
        loop.remove_reader(near)
        near.close()
        assert far.recv(1) == b""


@pytest.mark.not_on("asyncio", "uvloop", reason="hold it in other ways")
async def test_a_callback_whose_end_runs_python(loop):
    # The object uses the loop when it is dropped, that is, while it is replaced or removed.
    class Ends:
        def __call__(self):
            pass

        def __del__(self):
            ended.append(loop.stats()["readers"])
            loop.remove_writer(far)

    ended = []
    with peers.pair() as (near, far):
        loop.add_reader(near, Ends())
        loop.add_reader(near, Ends())
        assert loop.remove_reader(near)
        await loops.turns(3)
        assert len(ended) == 2


async def test_the_fd_of_a_transport_is_the_transport_s(loop):
    async with connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (client, _):
        sock = client.transport.get_extra_info("socket")
        for refused in (
            lambda: loop.add_reader(sock, print),
            lambda: loop.add_reader(sock.fileno(), print),
            lambda: loop.add_writer(sock, print),
            lambda: loop.remove_reader(sock),
            lambda: loop.remove_writer(sock),
        ):
            with pytest.raises(RuntimeError, match=r"File descriptor .* is used by transport"):
                refused()
        client.transport.write(b"still works")


def test_closing_the_loop_with_readers_and_writers_left(new_loop):
    loop = new_loop()
    with peers.pair() as (near, far):
        loop.add_reader(near, print)
        loop.add_writer(far, lambda: None)
        loop.run_until_complete(asyncio.sleep(0.002))
        loop.close()


async def test_a_failing_callback_keeps_its_registration(loop, unhandled):
    with peers.pair() as (near, far):
        calls = []

        def callback():
            calls.append(None)
            if len(calls) == 3:
                loop.remove_reader(near)
            raise ZeroDivisionError

        loop.add_reader(near, callback)
        far.send(b"x")
        await until(lambda: len(calls) == 3)
        await asyncio.sleep(0.005)
        assert len(unhandled.take()) == 3
