"""Cancelling sock_ operations that are proven pending: no byte and no connection is lost."""

import asyncio
import random
import socket
import threading
import time

import pytest
from support import loops, peers
from support.loops import pending


async def cancel(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_recv(loop):
    with peers.tcp_pair() as (near, far):
        for number in range(20):
            task = loop.create_task(loop.sock_recv(near, 100))
            await pending(loop, task)
            await cancel(task)
            far.send(b"%d" % number)
            assert await loop.sock_recv(near, 100) == b"%d" % number


async def test_recv_cancelled_in_the_turn_it_starts(loop):
    with peers.tcp_pair() as (near, far):
        for delay in (0, 1, 2):
            task = loop.create_task(loop.sock_recv(near, 100))
            await loops.turns(delay)
            await cancel(task)
            far.send(b"x")
            assert await loop.sock_recv(near, 100) == b"x"


@pytest.mark.not_on("asyncio", "uvloop", reason="a coroutine that nobody awaits does not begin, and warns")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_recv_that_nobody_awaits_keeps_its_bytes(loop):
    with peers.tcp_pair() as (near, far):
        operation = loop.sock_recv(near, 100)
        far.send(b"kept")
        await asyncio.sleep(0.02)
        del operation
        assert await loop.sock_recv(near, 100) == b"kept"


async def test_recv_into(loop):
    with peers.tcp_pair() as (near, far):
        buffer = bytearray(100)
        task = loop.create_task(loop.sock_recv_into(near, buffer))
        await pending(loop, task)
        await cancel(task)
        far.send(b"data")
        assert await loop.sock_recv(near, 100) == b"data"
        assert buffer == bytes(100), "the cancelled receive wrote into its buffer"
        # The owner has the buffer back: this raises BufferError while the op still holds it.
        await loops.turns(10)
        del buffer[:]


async def test_accept(loop):
    with peers.listening() as listener:
        for _ in range(20):
            task = loop.create_task(loop.sock_accept(listener))
            await pending(loop, task)
            await cancel(task)
            with socket.create_connection(listener.getsockname()) as client:
                server, address = await loop.sock_accept(listener)
                with server:
                    assert address == client.getsockname()


async def test_connect(loop):
    with peers.unanswering() as address, socket.socket() as client:
        client.setblocking(False)
        task = loop.create_task(loop.sock_connect(client, address))
        await pending(loop, task)
        await asyncio.sleep(0.01)
        await pending(loop, task)
        await cancel(task)


async def test_sendall(loop):
    data = peers.payload(4 << 20)
    with peers.tcp_pair(buffer=65536) as (near, far):
        task = loop.create_task(loop.sock_sendall(near, data))
        await pending(loop, task)
        await cancel(task)
        # It is unknown how much went out, but it is the beginning of the data, and what is sent next follows
        # it.
        reading = loop.run_in_executor(None, peers.receive_all, far)
        await loop.sock_sendall(near, b"tail")
        near.shutdown(socket.SHUT_WR)
        received = await reading
        assert received.endswith(b"tail")
        assert received[:-4] == data[: len(received) - 4]


@pytest.mark.parametrize("method", ["recv", "recv_into", "accept"])
@pytest.mark.not_on(
    "asyncio", "uvloop", reason="a cancellation in the turn of the completion loses what was received"
)
async def test_cancelled_in_the_turn_that_brings_the_completion(loop, method):
    # The data and the cancellation meet in one turn: the operation is done, but its task no longer learns
    # that. A proactor holds the bytes by then and has to keep them for the next receive.
    with peers.listening() as listener, peers.tcp_pair() as (near, far):
        for _ in range(10):
            if method == "accept":
                task = loop.create_task(loop.sock_accept(listener))
            elif method == "recv":
                task = loop.create_task(loop.sock_recv(near, 100))
            else:
                task = loop.create_task(loop.sock_recv_into(near, bytearray(100)))
            await pending(loop, task)
            loop.call_later(0.001, task.cancel)
            if method == "accept":
                client = socket.create_connection(listener.getsockname())
            else:
                far.send(b"kept")
            time.sleep(0.003)  # the loop sleeps too: in its next turn, both the data and the timer are there
            await asyncio.wait([task])
            if not task.cancelled():
                # The other correct outcome: the completion came first, and was delivered.
                result = task.result()
            elif method == "accept":
                result = await asyncio.wait_for(loop.sock_accept(listener), 5)
            else:
                result = await asyncio.wait_for(loop.sock_recv(near, 100), 5)
            if method == "accept":
                with client, result[0]:
                    assert result[1] == client.getsockname()
            else:
                assert result in (b"kept", 4)


@pytest.mark.not_on(
    "asyncio", "uvloop", reason="a cancellation in the turn of the completion loses what was received"
)
async def test_timeouts_that_race_with_the_data_lose_no_byte(loop):
    expected = peers.payload(500 * 40)
    with peers.tcp_pair() as (near, far):

        def send():
            far.setblocking(True)
            for start in range(0, len(expected), 40):
                far.sendall(expected[start : start + 40])
                time.sleep(0.0007)

        races = attempts = 0
        while races < 50:  # one race is enough, unless another process has the core all the time
            received = bytearray()
            timeouts = 0
            with peers.thread(send):
                while len(received) < len(expected):
                    attempts += 1
                    try:
                        timeout = 0.0003 + attempts % 5 * 0.0001
                        part = await asyncio.wait_for(loop.sock_recv(near, 64), timeout)
                        assert part, "the peer did not close"
                        received += part
                    except TimeoutError:
                        timeouts += 1
                    # Give up when the sender has finished and nothing comes: then bytes were lost.
                    assert timeouts < 20_000
            assert received == expected
            races += timeouts


@pytest.mark.not_on(
    "asyncio", "uvloop", reason="a cancellation in the turn of the completion loses the connection"
)
async def test_timeouts_that_race_with_connections_lose_none(loop):
    count = 200
    with peers.listening() as listener:
        address = listener.getsockname()
        served = threading.Semaphore(0)
        greetings = []

        def connect():
            for _ in range(count):
                with socket.create_connection(address) as client:
                    client.settimeout(10)
                    served.acquire()
                    greetings.append(client.recv(10))
                time.sleep(0.0009)

        races = 0
        while races < 10:  # one race is enough, unless another process has the core all the time
            greetings.clear()
            timeouts = accepted = 0
            with peers.thread(connect):
                while accepted < count:
                    try:
                        server, _ = await asyncio.wait_for(
                            loop.sock_accept(listener), 0.0005 + timeouts % 5 * 0.0001
                        )
                    except TimeoutError:
                        timeouts += 1
                        assert timeouts < 20_000
                        continue
                    accepted += 1
                    with server:
                        await loop.sock_sendall(server, b"hello")
                        served.release()
            assert greetings == [b"hello"] * count
            races += timeouts


async def cancel_and_close(loop, rounds, wait):
    for _ in range(rounds):
        with peers.tcp_pair() as (near, _):
            tasks = [loop.create_task(loop.sock_recv(near, 10)), loop.create_task(block_sending(loop, near))]
            await pending(loop, tasks[0])
            for task in tasks:
                task.cancel()
            if wait:
                await asyncio.wait(tasks)
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)


async def test_closing_the_socket_after_the_cancellation(loop):
    await cancel_and_close(loop, 100, wait=True)


@pytest.mark.not_on(
    "asyncio", reason="removes its reader from the closed fd: EBADF goes to the exception handler"
)
async def test_closing_the_socket_before_the_cancellation_has_gone_through(loop):
    await cancel_and_close(loop, 100, wait=False)


async def block_sending(loop, sock):
    while True:
        await loop.sock_sendall(sock, bytes(1 << 20))


async def test_a_task_group_cancels_its_receivers(loop):
    with peers.tcp_pair() as (near1, _), peers.tcp_pair() as (near2, far2):
        with pytest.raises(ExceptionGroup) as info:
            async with asyncio.TaskGroup() as group:
                group.create_task(loop.sock_recv(near1, 10))
                task = group.create_task(loop.sock_recv(near2, 10))
                await pending(loop, task)
                raise ZeroDivisionError
        assert isinstance(info.value.exceptions[0], ZeroDivisionError)
        far2.send(b"after")
        assert await loop.sock_recv(near2, 10) == b"after"


def test_closing_the_loop_with_operations_pending(new_loop):
    # An op that was not cancelled ends with the loop: no crash, no fd left, no write into the freed buffer.
    loop = new_loop()
    with peers.tcp_pair() as (near, far):
        buffer = bytearray(1000)

        async def main():
            task = asyncio.ensure_future(loop.sock_recv_into(near, buffer))
            await pending(loop, task)
            return task

        task = loop.run_until_complete(main())
        loop.close()
        far.send(b"late" * 200)
        time.sleep(0.005)
        assert buffer == bytes(1000)
        # Tell asyncio that the end of this task is expected.
        task._log_destroy_pending = False
        del task


@pytest.mark.parametrize("into", [False, True], ids=["sock_recv", "mixed_with_sock_recv_into"])
@pytest.mark.not_on
@pytest.mark.not_on("uvloop", reason="loses bytes of a cancelled receive")
async def test_receives_under_timeouts_keep_the_order_of_the_bytes(loop, into):
    data = peers.payload(1_000_000)
    got = bytearray()
    generator = random.Random(7)
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)

    async def send():
        view = memoryview(data)
        while view:
            count = generator.randrange(1, 800)
            await loop.sock_sendall(far, view[:count])
            view = view[count:]
            await asyncio.sleep(generator.choice((0, 0, 1e-5, 1e-4)))

    with near, far:
        sender = loop.create_task(send())
        room = bytearray(300)
        while len(got) < len(data):
            try:
                async with asyncio.timeout(generator.choice((1, 1e-5, 5e-5, 1e-4))):
                    if into and generator.random() < 0.5:
                        got += room[: await loop.sock_recv_into(near, room)]
                    else:
                        got += await loop.sock_recv(near, generator.randrange(1, 1000))
            except TimeoutError:
                pass
        await sender
    assert peers.digest(got) == peers.digest(data)
