"""Locked memory is scarce for an ordinary user, and shared by all of the user's processes. So loops are
small, `auto` has another engine if there is no room for a ring, and `io_uring` asked for by name says which
limit to raise.

Each case runs as a user of its own, so that no other process shares the limit.
"""

import errno
import itertools
import json
import os

import pytest
from support import children, loops

USERS = itertools.count(500_000 + os.getpid() % 50_000 * 100)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes a user of its own"),
    pytest.mark.skipif(bool(loops.REFERENCE), reason="of proact's engines"),
]


@pytest.fixture(autouse=True)
def ring():
    if reason := loops.unavailable("io_uring"):
        pytest.skip(reason)
    if tell(8 << 20, 0)["loops"]["limit"] is None:
        pytest.skip("this kernel does not count rings")


def tell(limit, *arguments, **environment):
    """The report of tests/programs/little_memory.py as a new user with `limit` bytes."""
    output = children.output(
        "little_memory.py", str(next(USERS)), str(limit), *map(str, arguments), **environment
    )
    return json.loads(output)


def test_two_hundred_loops_fit_in_8_mib():
    told = tell(8 << 20, 200)
    assert told["engines"] == ["io_uring"] * 200
    assert told["loops"]["fit"] >= 200


@pytest.mark.parametrize("limit", [0, 4096])
def test_auto_has_another_engine_when_there_is_no_room(limit):
    told = tell(limit, 3)
    assert told["engines"] == ["epoll"] * 3
    ring = told["info"][0]["engines"]["io_uring"]
    assert not ring["available"]
    assert "ulimit -l" in ring["reason"]
    assert told["info"][0]["requested"] == "auto"


def test_auto_when_the_room_is_used_up():
    told = tell(1 << 20, 100)
    fit = told["loops"]["fit"]
    assert 20 < fit < 60
    assert told["engines"] == ["io_uring"] * fit + ["epoll"] * (100 - fit)


@pytest.mark.parametrize("way", ["argument", "environment"])
def test_an_engine_asked_for_by_name_says_what_to_raise(way):
    told = tell(4096, 1, "io_uring") if way == "argument" else tell(4096, 1, engine="io_uring")
    code, text = told["error"]
    assert code == errno.ENOMEM
    for part in ("ulimit -l", "LimitMEMLOCK", "32 KiB"):
        assert part in text
    # The other engines need no locked memory.
    assert tell(0, 1, "poll")["engines"] == ["poll"]


def test_a_loop_after_a_loop_in_a_room_for_one():
    """The kernel frees a ring's memory some time after it was closed."""
    told = tell(1 << 15, 1, "io_uring")
    assert told["engines"] == ["io_uring"]


def test_doctor_tells_how_many_fit():
    told = tell(8 << 20, 1)
    each = told["loops"]["locked_memory"]
    assert told["loops"]["limit"] == 8 << 20
    assert told["loops"]["fit"] == (8 << 20) // each
    assert told["line"].startswith(f"{(8 << 20) // each} (")
    assert tell(0, 1)["loops"]["fit"] == 0


@pytest.mark.parametrize("limit", [8 << 20, (1 << 20) + (1 << 15), 1 << 16, 1 << 15])
@pytest.mark.parametrize("room", ["room", "loops", "lowered"])
def test_a_loop_that_another_thread_runs(limit, room, tmp_path):
    """Two rings, and the mebibyte into which files are read, need not fit at the same time."""
    output = children.output("moving_loop.py", str(next(USERS)), str(limit), "io_uring", str(tmp_path), room)
    told = json.loads(output)
    assert "error" not in told
    assert told["read"] == [[4096] * 3] * 4
    assert told["counts"]["by_engine"] == 12
    refused = "read_fixed (ENOMEM"
    fits = limit > 1 << 20
    assert [line[: len(refused)] for line in told["before"]] == [refused] * (not fits)
    assert [line[: len(refused)] for line in told["after"]] == [refused] * (fits and room == "lowered")
