"""Claims: every judge gets made-up results for each of its verdicts; the command gets real ones.

RESULTS is the table: by claim and verdict, the results that must lead to this verdict. A worked row:

    "not-faster": {"supported": (speeds(0.8, 1.0), []), ...}

1. The claim "not-faster" says that multiplexing is not faster than threads with few connections.
2. `speeds(0.8, 1.0)` makes the cells: with one and with a few connections, multiplexing handles 0.8 times as
many messages per second as threads, with many connections 1.0 times as many. `cells` makes five repeats of
each, which differ by up to 2 %. The second part of the pair, the timelines, is empty.
3. The test gives both parts to the judge. 0.8 is less than 1 + MARGIN in every repeat, so the verdict has to
be "supported". With `speeds(1.3, 1.0)` it has to be "contradicted". `speeds(1.05, 1.0)` lies on the margin,
so its interval leaves the case open: "not measured".
"""

from __future__ import annotations

import copy
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
from proact.lab.claims import TRIALS
from proact.lab.claims.blocking import LARGE, SMALL
from proact.lab.claims.costs import BUSY, NARROW, QUIET, WIDE
from proact.lab.claims.files import AT_ONCE, KERNEL, WORKLOADS
from proact.lab.claims.files import load as load_of_files
from proact.lab.claims.intervals import difference, ratio
from proact.lab.claims.practice import BESIDE_SLOW_READERS, OVER_TLS, PLAIN, SOME
from proact.lab.claims.trial import FEW, MANY, ONE, circumstances, decided, echo, judged, within
from proact.lab.claims.view import render_claims
from proact.lab.job import needed
from proact.lab.registry import MODELS
from proact.lab.results import CellResult, Claim, Disturbance, Document, Timeline
from proact.lab.run import Settings, blank
from proact.lab.spread import Spread
from proact.lab.summary import Load, share

#: Calls per message of a plain multiplexing server, of a blocking one, and of one that waits once for many
#: messages.
MULTIPLEXING = {"epoll_wait": ("waits", 1.0), "recv": ("moves", 1.0), "send": ("moves", 1.0)}
BLOCKING = {"recv": ("moves", 1.0), "send": ("moves", 1.0)}
SHARED = MULTIPLEXING | {"epoll_wait": ("waits", 0.02)}


QUIETLY: Disturbance = {"cores": 0.01, "by": {"kworker": 0.01}}
BUSILY: Disturbance = {"cores": 1.5, "by": {"make": 1.2, "rustc": 0.3}}


def cells(
    model: str,
    load: Load,
    *,
    spread: tuple[float, ...] = (0.98, 0.99, 1.0, 1.01, 1.02),
    rate: float = 10_000.0,
    cpu_us: float = 50.0,
    cores: float | None = None,
    switches: float = 0.5,
    calls: dict[str, tuple[str, float]] = MULTIPLEXING,
    call_us: float = 1.0,
    threads: int = 1,
    kernel_threads: int = 0,
    memory: float = 4096.0,
    p99: float = 3e5,
    shares: tuple[int, ...] = (),
) -> list[CellResult]:
    """The repeats of a cell: ``spread`` says how its rate and its costs vary."""
    return [
        {
            "workload": load.workload,
            "model": model,
            "connections": load.connections,
            "active": load.active,
            "size": load.size,
            "rate": load.rate,
            "repeat": repeat,
            "order": 0,
            "status": "ok",
            "reason": None,
            "measured": {  # type: ignore[typeddict-item]
                "messages": int(rate * factor),
                "seconds": 1.0,
                "latency": {"percentiles": {"p50": 1e9 / rate, "p99": p99 * factor}, "histogram": []},
                "server_user_seconds": (rate * cpu_us / 1e6 if cores is None else cores) * factor**2,
                "server_system_seconds": 0.0,
                "switches_voluntary": switches * rate * factor**2,
                "switches_involuntary": 0.0,
                "others_cpu": 0.0,
                "disturbance": QUIETLY,
                "shares": list(shares),
                "lazy": {"sent": 1 << 25, "read": 1 << 16},
                "unsplit": None,
                "occupied": {
                    "threads": threads,
                    "kernel_threads": kernel_threads,
                    "resident_before": 1 << 20,
                    "resident": (1 << 20) + round(memory * load.connections),
                },
                "split": {
                    "messages": 1000.0,
                    "calls": {
                        name: {"role": role, "count": 1000 * count, "cpu": call_us * count / 1e3}
                        for name, (role, count) in calls.items()
                    },
                },
            },
        }
        for repeat, factor in enumerate(spread)
    ]


def timeline(
    model: str, size: int, *, copying: float = 20.0, waits: str = "waits", others: float = 0.0
) -> Timeline:
    """A timeline that slept in a call of the role ``waits``; its moving calls took about ``copying`` µs, and
    threads that make no calls ``others``.
    """
    event = {
        "thread": 0,
        "call": waits,
        "fd": 3,
        "start": -5000.0,
        "end": 10.0,
        "cpu": copying if waits != "waits" else 5.0,
        "run_queue": 0.0,
        "result": 1,
        "role": waits,
    }
    return {
        "model": model,
        "kind": str(MODELS[model].kind) if model in MODELS else "signal-driven",
        "workload": "echo",
        "size": size,
        "sent": 0.0,
        "answered": 100.0,
        "events": [event],  # type: ignore[list-item]
        "others": 0.0,
        "requests": [
            {"copying": copying + by / 10, "others": others + by / 10, "slept": {waits: 5000.0}}  # type: ignore[typeddict-item]
            for by in range(15)
        ],
        "disturbance": QUIETLY,
    }


def both_sizes(model: str, longer: float, waits: str = "waits", beside: float = 0.0) -> list[Timeline]:
    return [
        timeline(model, SMALL, waits=waits),
        timeline(model, LARGE, copying=20 + longer, waits=waits, others=beside),
    ]


def plain(role: str) -> list[Timeline]:
    return [timeline(model, SMALL, waits=role) for model in ("select", "poll", "epoll")]


def pairs(*loads: Load, threads: dict[str, Any], multiplexing: dict[str, Any]) -> list[CellResult]:
    """Threads against multiplexing, in Python and in Rust."""
    return [
        cell
        for load in loads
        for models, changes in (
            (("threads", "bare-threads"), threads),
            (("epoll", "bare-epoll"), multiplexing),
        )
        for model in models
        for cell in cells(model, load, **changes)
    ]


def calls_of(one: dict[str, Any], many: dict[str, Any]) -> list[CellResult]:
    """The calls per message of the models, at one connection and at many."""
    return [
        *cells("blocking", echo(ONE), calls=BLOCKING),
        *(cell for model in ("select", "poll", "epoll") for cell in cells(model, echo(ONE), calls=one)),
        *cells("threads", echo(MANY), calls=BLOCKING),
        *cells("epoll", echo(MANY), calls=many),
    ]


def speeds(at_one: float, at_many: float) -> list[CellResult]:
    """Multiplexing is so many times as fast as threads: with few connections, and with many."""
    return [
        cell
        for load, times in ((echo(ONE), at_one), (echo(FEW), at_one), (echo(MANY), at_many))
        for cell in pairs(load, threads={}, multiplexing={"rate": 10_000 * times})
    ]


def watched(select: float, epoll: float, active: float) -> list[CellResult]:
    """CPU time per message with many watched fds, as a multiple of the time with few; per call with many
    active.
    """
    return [
        *cells("select", NARROW),
        *cells("select", WIDE, cpu_us=50 * select),
        *cells("epoll", NARROW),
        *cells("epoll", WIDE, cpu_us=50 * epoll),
        *cells("epoll", BUSY, call_us=active),
    ]


def loops(calls: dict[str, tuple[str, float]], cpu_us: float) -> list[CellResult]:
    models = ("asyncio", "gevent", "proact-epoll")
    return [
        *cells("epoll", echo(ONE)),
        *(cell for model in models for cell in cells(model, echo(ONE), calls=calls, cpu_us=cpu_us)),
    ]


def ring(
    longer: float, waits: str = "ring", threads: int = 1, beside: float = 0.0
) -> tuple[list[CellResult], list[Timeline]]:
    model = "bare-io_uring"
    return cells(model, echo(FEW), threads=threads), both_sizes(model, longer, waits, beside)


def polling(cores: float, waiting: float) -> list[CellResult]:
    return [
        *cells("nonblocking", QUIET, rate=200, cores=cores),
        *cells("epoll", QUIET, rate=200, cores=waiting),
    ]


def crowd(memory: float, switches: float) -> list[CellResult]:
    many = {"memory": memory, "switches": switches, "threads": MANY + 1}
    return pairs(echo(MANY), threads=many, multiplexing={"switches": 0.1})


def over_tls(cpu_us: float, of_asyncio: float | None = None) -> list[CellResult]:
    """The CPU time of a message over TLS; without, it takes 50 µs."""
    dearer = {"asyncio": of_asyncio or cpu_us}
    return [
        cell
        for model in ("threads", "epoll", "asyncio", "proact-epoll")
        for load, micros in ((PLAIN, 50.0), (OVER_TLS, dearer.get(model, cpu_us)))
        for cell in cells(model, load, cpu_us=micros)
    ]


def on_one_port(shared: tuple[int, ...], separate: tuple[int, ...]) -> list[CellResult]:
    return [
        *cells("prefork", echo(MANY), shares=shared),
        *cells("reuseport", echo(MANY), shares=separate),
    ]


def beside_slow_readers(greedy: float, careful: float, later: float) -> list[CellResult]:
    """So many MiB more without flow control and with it; the p99 of the others so many times as long."""
    mebi = (1 << 20) / SOME
    return [
        *cells("asyncio-greedy", BESIDE_SLOW_READERS, memory=greedy * mebi),
        *(
            cell
            for model in ("threads", "epoll", "asyncio", "proact-epoll")
            for made in (
                cells(model, PLAIN),
                cells(model, BESIDE_SLOW_READERS, memory=careful * mebi, p99=3e5 * later),
            )
            for cell in made
        ),
    ]


def files(reads: float, kernel_threads: int) -> list[CellResult]:
    """Random reads by one thread, so many times as fast as by threads; appends with threads of the kernel."""
    read, append = (load_of_files(workload) for workload in WORKLOADS)
    threads = {"threads": AT_ONCE + 1}
    return [
        *cells("threads", read, **threads),
        *cells("threads", append, **threads),
        *(cell for model in KERNEL for cell in cells(model, read, rate=10_000 * reads)),
        *(
            cell
            for model in KERNEL
            for cell in cells(model, append, threads=1 + kernel_threads, kernel_threads=kernel_threads)
        ),
    ]


Made = tuple[list[CellResult], list[Timeline]]

#: By claim and verdict: the results that must lead to the verdict. The head of this file explains a row.
RESULTS: dict[str, dict[str, Made]] = {
    "two-calls": {
        "supported": (calls_of(MULTIPLEXING, MULTIPLEXING), []),
        "contradicted": (calls_of(BLOCKING, SHARED), []),
        "depends": (calls_of(MULTIPLEXING, SHARED), []),
    },
    "not-faster": {
        "supported": (speeds(0.8, 1.0), []),
        "contradicted": (speeds(1.3, 1.0), []),
        "not measured": (speeds(1.05, 1.0), []),
    },
    "gain-is-connections": {
        "supported": (speeds(0.8, 2.0), []),
        "contradicted": (speeds(1.2, 0.8), []),
        "not measured": (speeds(1.0, 1.01), []),
    },
    "blocked-in-select": {
        "supported": ([], plain("waits")),
        "contradicted": ([], plain("moves")),
        "depends": ([], [*plain("waits")[:2], *plain("moves")[2:]]),
    },
    "nonblocking-copies": {
        "supported": ([], both_sizes("nonblocking", 10)),
        "contradicted": ([], both_sizes("nonblocking", -5)),
        "not measured": ([], both_sizes("nonblocking", 1)),
    },
    "signal-copies": {
        "supported": ([], both_sizes("sigio", 10)),
        "contradicted": ([], both_sizes("sigio", -5)),
        "not measured": ([], both_sizes("nonblocking", 10)),
    },
    "asynchronous": {
        "supported": ring(-5, beside=10),
        "contradicted": ring(10, threads=FEW + 1),
        "depends": ring(10),
        "not measured": ring(-5),  # nobody was seen to copy
    },
    "polling": {
        "supported": (polling(0.98, 0.02), []),
        "contradicted": (polling(0.05, 0.95), []),
        "depends": (polling(0.05, 0.02), []),
        "not measured": (polling(0.6, 0.02), []),
    },
    "thread-costs": {
        "supported": (crowd(40_000, 1.0), []),
        "contradicted": (crowd(5_000, 0.01), []),
        "depends": (crowd(40_000, 0.01), []),
    },
    "watching": {
        "supported": (watched(6.0, 1.0, 3.0), []),
        "contradicted": (watched(1.0, 6.0, 1.0), []),
        "depends": (watched(6.0, 6.0, 3.0), []),
        "not measured": (watched(1.6, 1.0, 3.0), []),
    },
    "nicer-face": {
        "supported": (loops(MULTIPLEXING, 90.0), []),
        "contradicted": (loops(BLOCKING, 40.0), []),
        "depends": (loops(MULTIPLEXING | {"recv": ("moves", 2.0)}, 90.0), []),
        "not measured": (loops(MULTIPLEXING, 50.0), []),
    },
    "files-need-threads": {
        "supported": (files(0.3, 4), []),
        "contradicted": (files(1.5, 0), []),
        "depends": (files(1.5, 4), []),
        "not measured": (files(0.8, 0), []),
    },
    "tls-is-cheap": {
        "supported": (over_tls(54.0), []),
        "contradicted": (over_tls(90.0), []),
        "depends": (over_tls(54.0, of_asyncio=90.0), []),
        "not measured": (over_tls(62.5), []),
    },
    "even-spread": {
        "supported": (on_one_port((90, 10), (52, 48)), []),
        "contradicted": (on_one_port((52, 48), (60, 40)), []),
        "not measured": (on_one_port((53, 47), (50, 50)), []),
    },
    "slow-readers": {
        "supported": (beside_slow_readers(40, 1, 1.1), []),
        "contradicted": (beside_slow_readers(1, 40, 3.0), []),
        "depends": (beside_slow_readers(40, 1, 3.0), []),
        "not measured": (beside_slow_readers(10, 1, 1.1), []),
    },
}


def document(made: Made) -> Document:
    found = blank(Settings(("epoll",), seed=1))
    found["settings"]["pinned"] = True
    return found | {"cells": made[0], "timelines": made[1]}  # type: ignore[return-value]  # `|` makes a plain dictionary of it


def judge(name: str, made: Made) -> Claim:
    return judged(TRIALS[name], document(made))


def test_every_claim_is_judged_both_ways() -> None:
    assert list(RESULTS) == list(TRIALS)
    for name, expected in RESULTS.items():
        assert {"supported", "contradicted"} <= expected.keys(), name
        for verdict, made in expected.items():
            found = judge(name, made)
            assert found["verdict"] == verdict, (name, found)
            assert found["text"] == TRIALS[name].text
            assert found["because"]
            json.dumps(found)


@pytest.mark.parametrize("name", TRIALS)
def test_every_case_can_come_out_both_ways(name: str) -> None:
    """A case that is decided alike by whatever is measured says nothing."""
    found: dict[str, set[str]] = {}
    for made in RESULTS[name].values():
        for case, verdict in judge(name, made)["evidence"].get("cases", {}).items():
            found.setdefault(case, set()).add(verdict)
    assert found
    for case, verdicts in found.items():
        assert {"supported", "contradicted"} <= verdicts, case


def test_a_model_that_is_missing_is_left_out_and_named() -> None:
    made = [cell for cell in RESULTS["nicer-face"]["supported"][0] if cell["model"] != "gevent"]
    found = judge("nicer-face", (made, []))
    assert found["verdict"] == "supported"
    assert found["evidence"]["not_measured"] == ["gevent: not in these results"]
    assert not any("gevent" in case for case in found["evidence"]["cases"])
    careful = [cell for cell in RESULTS["slow-readers"]["supported"][0] if cell["model"] != "asyncio-greedy"]
    assert judge("slow-readers", (careful, []))["verdict"] == "not measured"  # its other half is not tested


@pytest.mark.parametrize("name", TRIALS)
def test_what_was_not_measured_is_no_verdict(name: str) -> None:
    found = judge(name, ([], []))
    assert (found["verdict"], found["evidence"]) == ("not measured", {})
    assert found["because"]


@pytest.mark.parametrize(
    "name",
    [
        "not-faster",
        "gain-is-connections",
        "polling",
        "thread-costs",
        "watching",
        "nicer-face",
        "tls-is-cheap",
    ],
)
def test_noise_is_not_taken_for_an_answer(name: str) -> None:
    """Medians decide nothing if their intervals overlap, or if there is a single repeat."""
    made, _ = RESULTS[name]["supported"]
    once = [cell for cell in made if cell["repeat"] == 0]
    found = judge(name, (once, []))
    assert found["verdict"] == "not measured"
    wild = [_scaled(cell, (0.2, 0.4, 1.0, 2.5, 5.0)[cell["repeat"]]) for cell in made]
    assert judge(name, (wild, []))["verdict"] != "supported"


def _scaled(cell: CellResult, factor: float) -> CellResult:
    measured = cell["measured"]
    assert measured is not None
    changed = {
        key: measured[key] * factor  # type: ignore[literal-required]
        for key in ("messages", "server_user_seconds", "switches_voluntary")
    }
    changed["server_user_seconds"] *= factor
    changed["switches_voluntary"] *= factor
    return cell | {"measured": measured | changed}  # type: ignore[return-value]


def test_repeats_that_were_disturbed_are_left_out_if_enough_remain() -> None:
    """Multiplexing is slower in five quiet repeats, and fast in repeats that other programs disturbed."""
    loads = (echo(ONE), echo(FEW))
    made = [
        *(cell for load in loads for cell in cells("threads", load, spread=(1.0,) * 7)),
        *(cell for load in loads for cell in cells("epoll", load, spread=(3, *(0.8,) * 5, 3))),
    ]
    assert judge("not-faster", (made, []))["verdict"] == "not measured"
    disturb(made, {0, 6})
    found = judge("not-faster", (made, []))
    assert found["verdict"] == "supported"
    conditions = found["conditions"]
    assert (conditions["disturbed"], conditions["worst"]) == (8, BUSILY)
    assert "at worst by 1.50 cores by make (1.20), rustc (0.30)" in circumstances(conditions)


@pytest.mark.parametrize("name", TRIALS)
def test_a_verdict_is_never_given_from_what_was_disturbed(name: str) -> None:
    for verdict, made in RESULTS[name].items():
        quiet = document(made)
        disturbed = copy.deepcopy(quiet)
        disturb(disturbed["cells"], {4})
        for each in disturbed["timelines"]:
            each["disturbance"] = BUSILY
        assert judged(TRIALS[name], quiet)["verdict"] == verdict
        found = judged(TRIALS[name], disturbed)
        assert found["verdict"] == "not measured"
        if verdict != "not measured":
            assert found["because"].startswith("The machine was busy: ")
            assert "by 1.50 cores by make (1.20), rustc (0.30)" in found["because"]
            assert found["evidence"]


@pytest.mark.parametrize("name", TRIALS)
def test_on_one_core_no_verdict_is_given_from_rates_and_latencies(name: str) -> None:
    """They are of the load as well, like what is ready at once; CPU time and memory are the server's."""
    for verdict, made in RESULTS[name].items():
        found = document(made)
        found["settings"]["pinned"] = False
        shared = name in ("not-faster", "gain-is-connections", "slow-readers", "watching")
        claim = judged(TRIALS[name], found)
        assert claim["verdict"] == ("not measured" if shared else verdict)
        assert claim["because"].startswith("Server and load share a core") == shared


def disturb(made: list[CellResult], repeats: set[int]) -> None:
    for cell in made:
        if cell["repeat"] in repeats:
            assert cell["measured"] is not None
            cell["measured"]["disturbance"] = BUSILY


def test_a_reason_names_the_numbers_and_the_cases() -> None:
    found = judge("two-calls", RESULTS["two-calls"]["depends"])
    assert "blocking makes 1.00 (1.00 to 1.00) calls to receive a message, select 2.00" in found["because"]
    assert f"at {MANY} connections threads make 1.00 (1.00 to 1.00) and epoll 1.02" in found["because"]
    assert f"Contradicted by: epoll at {MANY}." in found["because"]
    assert found["evidence"]["one_connection"]["poll"]["median"] == 2
    assert found["evidence"]["tolerance"] == 0.15
    reason = "not installed: pip install epoll"
    cell = cells("epoll", echo(ONE))[0] | {"measured": None, "reason": reason}
    made = [cell, *(each for each in RESULTS["two-calls"]["depends"][0] if each["model"] != "epoll")]
    assert judge("two-calls", (made, []))["because"] == f"epoll: {reason}"  # type: ignore[arg-type]


def test_an_interval_decides_only_with_all_of_it() -> None:
    assert decided(Spread(2, 1.5, 2.5), 1.5, 1.0) == "supported"
    assert decided(Spread(2, 1.4, 2.5), 1.5, 1.0) == "not measured"
    assert decided(Spread(0.9, 0.5, 1.0), 1.5, 1.0) == "contradicted"
    assert decided(Spread(0.9, 0.5, 1.1), 1.5, 1.0) == "not measured"
    assert within(Spread(1.0, 0.9, 1.1), 1, 0.15) == "supported"
    assert within(Spread(1.0, 0.8, 1.1), 1, 0.15) == "not measured"
    assert within(Spread(0.5, 0.4, 0.8), 1, 0.15) == "contradicted"


@pytest.mark.parametrize(
    ("first", "second", "left_out"), [(3, 3, 0), (4, 4, 0), (5, 5, 2), (4, 6, 2), (10, 10, 23), (15, 15, 64)]
)
def test_two_sets_are_compared_as_mann_and_whitney_have_it(first: int, second: int, left_out: int) -> None:
    """The table of critical values of Mann and Whitney, two-sided, 5 %: so many pairs lie outside at either
    end.
    """
    upper = [100.0 + number * 1.01 for number in range(first)]
    lower = [float(number) for number in range(second)]
    every = sorted(over - under for over in upper for under in lower)
    found = difference(upper, lower)
    assert (found.low, found.high) == (every[left_out], every[-1 - left_out])
    assert found.low <= found.median <= found.high
    assert ratio([2.0, 4.0, 6.0], [1.0, 2.0, 1.0]) == Spread(3.0, 1.0, 6.0)
    assert share(Spread(3, 2, 4), Spread(1, 0.5, 2)) == Spread(3, 1, 8)


def test_what_several_claims_need_is_measured_once() -> None:
    every = needed(list(TRIALS.values()), 5)
    assert len(every) == len(set(every))
    alone = sum(len(needed([trial], 5)) for trial in TRIALS.values())
    assert len(every) < alone
    assert {cell.model for cell in every} <= set(MODELS)
    assert max(cell.repeat for cell in every) == 4


@pytest.mark.parametrize("width", [100, 80, 40])
def test_a_table_of_claims_fits(width: int) -> None:
    claims = [judge(name, made) for name, expected in RESULTS.items() for made in expected.values()]
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(render_claims(claims, width))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for claim in claims:
        assert claim["name"] in text
    assert f"{len(claims)} claims: 15 supported, 15 contradicted, 10 depend, " in " ".join(text.split())
    verdicts = {line[:20].strip() if width > 40 else line.partition(", ")[2] for line in text.splitlines()}
    assert {"supported", "contradicted", "depends", "not measured"} <= verdicts


def lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proact", "lab", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


@once_of_five
def test_claims_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "claims.json"
    names = "blocked-in-select,polling"
    done = lab("claims", "--claims", names, "--duration", "0.1", "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("10 cells, about ")
    document = json.loads(file.read_text())
    assert [claim["name"] for claim in document["claims"]] == names.split(",")
    assert 10 <= len(document["cells"]) <= 20
    assert [each["model"] for each in document["timelines"]] == ["select", "poll", "epoll"]
    blocked, burns = document["claims"]
    # On a busy machine there is no verdict, but the numbers are there.
    assert blocked["verdict"] in ("supported", "not measured"), blocked
    for model in ("select", "poll", "epoll"):
        assert blocked["evidence"][model]["waiting"]["median"] > 0.95
    cores = burns["evidence"]["cores"]
    assert cores["nonblocking"]["median"] > 3 * cores["epoll"]["median"]
    assert blocked["because"].split(",")[0] in " ".join(done.stdout.split())
    assert dispatch(["lab", "report", str(file)]) == 0
    drawn = capsys.readouterr().out
    for shown in ("I/O multiplexing (fig. 6.3)", "nonblocking", "blocked-in-select"):
        assert shown in drawn


def test_something_that_does_not_run_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no probe here")

    monkeypatch.setattr("proact.lab.timeline.take", broken)
    assert dispatch(["lab", "claims", "--claims", "nonblocking-copies"]) == 1
    assert "not measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--claims", "two-calls,three"], "unknown claim 'three': choose from two-calls, not-faster"),
        (["--repeat", "0"], "--repeat is 0"),
        (["--repeat", "4"], "--repeat is 4: a claim is decided by an interval, which needs 5 or more"),
        (["--duration", "nan"], "--duration is nan"),
        (["--json", "/nowhere/x.json"], "can't write '/nowhere/x.json'"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError) as caught:
        dispatch(["lab", "claims", *arguments])
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (2, False)
    assert message in str(caught.value)
