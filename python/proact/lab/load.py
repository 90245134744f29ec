"""The load process of a measurement: ``python -m proact.lab.load``.

It applies the Rust load generator to a server once for each specification: a line of JSON on stdin (or each
argument) with the keyword arguments of ``proact._core.echo_load``. ``workload`` names what is asked for, and
``slow`` says how many connections ask for the more expensive thing. It answers each with one line of JSON on
stdout: the generator's result and when it was called (monotonic clock, seconds), or an error. The process
lives for a whole run, so that no cell waits for an interpreter to start. With ``tell``, lines with figures so
far come before the answer.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from proact import _core
from proact.lab.lifetime import die_with_parent, pin_to
from proact.lab.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable

#: How often figures so far are printed, in seconds.
PERIOD: Final = 0.5


class Telling:
    """Prints the figures of a pass that is under way, every half second."""

    def __init__(self) -> None:
        self._at, self._messages = time.monotonic(), 0

    def __call__(self, messages: int, p50: int, p99: int) -> None:
        """Called by the load generator about ten times a second."""
        now = time.monotonic()
        if now - self._at >= PERIOD:
            rate = (messages - self._messages) / (now - self._at)
            self._at, self._messages = now, messages
            print(json.dumps({"so_far": {"rate": rate, "p50": p50, "p99": p99}}), flush=True)


def apply(spec: dict[str, Any]) -> dict[str, Any]:
    """One pass of load. A failure comes back as ``error``, not as an exception."""
    workload = WORKLOADS[spec.pop("workload", "echo")]
    exchange, slow, slow_connections = workload.exchange(spec["size"]), workload.slow(), spec.pop("slow", 0)
    if exchange is not None:
        spec["exchange"] = (exchange.request, exchange.response)
    if slow is not None and slow_connections:
        spec["slow"] = (slow_connections, slow.request, slow.response)
    if workload.churn:
        spec["churn"] = True
    if workload.lazy is not None:
        spec["lazy"] = workload.lazy
    if workload.tls:
        spec["tls"] = True
    if spec.pop("tell", False):
        spec["progress"] = Telling()
    begun = time.monotonic()
    try:
        result = _core.echo_load(**spec)
    except (OSError, RuntimeError, ValueError) as error:
        return {"error": str(error) or type(error).__name__}
    return {"begun": begun, "result": result}


def main(arguments: list[str]) -> None:
    """Answer the specifications on stdin until it ends, or those on the command line."""
    options = {
        name: int(value) for name, _, value in (a[2:].partition("=") for a in arguments if a[:2] == "--")
    }
    if "parent" in options:
        die_with_parent(options["parent"])
    if "cpu" in options:
        pin_to(options["cpu"])
    given = [argument for argument in arguments if argument[:2] != "--"]
    specifications: Iterable[str] = given or sys.stdin
    try:
        for line in specifications:
            print(json.dumps(apply(json.loads(line))), flush=True)
    except BrokenPipeError:  # who asked has been killed, and this process ends in a moment
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
