"""A made-up run of the laboratory, which contains an example of everything that a report can show.

A worked cell: `run(connections=(10,), repeats=1)` has one cell for each model, in the order of MODELS.

1. `threads` is the second model, so its place is 1. It takes 20 + place + repeat = 21 µs of CPU per message.
2. Its rate is 10 ** 0.2 * 1e6 / 21: about 75,471 messages per second. More connections are a little faster.
3. `measured(75471.1, 21.0)` makes the figures of one second from these two numbers: the latencies are a
   histogram of seven steps from 21 µs on, each 1.2 times the one before; the CPU time is half user, half
   system; there are three system calls per message; the six parts of the split take 21 / 6 µs per message
   each.
4. Three models have no numbers: `gevent` is not installed, `poll` hangs (with HTML in its message, which the
   report must escape), and `blocking` can't serve ten connections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proact.lab.registry import MODELS

if TYPE_CHECKING:
    from proact.lab.results import CellResult, Document, Event, Measured, Split, Timeline


def split(messages: int, micros: float) -> Split:
    """The split of the time of ``messages``: ``micros`` per message, in six equal parts."""
    part = micros / 6 * messages / 1e6
    return {
        "seconds": 0.3,
        "wall": part * 6,
        "messages": messages,
        "waiting": part,
        "copying": part,
        "asking": part,
        "run_queue": part,
        "user": part,
        "stalled": part,
        "others": part / 2,
        "ring_ops": 0,
        "calls": {},
        "probe_ns": 100.0,
    }


def measured(rate: float, micros: float) -> Measured:
    """One second at ``rate``, ``micros`` of CPU per message."""
    messages = int(rate)
    steps = [[int(micros * 1000 * 1.2**step), count] for step, count in enumerate((1, 5, 40, 30, 20, 3, 1))]
    ends = [end for end, _ in steps]
    names = ("p50", "p90", "p99", "p99.9", "p99.99", "max", "mean")
    return {
        "messages": messages,
        "bytes": messages * 1024,
        "unsent": 0,
        "seconds": 1.0,
        "connect_seconds": 0.01,
        "latency": {
            "percentiles": dict(zip(names, map(float, (*ends[2:], ends[-1], ends[2])), strict=False))
            | {"mean": ends[2]},
            "histogram": steps,
        },
        "slow": None,
        "load_cpu_seconds": 0.5,
        "server_user_seconds": messages * micros / 2e6,
        "server_system_seconds": messages * micros / 2e6,
        "switches_voluntary": messages / 2,
        "switches_involuntary": 3.0,
        "others_cpu": 0.01,
        "counted": {"method": "perf", "calls": 3.0 * messages, "messages": messages},
        "uncounted": None,
        "occupied": {"threads": 1, "kernel_threads": 0, "resident_before": 1000, "resident": 41_000},
        "split": split(messages, micros),
        "unsplit": None,
    }


def timeline(model: str, threads: int = 1) -> Timeline:
    """A request: one thread waits for it, receives it and answers it, or hands it to the next thread."""
    calls: list[Event] = [
        {
            "thread": min(at, threads - 1),
            "call": call,
            "fd": 7,
            "start": start,
            "end": end,
            "cpu": cpu,
            "run_queue": 1.0,
            "result": 1,
            "role": role,
        }
        for at, (call, start, end, cpu, role) in enumerate(
            (
                ("epoll_wait", -40.0, 12.0, 2.0, "asks"),
                ("recv", 14.0, 20.0, 5.0, "moves"),
                ("send", 30.0, 41.0, 9.0, "moves"),
            )
        )
    ]
    return {
        "model": model,
        "kind": MODELS[model].kind,
        "workload": "echo",
        "size": 1024,
        "sent": 0.0,
        "answered": 50.0,
        "events": calls,
        "others": 2.5 if threads > 1 else 0.0,
    }


def run(*, connections: tuple[int, ...] = (1, 10, 100), repeats: int = 5) -> Document:
    """Every model under some loads; one is not installed, one fails, one cannot serve so many connections."""
    cells: list[CellResult] = []
    for place, name in enumerate(MODELS):
        for count in connections:
            for repeat in range(repeats):
                reason = MODELS[name].missing(count) if name == "blocking" else None
                reason = {
                    "gevent": "not installed: pip install gevent",
                    "poll": "it hangs & <b>hangs</b>",
                }.get(name, reason)
                micros = 20.0 + place + repeat
                cells.append(
                    {
                        "workload": "echo",
                        "model": name,
                        "connections": count,
                        "active": count,
                        "size": 1024,
                        "rate": None,
                        "repeat": repeat,
                        "order": len(cells),
                        "status": "ok" if reason is None else "failed" if name == "poll" else "not measured",
                        "reason": reason,
                        "measured": None if reason else measured(count**0.2 * 1e6 / micros, micros),
                    }
                )
    return {
        "schema": 3,
        "started": "2025-01-01T00:00:00+00:00",
        "seed": 7,
        "settings": {
            "duration": 1.0,
            "warmup": 0.2,
            "repeat": repeats,
            "pinned": True,
            "models": list(MODELS),
        },
        "environment": {
            "cpu": "<script>x</script> & Co",
            "cores": 2,
            "kernel": "6.1",
            "python": "CPython",
            "packages": {},
        },
        "models": {name: {"kind": model.kind, "family": model.family} for name, model in MODELS.items()},
        "cells": cells,
        "timelines": [timeline("threads", 2), timeline("epoll"), timeline("proact-io_uring")],
        "claims": [
            {
                "name": name,
                "text": f"Claim {name} </script><script>alert(1)</script>",
                "source": "UNP, section 6.2",
                "verdict": verdict,  # type: ignore[typeddict-item]
                "because": "epoll took 1.0 µs and select 9.0 µs.",
                "evidence": {"epoll": 1.0, "select": [9.0, None]},
            }
            for name, verdict in zip(
                "abcd", ("supported", "contradicted", "depends", "not measured"), strict=True
            )
        ],
    }
