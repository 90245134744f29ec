"""Owns: docs/performance.md, made from the newest complete results: `python -m benchmarks.report
[RESULTS.json]`, and the figures in docs/guide/uvloop.md.

The whole page is computed from the results, including the section "Where we lose". Only SINCE and HOW below
are written by hand.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import children, files, sections, stats, table
from benchmarks.__main__ import RESULTS
from benchmarks.contenders import ALL, BASELINE, PEERS

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = children.ROOT / "docs" / "performance.md"
GUIDE = children.ROOT / "docs" / "guide" / "uvloop.md"
BAR = 40
"""The length of the longest bar, in characters."""


FIGURES = (("rate", "rate", 1), ("cpu_us", "CPU time", -1), ("memory", "memory", -1))
"""The figures that are compared: key, name, and whether more is better (1) or worse (-1)."""
WORDS = {
    "rate": "rate",
    "cpu_us": "CPU per operation",
    "memory": "memory per connection",
    "p50_us": "median latency",
}


@dataclass(frozen=True)
class Goal:
    """A goal of a contender in a case: its `key` over `other`'s is at least, or at most, `bound`."""

    case: str
    contender: str
    key: str
    other: str
    least: bool
    bound: float

    def met(self, ratio: float) -> bool:
        """Whether the ratio reaches the goal."""
        return ratio >= self.bound if self.least else ratio <= self.bound

    def __str__(self) -> str:
        word = "at least" if self.least else "at most"
        what = WORDS[self.key]
        return f"{self.contender}: {what} {word} {self.bound:g} × {self.other}'s"


# The goals of the versions so far. The page leaves out the goals of a case that was not run.
GOALS = (
    Goal("echo/protocol/1KiB/100", "proact-io_uring", "rate", "uvloop", True, 1.15),
    Goal("echo/protocol/1KiB/100", "proact-io_uring", "rate", "bare-io_uring", True, 0.92),
    Goal("echo/protocol/1KiB/100", "proact-io_uring", "cpu_us", "uvloop", False, 0.85),
    Goal("echo/protocol/1KiB/100", "proact-io_uring", "cpu_us", "rloop", False, 0.92),
    Goal("echo/protocol/64KiB/100", "proact-io_uring", "rate", "uvloop", True, 1.0),
    Goal("echo/protocol/1KiB/100", "proact-epoll", "rate", "bare-epoll", True, 0.95),
    Goal("echo/protocol/1KiB/100", "proact-epoll", "cpu_us", "rloop", False, 0.97),
    Goal("echo/streams/1KiB/100", "proact-io_uring", "rate", "uvloop", True, 1.5),
    Goal("echo/streams/1KiB/100", "proact-epoll", "rate", "uvloop", True, 1.5),
    Goal("echo/sock/1KiB/100", "proact-io_uring", "rate", "uvloop", True, 3.0),
    Goal("echo/sock/1KiB/100", "proact-epoll", "rate", "rloop", True, 1.0),
    *(
        Goal(case, engine, "cpu_us", "uvloop", False, 0.85)
        for case in ("echo/tls/1KiB/100", "echo/tls/64KiB/10")
        for engine in ("proact-io_uring", "proact-epoll")
    ),
    Goal("loop/call_soon_chain", "proact-io_uring", "rate", "uvloop", True, 4.0),
    Goal("loop/timers_cancelled", "proact-io_uring", "rate", "uvloop", True, 2.0),
    Goal("http/uvicorn/plaintext", "proact-io_uring", "rate", "uvloop", True, 1.1),
    Goal("idle/10000", "proact-io_uring", "memory", "uvloop", False, 0.4),
    Goal("idle/10000", "proact-epoll", "memory", "uvloop", False, 0.4),
    Goal("echo/protocol/1KiB/50+10000idle", "proact-io_uring", "cpu_us", "uvloop", False, 0.75),
    Goal("echo/protocol/1KiB/50+10000idle", "proact-epoll", "cpu_us", "uvloop", False, 0.75),
    Goal("echo/protocol/1KiB/1", "proact-io_uring+spin", "p50_us", "uvloop", False, 0.6),
    Goal("echo/protocol/1KiB/1", "proact-epoll+spin", "p50_us", "uvloop", False, 0.6),
    Goal("start/process", "proact-io_uring", "cpu_us", "asyncio", False, 1.3),
    Goal("start/process", "proact-epoll", "cpu_us", "asyncio", False, 1.3),
)

SINCE: tuple[str, ...] = ()
"""Changes after the newest complete run that a reader must know about; empty it after the next run."""


def wanted(case: dict[str, Any]) -> Iterator[Goal]:
    """The goals of a case: its own, and for every case "no worse than the baseline" on io_uring and epoll."""
    own = [goal for goal in GOALS if goal.case == case["name"]]
    yield from own
    key = case.get("primary", "rate")
    for name in ("proact-io_uring", "proact-epoll"):
        # A stricter goal of the case for this figure already covers it.
        if not any((goal.contender, goal.key, goal.other) == (name, key, BASELINE) for goal in own):
            yield Goal(case["name"], name, key, BASELINE, key == "rate", 1.0)


def goals(cases: list[dict[str, Any]]) -> Iterator[str]:
    """The table of goals, with whether each is reached."""
    yield "| case | goal | measured | |"
    yield "|---|---|---:|---|"
    for case in cases:
        for goal in wanted(case):
            ratio = stats.ratio(case["runs"], goal.contender, goal.other, goal.key)
            if ratio is None:
                continue
            verdict = "reached" if goal.met(ratio.median) else "**missed**"
            if not goal.met(ratio.median) and (goal.met(ratio.low) or goal.met(ratio.high)):
                verdict += ", within the spread"
            yield f"| {case['title']} | {goal} | {table.times(ratio)} | {verdict} |"


def losses(cases: list[dict[str, Any]]) -> Iterator[str]:
    """Every case and engine in which a peer is ahead of proact (rate, CPU time or memory), worst first."""
    found: list[tuple[float, str]] = []
    for case in cases:
        for name in stats.present(case["runs"], ALL):
            if not name.startswith("proact-"):
                continue
            failed = stats.errors(case["runs"], name)
            if failed:
                found.append((0.0, f"| {case['title']} | {name} | | failed: {'; '.join(failed)} | |"))
            for peer in PEERS:
                for key, label, sign in FIGURES:
                    ratio = stats.ratio(case["runs"], name, peer, key)
                    if ratio is None or ratio.median**sign >= 1:
                        continue
                    # One round in which proact is ahead makes it a draw.
                    draw = ratio.high >= 1 if sign == 1 else ratio.low <= 1
                    note = "within the spread" if draw else ""
                    row = f"| {case['title']} | {name} | {peer} | {label} {table.times(ratio)} | {note} |"
                    found.append((ratio.median**sign, row))
    if not found:
        yield "Nowhere in these results: no peer was ahead of proact on any engine, in rate or in CPU time."
        return
    clear = sum("within the spread" not in row for _, row in found)
    yield (
        f"Each line names a case, an engine and a peer that is ahead of proact: {len(found)} in all, "
        f"{clear} of them clearly, that is, in every round. A rate below 1 or a CPU time above 1 is a "
        "loss. The worst losses come first."
    )
    yield ""
    yield "| case | proact | behind | by | |"
    yield "|---|---|---|---:|---|"
    for _, row in sorted(found, key=lambda pair: pair[0]):
        yield row


def bars(case: dict[str, Any]) -> Iterator[str]:
    """The rates of one case as bars of text."""
    rates = {name: stats.figure(case["runs"], name, "rate") for name in stats.present(case["runs"], ALL)}
    medians = {name: rate.median for name, rate in rates.items() if rate}
    if not medians:
        return
    most = max(medians.values())
    yield "```text"
    for name, rate in sorted(medians.items(), key=lambda pair: -pair[1]):
        yield f"{name:16} {'█' * max(1, round(rate / most * BAR)):{BAR}} {table.quantity(rate)}/s"
    yield "```"


def setting(results: dict[str, Any], source: str) -> Iterator[str]:
    """Where, with what and how it was measured."""
    machine, settings = results["machine"], results["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    commit = (machine["commit"] or "no commit yet")[:12] + (
        " with uncommitted changes" if machine["dirty"] else ""
    )
    cores = (
        "server (or loop) on core 0, load on core 1"
        if machine["pinned"]
        else "**not pinned: fewer than two cores**"
    )
    yield f"- {results['created'][:10]}, `{source}`, mode `{results['mode']}`, {commit}"
    yield (
        f"- {machine['cpu']}, {machine['cores']} cores{' (virtual)' if machine['virtual'] else ''}, "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel']} {machine['architecture']}; {cores}"
    )
    yield f"- Python {machine['python']}, {versions}; {machine['rustc']}"
    yield (
        f"- {settings['rounds']} rounds, a window of {settings['duration']:g} s after "
        f"{settings['warmup']:g} s of warm-up, load average before: {machine['load_average_before']:.2f}"
    )
    if results["absent"]:
        yield f"- not installed, so not measured: {', '.join(results['absent'])}"


HOW = f"""\
Every figure is the median over the rounds, with the least and the greatest in brackets. In a round, the
contenders run one after another, each once and in processes of its own. "× {BASELINE}" is the median of the
ratios to {BASELINE}, each ratio taken *within one round*. Compare ratios: the rates hold for this machine on
this day only.

The load is one thread of Rust on the other core. It is a closed loop: each connection sends its next message
when the echo of the last one has come back and was verified. CPU µs is the CPU time of the server process, in
user and kernel mode, over the load's timed window, divided by the messages in it. `bare-epoll` and
`bare-io_uring` are echo servers in Rust without Python: they show the ceiling. malloc is warmed up first, for
all contenders alike (children.warm_malloc says why).

"load CPU" is the load's share of its own core. Near 100 %, the load limits the rate, and only CPU µs can be
compared. For this reason CPU µs decides with TLS, whose load is written in Python (benchmarks/tls_load.py).
wrk is the load for HTTP. Each idle connection has been served once. "B each" is the growth of the server's
resident memory over the second half of the connections, less the user's protocol object; "B in all" is the
server's whole resident memory at the end, with shared buffers and interpreter; "kernel B each" is what the
kernel took beside it, for both ends of a connection together. `aiofastnet+LOOP` is a loop with the transports
and the TLS of aiofastnet in place of its own (`aiofastnet.patch_loop`), measured in the TLS cases. `make
bench` repeats all measurements.

Not every contender does all of the work: rloop 0.5.0 runs the callbacks of `call_soon_threadsafe` in one
context that they all share. asyncio's contract is a copy of the caller's context; the others make that copy.
"""


KINDS = {
    "echo": "Echo over loopback",
    "http": "HTTP servers",
    "idle": "Connections that idle",
    "loop": "The loop by itself",
    "start": "Starts",
}


def page(results: dict[str, Any], source: str) -> str:
    """The whole page."""
    cases = results["cases"]
    lines = [
        "# Performance",
        "",
        "Generated by `python -m benchmarks.report`; do not edit.",
        "",
        *setting(results, source),
        "",
        *SINCE,
    ]
    lines += [HOW, "## Goals", "", *goals(cases), "", "## Where we lose", "", *losses(cases), ""]
    for kind, title in KINDS.items():
        chosen = [case for case in cases if case["kind"] == kind]
        if chosen:
            lines += [f"## {title}", ""]
        for case in chosen:
            heading = case["title"].removeprefix("echo, ")
            picture = [*bars(case), ""] if case["runs"] else []
            lines += [f"### {heading}", "", *picture, table.as_markdown(case), ""]
    lines += [*sections.spinning(cases), *sections.of_million(), *sections.elsewhere(RESULTS)]
    return "\n".join([*lines, *files_section()]).rstrip() + "\n"


def files_section() -> list[str]:
    """The newest results of benchmarks.files, which has contenders and rounds of its own."""
    found = sorted(files.RESULTS.glob("*.json"))
    if not found:
        return []
    results = json.loads(found[-1].read_text())
    versions = results["machine"]["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    place = found[-1].relative_to(children.ROOT)
    return [
        "## Files",
        "",
        (
            f"`python -m benchmarks.files`, {results['created'][:10]}, `{place}`, load average "
            f"{results['machine']['load_average_before']:.1f}. {named}; the libraries run on asyncio's loop. "
            f"Not installed here: {', '.join(results['absent'])}. The lag is how late a task wakes up that "
            "sleeps a millisecond at a time beside the work; idle: before the work."
        ),
        "",
        files.as_markdown(results),
    ]


def beside_baseline(cases: list[dict[str, Any]]) -> Iterator[str]:
    """The ratios of every case to the baseline, for the guide for its users."""
    engines = ("io_uring", "epoll")
    yield f"In how many cases proact's rate is higher or lower than {BASELINE}'s in *every* round:"
    yield ""
    for engine in engines:
        rates = [stats.ratio(case["runs"], f"proact-{engine}", BASELINE, "rate") for case in cases]
        known = [rate for rate in rates if rate]
        higher, lower = sum(rate.low > 1 for rate in known), sum(rate.high < 1 for rate in known)
        yield f"- on {engine}: higher in {higher}, lower in {lower}, of {len(known)}"
    yield ""
    yield "| case | rate on io_uring | on epoll | CPU time on io_uring | on epoll |"
    yield "|---|---:|---:|---:|---:|"
    for case in cases:
        cells = [
            table.times(stats.ratio(case["runs"], f"proact-{engine}", BASELINE, key))
            for key in ("rate", "cpu_us")
            for engine in engines
        ]
        yield f"| {' | '.join([case['title'], *cells])} |"
    for case in cases:
        memory = [stats.ratio(case["runs"], f"proact-{engine}", BASELINE, "memory") for engine in engines]
        if any(memory):
            yield ""
            uring, epoll = map(table.times, memory)
            yield f"Memory per connection, {case['title']}: {uring} on io_uring, {epoll} on epoll."


def with_figures(guide: str, results: dict[str, Any], source: str) -> str:
    """The text of the guide with the figures of these results between its two marks."""
    head, start, rest = guide.partition("<!-- figures of python -m benchmarks.report -->\n")
    _, end, tail = rest.partition("<!-- end of figures -->\n")
    if not start or not end:
        raise ValueError("the guide has no place for the figures")
    origin = (
        f"{BASELINE} {results['machine']['versions'].get(BASELINE)}, {results['created'][:10]}, `{source}`:"
    )
    return "\n".join([head + start, origin, "", *beside_baseline(results["cases"]), "", end + tail])


def newest() -> Path:
    """The newest results in benchmarks/results/; their names begin with the date."""
    found = sorted(RESULTS.glob("*.json"))
    if not found:
        raise SystemExit(f"no results in {RESULTS}; `make bench` makes some")
    return found[-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description="Write docs/performance.md."
    )
    parser.add_argument("results", nargs="?", type=Path, help="a results file (default: the newest)")
    parser.add_argument("--output", type=Path, default=PAGE, help="where the page goes")
    arguments = parser.parse_args()
    source: Path = (arguments.results or newest()).resolve()
    name = source.relative_to(children.ROOT) if source.is_relative_to(children.ROOT) else source.name
    results = json.loads(source.read_text())
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(page(results, str(name)))
    print(f"wrote {arguments.output}")
    if arguments.output == PAGE:
        GUIDE.write_text(with_figures(GUIDE.read_text(), results, str(name)))
        print(f"wrote the figures in {GUIDE}")


if __name__ == "__main__":
    main()
