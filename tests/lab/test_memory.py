"""Memory by connections: the line and its interval, and what a real server holds."""

from __future__ import annotations

import pytest

from proact.lab.memory import LEAST, STEPS, fit, held, kernel_bytes
from proact.lab.server_process import ServerError, ServerProcess
from proact.lab.summary import lines

KIB = 1024


def test_a_line_without_noise_is_found_exactly() -> None:
    found = fit([(count, 5e6 + 28 * KIB * count) for count in (0, 25, 50, 75, 100)])
    assert found is not None
    for spread, value in ((found.fixed, 5e6), (found.slope, 28 * KIB)):
        assert (spread.low, spread.median, spread.high) == pytest.approx((value, value, value))


def test_the_interval_is_students() -> None:
    """Residuals of 1, -1, -1, 1 around 10 + 2x: the error of the slope is sqrt((4 / 2) / 5) by hand."""
    found = fit([(0, 11), (1, 11), (2, 13), (3, 17)])
    assert found is not None
    assert found.slope.median == pytest.approx(2.0)
    assert found.slope.high - found.slope.median == pytest.approx(4.30 * (2 / 5) ** 0.5)
    assert found.fixed.median == pytest.approx(10.0)
    assert found.fixed.high - found.fixed.median == pytest.approx(4.30 * (2 * (1 / 4 + 1.5**2 / 5)) ** 0.5)


def test_two_numbers_of_connections_are_no_line() -> None:
    assert fit([(0, 1.0), (0, 2.0), (10, 5.0), (10, 6.0)]) is None
    assert fit([]) is None


def test_threads_take_more_per_connection_than_epoll() -> None:
    """A thread has a stack of which some pages are used; epoll keeps a few objects."""
    slopes = {}
    for model in ("threads", "epoll"):
        with ServerProcess(model) as server:
            readings = held(server, KIB, 200)
        assert [each["connections"] for each in readings] == [0, 50, 100, 150, 200]
        assert len(readings) == STEPS + 1
        found = fit((each["connections"], each["resident"]) for each in readings)
        assert found is not None
        assert 3 << 20 < found.fixed.median < 200 << 20
        slopes[model] = found.slope
    assert slopes["threads"].low > slopes["epoll"].high
    assert 4 * KIB < slopes["threads"].median < 200 * KIB


def test_what_ran_before_does_not_change_it() -> None:
    """The slope is of the growth between steps, so what a server holds already is in the fixed part."""
    with ServerProcess("epoll") as server:
        first = fit((each["connections"], each["resident"]) for each in held(server, KIB, 100))
        again = fit((each["connections"], each["resident"]) for each in held(server, KIB, 100))
    assert first is not None
    assert again is not None
    assert again.fixed.median >= first.fixed.low
    assert again.slope.median < first.slope.high + KIB


def test_a_server_that_answers_wrongly_is_found_out() -> None:
    with ServerProcess("epoll", "cpu-1us") as server:
        server.workload = "echo"
        with pytest.raises(ServerError):
            held(server, 10, LEAST)


def test_the_kernel_says_what_it_holds() -> None:
    assert kernel_bytes() > 1 << 20


def test_repeats_are_one_line_and_older_results_have_none() -> None:
    points = [{"connections": n, "resident": 1000 + 10 * n, "kernel": 7 * n} for n in (0, 8, 16)]
    shifted = [{**each, "kernel": each["kernel"] + 5000} for each in points]
    own, kernel = lines([{"held": points}, {"held": shifted}])  # type: ignore[typeddict-item, list-item]
    assert own is not None
    assert kernel is not None
    assert own.slope.median == pytest.approx(10)
    assert kernel.slope.high == pytest.approx(7)
    assert lines([{}]) == (None, None)  # type: ignore[typeddict-item]
