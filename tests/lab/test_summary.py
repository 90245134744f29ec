"""From raw cells to rows, verdicts and tables, without conclusions that the data does not support."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from support import made_up

from proact.lab import summary
from proact.lab.registry import MODELS
from proact.lab.spread import Spread
from proact.lab.table import amount, bar, number, render

if TYPE_CHECKING:
    from proact.lab.results import CellResult, Document, Latency, Measured


def latency(p50: float, p90: float, p99: float, p999: float, most: float) -> Latency:
    """Percentiles in ns; nothing here looks at the histogram."""
    percentiles = {
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "p99.9": p999,
        "p99.99": most,
        "max": most,
        "mean": p50,
    }
    return {"percentiles": percentiles, "histogram": []}


def measured(rate: float, cpu_us: float = 10.0, load: float = 0.5, **changes: object) -> Measured:
    """A timed pass of one second."""
    values: Measured = {
        "messages": int(rate),
        "bytes": int(rate) * 1024,
        "seconds": 1.0,
        "connect_seconds": 0.01,
        "latency": latency(1e5, 2e5, 3e5, 4e6, 5e6),
        "unsent": 0,
        "slow": None,
        "load_cpu_seconds": load,
        "server_user_seconds": rate * cpu_us / 4e6,
        "server_system_seconds": rate * cpu_us * 3 / 4e6,
        "switches_voluntary": rate / 2,
        "switches_involuntary": rate / 4,
        "others_cpu": 0.01,
        "counted": {"method": "perf", "calls": 6200.0, "messages": 3000},
        "uncounted": None,
        "occupied": {
            "threads": 1,
            "kernel_threads": 0,
            "resident_before": 1000,
            "resident": 1000 + 10 * 4096,
        },
        "split": None,
        "unsplit": None,
    }
    return values | changes  # type: ignore[return-value,operator]


def cell(model: str, repeat: int, got: Measured | str) -> CellResult:
    """One cell: measured, or failed (or missing, if the reason says "not installed")."""
    reason = got if isinstance(got, str) else None
    status = "ok" if reason is None else "not measured" if "not installed" in reason else "failed"
    return {
        "workload": "echo",
        "model": model,
        "connections": 10,
        "active": 10,
        "size": 1024,
        "rate": None,
        "repeat": repeat,
        "order": 0,
        "status": status,  # type: ignore[typeddict-item]
        "reason": reason,
        "measured": None if isinstance(got, str) else got,
    }


def document(cells: dict[str, list[Measured | str]]) -> Document:
    """A run with one load."""
    repeat = max(map(len, cells.values()))
    return {
        "schema": 3,
        "started": "2025-01-01T00:00:00+00:00",
        "seed": 7,
        "settings": {
            "duration": 1.0,
            "warmup": 0.2,
            "repeat": repeat,
            "pinned": True,
        },
        "environment": {"cpu": "A Processor", "cores": 2, "kernel": "6.1", "python": "CPython 3.13"},
        "models": {name: {"kind": MODELS[name].kind, "family": MODELS[name].family} for name in cells},
        "cells": [cell(name, i, got) for name, all_of_it in cells.items() for i, got in enumerate(all_of_it)],
        "timelines": [],
        "claims": [],
    }


def block(**cells: list[Measured | str]) -> summary.Block:
    return summary.blocks(document({name.replace("__", "-"): got for name, got in cells.items()}))[0]


def test_a_row_has_medians_and_per_message_values() -> None:
    (row,) = block(epoll=[measured(1000), measured(4000), measured(3000)]).rows
    assert (row.rate.median, row.rate.low, row.rate.high) == (3000, 1000, 4000)
    assert row.rate.half_range == pytest.approx(0.5)
    assert (row.p50, row.p99, row.p999) == (100, 300, 4000)
    assert row.cpu_us.median == pytest.approx(10.0)
    assert row.calls is not None
    assert row.calls.median == pytest.approx(6200 / 3000)
    assert (row.threads, row.kernel_threads, row.memory) == (1, 0, Spread(4096, 4096, 4096))
    assert (row.system, row.switches) == pytest.approx((0.75, 0.75))
    assert (row.p9999, row.unsent, row.slow) == (5000, 0, None)
    assert not row.load_bound


def test_rows_are_sorted_and_absent_models_give_their_reason() -> None:
    got = block(select=[measured(1000)], epoll=[measured(2000)], uvloop=["not installed: x"], poll=["hung"])
    assert [row.model for row in got.rows] == ["epoll", "select"]
    assert [(each.model, each.failed, each.reason) for each in got.absent] == [
        ("uvloop", False, "not installed: x"),
        ("poll", True, "hung"),
    ]


def test_only_failures_fail_a_run() -> None:
    assert not summary.failed(document({"epoll": [measured(1)], "uvloop": ["not installed"]}))
    assert summary.failed(document({"epoll": [measured(1), "it hangs"]}))


def test_what_was_not_counted_is_unknown_and_not_zero() -> None:
    got = block(epoll=[measured(1000, counted=None, uncounted="perf: EPERM", occupied=None)])
    (row,) = got.rows
    assert (row.calls, row.threads, row.memory) == (None, None, None)
    assert got.uncounted == "perf: EPERM"


def test_a_verdict_names_the_best_of_each() -> None:
    lines = summary.verdict(
        block(
            epoll=[measured(2000, 30)] * 5,
            asyncio=[measured(1000, 20)] * 5,
            bare__epoll=[measured(4000, 5)] * 5,
        )
    )
    assert lines == [
        "Fastest: epoll, 2,000 messages/s.",
        "Least CPU: asyncio, 20.0 µs per message.",
        "epoll reaches 0.50 (0.50 to 0.50) of bare-epoll, which has no Python in it.",
    ]


def test_few_repeats_rank_nothing() -> None:
    for repeats, said in ((1, "1 repeat"), (4, "4 repeats")):
        found = block(epoll=[measured(2000)] * repeats, poll=[measured(1000)] * 5)
        assert summary.verdict(found) == [f"No ranking: a model has only {said}, and an interval needs 5."]
        assert summary.winners([found]) == []


def test_intervals_that_overlap_are_level() -> None:
    lines = summary.verdict(
        block(
            epoll=[measured(rate) for rate in (2000, 2050, 2100, 2150, 2200)],
            poll=[measured(rate) for rate in (1700, 1750, 1800, 1850, 2050)],
            select=[measured(rate) for rate in (1950, 1955, 1960, 1965, 1970)],
            bare__epoll=[measured(rate) for rate in (4000, 4100, 4200, 4300, 4400)],
        )
    )
    assert lines[0] == "Fastest: epoll, 2,100 messages/s (level with poll)."
    assert lines[2].startswith("epoll reaches 0.50 (0.45 to 0.55) of bare-epoll")


def test_an_interval_is_of_the_median() -> None:
    """By the binomial distribution: of 6 values the range is a 96.9 % interval; of 9, leaving one out at each
    end, 96.1 %.
    """
    for count, left_out in ((1, 0), (3, 0), (6, 0), (8, 0), (9, 1), (11, 1), (12, 2), (20, 5), (50, 17)):
        spread = Spread.of(list(range(count, 0, -1)))
        assert (spread.low, spread.high) == (1 + left_out, count - left_out), count
        assert spread.median == (count + 1) / 2


def test_who_wins_when_is_read_from_the_data() -> None:
    run = document(
        {
            "epoll": [measured(2000, 30)] * 5,
            "asyncio": [measured(1000, 20)] * 5,
            "bare-epoll": [measured(9000)] * 5,
        }
    )
    small = run["cells"]
    big: list[CellResult] = [{**each, "size": 4096} for each in small]
    costs = {"epoll": (1000, 20), "asyncio": (990, 40), "bare-epoll": (9000, 1)}
    for each in big:
        rate, cpu_us = costs[each["model"]]
        each["measured"] = measured(rate + each["repeat"] * 5, cpu_us)
    fixed: list[CellResult] = [{**each, "rate": 100.0} for each in small]
    run["cells"] = big + small + fixed
    found = summary.winners(summary.blocks(run))
    assert [(each.load.size, each.load.rate) for each in found] == [(1024, None), (1024, 100.0), (4096, None)]
    assert [each.fastest for each in found] == [("epoll",), (), ("epoll", "asyncio")]
    assert [each.thriftiest for each in found] == [("asyncio",), ("asyncio",), ("epoll",)]
    assert [each.gain for each in found] == [Spread(2.0, 2.0, 2.0), None, None]
    text = draw(run, 100)
    assert text.count("echo: 10 connections x 4 KiB, closed loop") == 2
    assert "2.00 (2.00 to 2.00)" in text


def test_slow_requests_and_what_was_not_sent_have_columns() -> None:
    got = measured(1000, unsent=1000, slow={"messages": 3, "latency": latency(5e6, 5e6, 5e6, 5e6, 5e6)})
    (row,) = block(epoll=[got]).rows
    assert (row.slow, row.unsent) == (5000, 0.5)
    for repeats in (1, 3):
        text = draw(document({"epoll": [got] * repeats}), 100)
        assert "slow ms" in text
        assert "unsent" in text
        assert "50.0%" in text
        assert max(map(len, text.splitlines())) <= 100
        assert "…" not in text


def test_threads_that_the_probe_had_no_room_for_are_told() -> None:
    parts = ("wall", "waiting", "copying", "asking", "run_queue", "user", "stalled", "others", "ring_ops")
    split = dict.fromkeys(parts, 1.0) | {"seconds": 1.0, "messages": 1e6, "calls": {}, "probe_ns": 900.0}
    said = "no room for 1,234 threads"
    assert said in draw(document({"threads": [measured(1000, split=split | {"lost": 1234})]}), 100)
    for none in ({"lost": 0}, {}):  # older results do not have it
        assert "no room" not in draw(document({"threads": [measured(1000, split=split | none)]}), 100)


def test_nothing_is_concluded_from_one_model() -> None:
    assert summary.verdict(block(epoll=[measured(1)], bare__epoll=[measured(2)])) == []


def draw(run: Document, width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, highlight=False)
    console.print(render(run, width))
    return out.getvalue()


@pytest.mark.parametrize("width", [100, 80, 60, 40])
def test_a_narrow_terminal_gets_fewer_columns_and_none_is_cut(width: int) -> None:
    text = draw(made_up.run(connections=(1, 10)), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    headings = [line for line in text.splitlines() if line.startswith("model ")]
    assert all("msgs/s" in line and "CPU µs" in line for line in headings if "waiting" not in line)
    assert [line.count("probe") for line in headings if "waiting" in line] == [int(width == 100)] * 2
    assert "least CPU" in text[text.index("When each wins") :]


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("width", [100, 80])
def test_a_table_fits_and_cuts_no_number(repeats: int, width: int) -> None:
    slow = measured(
        1_234_567.0,
        12_345.6,
        load=1.0,
        others_cpu=1.25,
        latency=latency(1e8, 1e8, 9.99e8, 1.2e9, 1.2e9),
        occupied={"threads": 1001, "kernel_threads": 2, "resident_before": 0, "resident": 10 * 9_999 * 1024},
        counted={"method": "perf", "calls": 1e6, "messages": 1000},
    )
    cells: dict[str, list[Measured | str]] = {name: [slow] * repeats for name in MODELS}
    cells["uvloop"] = ["not installed: pip install uvloop"] * repeats
    cells["gevent"] = ["the server ended: killed by SIGSEGV"] * repeats
    text = draw(document(cells), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for shown in ("1,234,567*", "12,346", "100,000", "999,000", "1,200k", "1001", "9,999", "1,000"):
        assert shown in text, shown
    assert "not measured: not installed: pip install uvloop" in text
    assert "FAILED: the server ended: killed by SIGSEGV" in text
    assert "Unreliable: other programs kept 1.2 cores busy meanwhile." in text
    assert "the load had used up its own core" in text
    assert ("±" in text.split("CPU µs and calls")[0]) == (repeats > 1)


def test_numbers_are_short_and_bars_in_proportion() -> None:
    assert number(-0.004) == "0.00"
    assert [number(v, 4) for v in (999.4, 1001, 999_400, 1e6, 1e12)] == ["999", "1k", "999k", "1M", "1e+12"]
    assert [number(v) for v in (0, 1.234, 9.994, 9.996, 45.67, 99.96, 1234.5)] == [
        "0.00",
        "1.23",
        "9.99",
        "10.0",
        "45.7",
        "100",
        "1,234",
    ]
    assert [bar(share, 4) for share in (0.0, 0.5, 0.53125, 1.0, 2.0)] == ["", "██", "██▏", "████", "████"]
    assert [amount(size) for size in (1, 1000, 1024, 65536, 1 << 20)] == [
        "1 B",
        "1,000 B",
        "1 KiB",
        "64 KiB",
        "1 MiB",
    ]


def of_files(models: tuple[str, ...], width: int) -> str:
    run = document({name: [measured(1000)] * 5 for name in models})
    for each in run["cells"]:
        each["workload"] = "files-random"
    return draw(run, width)


def test_files_have_no_loopback_and_say_what_the_cache_held() -> None:
    text = of_files(("threads", "epoll"), 100)
    assert "loopback" not in text
    assert "Files, every byte verified" in text
    assert "Page cache: emptied of this file before each round" in text


def test_a_plain_blocking_reader_is_not_headed_epoll() -> None:
    text = of_files(("threads", "epoll", "blocking", "proact-epoll"), 100)
    rows = {line.split("  ")[0].strip(): line for line in text.splitlines()}
    assert "multiplexing" not in rows["epoll, blocks"]
    assert "epoll" not in rows
    assert "blocking, blocks" not in text
    assert "multiplexing" in next(line for line in text.splitlines() if line.startswith("proact-epoll"))


@pytest.mark.parametrize("width", [60, 80, 95, 96, 100])
def test_the_slowest_answer_is_in_every_table(width: int) -> None:
    headings = next(line for line in of_files(("threads",), width).splitlines() if line.startswith("model"))
    assert "max" in headings or width < 70
