"""Debug mode: the checks that the loop makes only on request."""

import asyncio
import logging
import os
import re
import socket
import time

import pytest
from support import loops, peers, tls
from support.protocols import Datagrams, Recorder, heard
from support.trials import once_of_five


@pytest.fixture
def loop(new_loop):
    loop = new_loop()
    assert loop.get_debug() is False
    assert loop.slow_callback_duration == 0.1
    loop.set_debug(True)
    assert loop.get_debug() is True
    return loop


async def coroutine_function():
    raise AssertionError("must not be run")


# Another process that takes the core makes more callbacks slow than the tests do: hence once_of_five.


def slow_ones(caplog):
    """The messages about slow callbacks since the last call."""
    messages = [record.getMessage() for record in caplog.records if "took" in record.getMessage()]
    caplog.clear()
    return messages


@once_of_five
def test_a_slow_callback_is_named_with_its_duration(loop, caplog):
    loop.slow_callback_duration = 0.02
    loop.call_soon(time.sleep, 0.03)
    loop.call_soon(time.sleep, 0.001)
    loop.run_until_complete(asyncio.sleep(0))
    (message,) = slow_ones(caplog)
    assert message.startswith("Executing <")
    assert "sleep" in message
    assert 0.03 <= float(message.split(" took ")[1].split()[0]) < 1


@once_of_five
def test_a_slow_step_of_a_task_names_the_task(loop, caplog):
    async def dawdle():
        time.sleep(0.03)

    loop.slow_callback_duration = 0.02
    loop.run_until_complete(dawdle())
    (message,) = slow_ones(caplog)
    assert "dawdle" in message


def assert_told(caplog):
    """The message about the slow protocol. A busy machine may make a step of the test's task slow, too."""
    (message,) = [message for message in slow_ones(caplog) if not message.startswith("Executing <Task")]
    assert message.startswith("Executing <")
    assert re.search("transport|protocol|connection_made", message, re.IGNORECASE)


class Dawdling:
    """Takes its time in one of a protocol's methods."""

    slow = ""

    def call(self, name):
        super().call(name)
        if name == self.slow:
            time.sleep(0.06)


class Dawdler(Dawdling, Recorder):
    pass


class DatagramDawdler(Dawdling, Datagrams):
    pass


def dawdler(kind, loop, slow):
    protocol = kind(loop)
    protocol.slow = slow
    return protocol


@pytest.mark.parametrize(
    "slow",
    [
        "connection_made",
        "data_received",
        "eof_received",
        "connection_lost",
        "pause_writing",
        "resume_writing",
    ],
)
@once_of_five
async def test_a_slow_protocol_is_told_of_too(loop, caplog, slow):
    loop.slow_callback_duration = 0.05
    with peers.pair() as (near, far):
        _, protocol = await loop.create_connection(lambda: dawdler(Dawdler, loop, slow), sock=near)
        # Not more than the kernel takes once there is room, so that a completion calls `resume_writing`.
        loop.call_soon(protocol.transport.write, bytes(1 << 20))
        await loops.turns()
        assert len(await heard(loop, far, 1 << 20)) == 1 << 20
        far.send(b"data")
        await protocol.received(4)
        far.shutdown(socket.SHUT_WR)
        await protocol.lost
        await loops.turns()
    assert slow in protocol.calls
    assert_told(caplog)


@pytest.mark.parametrize("slow", ["connection_made", "datagram_received", "connection_lost"])
@once_of_five
async def test_a_slow_protocol_of_datagrams(loop, caplog, slow):
    loop.slow_callback_duration = 0.05
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: dawdler(DatagramDawdler, loop, slow), local_addr=("127.0.0.1", 0)
    )
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"data", transport.get_extra_info("sockname"))
    await protocol.received()
    transport.close()
    await protocol.lost
    await loops.turns()
    assert_told(caplog)


@pytest.mark.parametrize("slow", ["connection_made", "data_received", "connection_lost"])
@once_of_five
async def test_a_slow_protocol_behind_a_pipe(loop, caplog, slow):
    loop.slow_callback_duration = 0.05
    with peers.pipe() as (reading, writing):
        _, protocol = await loop.connect_read_pipe(
            lambda: dawdler(Dawdler, loop, slow), os.fdopen(reading, "rb", 0)
        )
        os.write(writing, b"data")
        await protocol.received(4)
        os.close(writing)
        await protocol.lost
        await loops.turns()
    assert_told(caplog)


@pytest.mark.not_on("uvloop", reason="says nothing of its handshakes")
async def test_a_tls_handshake_is_told_of(loop, caplog):
    caplog.set_level(logging.DEBUG, "asyncio")
    async with tls.connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (near, _):
        await near.close()
    lines = [record.getMessage() for record in caplog.records if "handshake" in record.getMessage()]
    begun = [line for line in lines if line.endswith("starts SSL handshake")]
    took = [
        float(line.split(" took ")[1].removesuffix(" ms")) for line in lines if "SSL handshake took" in line
    ]
    assert len(begun) == len(took) == 2
    assert all(0 < milliseconds < 10_000 for milliseconds in took)


def test_without_debug_nobody_is_told(loop, caplog):
    loop.set_debug(False)
    loop.slow_callback_duration = 0.001
    loop.call_soon(time.sleep, 0.01)
    loop.run_until_complete(asyncio.sleep(0))
    assert "took" not in caplog.text


@pytest.mark.parametrize(
    "call",
    [
        lambda loop: loop.call_soon(print),
        lambda loop: loop.call_later(1, print),
        lambda loop: loop.call_at(1, print),
    ],
    ids=["call_soon", "call_later", "call_at"],
)
async def test_calls_from_another_thread_are_refused(loop, call):
    with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
        await loop.run_in_executor(None, call, loop)


async def test_call_soon_threadsafe_is_for_other_threads(loop):
    called = loop.create_future()
    await loop.run_in_executor(None, lambda: loop.call_soon_threadsafe(called.set_result, "called"))
    assert await called == "called"


CALLS = {
    "call_soon": lambda loop, callback: loop.call_soon(callback),
    "call_soon_threadsafe": lambda loop, callback: loop.call_soon_threadsafe(callback),
    "call_at": lambda loop, callback: loop.call_at(0, callback),
    "call_later": lambda loop, callback: loop.call_later(0, callback),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize(
    "callback", [42, None, coroutine_function], ids=["int", "none", "coroutine function"]
)
@pytest.mark.not_on("uvloop", reason="its call_at and call_later check nothing")
def test_callbacks_that_cannot_be_called_are_refused_at_once(loop, call, callback):
    with pytest.raises(TypeError, match=r"coroutines cannot be used with|a callable object was expected"):
        call(loop, callback)


@pytest.mark.not_on("uvloop", reason="does not notice")
def test_a_coroutine_is_no_callback(loop):
    coroutine = coroutine_function()
    with pytest.raises(TypeError, match=r"coroutines cannot be used with"):
        loop.call_soon(coroutine)
    coroutine.close()


@pytest.mark.parametrize(
    "method", ["sock_recv", "sock_recv_into", "sock_sendall", "sock_connect", "sock_accept"]
)
async def test_blocking_sockets_are_refused(loop, method):
    argument = {
        "sock_recv": (1,),
        "sock_recv_into": (bytearray(1),),
        "sock_sendall": (b"x",),
        "sock_connect": (("127.0.0.1", 1),),
        "sock_accept": (),
    }[method]
    with peers.tcp_pair() as (near, _):
        near.setblocking(True)
        with pytest.raises(ValueError, match="the socket must be non-blocking"):
            await getattr(loop, method)(near, *argument)


@pytest.mark.not_on("uvloop", reason="its handles keep no traceback of their creation")
def test_an_error_says_where_the_callback_was_scheduled(loop, unhandled):
    def divide():
        return 1 // 0

    loop.call_soon(divide)
    loop.run_until_complete(asyncio.sleep(0))
    context = unhandled.take_one().context
    assert any(frame.filename == __file__ for frame in context["source_traceback"])


def test_traffic_in_debug_mode(loop):
    # Debug mode takes other paths through callbacks and transports. Real traffic shows that they have the
    # same end.
    async def main():
        async def echo(reader, writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()
            served.set_result(None)

        served = loop.create_future()
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        data = peers.payload(300_000)
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == data
        writer.close()
        await writer.wait_closed()
        await served
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_run_passes_debug_on(proact, unhandled):
    async def debugging():
        return asyncio.get_running_loop().get_debug()

    assert proact.run(debugging(), debug=True) is True
    assert proact.run(debugging(), debug=False) is False


def test_the_environment_switches_it_on(engine):
    from support import children

    assert children.output("debug_flag.py", engine=engine, PYTHONASYNCIODEBUG="1") == "True"
    assert loops.REFERENCE or children.output("debug_flag.py", engine=engine) == "False"
