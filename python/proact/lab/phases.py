"""Adds up the calls of one request: the phases of Stevens' figures, as numbers.

It uses only what the probe has read: how long each call took, how long its thread was on a CPU or in
the run queue meanwhile, and whether the call failed. The order of these within one call is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proact.lab.results import Event, Phases, Timeline

#: The roles of calls whose CPU time is spent on the copy and the protocol.
COPYING: Final = ("moves", "ring")


def asleep(event: Event) -> float:
    """How long the call slept: its time off the CPU and outside the run queue, in µs."""
    return max(0.0, event["end"] - event["start"] - event["cpu"] - event["run_queue"])


def copies(event: Event) -> bool:
    """Whether the call's CPU time moved data. A call that would have had to wait has moved none."""
    return event["role"] in COPYING and "errno" not in event


def concerned(timeline: Timeline) -> list[Event]:
    """The calls of the threads that moved the request's data, or of all threads if none moved any."""
    movers = {event["thread"] for event in timeline["events"] if copies(event)}
    return [event for event in timeline["events"] if event["thread"] in movers or not movers]


def served(timeline: Timeline) -> list[Event]:
    """The calls that the request needed: all calls of its threads except the wait for the next request.

    If one call sends and then waits (io_uring_enter), the call before the request has sent the answer
    before it, so that in a steady state each request is charged one send and one receive.
    """
    return [event for event in concerned(timeline) if not outlasts(event, timeline["answered"])]


def outlasts(event: Event, answered: float) -> bool:
    """Whether a call continues after the answer for longer than it worked: it waits for the next request."""
    return event["end"] - answered > event["cpu"] + event["run_queue"]


def begun(timeline: Timeline) -> float:
    """When the server began to wait for the request, in µs; at the latest, when the request was sent."""
    return min([0.0, *(event["start"] for event in concerned(timeline))])


def phases(timeline: Timeline) -> Phases:
    """The request's time, divided by what the server's threads did."""
    events = served(timeline)
    later = (event["start"] for event in concerned(timeline) if outlasts(event, timeline["answered"]))
    end = max((event["end"] for event in events), default=0.0)
    end = max(end, min(later, default=end))
    within = _covered((event["start"], event["end"]) for event in events)
    return {
        "answer": timeline["answered"],
        "waiting": sum(map(asleep, events)),
        "copying": sum(event["cpu"] for event in events if copies(event)),
        "asking": sum(event["cpu"] for event in events if not copies(event)),
        "run_queue": sum(event["run_queue"] for event in events),
        "program": max(0.0, end - begun(timeline) - within),
        "slept": waiting_by_role(timeline),
        "others": timeline["others"],
    }


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """The time that at least one of the spans covers."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


@dataclass(frozen=True, slots=True)
class Wait:
    """The call that waited longest for the request."""

    call: str
    role: str
    microseconds: float


def longest_wait(timeline: Timeline) -> Wait | None:
    """The call in which the server slept longest; None if it slept in no call."""
    events = [event for event in served(timeline) if asleep(event) > 0]
    if not events:
        return None
    longest = max(events, key=asleep)
    return Wait(longest["call"], longest["role"], asleep(longest))


def waiting_by_role(timeline: Timeline) -> dict[str, float]:
    """How long the server slept in calls of each role, in µs."""
    total: dict[str, float] = {}
    for event in served(timeline):
        total[event["role"]] = total.get(event["role"], 0.0) + asleep(event)
    return total
