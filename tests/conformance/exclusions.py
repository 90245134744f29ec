"""Owns: the tests that proact is not expected to pass, one line each, with the reason.

A line is allowed only where the test reaches into private parts of the standard loop. Each excluded test is
run all the same, and has to fail.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exclusion:
    """`pattern` is a shell pattern over "group/Class.test"; empty `pythons` or `engines` mean all of them."""

    pattern: str
    reason: str
    pythons: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()


TABLE: tuple[Exclusion, ...] = (
    Exclusion(
        "events/*.test_timeout_rounding",
        "counts the turns in a `_run_once` of its own, and reads the private `_selector`",
    ),
    Exclusion("ssl/*.test_flush_before_shutdown", "pauses the transport's private `_ssl_protocol`"),
    Exclusion(
        "ssl/*.test_remote_shutdown_receives_trailing_data",
        "fills the backlog with asyncio's private `_test__append_write_backlog`",
    ),
)

LIMIT = 10.0
"""The time limit of an excluded test, in seconds: enough to pass; some would otherwise wait for minutes."""
