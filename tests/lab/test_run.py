"""The runner and ``proact lab run``: real servers, the real load, and what happens when something breaks."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from support.watching import Watcher

from proact.cli.app import dispatch
from proact.cli.error import CommandError
from proact.lab.export import differences
from proact.lab.registry import MODELS
from proact.lab.results import load
from proact.lab.run import Settings, run
from proact.lab.table import render_differences
from proact.lab.view import render_all

if TYPE_CHECKING:
    from pathlib import Path

    from proact.lab.measure import Cell

Children = Callable[[int], dict[str, int]]
Wait = Callable[[int, int], dict[str, int]]


def echo(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proact", "lab", "echo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, **more)  # type: ignore[call-overload,no-any-return]


# Long enough for a server that has to share its core with other programs.
QUICK = ("--duration", "0.5", "--warmup", "0.02", "--repeat", "1")


def test_a_file_that_can_not_be_written_is_one_line() -> None:
    done = echo("--models", "epoll", "--connections", "1", "--json", "/dev/full", *QUICK)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "proact: can't write '/dev/full': No space left on device"
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("1 cell, about ")


def test_two_results_in_one_file_are_refused(tmp_path: Path) -> None:
    file = str(tmp_path / "x")
    with pytest.raises(CommandError, match="write over each other"):
        dispatch(["lab", "run", "--json", file, "--csv", file])


def test_only_the_timed_pass_tells_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The passes that count and probe are slower, and no figures of the cell."""

    class Listening(Watcher):
        heard_of: list[float]

        def heard(self, rate: float, p50: int, p99: int) -> None:
            self.heard_of.append(rate)

    monkeypatch.setattr("proact.lab.measure.SPLIT_DURATION", 1.2)
    watcher = Listening()
    watcher.heard_of = []
    run(Settings(("epoll",), connections=(1,), duration=0.05, warmup=0.0, split=True), watcher)
    assert (
        watcher.heard_of == []
    )  # a timed pass of 0.05 s has none, and the others of half a second are silent


def test_a_run_from_the_shell(tmp_path: Path) -> None:
    out = tmp_path / "echo.json"
    arguments = ("--models", "threads,epoll", "--connections", "2", "--size", "100,2K")
    done = echo(*arguments, "--seed", "5", "--json", str(out), *QUICK)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("4 cells, about ")
    assert "[4/4] " in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout.count("x 100 B") == done.stdout.count("x 2 KiB") == 1
    assert done.stdout.count("No ranking: a model has only 1 repeat,") == 2
    assert "When each wins" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100

    document = json.loads(out.read_text())
    assert (document["schema"], document["seed"]) == (3, 5)
    assert document["environment"]["kernel"] == os.uname().release
    cells = document["cells"]
    assert sorted(cell["order"] for cell in cells) == list(range(4))
    for cell in cells:
        assert cell["status"] == "ok", cell
        got = cell["measured"]
        assert got["messages"] > 0
        assert got["bytes"] == got["messages"] * cell["size"]
        assert 0.49 < got["seconds"] < 5
        assert (cell["workload"], cell["active"], cell["rate"]) == ("echo", 2, None)
        assert 0 < got["server_user_seconds"] + got["server_system_seconds"] < 2 * got["seconds"]
        assert got["switches_voluntary"] > 0  # the server waits
        assert (got["unsent"], got["slow"]) == (0, None)
        assert sum(count for _, count in got["latency"]["histogram"]) == got["messages"]
        # Ticks of 10 ms: a little more than all cores, at times.
        assert 0 <= got["others_cpu"] <= 1.2 * (os.cpu_count() or 1)
        latency = got["latency"]["percentiles"]
        assert 0 < latency["p50"] <= latency["p99"] <= latency["p99.99"] <= latency["max"]
        assert got["occupied"]["threads"] == (1 + cell["connections"] if cell["model"] == "threads" else 1)
        assert (got["counted"] is None) == (got["uncounted"] is not None)


def test_every_model_that_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proact.lab.measure.COUNT_DURATION", 0.02)
    settings = Settings(connections=(4,), duration=0.1, warmup=0.0)
    found = {cell["model"]: cell for cell in run(settings, Watcher())["cells"]}
    assert sorted(found) == sorted(MODELS)
    # On a busy machine a server may stand in the queue for 0.1 s.
    late = tuple(name for name, cell in found.items() if "no message" in (cell["reason"] or ""))
    if late:
        cells = run(replace(settings, models=late, duration=2.0), Watcher())["cells"]
        found |= {cell["model"]: cell for cell in cells}
    for name, cell in found.items():
        missing = MODELS[name].missing(4)
        assert cell["status"] == ("not measured" if missing else "ok"), cell
        assert cell["reason"] == missing


def test_loads_are_all_combinations_each_once() -> None:
    settings = Settings(("epoll",), ("echo", "web"), (2, 3), (1, 3, None), (64,), (None, 9.0))
    loads = settings.loads()
    assert len(loads) == len(set(loads)) == 2 * (2 + 2) * 2  # of 2 connections no more than 2 can send
    assert ("web", 3, 1, 64, 9.0) in loads
    assert ("echo", 2, 2, 64, None) in loads


def test_the_order_is_random_and_of_the_seed() -> None:
    cells = [Settings(seed=seed, repeat=3).cells() for seed in (1, 1, 2)]
    assert cells[0] == cells[1] != cells[2]
    assert set(cells[0]) == set(cells[2])
    assert len(cells[0]) == len(set(cells[0])) == 3 * 3 * len(MODELS)


def test_repeats_are_all_kept_and_counted() -> None:
    settings = Settings(("epoll",), connections=(2,), sizes=(64,), duration=0.5, warmup=0.0, repeat=3, seed=1)
    cells = run(settings, Watcher())["cells"]
    assert sorted(cell["repeat"] for cell in cells) == [0, 1, 2]
    for cell in cells:
        assert cell["measured"] is not None
        # Calls and memory hardly vary: their pass is of the first repeat.
        assert (cell["measured"]["occupied"] is None) == (cell["repeat"] > 0)
        if cell["repeat"] == 0:
            assert cell["measured"]["counted"] or cell["measured"]["uncounted"]


@pytest.mark.parametrize(
    ("blow", "reason"),
    [(signal.SIGKILL, "the server ended: killed by SIGKILL"), (signal.SIGSTOP, "stalled|2 ?s")],
    ids=["crash", "hang"],
)
def test_a_model_that_breaks_fails_alone(
    blow: signal.Signals, reason: str, lab_children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than a server has to wait for a core on a busy machine.
    monkeypatch.setattr("proact.lab.load_process.STALL_TIMEOUT", 2.0)

    def strike(cell: Cell) -> None:
        if cell.model == "poll" and (server := lab_children(os.getpid()).get("serve")):
            os.kill(server, blow)

    watcher = Watcher(strike)
    settings = Settings(
        ("epoll", "poll", "select"), connections=(2,), sizes=(64,), duration=0.5, warmup=0.0, seed=1
    )
    before = os.sched_getaffinity(0)
    cells = {cell["model"]: cell for cell in run(settings, watcher)["cells"]}
    assert {name: cell["status"] for name, cell in cells.items()} == {
        "epoll": "ok",
        "poll": "failed",
        "select": "ok",
    }
    assert cells["poll"]["reason"] is not None
    assert re.search(reason, cells["poll"]["reason"]), cells["poll"]["reason"]
    assert len(watcher.results) == 3
    assert lab_children(os.getpid()) == {}
    assert os.sched_getaffinity(0) == before


def test_what_a_model_cannot_do_is_not_its_failure() -> None:
    settings = Settings(("select",), connections=(2000,), sizes=(64,), duration=0.05, warmup=0.0, seed=1)
    watcher = Watcher()
    (cell,) = run(settings, watcher)["cells"]
    assert (cell["status"], watcher.cells, watcher.plan) == ("not measured", [], (0, 0))
    assert cell["reason"] == "select(2) watches no fd past 1023, so at most 1000 connections"


@pytest.mark.parametrize(
    ("blow", "exit_code", "said"),
    [
        (signal.SIGINT, 130, "proact: interrupted"),
        (signal.SIGTERM, 143, "proact: terminated"),
        (signal.SIGKILL, -9, None),
    ],
)
def test_nothing_is_left_running(
    blow: signal.Signals, exit_code: int, said: str | None, wait_for_children: Wait
) -> None:
    command = [sys.executable, "-m", "proact", "lab", "echo", "--models", "threads", "--duration", "30"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        found = wait_for_children(process.pid, 2)
        process.send_signal(blow)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (exit_code, "")
        wait_for_children(process.pid, 0)
    assert set(found) == {"serve", "load"}
    assert "Traceback" not in err
    if said is not None:
        assert err.splitlines()[-1] == said


def test_a_run_that_is_stopped_shows_what_it_has_measured(tmp_path: Path, wait_for_children: Wait) -> None:
    file, page = tmp_path / "run.json", tmp_path / "run.html"
    command = [sys.executable, "-m", "proact", "lab", "run", "--models", "epoll", "--connections", "2"]
    command += ["--no-split", *QUICK, "--repeat", "500", "--json", str(file), "--html", str(page)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(line.startswith("[1/500] ") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()[-1]) == (130, "proact: interrupted")
    wait_for_children(process.pid, 0)
    document = json.loads(file.read_text())
    done = len(document["cells"])
    assert 1 <= done < 500
    assert document["stopped"] == f"{done} of 500 cells"
    for text in (out, page.read_text()):
        assert f"Stopped early: {done} of 500 cells." in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "--workload", "echo,tea"],
            "unknown workload 'tea': choose from echo, churn, web, mixed, cpu, wait, ",
        ),
        (["run", "--workload", "echo,idle"], "idle has connections of its own"),
        (["run", "--workload", "files,idle"], "idle has connections of its own"),
        (["run", "--workload", "files", "--connections", "0"], "--connections has '0'"),
        (["run", "--workload", "files", "--models", "epoll,tea"], "unknown model 'tea'"),
        (["run", "--workload", "files", "--rate", "9"], "files have no --active, no --rate and no --size"),
        (["run", "--workload", "files-append", "--size", "9"], "files have no --active, no --rate and no"),
        (["run", "--active", "0"], "--active has '0'"),
        (["run", "--rate", "0"], "--rate has '0'"),
        (["run", "--rate", "1e9"], "--rate has '1e9'"),
        (["run", "--json", "-", "--csv", "-"], "only one of --json, --csv and --html can go to stdout"),
        (["run", "--html", "-", "--csv", "-"], "only one of --json, --csv and --html can go to stdout"),
        (["run", "--html", "/nowhere/x.html"], "can't write '/nowhere/x.html': No such file or directory"),
        (["echo", "--html", "/"], "can't write '/': Is a directory"),
        (["report", "/nowhere.json", "--html", "-"], "can't read '/nowhere.json': No such file or directory"),
        (["report", "/nowhere.json"], "can't read '/nowhere.json': No such file or directory"),
        (["report", __file__], "is no JSON"),
        (["compare", "/nowhere.json", "/nowhere.json"], "can't read '/nowhere.json'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_of_the_others_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError) as caught:
        dispatch(["lab", *arguments])
    assert caught.value.exit_code == 2
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "epoll,kqueue"], "unknown model 'kqueue': choose from blocking, threads, "),
        (["--models", ""], "unknown model ''"),
        (["--connections", "0"], "--connections has '0'"),
        (["--connections", "1,x"], "--connections has 'x'"),
        (["--connections", "-5"], "--connections has '-5'"),
        (["--connections", "1,"], "--connections has ''"),
        (["--connections", "900000"], "900,000 connections need "),
        (["--size", "0"], "--size has '0'"),
        (["--size", "17M"], "--size has '17M': it takes whole numbers from 1 to 16,777,216"),
        (["--size", "²"], "--size has '²'"),
        (["--duration", "0"], "--duration is 0: it must be from 0.01"),
        (["--duration", "nan"], "--duration is nan"),
        (["--duration", "x"], "Invalid value for '--duration'"),
        (["--warmup", "-1"], "--warmup is -1"),
        (["--repeat", "0"], "--repeat is 0"),
        (["--json", "/nowhere/at/all.json"], "can't write '/nowhere/at/all.json': No such file or directory"),
        (["--json", "/"], "can't write '/': Is a directory"),
        (["--nonsense"], "No such option: --nonsense"),
        (["epoll"], "unexpected extra argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError) as caught:
        dispatch(["lab", "echo", *arguments])
    assert caught.value.exit_code == 2
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_refused_json_file_is_found_out_before_the_run_and_leaves_no_file(tmp_path: Path) -> None:
    done = echo("--json", str(tmp_path / "x.json"), "--models", "epoll,oops")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("proact: unknown model 'oops': choose from blocking, ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proact", "lab", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


def test_every_kind_of_load_from_run_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, sheet = str(tmp_path / "run.json"), str(tmp_path / "run.csv")
    loads = ("--workload", "echo,mixed", "--connections", "3", "--active", "1", "--rate", "200")
    done = lab("run", "--models", "epoll,asyncio,bare-epoll", *loads, *QUICK, "--json", file, "--csv", sheet)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "echo: 3 connections, 1 active x 1 KiB, 200 messages/s" in done.stdout
    assert "When each wins" not in done.stdout  # one repeat ranks nothing
    assert done.stdout.count("Where the server's threads were") == 2
    cells = json.loads((tmp_path / "run.json").read_text())["cells"]
    assert len(cells) == 2 * 3
    due = []
    for cell in cells:
        if (cell["model"], cell["workload"]) == ("bare-epoll", "mixed"):
            assert (cell["status"], cell["reason"]) == (
                "not measured",
                "serves echo, churn, web, slow-readers only",
            )
            continue
        got = cell["measured"]
        due.append((got["messages"] + got["unsent"]) / got["seconds"])
        assert (got["slow"] is not None) == (cell["workload"] == "mixed")
        assert got["unsplit"] is None
        parts = ("waiting", "copying", "asking", "run_queue", "user", "stalled", "probe")
        assert sum(got["split"][part] for part in parts) == pytest.approx(got["split"]["wall"], rel=0.001)
        if got["slow"]:
            assert got["slow"]["messages"] > 0
    # In most cells only: a load that loses its core in the warm-up sends overdue messages in the window.
    assert 0.5 * 200 <= statistics.median(due) <= 1.2 * 200

    lines = list(csv.DictReader((tmp_path / "run.csv").read_text().splitlines()))
    assert [line["model"] for line in lines] == [cell["model"] for cell in cells]
    for line, cell in zip(lines, cells, strict=True):
        expected = cell["measured"]["messages"] if cell["measured"] else ""
        assert line["messages"] == str(expected)

    def drawn(*arguments: str) -> str:
        assert dispatch(["lab", *arguments]) == 0
        return capsys.readouterr().out

    assert drawn("report", file) == done.stdout
    assert drawn("report", file, "--csv", "-") == (tmp_path / "run.csv").read_text()
    found = json.loads(drawn("compare", file, file, "--json"))
    assert len(found) == 5
    assert {(each["rate"], each["verdict"]) for each in found} == {(1.0, "unknown")}
    assert "echo: 3 connections, 1 active x 1 KiB, 200 messages/s" in drawn("compare", file, file)


def test_results_of_another_version_or_of_something_else(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    for text, said in (
        ('{"schema": 1}', "is of version 1; this proact reads version 3"),
        ('{"schema": 3}', "is damaged: it lacks '"),
        ("[]", "holds no results"),
    ):
        file.write_text(text)
        with pytest.raises(CommandError, match=said):
            dispatch(["lab", "report", str(file)])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda found: found["cells"][0].pop("model"), r"cells\[0\] lacks 'model'"),
        (lambda found: found["cells"][1].update(measured=7), r"cells\[1\]\.measured is 7"),
        (lambda found: found["cells"][0].update(status="odd"), r"cells\[0\]\.status is 'odd'"),
        (
            lambda found: next(filter(None, (cell["measured"] for cell in found["cells"])))["latency"][
                "histogram"
            ].append([1, "x"]),
            r"cells\[\d+\]\.measured\.latency\.histogram\[\d+\]\[1\] is 'x'",
        ),
        (lambda found: found.update(models=[]), r"models is \[\]"),
    ],
)
def test_damaged_results_are_an_error_that_says_where(
    tmp_path: Path, damage: Callable[[Any], object], said: str
) -> None:
    found = json.loads((Path(__file__).parents[2] / "docs/lab/run.json").read_text())
    damage(found)
    file = tmp_path / "damaged.json"
    file.write_text(json.dumps(found))
    with pytest.raises(CommandError, match=f"damaged.json is damaged: {said}$"):
        dispatch(["lab", "report", str(file)])


def test_cells_that_the_machine_refuses_fail_and_the_others_go_on() -> None:
    settings = Settings(("epoll",), connections=(2, 900_000), duration=0.5, warmup=0.0, seed=1)
    cells = {cell["connections"]: cell for cell in run(settings, Watcher())["cells"]}
    assert {number: cell["status"] for number, cell in cells.items()} == {2: "ok", 900_000: "failed"}
    assert (cells[900_000]["reason"] or "").startswith("900,000 connections need ")


def test_a_load_that_dies_fails_its_cell_only(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "load.py"
    script.write_text(
        "import json, sys\nfrom proact.lab import load\n"
        "apply = load.apply\n"
        "load.apply = lambda spec: sys.exit(7) if spec['size'] == 65 else apply(spec)\n"
        "load.main(sys.argv[1:])\n"
    )
    settings = Settings(("epoll",), connections=(1,), sizes=(64, 65, 66), duration=0.5, warmup=0.0, seed=3)
    cells = run(settings, Watcher(), load_command=(sys.executable, str(script)))["cells"]
    assert {cell["size"]: cell["status"] for cell in cells} == {64: "ok", 65: "failed", 66: "ok"}
    assert [cell["reason"] for cell in cells if cell["size"] == 65] == [
        "the load process ended with exit code 7"
    ]


@pytest.mark.parametrize("width", [100, 80, 60, 40])
def test_earlier_results_fit_a_terminal_and_nothing_is_cut(width: int) -> None:
    document = load(Path(__file__).parents[2] / "docs/lab/run.json")
    out = io.StringIO()
    shown = Console(file=out, width=width, color_system=None)
    shown.print(render_all(document, width))
    shown.print(render_differences((document, document), differences(document, document), width))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
