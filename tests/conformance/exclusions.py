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
        "ssl/*.test_remote_shutdown_receives_trailing_data*",
        "fills the backlog with asyncio's private `_test__append_write_backlog`",
    ),
    Exclusion(
        "sslproto/*.test_connection_lost_when_busy",
        "hands a mock instead of a socket to the private `_make_socket_transport`",
        pythons=("3.14", "3.15"),
    ),
    Exclusion(
        "start_tls/*.test_create_connection_ssl_failed_certificate_no_cycles",
        "looks for the connection in the private `SSLProtocol.connection_made`",
        pythons=("3.14", "3.15"),
    ),
    Exclusion(
        "server_context/*.test_gh140947",
        "waits for a transport's private `_paused` or `_ssl_protocol`; tests/test_contexts.py does without",
        pythons=("3.15",),
    ),
)

LIMIT = 10.0
"""The time limit of an excluded test, in seconds: enough to pass; some would otherwise wait for minutes."""
