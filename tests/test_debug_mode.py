"""Debug mode: what the loop checks only when it is asked to."""

import asyncio
import time

import pytest
from support import loops, peers


@pytest.fixture
def loop(new_loop):
    loop = new_loop()
    assert loop.get_debug() is False
    loop.set_debug(True)
    assert loop.get_debug() is True
    return loop


async def coroutine_function():
    raise AssertionError("must not be run")


def test_a_slow_callback_is_named_with_its_duration(loop, caplog):
    assert loop.slow_callback_duration == 0.1
    loop.slow_callback_duration = 0.02
    loop.call_soon(time.sleep, 0.03)
    loop.call_soon(time.sleep, 0.001)
    loop.run_until_complete(asyncio.sleep(0))
    (message,) = [record.getMessage() for record in caplog.records if "took" in record.getMessage()]
    assert message.startswith("Executing <")
    assert "sleep" in message
    assert 0.03 <= float(message.split(" took ")[1].split()[0]) < 1


def test_a_slow_step_of_a_task_names_the_task(loop, caplog):
    async def dawdle():
        time.sleep(0.03)

    loop.slow_callback_duration = 0.02
    loop.run_until_complete(dawdle())
    (message,) = [record.getMessage() for record in caplog.records if "took" in record.getMessage()]
    assert "dawdle" in message


async def test_a_slow_protocol_is_told_of_too(loop, caplog):
    class Dawdler(asyncio.Protocol):
        def data_received(self, data):
            time.sleep(0.03)
            heard.set_result(data)

    heard = loop.create_future()
    loop.slow_callback_duration = 0.02
    with peers.pair() as (near, far):
        transport, _ = await loop.create_connection(Dawdler, sock=near)
        far.send(b"data")
        assert await heard == b"data"
        transport.close()
        await asyncio.sleep(0)
    (message,) = [record.getMessage() for record in caplog.records if "took" in record.getMessage()]
    assert "transport" in message.lower()


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
    # Debug takes other paths through callbacks and transports; real traffic shows that they lead to the same
    # end.
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
