"""A few seconds of the soak on every engine; `make soak` has the minutes."""

from soak.run import Soak


def test_a_short_soak(engine):
    soak = Soak(engine, seconds=2.5, width=12, phases=2).run()
    assert soak.problems == []
    # Otherwise the soak has done nothing.
    assert soak.rounds.total() > 50
    assert soak.cancelled > 0
