"""The object that `sock_recv` and its siblings return acts like a coroutine: it begins when it is awaited,
once. From Python 3.14 on it is what their coroutines await.
"""

import asyncio
import gc
import socket
import time
import weakref

import pytest
from support import loops, peers
from support.loops import pending

from proact import _core

pytestmark = pytest.mark.not_on("asyncio", "uvloop", reason="return coroutines")


def sock_recv(loop, *args):
    return _core.Scheduler.sock_recv(loop, *args)


def sock_recv_into(loop, *args):
    return _core.Scheduler.sock_recv_into(loop, *args)


def sock_sendall(loop, *args):
    return _core.Scheduler.sock_sendall(loop, *args)


def collected(make):
    """Whether the object from `make` is freed, by its last reference or by a collection."""
    reference = weakref.ref(make())
    gc.collect()
    return reference() is None


async def test_it_is_awaited_once(loop):
    with peers.tcp_pair() as (near, far):
        far.send(b"ab")
        operation = sock_recv(loop, near, 1)
        assert await operation == b"a"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            await operation
        closed = sock_recv(loop, near, 1)
        closed.close()
        closed.close()
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            await closed
        assert await sock_recv(loop, near, 10) == b"b"


async def test_two_cannot_await_it(loop):
    with peers.tcp_pair() as (near, far):
        operation = sock_recv(loop, near, 10)

        async def wait():
            return await operation

        first, second = loop.create_task(wait()), loop.create_task(wait())
        await pending(loop, first) if not second.done() else None
        with pytest.raises(RuntimeError, match="awaited already"):
            await second
        far.send(b"data")
        assert await first == b"data"


async def test_nothing_begins_before_it_is_awaited(loop):
    with peers.tcp_pair() as (near, far):
        before = loops.in_flight(loop)
        operations = [
            sock_recv(loop, near, 1),
            sock_sendall(loop, near, b"x"),
            sock_recv_into(loop, near, bytearray(1)),
        ]
        await asyncio.sleep(0)
        assert loops.in_flight(loop) == before
        del operations
        with pytest.raises(BlockingIOError):
            far.recv(1)


async def test_dropped_in_every_state(loop):
    with peers.tcp_pair() as (near, far):
        assert collected(lambda: sock_recv(loop, near, 1))
        for turns in (0, 1, 2):
            operation = sock_recv(loop, near, 1)
            future = operation.send(None)
            far.send(b"x")
            await loops.turns(turns)
            del operation, future
            assert await sock_recv(loop, near, 10) == b"x"


async def test_dropped_while_an_exception_is_on_its_way(loop):
    def fail():
        raise KeyError("mine")

    with peers.tcp_pair() as (near, far):
        for state in range(3):
            operation = sock_recv(loop, near, 10)
            if state:
                far.send(b"x")
                operation.send(None)
            if state == 2:
                await asyncio.sleep(0.01)
            box = [operation]
            del operation
            with pytest.raises(KeyError, match="mine"):
                print(box.pop(), fail())
            if state:
                assert await sock_recv(loop, near, 10) == b"x"


async def test_a_task_that_is_destroyed_while_it_waits(loop):
    with peers.tcp_pair() as (near, far):

        async def wait():
            await sock_recv(loop, near, 10)

        coroutine = wait()
        coroutine.send(None)
        coroutine.close()
        far.send(b"x")
        assert await sock_recv(loop, near, 10) == b"x"


@pytest.mark.parametrize(
    "arguments",
    [(KeyError,), (KeyError("x"),), (KeyError, "x"), (KeyError, KeyError("x")), (KeyError, None, None)],
    ids=["class", "instance", "class_and_argument", "class_and_instance", "nothing_else"],
)
@pytest.mark.parametrize("begun", [False, True])
async def test_throw(loop, arguments, begun):
    with peers.tcp_pair() as (near, far):
        operation = sock_recv(loop, near, 10)
        if begun:
            operation.send(None)
        with pytest.raises(KeyError):
            operation.throw(*arguments)
        far.send(b"x")
        assert await sock_recv(loop, near, 10) == b"x"


async def test_results_that_stop_iteration_could_take_for_arguments(loop):
    with peers.tcp_pair() as (near, far):
        far.send(b"x")
        for value in ((1, 2), (), KeyError("x"), None, StopIteration(3)):
            assert await loop._sock_when_readable(near, lambda value=value: value) is value


@pytest.mark.parametrize("way", ["shield", "timeout", "gather", "wait_for", "task_group"])
async def test_asyncio_s_own_ways_to_wait(loop, way):
    with peers.tcp_pair() as (near, far):
        if way == "shield":
            inner = loop.create_task(sock_recv(loop, near, 10))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(inner), 0.001)
            far.send(b"x")
            assert await inner == b"x"
        elif way == "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await sock_recv(loop, near, 10)
        elif way == "gather":
            both = asyncio.gather(sock_recv(loop, near, 10), sock_sendall(loop, far, b"x"))
            assert await both == [b"x", None]
        elif way == "wait_for":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sock_recv(loop, near, 10), 0.001)
            far.send(b"x")
            assert await asyncio.wait_for(sock_recv(loop, near, 10), peers.PATIENCE) == b"x"
        else:
            async with asyncio.TaskGroup() as group:
                got = group.create_task(sock_recv(loop, near, 10))
                group.create_task(sock_sendall(loop, far, b"x"))
            assert got.result() == b"x"


def test_awaited_on_another_loop(loop, new_loop):
    # An error, as for a coroutine that waits for another loop's future; the operation has taken nothing.
    other = new_loop()
    with peers.tcp_pair() as (near, far):

        async def main():
            with pytest.raises(RuntimeError, match="attached to a different loop"):
                await sock_recv(loop, near, 10)

        other.run_until_complete(main())
        far.send(b"x")
        assert loop.run_until_complete(asyncio.wait_for(sock_recv(loop, near, 10), 5)) == b"x"


async def test_stepped_by_another_thread(loop):
    # It is refused while the loop sleeps, and nothing has changed: the loop's own thread can continue.
    def step(operation):
        time.sleep(0.01)
        try:
            operation.send(None)
        except RuntimeError:
            return True
        operation.close()
        return False

    with peers.tcp_pair() as (near, far):
        operation = sock_recv(loop, near, 10)
        # Try again if another process had the core for as long as the thread slept.
        while not await loop.run_in_executor(None, step, operation):
            operation = sock_recv(loop, near, 10)
        far.send(b"x")
        assert await operation == b"x"


def test_the_loop_is_closed_before_it_is_awaited(loop):
    with peers.tcp_pair() as (near, _):
        operation = sock_recv(loop, near, 10)
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            operation.send(None)


async def test_the_socket_is_closed_before_it_is_awaited(loop):
    # The number belongs to another file by then.
    near, far = socket.socketpair()
    near.setblocking(False)
    with far:
        operation = sock_recv(loop, near, 10)
        number = near.fileno()
        near.close()
        with peers.pair() as (other, sender):
            sender.send(b"theirs")
            with pytest.raises(OSError, match="Bad file descriptor"):
                await operation
            assert number in (other.fileno(), sender.fileno())
            assert other.recv(10) == b"theirs"


async def test_the_socket_is_closed_when_it_is_ready(loop):
    # Between the completion and the step of the task.
    for _ in range(20):
        near, far = socket.socketpair()
        near.setblocking(False)
        with far:
            task = loop.create_task(sock_recv(loop, near, 10))
            await pending(loop, task)
            far.send(b"x")
            made = []

            def close(near=near, made=made):
                near.close()
                made.extend(socket.socketpair())
                made[1].send(b"theirs")
                made[0].setblocking(False)

            # It runs in the turn that brings the completion, before the task.
            loop.call_soon(close)
            await asyncio.wait([task], timeout=0.05)
            task.cancel()
            with pytest.raises((OSError, asyncio.CancelledError)):
                await task
            with made[0], made[1]:
                assert made[0].recv(10) == b"theirs"
