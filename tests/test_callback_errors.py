"""Exceptions in callbacks: reported once, and the loop goes on; the two that mean "stop" stop it cleanly."""

import asyncio

import pytest
from support import peers


class Oops(Exception):
    pass


class Fundamental(BaseException):
    """An exception that is neither an Exception nor one of the two that stop a loop."""


def fail(error=Oops):
    raise error


async def next_turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0.001)


@pytest.fixture
def readable():
    with peers.pair() as (near, far):
        far.send(b"x")
        yield near


def by_reader(loop, readable, callback):
    def once():
        loop.remove_reader(readable)
        callback()

    loop.add_reader(readable, once)


def by_writer(loop, readable, callback):
    def once():
        loop.remove_writer(readable)
        callback()

    loop.add_writer(readable, once)


WAYS = {
    "call_soon": lambda loop, _, callback: loop.call_soon(callback),
    "call_soon_threadsafe": lambda loop, _, callback: loop.call_soon_threadsafe(callback),
    "call_later": lambda loop, _, callback: loop.call_later(0.001, callback),
    "call_at": lambda loop, _, callback: loop.call_at(0, callback),
    "reader": by_reader,
    "writer": by_writer,
}

way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


@way
@pytest.mark.parametrize("error", [Fundamental, asyncio.CancelledError, GeneratorExit, StopIteration])
def test_is_reported_once_and_the_loop_goes_on(loop, unhandled, readable, way, error):
    seen = []
    loop.call_soon(seen.append, "before")
    way(loop, readable, lambda: fail(error))
    loop.call_soon(seen.append, "after")
    loop.run_until_complete(next_turns())
    problem = unhandled.take_one()
    assert type(problem.exception) is error
    assert "Exception in callback" in problem.message
    assert "handle" in problem.context
    assert seen == ["before", "after"]


@way
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_system_exit_and_keyboard_interrupt_propagate_and_lose_no_callback(loop, readable, way, error):
    seen = []
    loop.call_soon(seen.append, "before")
    way(loop, readable, lambda: fail(error))
    for number in range(10):
        loop.call_soon(seen.append, number)
    with pytest.raises(error):
        loop.run_until_complete(next_turns())
    assert not loop.is_running()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    # The next run executes the callbacks that were ready behind the one that raised.
    (waiting,) = asyncio.all_tasks(loop)
    loop.run_until_complete(waiting)
    assert seen == ["before", *range(10)]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_from_a_task_they_propagate_too(loop, error):
    async def main():
        await asyncio.sleep(0)
        raise error

    task = loop.create_task(main())
    with pytest.raises(error):
        loop.run_forever()
    assert task.done()
    assert isinstance(task.exception(), error)
    loop.run_until_complete(next_turns())


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.not_on("uvloop", reason="the rest of the turn's callbacks is lost or the error is")
def test_several_in_one_turn_come_one_run_each(loop, error):
    for _ in range(3):
        loop.call_soon(fail, error)
    for _ in range(3):
        with pytest.raises(error):
            loop.run_forever()
    loop.run_until_complete(next_turns())


def test_the_handler_gets_the_loop_and_the_context(loop):
    seen = []
    loop.set_exception_handler(lambda *args: seen.append(args))
    loop.call_soon(fail)
    loop.run_until_complete(next_turns())
    ((where, context),) = seen
    assert where is loop
    assert isinstance(context["exception"], Oops)
    # The traceback leads to the callback's own line.
    assert context["exception"].__traceback__ is not None


@pytest.mark.not_on("uvloop", reason="words the message differently")
def test_without_a_handler_it_is_logged(loop, unhandled):
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None
    loop.call_soon(fail)
    loop.run_until_complete(next_turns())
    problem = unhandled.take_one("log")
    assert "Exception in callback fail()" in problem.message
    assert isinstance(problem.exception, Oops)


def test_a_handler_that_fails_itself_does_not_stop_the_loop(loop, unhandled):
    def handler(loop, context):
        raise ZeroDivisionError

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    loop.run_until_complete(next_turns())
    assert isinstance(unhandled.take_one("log").exception, ZeroDivisionError)


def test_a_handler_may_stop_the_loop(loop):
    loop.set_exception_handler(lambda loop, _: loop.stop())
    loop.call_soon(fail)
    loop.run_forever()
    assert not loop.is_running()


@pytest.mark.parametrize("handler", [42, "print"])
def test_a_handler_has_to_be_callable(loop, handler):
    with pytest.raises(TypeError, match="callable"):
        loop.set_exception_handler(handler)


def test_an_exception_nobody_asked_for_is_reported_when_its_task_goes(loop, unhandled):
    async def main():
        raise Oops

    task = loop.create_task(main())
    loop.run_until_complete(next_turns())
    assert unhandled.take() == []
    del task
    problem = unhandled.take_one()
    assert problem.message == "Task exception was never retrieved"


def test_the_same_callback_may_fail_a_thousand_times(loop, unhandled):
    for _ in range(1000):
        loop.call_soon(fail)
    loop.run_until_complete(next_turns())
    assert len(unhandled.take()) == 1000


@pytest.mark.not_on("asyncio", "uvloop", reason="never call connection_lost, but eof_received again")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_of_two_stops_in_a_row_none_is_lost(loop, kind):
    # Both are raised in one turn. The first is the context of the second, as if a `finally` had raised that.
    class Stopping(asyncio.Protocol):
        def eof_received(self):
            raise KeyboardInterrupt("the end of the stream")

        def connection_lost(self, exc):
            raise kind("the end of the connection")

    def run():
        try:
            loop.run_until_complete(next_turns())
        except (KeyboardInterrupt, SystemExit) as error:
            while error is not None:
                stops.append(str(error))
                error = error.__context__

    stops = []
    with peers.pair() as (near, far):
        loop.run_until_complete(loop.create_connection(Stopping, sock=near))
        far.close()
        for _ in range(3):
            run()
    assert sorted(stops) == ["the end of the connection", "the end of the stream"]
