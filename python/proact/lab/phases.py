"""What one request's calls say when they are added up: the phases of Stevens' figures, as numbers.

Only what the probe has read is used: how long each call took, how much of that its thread was on a CPU or in
the run queue, and whether it failed. In which order these come within one call is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proact.lab.results import Event, Phases, Timeline

#: Roles of calls whose CPU time is the copy and the protocol's path.
COPYING: Final = ("moves", "ring")


def asleep(event: Event) -> float:
    """How long its thread was off the CPU inside the call without wanting it, in µs."""
    return max(0.0, event["end"] - event["start"] - event["cpu"] - event["run_queue"])


def copies(event: Event) -> bool:
    """Whether its CPU time moved data. A call that would have had to wait has moved none."""
    return event["role"] in COPYING and "errno" not in event


def concerned(timeline: Timeline) -> list[Event]:
    """The calls of the threads that moved its data; of all threads where no call has moved any."""
    movers = {event["thread"] for event in timeline["events"] if copies(event)}
    return [event for event in timeline["events"] if event["thread"] in movers or not movers]


def served(timeline: Timeline) -> list[Event]:
    """The calls that the request needed: of those concerned all but the wait for the next one.

    Where one call sends and then waits (io_uring_enter), the call before the request has sent the answer
    before it, so that in a steady state each request is charged one send and one receive.
    """
    return [event for event in concerned(timeline) if not outlasts(event, timeline["answered"])]


def outlasts(event: Event, answered: float) -> bool:
    """Whether a call goes on after the answer for longer than it worked: it waits for the next request."""
    return event["end"] - answered > event["cpu"] + event["run_queue"]


def begun(timeline: Timeline) -> float:
    """When the server began to wait for the request, in µs; at the latest when it was sent."""
    return min([0.0, *(event["start"] for event in concerned(timeline))])


def phases(timeline: Timeline) -> Phases:
    """The request's time by what the server's threads did with it."""
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
    }


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """How much time lies in at least one of the spans."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


@dataclass(frozen=True, slots=True)
class Wait:
    """The call in which the request was waited for longest."""

    call: str
    role: str
    microseconds: float


def longest_wait(timeline: Timeline) -> Wait | None:
    """Where the server slept longest; None if it slept in no call."""
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
