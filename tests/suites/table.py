"""Owns: the list of suites, where they come from, how they run, and which tests are left out.

It must not know how anything is fetched or run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exclusion:
    """A shell pattern over the ids of tests, and why their failure does not count."""

    pattern: str
    reason: str


@dataclass(frozen=True)
class Suite:
    """The tests of one package, from its sdist on PyPI."""

    name: str
    version: str
    files: tuple[str, ...]
    """Shell patterns below the sdist; each file is a separate pytest run."""
    needs: tuple[str, ...] = ()
    """The other packages that its tests import."""
    package: str = ""
    """The package's directory in the sdist (empty: its name). It is deleted, so that the installed one is
    tested.
    """
    how: str = ""
    """The ways in inside/proact_inside.py to put the loop under the suite, besides the event loop policy."""
    arguments: tuple[str, ...] = ()
    """Additional arguments for pytest."""
    timeout: int = 30
    """Seconds for each test."""
    exclusions: tuple[Exclusion, ...] = ()

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


PYTEST = ("pytest>=9,<10", "pytest-timeout~=2.4")

SUITES: tuple[Suite, ...] = (
    Suite(
        "asyncssh",
        "2.24.1",
        files=tuple(
            f"tests/test_{name}.py"
            for name in ("connection", "channel", "process", "stream", "forward", "sftp")
        ),
        needs=("bcrypt", "pyOpenSSL"),
        timeout=60,
    ),
    Suite(
        "anyio",
        "4.16.0",
        files=("tests/test_*.py", "tests/streams/test_*.py"),
        needs=("trustme", "psutil", "hypothesis", "pytest-mock", "truststore"),
        package="src",
        how="files",
        exclusions=(
            Exclusion(
                "*::test_dynamic_async_fixture_access_does_not_hang",
                "gives a pytest of its own three seconds, and proact is not in that one",
            ),
        ),
    ),
    Suite(
        "aiofiles",
        "25.1.0",
        files=("tests/test_*.py", "tests/threadpool/test_*.py"),
        needs=("pytest-asyncio~=1.5",),
        package="src",
        how="files",
        arguments=("-o", "asyncio_mode=auto"),
        exclusions=(
            Exclusion("*::test_simple_detach", "takes the blocking file out of the object; there is none"),
            Exclusion("*::test_slow_file", "slows the blocking `open` that aiofiles calls down"),
        ),
    ),
    Suite(
        "aiohttp",
        "3.14.5",
        files=tuple(
            f"tests/test_{name}.py"
            for name in (
                "web_functional",
                "client_functional",
                "web_sendfile_functional",
                "web_websocket_functional",
                "client_ws_functional",
                "proxy_functional",
                "run_app",
                "web_runner",
                "web_server",
                "connector",
                "loop",
                "test_utils",
                "pytest_plugin",
                "tcp_helpers",
            )
        ),
        needs=("trustme", "pytest-mock", "freezegun", "proxy.py", "re-assert", "aiohttp[speedups]"),
        arguments=("-p", "no:warnings"),
        timeout=60,
        exclusions=(
            Exclusion(
                "*::test_keepalive_expires_on_time*",
                "moves the loop's time by a mock of `loop.time`; proact's timers, as uvloop's, do not ask it",
            ),
            Exclusion(
                "*::test_concurrent_close_multiple_tasks*",
                "needs a task that was woken by data to run a turn later, as on asyncio; fails on uvloop too",
            ),
            Exclusion(
                "*::test_tcp_connector_do_not_raise_connector_ssl_error*",
                "reads the context out of the transport's private `_ssl_protocol`",
            ),
        ),
    ),
    Suite(
        "uvloop",
        "0.23.0",
        files=("tests/test_*.py",),
        needs=("aiohttp==3.14.5", "psutil", "pyOpenSSL"),
        how="uvloop_testbase",
        timeout=20,
        exclusions=(
            Exclusion(
                "*::Test_UV_TCP::test_transport_get_extra_info", "reads the transport's private `_paused`"
            ),
            Exclusion(
                "*::Test_UV_TCPSSL::test_remote_shutdown_receives_trailing_data",
                "fills the backlog with asyncio's private `_test__append_write_backlog`",
            ),
        ),
    ),
    Suite(
        "aiofastnet",
        "1.2.0",
        # Not its benchmarks, and not its test of type hints.
        files=("tests/test_api_*.py", "tests/test_p*.py", "tests/test_s*.py", "tests/test_threading.py"),
        needs=("pytest-asyncio~=1.5", "async-timeout", "aiohttp==3.14.5"),
    ),
)

BY_NAME = {suite.name: suite for suite in SUITES}
