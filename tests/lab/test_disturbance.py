"""What is beside a measurement is seen, and named; what belongs to it is not."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from proact.lab import disturbance, environment, run
from proact.lab.disturbance import HYPERVISOR, LIMIT, NOT_SEEN, Watch, is_disturbed, named
from proact.lab.measure import Cell
from proact.lab.results import Measured

SPIN = "import time\nend = time.monotonic() + 5\nwhile time.monotonic() < end: pass"


@pytest.fixture
def spinner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that keeps a core busy, under a name that no other process has."""
    monkeypatch.setattr(disturbance, "NAMED", 1000)
    program = tmp_path / "spinner"
    program.symlink_to(sys.executable)
    return program


def test_own_children_are_no_disturbance(spinner: Path) -> None:
    watch = Watch()
    with subprocess.Popen([spinner, "-c", SPIN]) as child:
        time.sleep(0.3)
        alive = watch.disturbance()
        child.kill()
    ended = watch.disturbance()
    assert "spinner" not in alive["by"] | ended["by"]


def test_a_process_beside_it_is_named(spinner: Path) -> None:
    """The process is nobody's child: its parent has ended."""
    orphan = f"import subprocess; subprocess.Popen([{str(spinner)!r}, '-c', {SPIN!r}], stderr=-3)"
    subprocess.run([sys.executable, "-c", orphan], check=True, stdout=subprocess.DEVNULL, timeout=20)
    watch = Watch()
    time.sleep(1)
    found = watch.disturbance()
    assert is_disturbed(found)
    assert found["by"]["spinner"] > 0.05, found
    assert "spinner (" in named(found)


def test_what_ended_meanwhile_is_charged_once(spinner: Path) -> None:
    """A process that has ended is in its parent's account, which has all that it took."""
    short = SPIN.replace("+ 5", "+ 0.5")
    many = f"import subprocess\nfor _ in range(4): subprocess.run([{str(spinner)!r}, '-c', {short!r}])"
    orphan = f"import subprocess; subprocess.Popen([{str(spinner)!r}, '-c', {many!r}], stderr=-3)"
    subprocess.run([sys.executable, "-c", orphan], check=True, stdout=subprocess.DEVNULL, timeout=20)
    time.sleep(0.4)
    for _ in range(4):
        watch = Watch()
        time.sleep(0.3)
        # Twice, it would be 2.7 for half a second in a window of 0.3; two of them overlap at most.
        assert watch.disturbance()["by"].get("spinner", 0.0) < 2.2


def test_stolen_and_withheld_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    stolen, throttled = [0], [0]

    def read(path: str) -> str:
        if path == "/proc/stat":
            return f"cpu 100 0 100 1000 0 0 0 {stolen[0]} 0 0\n"
        if path == "/proc/self/cgroup":
            return "0::/box\n"
        if path.endswith("/box/cpu.stat"):
            return f"usage_usec 5\nthrottled_usec {throttled[0]}\n"
        return ""

    monkeypatch.setattr(disturbance, "read", read)
    watch = Watch()
    time.sleep(0.05)
    assert watch.disturbance() == {"cores": 0.0, "by": {}}
    stolen[0] = 100  # ticks
    assert watch.disturbance()["by"].keys() == {HYPERVISOR}
    throttled[0] = 10_000_000  # microseconds
    assert list(watch.disturbance()["by"]) == [LIMIT, HYPERVISOR]


def test_what_cannot_be_seen_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine was busy, and no process here was."""
    busy = [0]
    monkeypatch.setattr(
        disturbance, "read", lambda path: f"cpu {busy[0]} 0 0 0 0 0 0 0 0 0" if path == "/proc/stat" else ""
    )
    watch = Watch()
    time.sleep(0.05)
    busy[0] = 100  # ticks: a second
    assert watch.disturbance()["by"].keys() == {NOT_SEEN}
    assert environment.busy_seconds() > 0


def measured_with(taken: list[float], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """The repeats of the cells that were measured, and whether each was disturbed, if so many cores were
    taken beside each in turn; beside all that follow, as many as beside the last.
    """
    cores = iter([*taken, *[taken[-1]] * 100])

    class Told:
        def __init__(self, *, files: bool) -> None:
            assert not files

        def disturbance(self) -> object:
            return {"cores": next(cores), "by": {}}

    class Bench:
        def measure(self, cell: Cell) -> Measured:
            return {"messages": cell.repeat}  # type: ignore[typeddict-item]

    monkeypatch.setattr(run, "Watch", Told)
    cells = [Cell("epoll", "echo", 1, 1, 64, None, repeat) for repeat in range(5)]
    results = run._measure_all(Bench(), Bench(), cells, True, lambda *_: None)  # type: ignore[arg-type]
    return [(each["repeat"], is_disturbed(each["measured"]["disturbance"])) for each in results]  # type: ignore[index]


def test_what_was_disturbed_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured_with([0.0, 0.3, 0.0, 0.3, 0.0, 0.0, 0.0], monkeypatch)
    assert found == [(0, False), (1, True), (2, False), (3, True), (4, False), (1, False), (3, False)]
    once_more = measured_with([0.3, 0.0, 0.0, 0.0, 0.0, 0.3, 0.0], monkeypatch)
    assert [repeat for repeat, _ in once_more] == [0, 1, 2, 3, 4, 0, 0]


def test_a_machine_that_stays_busy_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured_with([1.0], monkeypatch)
    assert all(disturbed for _, disturbed in found)
    assert len(found) <= 10


def test_an_account_that_holds_what_was_before_is_no_more_than_the_machine_was_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An old process was adopted and has ended: all that it ever took is in the account of its new parent."""
    init, old = disturbance._Process("init", 0, 5.0), disturbance._Process("old", 7, 900.0)
    parent = disturbance._Process("shell", 1, 1.0)  # it ended first
    begun = disturbance._Reading(0.0, {1: init, 9: parent, 7: parent, 8: old}, 0.0, 1000.0, 0.0, 0.0)
    adopted = disturbance._Process("init", 0, 905.0)
    ended = disturbance._Reading(1.0, {1: adopted, 9: parent}, 0.0, 1000.2, 0.0, 0.0)
    readings = iter([begun, ended])
    monkeypatch.setattr(disturbance, "_reading", lambda _files: next(readings))
    monkeypatch.setattr(disturbance, "_processes", dict)
    # The shell with the pid 7 was waited for by the other shell, so what `old` took is nowhere subtracted.
    begun.others[7] = disturbance._Process("shell", 9, 1.0)
    assert Watch().disturbance()["cores"] == pytest.approx(0.3)


@pytest.mark.parametrize("files", [False, True], ids=["sockets", "files"])
def test_the_kernels_threads_belong_to_what_is_done_with_files(
    files: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = [0.0]

    def processes() -> list[tuple[int, object]]:
        kernel = (2, disturbance._Process("kthreadd", 0, 0.0))
        return [kernel, (99, disturbance._Process("kworker/0:1H-kblockd", 2, used[0]))]

    monkeypatch.setattr(disturbance, "_processes", processes)
    monkeypatch.setattr(disturbance, "read", lambda _: "cpu 0 0 0 0 0 0 0 0 0 0\n")
    watch = Watch(files=files)
    time.sleep(0.1)
    used[0] = 0.05
    assert ("kworker/0:1H-kblockd" in watch.disturbance()["by"]) is not files
