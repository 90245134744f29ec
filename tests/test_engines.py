"""Which engine runs, what decides it, and what the loop reports about itself."""

import asyncio
import json

import pytest
from support import children, peers

NAMES = ("io_uring", "epoll", "poll", "select")


@pytest.fixture
def chosen(proact, monkeypatch):
    """The environment without an engine choice; the test sets one."""
    monkeypatch.delenv("PROACT_ENGINE", raising=False)
    return lambda name: monkeypatch.setenv("PROACT_ENGINE", name)


def closed(loop):
    loop.close()
    return loop


def test_the_engines_have_names(proact):
    assert tuple(proact.ENGINES) == NAMES


def test_the_environment_chooses_for_a_child(proact, engine):
    report = json.loads(children.output("engine.py", engine=engine))
    assert report["engine"] == engine
    assert report["info"]["requested"] == engine
    assert report["info"]["chosen"] == engine


def test_the_environment_chooses_for_auto(proact, chosen, engine):
    chosen(engine)
    assert closed(proact.new_event_loop()).engine == engine
    assert closed(proact.new_event_loop(engine="auto")).engine == engine


def test_the_argument_outweighs_the_environment(proact, chosen, engine):
    chosen("select" if engine == "poll" else "poll")
    assert closed(proact.new_event_loop(engine=engine)).engine == engine


def test_auto_takes_the_first_that_is_available(proact, chosen):
    available = [name for name in NAMES if proact.engine_report()["engines"][name]["available"]]
    assert closed(proact.new_event_loop()).engine == available[0]


@pytest.mark.parametrize("name", ["kqueue", "IO_URING", "epoll ", "", "auto,epoll", "\0"])
def test_an_unknown_engine_is_an_error_that_names_the_known_ones(proact, chosen, name):
    with pytest.raises(ValueError) as info:
        proact.new_event_loop(engine=name)
    for known in NAMES:
        assert known in str(info.value)

    async def main():
        raise AssertionError("must not be run")

    coroutine = main()
    with pytest.raises(ValueError, match="epoll"):
        proact.run(coroutine, engine=name)
    coroutine.close()


@pytest.mark.parametrize("name", ["kqueue", "epoll,poll", "EPOLL"])
def test_an_unknown_engine_in_the_environment_too(proact, chosen, name):
    chosen(name)
    with pytest.raises(ValueError, match="PROACT_ENGINE") as info:
        proact.new_event_loop()
    for known in NAMES:
        assert known in str(info.value)


@pytest.mark.parametrize("thing", [42, None, b"epoll"])
def test_an_engine_that_is_no_name(proact, thing):
    with pytest.raises((TypeError, ValueError)):
        proact.new_event_loop(engine=thing)


def test_engine_info(proact, chosen, loop, engine):
    info = loop.engine_info()
    assert loop.engine == info["chosen"]
    assert info["requested"] == engine
    assert set(info["engines"]) == set(NAMES)
    for name, entry in info["engines"].items():
        assert isinstance(entry["available"], bool)
        if not entry["available"]:
            assert entry["reason"], f"{name} is not available, and nobody says why"
    assert info["engines"][info["chosen"]]["available"]
    assert isinstance(info["features"], dict)
    assert isinstance(info["opcodes"], dict)
    assert all(isinstance(line, str) for line in info["fallbacks"])
    json.dumps(info)  # `proact doctor --json` prints it


def test_engine_report_says_the_same_without_a_loop(proact, chosen, loop):
    report = proact.engine_report()
    for name in NAMES:
        assert report["engines"][name]["available"] == loop.engine_info()["engines"][name]["available"]


async def test_stats_count_what_happens(proact, loop):
    before, begun = loop.stats(), loop.time()
    with peers.tcp_pair() as (near, far):
        task = loop.create_task(loop.sock_recv(near, 100))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting = loop.stats()
        assert waiting["in_flight"] == before["in_flight"] + 1
        assert waiting["in_flight_max"] >= waiting["in_flight"]
        # One try is enough, unless another process has the core for as long as the loop would wait.
        while loop.stats()["wait_seconds"] - before["wait_seconds"] < 0.015:
            await asyncio.sleep(0.02)
        far.send(b"x")
        await task
    after = loop.stats()
    assert after["in_flight"] == before["in_flight"]
    assert after["submitted"]["poll"] > before["submitted"].get("poll", 0)
    assert after["completed"]["poll"] > before["completed"].get("poll", 0)
    assert after["syscalls"] > before["syscalls"]
    assert after["wait_seconds"] - before["wait_seconds"] <= loop.time() - begun
    for name in ("buffer_exhaustions", "overflows", "rebuilds", "handles", "cancelled", "slots"):
        assert isinstance(after[name], int)
    assert isinstance(after["fallbacks"], list)
    json.dumps(after)


async def test_an_idle_loop_makes_no_system_calls(proact, loop):
    await asyncio.sleep(0.005)
    before = loop.stats()["syscalls"]
    await asyncio.sleep(0.1)
    # The calls to wait and to wake up; a poll every millisecond would be more.
    assert loop.stats()["syscalls"] - before <= 10


async def test_more_connections_than_ring_buffers(proact, loop):
    # A ring that runs out of receive buffers waits a turn and loses nothing; other engines can't run out.
    from support.protocols import Recorder, serving

    count, size = 300, 30_000
    async with serving(loop, lambda: Recorder(loop)) as server:
        clients = []
        for start in range(0, count, 50):
            made = [loop.create_connection(lambda: Recorder(loop), *server.address) for _ in range(50)]
            clients += [client for _, client in await asyncio.gather(*made)]
            await server.accepted(start + 49)
        for number, client in enumerate(clients):
            client.transport.write(peers.payload(size, seed=number))
        by_name = {
            client.transport.get_extra_info("sockname"): number for number, client in enumerate(clients)
        }
        for protocol in server.protocols:
            number = by_name[protocol.transport.get_extra_info("peername")]
            assert await protocol.received(size) == peers.payload(size, seed=number)
        for client in clients:
            await client.close()


def test_select_beyond_its_limit_is_a_clear_error(proact):
    reason = proact.engine_report()["engines"]["select"]["reason"]
    if not proact.engine_report()["engines"]["select"]["available"]:
        pytest.skip(f"engine select: {reason}")
    assert children.output("select_limit.py", engine="select") == "clear error, loop alive"
