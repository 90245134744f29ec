"""A few seconds of the race on every engine; `make race` has the minute."""

import pytest
from race.run import Race

pytestmark = pytest.mark.not_on("asyncio", "uvloop", reason="not thread-safe, and does not tell")


def test_a_short_race(engine):
    race = Race(engine, seconds=1.5).run()
    assert race.problems == []
    # Otherwise it has done nothing.
    assert race.calls.total() > 100
    assert race.calls["look_at_a_handle"] > 0
    assert race.moves > 0
