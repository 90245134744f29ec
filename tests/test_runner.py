"""proact.run, and the loop inside asyncio.Runner, in other threads, several at once."""

import asyncio
import threading

import pytest
from support import loops, peers
from support.protocols import Echo, Recorder, serving


async def value(result=42):
    await asyncio.sleep(0)
    return result


async def echo_once(data=b"hello"):
    """One connection on the running loop: it proves that the loop works, including I/O."""
    loop = asyncio.get_running_loop()
    async with serving(loop, lambda: Echo(loop)) as server:
        _, client = await loop.create_connection(lambda: Recorder(loop), *server.address)
        client.transport.write(data)
        received = await client.received(len(data))
        await client.close()
    return received


# proact.run: what asyncio.run does.


def test_run_returns_the_result(proact, engine):
    assert proact.run(value(), engine=engine) == 42
    assert proact.run(echo_once(), engine=engine) == b"hello"


def test_run_uses_the_engine_it_is_told(proact, engine):
    async def main():
        loop = asyncio.get_running_loop()
        return type(loop), loop.engine

    kind, chosen = proact.run(main(), engine=engine)
    assert issubclass(kind, proact.EventLoop)
    assert engine in (chosen, "auto")


def test_run_raises_what_main_raises(proact):
    async def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        proact.run(main())


def test_run_cancels_what_is_left_and_finishes_generators(proact):
    seen = []

    async def forever():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            seen.append("task cancelled")

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            seen.append("generator closed")

    async def main():
        background.append(asyncio.create_task(forever()))
        generators.append(numbers())
        await anext(generators[0])

    background, generators = [], []
    proact.run(main())
    assert seen == ["task cancelled", "generator closed"]
    assert background[0].cancelled()


def test_run_closes_its_loop(proact):
    async def main():
        return asyncio.get_running_loop()

    loop = proact.run(main())
    assert loop.is_closed()


def test_run_inside_a_running_loop_is_an_error(proact, loop):
    async def main():
        coroutine = value()
        with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
            proact.run(coroutine)
        coroutine.close()

    loop.run_until_complete(main())


@pytest.mark.parametrize("thing", [42, None, value], ids=["int", "none", "function"])
def test_run_of_what_is_no_coroutine_fails_as_asyncio_s_does(proact, thing):
    # ValueError up to Python 3.13, TypeError since 3.14.
    with pytest.raises((TypeError, ValueError)) as expected:
        asyncio.run(thing)
    with pytest.raises(expected.type):
        proact.run(thing)


def test_run_reports_unhandled_errors_to_the_log(proact, unhandled):
    async def main():
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(0.001)

    proact.run(main())
    assert isinstance(unhandled.take_one("log").exception, ZeroDivisionError)


# asyncio.Runner: the drop-in way.


def test_in_a_runner(engine):
    with asyncio.Runner(loop_factory=lambda: loops.new_event_loop(engine)) as runner:
        assert runner.run(value()) == 42
        assert runner.run(echo_once()) == b"hello"
        loop = runner.get_loop()
        assert not loop.is_running()
    assert loop.is_closed()


def test_new_event_loop_is_a_loop_factory(proact):
    with asyncio.Runner(loop_factory=proact.new_event_loop) as runner:
        assert isinstance(runner.get_loop(), proact.EventLoop)
        assert isinstance(runner.get_loop(), asyncio.AbstractEventLoop)
        assert runner.run(echo_once()) == b"hello"


def test_as_the_loop_of_asyncio_run(engine):
    # asyncio.run in a thread, from inside a running loop: the two loops do not see each other.
    async def main():
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, asyncio.run, echo_once(b"inner"))

    with asyncio.Runner(loop_factory=lambda: loops.new_event_loop(engine)) as runner:
        assert runner.run(main()) == b"inner"


def test_run_inside_a_thread_of_a_running_asyncio(engine):
    def inner():
        with asyncio.Runner(loop_factory=lambda: loops.new_event_loop(engine)) as runner:
            return runner.run(echo_once(b"inner"))

    async def main():
        return await asyncio.to_thread(inner)

    assert asyncio.run(main()) == b"inner"


# Threads.


def in_thread(function, *args):
    """Run a function in a new thread; return its result, or raise its exception here."""
    outcome = []

    def run():
        try:
            outcome.append((function(*args), None))
        except BaseException as error:
            outcome.append((None, error))

    with peers.thread(run):
        pass
    ((result, error),) = outcome
    if error is not None:
        raise error
    return result


def test_a_loop_made_and_run_in_another_thread(new_loop):
    def whole_life():
        loop = new_loop()
        try:
            return loop.run_until_complete(echo_once())
        finally:
            loop.close()

    assert in_thread(whole_life) == b"hello"


def test_a_loop_made_here_and_run_in_another_thread(loop):
    assert in_thread(loop.run_until_complete, echo_once()) == b"hello"


def test_a_loop_that_goes_from_thread_to_thread(loop):
    # Made here, run there, closed here, as many test fixtures do. (A ring with SINGLE_ISSUER belongs
    # to the thread that enabled it.)
    assert loop.run_until_complete(echo_once(b"here")) == b"here"
    assert in_thread(loop.run_until_complete, echo_once(b"there")) == b"there"
    assert in_thread(loop.run_until_complete, echo_once(b"elsewhere")) == b"elsewhere"
    assert loop.run_until_complete(echo_once(b"back")) == b"back"


def test_a_server_started_here_goes_on_in_another_thread(loop):
    # This thread has submitted ops that are in flight.
    async def start():
        return await loop.create_server(lambda: Echo(loop), peers.LOOPBACK, 0)

    server = loop.run_until_complete(start())
    loop.run_until_complete(asyncio.sleep(0.001))

    async def talk():
        _, client = await loop.create_connection(lambda: Recorder(loop), *server.sockets[0].getsockname())
        client.transport.write(b"moved")
        assert await client.received(5) == b"moved"
        await client.close()

    in_thread(loop.run_until_complete, talk())

    async def stop():
        server.close()
        await server.wait_closed()

    loop.run_until_complete(stop())
    loop.run_until_complete(asyncio.sleep(0.002))


def test_several_loops_at_once(new_loop):
    count = 4
    together = threading.Barrier(count)

    def life(number):
        loop = new_loop()
        try:
            together.wait()
            for round_ in range(5):
                data = peers.payload(50_000, seed=number * 10 + round_)
                assert loop.run_until_complete(echo_once(data)) == data
        finally:
            loop.close()

    errors = []

    def guarded(number):
        try:
            life(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_two_loops_talk_to_each_other(new_loop):
    served = new_loop()
    address = []
    ready = threading.Event()
    stop = []

    async def serve():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        stop.append(lambda: loop.call_soon_threadsafe(done.set_result, None))
        async with serving(loop, lambda: Echo(loop)) as server:
            address.extend(server.address)
            ready.set()
            await done

    async def talk():
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: Recorder(loop), *address)
        data = peers.payload(300_000)
        client.transport.write(data)
        assert await client.received(len(data)) == data
        await client.close()

    with peers.thread(served.run_until_complete, serve()):
        ready.wait()
        try:
            new_loop().run_until_complete(talk())
        finally:
            stop[0]()


def test_many_loops_one_after_another(new_loop):
    # A loop returns everything that it took from the machine (rings, locked memory, fds) when it is closed.
    for _ in range(60):
        loop = new_loop()
        assert loop.run_until_complete(value()) == 42
        loop.close()


@pytest.mark.parametrize("ran", [True, False])
def test_a_loop_nobody_closed_says_so(new_loop, engine, unhandled, ran):
    if loops.REFERENCE == "uvloop":
        pytest.skip("uvloop does not warn")
    loop = loops.new_event_loop(engine)
    if ran:
        loop.run_until_complete(value())
    del loop
    import gc

    gc.collect()
    # The leak check of this test still sees whether its fds are closed.
    assert any("unclosed event loop" in problem.message for problem in unhandled.take("unraisable"))
