"""The parts of a cell's numbers: windows between reads, the load process and its ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest
from support.trials import once_of_five

from proact.lab.environment import process_cpu_seconds
from proact.lab.lifetime import pinned, separate_cores
from proact.lab.limits import local_ports, refusal
from proact.lab.load_process import LoadError, LoadProcess
from proact.lab.measure import Others, Sampled
from proact.lab.server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

SPEC = {"port": 1, "warmup": 0.0, "duration": 0.1}


def stand_in(tmp_path: Path, code: str) -> tuple[str, ...]:
    """A command in place of the load process: runs ``code`` for each ``line`` of stdin."""
    path = tmp_path / "load.py"
    loop = "import json, os, sys, time\nfor line in sys.stdin:\n"
    path.write_text(loop + textwrap.indent(textwrap.dedent(code), "    "))
    return (sys.executable, str(path))


def test_growth_in_a_window_is_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    times, values = iter((0.0, 1.0, 2.0, 4.0)), iter((0.0, 1.0, 4.0, 16.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    sampled = Sampled(lambda: next(values))
    for _ in range(3):
        sampled.take()
    assert sampled.growth(1.0, 2.0) == 3.0
    assert sampled.growth(1.0, 3.0) == 9.0  # at 3.0, halfway between 4 and 16
    assert sampled.growth(-5.0, 9.0) == 16.0  # not more than was read


def test_a_pass_gives_the_result_and_ticks_meanwhile(tmp_path: Path) -> None:
    flag = tmp_path / "ticked"
    code = f"""
        while not os.path.exists({str(flag)!r}):
            time.sleep(0.01)
        print(json.dumps({{"begun": 1.5, "result": json.loads(line)}}), flush=True)
    """
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 5:
            flag.touch()

    with LoadProcess(command=stand_in(tmp_path, code)) as load:
        answer = load.apply(SPEC, tick)
        assert answer["begun"] == 1.5
        assert answer["result"].items() >= SPEC.items()
        assert ticks >= 5
        assert load.apply(SPEC)["begun"] == 1.5  # the same process takes the next


def test_an_error_of_the_load_is_told(tmp_path: Path) -> None:
    code = "print(json.dumps({'error': 'connection 3: wrong byte'}), flush=True)"
    with LoadProcess(command=stand_in(tmp_path, code)) as load:
        for _ in range(2):
            with pytest.raises(LoadError, match="connection 3: wrong byte"):
                load.apply(SPEC)


def test_a_load_that_dies_fails_its_pass_only(tmp_path: Path) -> None:
    flag = tmp_path / "died"
    code = f"""
        if not os.path.exists({str(flag)!r}):
            open({str(flag)!r}, "w").close()
            os._exit(3)
        print('{{"begun": 0, "result": {{}}}}', flush=True)
    """
    with LoadProcess(command=stand_in(tmp_path, code)) as load:
        with pytest.raises(LoadError, match="exit code 3"):
            load.apply(SPEC)
        assert load.apply(SPEC) == {"begun": 0, "result": {}}


def test_a_load_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proact.lab.load_process.MARGIN", 0.2)
    with LoadProcess(command=stand_in(tmp_path, "time.sleep(60)")) as load:
        begun = time.monotonic()
        with pytest.raises(LoadError, match="hangs"):
            load.apply(SPEC | {"stall_timeout": 0.0})
        assert time.monotonic() - begun < 30


def test_an_interrupted_pass_leaves_no_answer_behind(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    code = (
        "time.sleep(0.05); print(json.dumps({'begun': json.loads(line)['port'], 'result': {}}), flush=True)"
    )
    with LoadProcess(command=stand_in(tmp_path, code)) as load:
        with pytest.raises(KeyboardInterrupt):
            load.apply(SPEC, interrupt)
        assert load.apply(SPEC | {"port": 2})["begun"] == 2


@once_of_five
def test_the_rest_of_the_machine_is_seen() -> None:
    code = "print(flush=True)\nwhile True: pass"
    with (
        ServerProcess("nonblocking") as server,  # it burns a core, which must not count as another program's
        LoadProcess(command=(sys.executable, "-c", "import time; time.sleep(60)")) as load,
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as busy,
    ):
        assert busy.stdout is not None
        busy.stdout.readline()
        begun = time.monotonic()
        others = Others(server, load)
        before = process_cpu_seconds(busy.pid)
        time.sleep(0.4)
        cores = others.cores()
        used = (process_cpu_seconds(busy.pid) - before) / (time.monotonic() - begun)
        busy.kill()
        assert cores > used - 0.1
        assert cores < (os.cpu_count() or 1)


def test_pinning_is_undone() -> None:
    before = os.sched_getaffinity(0)
    cores = separate_cores()
    assert (cores is None) == (len(before) == 1)
    with pinned(max(before)):
        assert os.sched_getaffinity(0) == {max(before)}
    assert os.sched_getaffinity(0) == before
    with pinned(None):
        assert os.sched_getaffinity(0) == before


def test_more_connections_than_the_machine_allows() -> None:
    assert refusal(1) is None
    assert re.search(r"hard limit is \d+|local ports", refusal(10_000_000) or "")
    assert 0 < local_ports() < 65536


def test_the_soft_limit_is_raised_as_far_as_needed() -> None:
    code = (
        "import resource\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))\n"
        "from proact.lab.limits import refusal\n"
        "assert refusal(200) is None\n"
        "import json; print(json.dumps(resource.getrlimit(resource.RLIMIT_NOFILE)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    soft, hard = json.loads(done.stdout)
    assert 200 < soft < 400 <= hard
