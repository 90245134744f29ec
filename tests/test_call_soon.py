"""call_soon: the order, the context and the life of a callback."""

import asyncio
import contextvars
import weakref

import pytest
from support import peers

variable = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(autouse=True)
def variable_restored():
    """pytest-xdist decides which tests share a process, so each of them restores the variable."""
    token = variable.set("unset")
    yield
    variable.reset(token)


def one_turn(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_runs_in_the_order_of_the_calls_with_its_arguments(loop):
    seen = []
    for number in range(1000):
        loop.call_soon(lambda *args: seen.append(args), number, str(number))
    one_turn(loop)
    assert seen == [(number, str(number)) for number in range(1000)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_any_number_of_arguments(loop, count):
    seen = []
    loop.call_soon(lambda *args: seen.append(args), *range(count))
    one_turn(loop)
    assert seen == [tuple(range(count))]


def test_takes_no_keyword_arguments_for_the_callback(loop):
    with pytest.raises(TypeError):
        loop.call_soon(print, end="")


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_callback_and_context_may_go_by_name(loop, method):
    seen = []
    context = contextvars.copy_context()
    context.run(variable.set, "given")
    getattr(loop, method)(callback=lambda: seen.append(variable.get()), context=context)
    getattr(loop, method)(lambda: seen.append(variable.get()), context=None)
    one_turn(loop)
    assert seen == ["given", "unset"]


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_wrong_arguments_are_a_type_error_and_schedule_nothing(loop, method):
    seen = []
    schedule = getattr(loop, method)
    for args, keywords in [
        ((), {}),
        ((), {"context": None}),
        ((seen.append,), {"callback": seen.append}),
        ((seen.append, 1), {"other": 2}),
    ]:
        with pytest.raises(TypeError):
            schedule(*args, **keywords)
    with pytest.raises((TypeError, AttributeError)):
        getattr(type(loop), method)(object(), seen.append, 1)
    one_turn(loop)
    assert seen == []


@pytest.mark.not_on("uvloop", reason="stop() takes effect a turn later")
def test_a_call_made_by_a_callback_waits_for_the_next_turn(loop):
    seen = []

    def first():
        seen.append("first")
        loop.call_soon(seen.append, "from first")

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    one_turn(loop)
    assert seen == ["first", "second"]
    one_turn(loop)
    assert seen == ["first", "second", "from first"]


def test_an_endless_chain_does_not_starve_io(loop):
    links = 0

    def link():
        nonlocal links
        links += 1
        if not stopped:
            loop.call_soon(link)

    stopped = []
    with peers.pair() as (near, far):

        def readable():
            stopped.append(links)
            loop.remove_reader(near)
            loop.stop()

        loop.add_reader(near, readable)
        loop.call_soon(link)
        far.send(b"x")
        loop.run_forever()
        one_turn(loop)
    # Not at the end of the chain (it has none) but within a few turns of the data's arrival.
    assert stopped[0] <= 50


def test_a_cancelled_callback_does_not_run(loop):
    seen = []
    handle = loop.call_soon(seen.append, "cancelled")
    loop.call_soon(seen.append, "kept")
    assert not handle.cancelled()
    handle.cancel()
    assert handle.cancelled()
    handle.cancel()  # a second cancel is harmless
    one_turn(loop)
    assert seen == ["kept"]


def test_a_callback_can_cancel_one_of_the_same_turn(loop):
    seen = []
    loop.call_soon(lambda: later.cancel())
    later = loop.call_soon(seen.append, "cancelled")
    loop.call_soon(seen.append, "kept")
    one_turn(loop)
    assert seen == ["kept"]


def test_a_callback_can_cancel_itself_while_it_runs(loop):
    seen = []

    def callback():
        handle.cancel()
        seen.append("ran")

    handle = loop.call_soon(callback)
    one_turn(loop)
    one_turn(loop)
    assert seen == ["ran"]


class Argument:
    pass


def test_cancelling_lets_go_of_the_arguments_at_once(loop):
    argument = Argument()
    alive = weakref.ref(argument)
    handle = loop.call_soon(print, argument)
    del argument
    assert alive() is not None
    handle.cancel()
    assert alive() is None


def test_after_its_run_nothing_holds_the_arguments(loop):
    argument = Argument()
    alive = weakref.ref(argument)
    loop.call_soon(lambda _: None, argument)
    del argument
    one_turn(loop)
    # Without a garbage collection: a cycle through the handle would keep every message of a busy server for
    # long.
    assert alive() is None


def test_what_has_not_run_when_the_loop_closes_is_let_go(new_loop):
    loop = new_loop()
    argument = Argument()
    alive = weakref.ref(argument)
    loop.call_soon(print, argument)
    loop.call_later(3600, print, argument)
    del argument
    loop.close()
    assert alive() is None


def test_runs_in_the_context_of_the_call(loop):
    seen = []
    variable.set("before")
    loop.call_soon(lambda: seen.append(variable.get()))
    variable.set("after")
    one_turn(loop)
    assert seen == ["before"]


def test_runs_in_the_context_it_is_given(loop):
    seen = []
    context = contextvars.Context()
    context.run(variable.set, "given")
    for call in (loop.call_soon, loop.call_soon_threadsafe):
        call(lambda: seen.append(variable.get()), context=context)
    loop.call_later(0, lambda: seen.append(variable.get()), context=context)
    loop.call_at(loop.time(), lambda: seen.append(variable.get()), context=context)
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert seen == ["given"] * 4


def test_what_a_callback_sets_stays_in_its_context(loop):
    variable.set("outside")
    context = contextvars.copy_context()
    seen = []
    loop.call_soon(variable.set, "inside", context=context)
    loop.call_soon(lambda: seen.append(variable.get()), context=context)
    loop.call_soon(lambda: seen.append(variable.get()))
    one_turn(loop)
    assert seen == ["inside", "outside"]
    assert variable.get() == "outside"


async def test_io_callbacks_run_in_the_context_that_registered_them(loop):
    seen = loop.create_future()
    variable.set("registering")
    with peers.pair() as (near, far):
        loop.add_reader(near, lambda: seen.done() or seen.set_result(variable.get()))
        variable.set("later")
        far.send(b"x")
        assert await seen == "registering"
        loop.remove_reader(near)


@pytest.mark.parametrize("name", ["call_soon", "call_soon_threadsafe"])
def test_a_callback_that_cannot_be_called_is_reported(loop, unhandled, name):
    getattr(loop, name)(42)
    one_turn(loop)
    assert isinstance(unhandled.take_one().exception, TypeError)


def test_a_future_wakes_its_callbacks_in_order_in_the_next_turn(loop):
    seen = []
    future = loop.create_future()
    for number in range(3):
        future.add_done_callback(lambda _, number=number: seen.append(number))
    future.set_result(None)
    assert seen == []
    one_turn(loop)
    assert seen == [0, 1, 2]


def test_futures_and_tasks_are_asyncio_s_own(loop):
    # DESIGN.md: debuggers, profilers and `python -m asyncio ps` know these types.
    async def nothing():
        pass

    task = loop.create_task(nothing(), name="named")
    assert isinstance(loop.create_future(), asyncio.Future)
    assert isinstance(task, asyncio.Task)
    assert task.get_name() == "named"
    loop.run_until_complete(task)
