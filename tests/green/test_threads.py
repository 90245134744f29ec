"""What other threads may do to greenlets: rows of docs/guide/threads.md, each from eight threads at once."""

import asyncio
import concurrent.futures
import threading

import pytest
from support import peers

green = pytest.importorskip("proact.green")

pytestmark = pytest.mark.usefixtures("switching")

THREADS = 8
CALLS = 25  # by each thread


async def from_threads(loop, call):
    """What `call(number)` returns for each of the numbers, in their order."""
    together = threading.Barrier(THREADS)

    def many(thread):
        together.wait(peers.PATIENCE)
        return [call(thread * CALLS + number) for number in range(CALLS)]

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        asked = [loop.run_in_executor(pool, many, thread) for thread in range(THREADS)]
        async with asyncio.timeout(peers.PATIENCE):
            lists = await asyncio.gather(*asked)
    return [outcome for outcomes in lists for outcome in outcomes]


async def test_an_event_is_set(loop):
    events = [green.Event() for _ in range(THREADS * CALLS)]
    waiting = [green.spawn(event.wait) for event in events]
    await from_threads(loop, lambda number: events[number].set())
    async with asyncio.timeout(peers.PATIENCE):
        assert await asyncio.gather(*waiting) == [True] * len(events)


async def test_one_event_is_set_by_all(loop):
    event = green.Event()
    waiting = [green.spawn(event.wait) for _ in range(100)]
    await from_threads(loop, lambda _: event.set())
    async with asyncio.timeout(peers.PATIENCE):
        assert await asyncio.gather(*waiting) == [True] * 100


async def test_a_greenlet_is_spawned(loop):
    def double(number):
        green.sleep(0)
        return 2 * number

    spawned = await from_threads(loop, lambda number: green.spawn_threadsafe(loop, double, number))
    async with asyncio.timeout(peers.PATIENCE):
        doubled = await asyncio.gather(*map(asyncio.wrap_future, spawned))
    assert doubled == [2 * number for number in range(THREADS * CALLS)]


@pytest.mark.parametrize("name", ["kill", "join", "get"])
async def test_the_rest_is_refused(loop, name):
    end = green.Event()
    waiting = green.spawn(end.wait)

    def refused(_):
        with pytest.raises(RuntimeError, match="belongs to another thread"):
            getattr(waiting, name)()
        return True

    assert all(await from_threads(loop, refused))
    end.set()
    assert await waiting is True
