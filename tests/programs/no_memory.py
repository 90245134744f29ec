"""Runs each operation of a loop while one of Python's allocations fails: the first, the second, and so on.

`no_memory.py [OPERATION]` prints what went wrong, if anything did. The operation may fail, but not with a
panic; afterwards the same loop has to do the same operation.

A worked operation, `call_soon`: `sweep` calls `attempt` with number 0. This makes a loop, lets allocation 0
fail (`_testcapi.set_nomemory`), and runs the coroutine `call_soon(loop)`. The coroutine may raise
MemoryError. Then memory is back, and the coroutine must succeed on the same loop. `sweep` goes on with number
1, 2, ... until CLEAN numbers in a row made nothing fail, because the operation makes no more allocations.
STEPS says which operations take larger steps.
"""

import _testcapi
import asyncio
import concurrent.futures
import contextlib
import faulthandler
import gc
import os
import socket
import sys
import tempfile
from pathlib import Path

import under_test

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import tls

LONGEST = 0.03  # seconds that an operation may wait for something that is lost
CLEAN = 6  # after so many attempts in a row without a failure, the operation allocates no more
# An operation with many allocations is tried with only one number in so many.
STEPS = {
    "create_task": 2,
    "sock": 2,
    "sock_connect": 2,
    "tcp": 5,
    "tcp_buffered": 7,
    "tls_tcp": 7,
    "streams": 7,
}
OPERATIONS = {}
UDP = socket.SOCK_DGRAM


def operation(function):
    OPERATIONS[function.__name__] = function
    return function


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Hears(asyncio.Protocol):
    def __init__(self):
        self.heard = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        self.tell(data)

    def datagram_received(self, data, address):
        self.tell(data)

    def error_received(self, error):
        self.tell(error)

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, error):
        self.tell(error)

    def tell(self, what):
        if not self.heard.done():
            self.heard.set_result(what)


class HearsInPlace(Hears, asyncio.BufferedProtocol):
    def get_buffer(self, hint):
        self.room = bytearray(100)
        return self.room

    def buffer_updated(self, count):
        self.tell(bytes(self.room[:count]))


def pair():
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    return contextlib.closing(near), contextlib.closing(far)


@operation
async def call_soon(loop):
    done = loop.create_future()
    handle = loop.call_soon(print)
    repr(handle)
    handle.cancel()
    loop.call_soon(done.set_result, 1, context=None)
    await done


@operation
async def call_later(loop):
    done = loop.create_future()
    timer = loop.call_at(loop.time() + 1, print)
    timer.when()
    repr(timer)
    timer.cancel()
    loop.call_later(0.0001, done.set_result, 1)
    await done


@operation
async def create_task(loop):
    await asyncio.gather(loop.create_task(asyncio.sleep(0), name="one"), asyncio.sleep(0))


@operation
async def told(loop):
    repr(loop)
    loop.stats()
    loop.engine_info()


@operation
async def readers(loop):
    near, far = pair()
    with near as near, far as far:
        readable, writable = loop.create_future(), loop.create_future()
        try:
            loop.add_reader(near, lambda: readable.done() or readable.set_result(1))
            loop.add_writer(near, lambda: writable.done() or writable.set_result(1))
            far.send(b"x")
            await readable
            await writable
        finally:
            loop.remove_reader(near)
            loop.remove_writer(near)


@operation
async def sock(loop):
    near, far = pair()
    with near as near, far as far:
        waiting = loop.create_task(loop.sock_recv(near, 10))
        await asyncio.sleep(0)
        await loop.sock_sendall(far, b"x")
        assert await waiting == b"x"
        await loop.sock_sendall(near, b"y" * 300)
        assert await loop.sock_recv_into(far, bytearray(300)) == 300


@operation
async def sock_connect(loop):
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as near:
        listening.setblocking(False)
        near.setblocking(False)
        accepted = loop.create_task(loop.sock_accept(listening))
        await loop.sock_connect(near, listening.getsockname())
        (await accepted)[0].close()


@operation
async def sock_datagrams(loop):
    with socket.socket(type=UDP) as near:
        near.setblocking(False)
        near.bind(("127.0.0.1", 0))
        await loop.sock_sendto(near, b"x", near.getsockname())
        assert (await loop.sock_recvfrom(near, 10))[0] == b"x"


async def exchange(loop, hears=Hears, server_tls=None, **options):
    server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_tls)
    try:
        address = server.sockets[0].getsockname()
        transport, protocol = await loop.create_connection(hears, *address, **options)
        try:
            transport.get_extra_info("peername")
            repr(transport)
            transport.get_write_buffer_limits()
            transport.writelines([b"hel", b"lo"])
            assert await protocol.heard == b"hello"
            transport.pause_reading()
            transport.resume_reading()
            protocol.heard = loop.create_future()
            transport.close()
            assert await protocol.heard is None
        finally:
            transport.abort()
    finally:
        server.close()


@operation
async def tcp(loop):
    await exchange(loop)


@operation
async def tcp_buffered(loop):
    await exchange(loop, HearsInPlace)


CLIENT, SERVER = tls.client_context(), tls.server_context()


@operation
async def tls_tcp(loop):
    await exchange(loop, server_tls=SERVER, ssl=CLIENT, server_hostname=tls.NAME)


@operation
async def streams(loop):
    async def answer(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        assert await reader.read() == b"hello\n"
        writer.close()
    finally:
        server.close()


@operation
async def datagrams(loop):
    transport, protocol = await loop.create_datagram_endpoint(Hears, local_addr=("127.0.0.1", 0))
    try:
        transport.sendto(b"x", transport.get_extra_info("sockname"))
        assert await protocol.heard == b"x"
    finally:
        transport.close()


@operation
async def pipes(loop):
    reading, writing = os.pipe()
    with open(reading, "rb", 0) as reading, open(writing, "wb", 0) as writing:
        source, protocol = await loop.connect_read_pipe(Hears, reading)
        try:
            sink, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, writing)
            try:
                sink.write(b"x")
                assert await protocol.heard == b"x"
            finally:
                sink.abort()
        finally:
            source.close()


FILE = tempfile.TemporaryFile()  # noqa: SIM115 (until the end)
FILE.write(b"hello")
FILE.flush()


@operation
async def sendfile(loop):
    near, far = socket.socketpair()
    with far:
        transport, _ = await loop.create_connection(Hears, sock=near)
        try:
            assert await loop.sendfile(transport, FILE) == 5
            assert far.recv(10) == b"hello"
        finally:
            transport.abort()


class AtOnce(concurrent.futures.Executor):
    """An executor without a thread: a thread without memory dies with locks held, and the next user of them
    hangs.
    """

    def submit(self, function, /, *args):
        future = concurrent.futures.Future()
        future.set_result(function(*args))
        return future


@operation
async def executor(loop):
    assert await loop.run_in_executor(AtOnce(), abs, -1) == 1


@operation
def new_loop(_loop):
    under_test.new_event_loop().close()


def attempt(work, number, wrong):
    """Run `work` while allocation `number` fails; return whether nothing failed."""
    failed = []

    def told(_loop, context):
        failed.append(type(context.get("exception")).__name__)

    def unraisable(args):
        failed.append(args.exc_type.__name__)

    loop = under_test.new_event_loop()
    loop.set_exception_handler(told)
    sys.unraisablehook = unraisable
    guard = loop.call_later(LONGEST, loop.stop)
    running = [True]
    task = coroutine = None
    try:
        _testcapi.set_nomemory(number, number + 1)
        try:
            if work is new_loop:
                work(loop)
            else:
                coroutine = work(loop)
                task = loop.create_task(coroutine)
                task.add_done_callback(lambda _task: running and loop.stop())
                loop.run_forever()
        finally:
            _testcapi.remove_mem_hooks()
    except BaseException as error:
        failed.append(type(error).__name__)
    # Restore what `run_forever`, which is Python code, may not have reached.
    asyncio._set_running_loop(None)
    sys.set_asyncgen_hooks(None, None)
    if task is None and coroutine is not None:
        coroutine.close()
    guard.cancel()
    running.clear()
    if task is not None and not (task.done() and not task.cancelled() and task.exception() is None):
        failed.append(type(task.exception()).__name__ if task.done() and not task.cancelled() else "lost")
    try:
        loop.call_soon(loop.stop)
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for one in left:
            one.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=LONGEST))
        if work is new_loop:
            work(loop)
        else:
            loop.run_until_complete(asyncio.wait_for(work(loop), 10))
    except BaseException as error:
        wrong.append(f"{number}: afterwards {error!r}, failed: {failed}")
    loop.close()
    if "PanicException" in failed:
        wrong.append(f"{number}: {failed}")
    return not failed


def sweep(name):
    """Everything that went wrong with an operation."""
    wrong = []
    clean = number = 0
    while clean < CLEAN and len(wrong) < 5:
        clean = clean + 1 if attempt(OPERATIONS[name], number, wrong) else 0
        number += STEPS.get(name, 1)
    gc.collect()
    return [f"{name}: {what}" for what in wrong]


faulthandler.dump_traceback_later(45, exit=True)
gc.disable()
for name in sys.argv[1:] or OPERATIONS:
    for what in sweep(name):
        print(what)
print("done", flush=True)
