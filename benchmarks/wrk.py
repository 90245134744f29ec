"""Owns: the load on one HTTP server: `python -m benchmarks.wrk '{"port": ...}'` verifies answers for a while,
which also warms the server up, and then runs wrk (https://github.com/wg/wrk) on this core.

wrk is a closed loop on keep-alive connections, like the echo load. It does not look at bodies, and counts
whole seconds.
"""

from __future__ import annotations

import http.client
import json
import resource
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks import children
from benchmarks.web import BODIES

SCRIPT = Path(__file__).with_name("wrk.lua")
INSTALL = "wrk is not installed here: apt-get install wrk (Debian, Ubuntu), then make bench"


def missing() -> bool:
    """Whether this machine has no wrk."""
    return shutil.which("wrk") is None


def verify(port: int, body: bytes, seconds: float) -> None:
    """Send requests for `seconds`, and check every answer. Raises OSError if one is wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10.0)
    end = time.monotonic() + seconds
    while True:
        connection.request("GET", "/")
        response = connection.getresponse()
        if (response.status, response.read()) != (200, body):
            raise OSError(f"a wrong answer, status {response.status}")
        if time.monotonic() >= end:
            break
    connection.close()


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Load the server; return a report like that of `_core.echo_load`, with `server_cpu_seconds`."""
    pid, port = settings["pid"], settings["port"]
    verify(port, BODIES[settings["body"]], settings["warmup"])
    command = ["wrk", "-t1", f"-c{settings['connections']}", f"-d{max(1, round(settings['duration']))}"]
    command += ["-s", str(SCRIPT), f"http://127.0.0.1:{port}/"]
    server_cpu = children.cpu_seconds(pid)
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    server_cpu = children.cpu_seconds(pid) - server_cpu
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = (finished.stderr + finished.stdout).splitlines()
    if finished.returncode or not lines or not lines[-1].startswith("{"):
        raise OSError(f"wrk failed: {lines[-1] if lines else finished.returncode}")
    measured = json.loads(lines[-1])
    if measured["failed"] or measured["status"]:
        raise OSError(f"{measured['failed']} requests failed, {measured['status']} came back as errors")
    return {
        "messages": measured["requests"],
        "seconds": measured["duration"] / 1e6,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "server_cpu_seconds": server_cpu,
        "latency_ns": {key: measured[key] * 1000 for key in ("p50", "p99", "p99.9")},
    }


def main() -> None:
    settings = children.begin(children.LOAD_CORE)
    children.say(run(settings))


if __name__ == "__main__":
    main()
