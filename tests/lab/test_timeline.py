"""Timelines: taken from real servers whose waits are known; added up and drawn from made-up ones."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.trials import once_of_five

from proact.cli.app import dispatch
from proact.cli.error import CommandError
from proact.lab import timeline as taking
from proact.lab.phases import asleep, longest_wait, phases, served, waiting_by_role
from proact.lab.registry import MODELS
from proact.lab.results import Event, Timeline
from proact.lab.timeline import Plan, Taken, take, take_all
from proact.lab.timeline_view import FIGURES, render_timelines, said
from proact.lab.workloads import Exchange


class Notes(list[str]):
    """An observer that records its calls."""

    note = list.append

    def taken(self, taken: Taken) -> None:
        pass


def taken(model: str, **more: Any) -> Timeline:
    if reason := MODELS[model].missing():
        pytest.skip(reason)
    return take(Plan(model, requests=3, **more))


@once_of_five
def test_data_that_is_50_ms_away_is_waited_for_in_one_recv() -> None:
    found = taken("blocking", delay=0.05)
    (waits,) = [event for event in served(found) if asleep(event) > 1000]
    assert (waits["call"], waits["role"], waits["result"]) == ("recv", "moves", 1024)
    assert asleep(waits) >= 45_000
    assert waits["start"] < -45_000
    assert waits["end"] > 0 == found["sent"]
    (sends,) = [event for event in served(found) if event["call"] == "send"]
    assert waits["end"] < sends["start"] < found["answered"]
    assert sends["result"] == 1024
    assert found["kind"] == "blocking"
    assert "errno" not in waits
    # All three answer times in order; the timeline shown is the one in the middle.
    answers = [each["answer"] for each in found["requests"]]
    assert answers == sorted(answers)
    assert answers[1] == found["answered"]
    assert all(each["waiting"] >= 30_000 for each in found["requests"])


@pytest.mark.parametrize("model", ["select", "poll", "epoll"])
@once_of_five
def test_multiplexing_waits_in_the_call_that_asks_and_none_in_recv(model: str) -> None:
    found = taken(model, delay=0.05)
    slept = waiting_by_role(found)
    assert slept["waits"] >= 45_000
    assert slept.get("moves", 0.0) < 1000
    longest = longest_wait(found)
    assert longest is not None
    assert longest.call in ("select", "poll", "ppoll", "epoll_wait")  # ppoll: from Python 3.15 on
    assert [event["call"] for event in served(found) if event["role"] == "moves"] == ["recv", "send"]


@once_of_five
def test_polling_waits_in_nothing_and_says_how_often_it_asked() -> None:
    found = taken("nonblocking", delay=0.05)  # longer than another program keeps the core
    assert waiting_by_role(found).get("moves", 0.0) < 1000
    empty = [event for event in found["events"] if "errno" in event]
    assert len(empty) > 50
    assert {event["result"] for event in empty} == {-1}
    spent = phases(found)
    assert spent["asking"] > spent["copying"] > 0
    assert said(found).startswith(f"Does not wait: {len([e for e in served(found) if 'errno' in e]):,} calls")


@once_of_five
def test_a_ring_waits_for_whatever_comes_in_calls_that_do_the_rest_too() -> None:
    found = taken("proact-io_uring", delay=0.05)  # as above
    assert waiting_by_role(found).keys() == {"ring", "moves"}
    assert waiting_by_role(found)["moves"] < 1000  # a lone answer is tried by a `send`, which does not wait
    assert "for whatever comes first" in said(found)
    assert phases(found)["waiting"] > 25_000


def event(call: str, start: float, end: float, cpu: float, role: str, **more: Any) -> Event:
    values = {"thread": 0, "call": call, "fd": 3, "start": start, "end": end, "cpu": cpu, "run_queue": 0.0}
    return values | {"result": 1024, "role": role} | more  # type: ignore[return-value]


def made_up(model: str, *events: Event, answered: float = 100.0, others: float = 0.0) -> Timeline:
    return {
        "model": model,
        "kind": str(MODELS[model].kind),
        "workload": "echo",
        "size": 1024,
        "sent": 0.0,
        "answered": answered,
        "events": list(events),
        "others": others,
    }


MULTIPLEXING = (
    event("epoll_wait", -5000, 20, 10, "waits", run_queue=4.0),
    event("recv", 30, 34, 4, "moves"),
    event("send", 50, 70, 20, "moves"),
    event("epoll_wait", 80, 5080, 10, "waits"),
)


def test_phases_are_all_of_the_time_until_the_next_wait() -> None:
    found = phases(made_up("epoll", *MULTIPLEXING))
    assert found == {
        "answer": 100,
        "waiting": 5020 - 14,
        "copying": 24,
        "asking": 10,
        "run_queue": 4,
        "program": 10 + 16 + 10,
        "slept": {"waits": 5020 - 14, "moves": 0},
        "others": 0,
    }
    parts = ("waiting", "copying", "asking", "run_queue", "program")
    assert sum(found[part] for part in parts) == 5080  # type: ignore[literal-required]


def test_the_wait_for_the_next_request_is_not_charged_to_this_one() -> None:
    waits = event("io_uring_enter", -5000, 20, 10, "ring")
    sends = event("io_uring_enter", 40, 130, 60, "ring")
    next_one = event("io_uring_enter", 140, 50_000, 10, "ring")
    assert served(made_up("proact-io_uring", waits, sends, answered=120.0)) == [waits, sends]
    assert served(made_up("proact-io_uring", waits, sends, next_one, answered=150.0)) == [waits, sends]
    assert phases(made_up("proact-io_uring", waits, sends, next_one, answered=150.0))["waiting"] == 5010 + 30


def test_a_call_that_found_nothing_has_copied_nothing() -> None:
    early = event("recv", -50, -40, 10, "moves", result=-1, errno=11)
    found = phases(made_up("nonblocking", early, event("recv", 5, 9, 4, "moves")))
    assert (found["asking"], found["copying"], found["program"]) == (10, 4, 45)


def test_a_thread_that_moves_nothing_is_not_concerned() -> None:
    other = event("poll", -40_000, 90, 5, "waits", thread=1)
    found = made_up("bare-threads", other, event("recv", -5000, 30, 8, "moves"))
    longest = longest_wait(found)
    assert longest is not None
    assert (longest.call, longest.role, longest.microseconds) == ("recv", "moves", 5022)
    assert phases(found)["asking"] == 0
    assert longest_wait(made_up("aio" if "aio" in MODELS else "epoll", other)) is not None


def draw(timelines: list[Timeline], width: int = 100, **more: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, **more).print(render_timelines(timelines, width))
    return out.getvalue()


def test_a_figure_shows_lanes_calls_and_who_copied() -> None:
    text = draw([made_up("epoll", *MULTIPLEXING, others=12.0)], color_system=None)
    lines = text.splitlines()
    assert FIGURES["multiplexing"] in lines
    (kernel,) = [line for line in lines if line.startswith("kernel")]
    before, _, after = kernel.partition("│")
    assert before == "kernel".ljust(12) + "░" * 18
    # In time's order: asleep, queue, asking, the program, copying twice, the next wait.
    assert [*dict.fromkeys(after)] == ["░", "▒", "▓", " ", "█"]
    assert after.rstrip().endswith("░")
    (application,) = [line for line in lines if line.startswith("application")]
    assert "━" not in application.partition("│")[0]
    assert application.count("━") in range(20, 32)  # 36 of 100 µs, in 69 columns
    assert "1 epoll_wait(3)" in text
    assert "goes on" in text
    assert "Waits in epoll_wait, for whatever comes first; copied in recv, send by the thread" in text
    assert "others worked 12.0 µs per request" in text
    (row,) = [line for line in lines if line.startswith("epoll  ")]
    shares = 5006 / 5080 * 100, 24 / 5080 * 100, 46 / 5080 * 100
    assert row.split()[2:5] == [f"{share:.1f}" for share in shares]


def test_what_a_call_returned_is_told_in_its_own_terms() -> None:
    calls = (
        ("sigwaitinfo", "waits", 35, "signal 35"),
        ("epoll_pwait2", "waits", 2, "2 ready"),
        ("aio_suspend", "waits", 0, "0"),
        ("io_uring_enter", "ring", 3, "3 handed over"),
        ("recv", "moves", 1024, "1,024 bytes"),
        ("getpid", "asks", 77, "77"),
    )
    events = [event(name, at, at + 1, 1, role, result=got) for at, (name, role, got, _) in enumerate(calls)]
    lines = draw([made_up("epoll", *events)], color_system=None).splitlines()
    for mark, (name, _, _, said_so) in enumerate(calls, 1):
        (line,) = [line for line in lines if line.startswith(f"{mark} {name}")]
        assert line.rstrip().endswith(f" {said_so}"), line


def test_figures_are_grouped_by_kind_and_fit_any_width() -> None:
    many = [
        event("recv", -5000 + at, -4998 + at, 2, "moves", result=-1, errno=11) for at in range(0, 4000, 3)
    ]
    found = [
        made_up("epoll", *MULTIPLEXING),
        made_up("nonblocking", *many, event("recv", 5, 9e6, 9e6, "moves"), answered=9e6),
        made_up("asyncio", *MULTIPLEXING),
        made_up("blocking", event("recv", -5000, 10, 4, "moves")),
        made_up("proact-io_uring"),  # not a single call
    ]
    for width in (100, 80):
        text = draw(found, width, color_system=None)
        assert max(map(len, text.splitlines())) <= width
        assert text.count(FIGURES["multiplexing"]) == 1
    assert "1,334 x recv" in text
    assert text.index(FIGURES["multiplexing"]) < text.index("asyncio: ") < text.index(FIGURES["non-blocking"])


def test_figures_have_one_scale_but_for_what_is_far_slower() -> None:
    quick, slower, slowest = (made_up("epoll", *MULTIPLEXING, answered=end) for end in (100.0, 180.0, 9e3))
    axes = [line for line in draw([quick, slower, slowest], color_system=None).splitlines() if "╷" in line]
    assert [line.split()[-2] for line in axes] == ["180", "180", "9,000"]


def test_colours_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [made_up("epoll", *MULTIPLEXING)]
    assert "\x1b[33m" in draw(found, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in draw(found, force_terminal=True)


def test_a_model_that_is_not_here_or_that_lies_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(MODELS["epoll"]), "missing", _without_poll)
    honest = taking.sample
    monkeypatch.setattr(
        taking, "sample", lambda name, size: Exchange(b"a", b"b") if size == 1 else honest(name, size)
    )
    plans = [Plan("poll", requests=1), Plan("epoll", size=1, requests=1), Plan("select", requests=1)]
    absent, lies, last = take_all(plans, notes := Notes())
    assert (absent.timeline, absent.reason, absent.failed) == (None, "not here", False)
    assert (lies.timeline, lies.reason, lies.failed) == (None, "answered with other bytes", True)
    assert last.timeline is not None
    assert [note.split(",")[0] for note in notes] == ["timeline of epoll", "timeline of select"]


def _without_poll(model: Any, connections: int = 1, workload: str = "echo") -> str | None:
    return "not here" if model.name == "poll" else None


def lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proact", "lab", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


def test_timelines_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "timelines.json"
    arguments = (
        "--models",
        "blocking,select,nonblocking",
        "--requests",
        "3",
        "--delay",
        "2ms",
        "--size",
        "64",
    )
    done = lab("timeline", *arguments, "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "timeline of select, echo x 64 bytes" in done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "\x1b" not in done.stdout
    document = json.loads(file.read_text())
    assert document["cells"] == document["claims"] == []
    assert [each["model"] for each in document["timelines"]] == ["blocking", "select", "nonblocking"]
    assert {each["size"] for each in document["timelines"]} == {64}
    assert list(document["models"]) == ["blocking", "select", "nonblocking"]
    assert dispatch(["lab", "report", str(file)]) == 0
    assert capsys.readouterr().out == done.stdout


def test_a_run_takes_timelines_as_well() -> None:
    quick = ("--connections", "1", "--duration", "0.5", "--warmup", "0", "--no-split", "--repeat", "1")
    done = lab("run", "--models", "epoll", *quick, "--timelines", "--json", "-")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [each["model"] for each in document["timelines"]] == ["epoll"]
    assert len(document["timelines"][0]["requests"]) == taking.REQUESTS
    assert [cell["status"] for cell in document["cells"]] == ["ok"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "kqueue"], "unknown model 'kqueue'"),
        (["--workload", "tea"], "unknown workload 'tea'"),
        (["--workload", "echo,web"], "a timeline is of one workload and one size"),
        (["--size", "65K"], "--size has '65K': it takes whole numbers from 1 to 65,536"),
        (["--delay", "5"], "--delay is '5': it takes a time with its unit, such as 10ms"),
        (["--delay", "xms"], "--delay is 'xms'"),
        (["--delay", "2s"], "--delay is '2s': it must be from 100 µs to 1 s"),
        (["--requests", "0"], "--requests is 0: it must be from 1 to 1000"),
        (["--json", "/nowhere/x.json"], "can't write '/nowhere/x.json'"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError) as caught:
        dispatch(["lab", "timeline", *arguments])
    assert caught.value.exit_code == 2
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
