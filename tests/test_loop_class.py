"""What programs do with a loop's class and attributes: make it, derive from it, set asyncio's attributes."""

import asyncio
import contextvars
import socket
import sys
import weakref

import pytest
from support import loops, tls


def test_the_class_without_arguments(proact, monkeypatch):
    monkeypatch.delenv("PROACT_ENGINE", raising=False)
    loop, chosen = proact.EventLoop(), proact.new_event_loop()
    assert loop.engine == chosen.engine
    assert loop.engine_info()["requested"] == "auto"
    assert loop.engine_info()["engines"] == chosen.engine_info()["engines"]
    loop.close()
    chosen.close()


def test_the_class_obeys_the_environment(proact, monkeypatch):
    monkeypatch.setenv("PROACT_ENGINE", "poll")
    loop = proact.EventLoop()
    assert (loop.engine, loop.engine_info()["requested"]) == ("poll", "poll")
    loop.close()
    loop = proact.EventLoop("select")
    assert loop.engine == "select"
    loop.close()
    monkeypatch.setenv("PROACT_ENGINE", "nonsense")
    with pytest.raises(ValueError, match="PROACT_ENGINE"):
        proact.EventLoop()
    with pytest.raises(ValueError, match="nonsense"):
        proact.EventLoop("nonsense")


def test_subclasses(engine, proact):
    class Plain(proact.EventLoop):
        pass

    class Own(proact.EventLoop):
        def __init__(self, engine, *, label):
            super().__init__()
            self.label = label

        def call_soon(self, callback, *args, context=None):
            self.calls = getattr(self, "calls", 0) + 1
            return super().call_soon(callback, *args, context=context)

    async def main():
        await asyncio.sleep(0.001)
        return asyncio.get_running_loop()

    for loop in Plain(), Plain(engine), Own(engine, label="mine"):
        with asyncio.Runner(loop_factory=lambda loop=loop: loop) as runner:
            assert runner.run(main()) is loop
    assert (loop.engine, loop.label) == (engine, "mine")
    assert loop.calls


@pytest.mark.parametrize("value", [1, 0, None, "yes", "", [], object], ids=repr)
def test_set_debug_takes_anything(loop, value):
    loop.set_debug(value)
    assert bool(loop.get_debug()) == bool(value)

    async def main():
        loop.set_debug(not value)
        loop.set_debug(value)
        loop.slow_callback_duration = 1

    loop.run_until_complete(main())
    loop.set_debug(False)


def test_what_has_no_truth(loop, proact):
    class Neither:
        def __bool__(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop.set_debug(Neither())
    assert not loop.get_debug()


async def test_a_slow_callback_and_a_whole_number(loop, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    loop.call_soon(int)
    await loops.turns()
    loop.set_debug(False)
    assert "seconds" in caplog.text


# A task factory sees exactly the calls that asyncio makes.

CONTEXT = contextvars.copy_context()
KEYWORDS = [
    {},
    {"name": None},
    {"name": "named"},
    {"name": 5},
    {"context": None},
    {"context": CONTEXT},
    {"name": None, "context": None},
    {"name": "named", "context": CONTEXT},
    {"eager_start": None},
    {"eager_start": False},
    {"name": "named", "context": CONTEXT, "eager_start": True},
    {"nonsense": 1},
]


def recorded(loop, way, keywords, factory, debug):
    """The arguments of the call of the factory, if there is one, and the outcome."""
    calls = []

    def record(*args, **kwargs):
        calls.append((args[0] is loop, args[1] is coroutine, len(args), kwargs))
        return asyncio.Task(args[1], loop=loop, **kwargs)

    async def work():
        return asyncio.current_task().get_name()

    async def main():
        loop.set_task_factory(record if factory else None)
        try:
            if way == "group":
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(coroutine, **keywords)
            else:
                task = {"loop": loop, "asyncio": asyncio}[way].create_task(coroutine, **keywords)
                await task
        finally:
            loop.set_task_factory(None)
        named = not task.get_name().startswith("Task-")
        return type(task), task.get_name() if named else None, task.get_context() if GETS_CONTEXT else None

    coroutine = work()
    loop.set_debug(debug)
    try:
        outcome = loop.run_until_complete(main())
    except Exception as error:
        outcome = type(error)
    finally:
        loop.set_debug(False)
        coroutine.close()
    if outcome and isinstance(outcome, tuple) and "context" not in keywords:
        outcome = outcome[:2]  # the rest differs between the loops
    return calls, outcome


GETS_CONTEXT = sys.version_info >= (3, 12)


@pytest.mark.parametrize("keywords", KEYWORDS, ids=lambda keywords: ",".join(keywords) or "plain")
@pytest.mark.parametrize("factory", [True, False], ids=["factory", "no factory"])
def test_tasks_are_made_as_asyncio_makes_them(loop, proact, keywords, factory):
    reference = asyncio.SelectorEventLoop()
    try:
        for way in ("loop", "asyncio", "group"):
            for debug in (False, True):
                expected = recorded(reference, way, keywords, factory, debug)
                assert recorded(loop, way, keywords, factory, debug) == expected, (way, debug)
    finally:
        reference.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks(loop):
    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)
        task = asyncio.create_task(asyncio.sleep(0, "done"), name="eager")
        assert task.get_name() == "eager"
        assert await task == "done"
        loop.set_task_factory(None)

    loop.run_until_complete(main())


def test_an_attribute_of_the_programs_own(loop):
    loop.anything = 5
    assert loop.anything == 5 and weakref.ref(loop)() is loop


NAME = contextvars.ContextVar("NAME", default="outside")


async def test_transports_are_made_in_a_context(loop, proact):
    # Python 3.15 defines the context: the one of create_connection, or the one of the server.
    context = contextvars.copy_context()
    context.run(NAME.set, "inside")
    seen = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            seen.append(("made", NAME.get()))

        def data_received(self, data):
            seen.append((data, NAME.get()))
            done.set_result(None)

    done = loop.create_future()
    near, far = socket.socketpair()
    near.setblocking(False)
    transport = loop._make_socket_transport(near, Protocol(), context=context)
    far.send(b"data")
    await done
    transport.close()
    far.close()
    assert seen == [("made", "inside"), (b"data", "inside")]

    done = loop.create_future()
    seen.clear()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        loop._start_serving(Protocol, listening, context=context)
        with socket.create_connection(listening.getsockname()) as client:
            client.send(b"data")
            await done
        loop._stop_serving(listening)
    await loops.turns()
    assert seen == [("made", "inside"), (b"data", "inside")]


async def test_tls_transports_are_made_in_a_context(loop, proact):
    context = contextvars.copy_context()
    context.run(NAME.set, "inside")
    seen = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            seen.append(NAME.get())

    near, far = socket.socketpair()
    waiters = [loop.create_future(), loop.create_future()]
    near.setblocking(False)
    far.setblocking(False)
    client = loop._make_ssl_transport(
        near, Protocol(), tls.client_context(), waiters[0], server_hostname=tls.NAME, context=context
    )
    server = loop._make_ssl_transport(
        far, Protocol(), tls.server_context(), waiters[1], server_side=True, context=context
    )
    await asyncio.gather(*waiters)
    assert seen == ["inside", "inside"]
    client.close()
    server.close()
    await asyncio.sleep(0.01)
