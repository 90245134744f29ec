"""Programs as in gevent_cases.py: asyncio beside greenlets, in the same thread."""

import asyncio
import gc
import os
import signal
import socket as plain_socket
import sys
import threading
import time

from gevent_cases import message_of


def asyncio_beside_greenlets():
    import gevent
    from gevent import socket
    from gevent.event import Event

    aio = gevent.get_hub().loop.aio
    seen = []

    async def echo(reader, writer):
        assert asyncio.get_running_loop() is aio
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        started.port = server.sockets[0].getsockname()[1]
        started.set()
        await asyncio.get_running_loop().run_in_executor(None, stopped.wait)
        server.close()
        await server.wait_closed()

    class Started(Event):
        port = 0

    started, stopped = Started(), threading.Event()
    task = aio.create_task(main())
    started.wait()

    def client(number):
        hidden()
        connection = socket.create_connection(("127.0.0.1", started.port))
        for turn in range(20):
            message = b"%d:%d" % (number, turn)
            connection.sendall(message)
            assert connection.recv(100) == message
            hidden()
        connection.close()
        seen.append(number)

    def hidden():
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise AssertionError("a greenlet sees asyncio's loop")

    gevent.joinall([gevent.spawn(client, number) for number in range(10)], raise_error=True)
    hidden()
    assert sorted(seen) == list(range(10))
    stopped.set()
    done = Event()
    task.add_done_callback(lambda _: done.set())
    done.wait()
    assert not task.exception()

    async def items():
        try:
            for item in range(3):
                yield item
        finally:
            seen.append("finalised")

    async def one():
        async for item in items():
            return item
        return None

    # A generator that was left in the middle is finalised by the loop.
    task, done = aio.create_task(one()), Event()
    task.add_done_callback(lambda _: done.set())
    done.wait()
    gc.collect()
    gevent.sleep(0.01)
    assert seen[-1] == "finalised"


def runs_for_asyncio_alone():
    import gevent

    aio = gevent.get_hub().loop.aio
    ended = []

    async def task():
        await asyncio.sleep(0.02)
        here, there = plain_socket.socketpair()
        here.setblocking(False)
        there.setblocking(False)
        threading.Timer(0.05, there.send, [b"x"]).start()
        ended.append(await aio.sock_recv(here, 1))
        here.close()
        ended.append(await aio.run_in_executor(None, lambda: time.sleep(0.05) or "thread"))
        there.close()

    kept = aio.create_task(task())
    # It would raise LoopExit before, if only greenlets counted.
    assert gevent.wait() is True
    assert ended == [b"x", "thread"] and kept.done()
    message_of(gevent.exceptions.LoopExit, gevent.event.Event().wait)


def asyncio_cannot_take_the_loop():
    import gevent

    aio = gevent.get_hub().loop.aio
    for refused in (aio.run_forever, aio.stop):
        assert "gevent's hub" in message_of(RuntimeError, refused)

    # A greenlet may run another loop, as it could on libev: it blocks the thread meanwhile.
    async def answer():
        return 42

    assert gevent.spawn(lambda: asyncio.run(answer())).get() == 42
    gevent.sleep(0)


def patched_first():
    from gevent import monkey

    monkey.patch_all()
    import gevent

    aio = gevent.get_hub().loop.aio
    assert type(aio).__module__ == "proact.green.gevent_beside"
    done = gevent.event.Event()

    async def main():
        async def echo(reader, writer):
            writer.write(await reader.read(100))
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("localhost", port)
        writer.write(b"hello")
        assert await reader.read() == b"hello"
        writer.close()
        server.close()
        got = asyncio.Event()
        aio.add_signal_handler(signal.SIGUSR2, got.set)
        os.kill(os.getpid(), signal.SIGUSR2)
        await asyncio.wait_for(got.wait(), 5)
        aio.remove_signal_handler(signal.SIGUSR2)
        process = await asyncio.create_subprocess_exec("echo", "child", stdout=asyncio.subprocess.PIPE)
        assert await process.communicate() == (b"child\n", None)
        assert await aio.run_in_executor(None, lambda: 5) == 5

    task = aio.create_task(main())
    task.add_done_callback(lambda _: done.set())
    assert done.wait(timeout=10)
    task.result()

    # The plain modules block greenlets, not the thread.
    import queue
    import select
    import subprocess

    results = queue.Queue()
    barrier = threading.Barrier(5)
    threads = [threading.Thread(target=lambda: results.put(barrier.wait(10))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results.get() for _ in threads) == list(range(5))
    time.sleep(0.001)
    here, there = plain_socket.socketpair()
    assert select.select([here], [], [], 0.01) == ([], [], [])
    there.send(b"x")
    assert select.select([here], [], [], 5)[0] == [here]
    poll = select.poll()
    poll.register(here, select.POLLIN)
    assert poll.poll(1000)
    assert subprocess.check_output(["echo", "x"]) == b"x\n"


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("done")
