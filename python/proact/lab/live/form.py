"""Turns the form that the page sends into a job. A wrong form is an AskedError."""

from __future__ import annotations

from typing import Any, Final

from proact.lab.asked import AskedError, chosen, number
from proact.lab.claims import TRIALS
from proact.lab.job import Job, asked_loads, of_claims, of_load, of_timelines
from proact.lab.registry import MODELS
from proact.lab.run import Settings

#: The kinds of measurement, each with the fields that it takes; the other fields stay empty.
_LOAD: Final = ("models", "workloads", "connections", "active", "size", "rate", "duration", "repeat")
CHOICE: Final = "choice"  #: a load that is to answer the three questions
TAKES: Final[dict[str, tuple[str, ...]]] = {
    "load": _LOAD,
    "load and timelines": _LOAD,
    "timelines": ("models", "workloads", "size"),
    "claims": ("claims", "duration", "repeat"),
    CHOICE: _LOAD,
}

FIELDS: Final = ("models", "workloads", "claims", *_LOAD[2:])

#: The values that the page starts with: a run of about a minute. Below, values that depend on the choice.
DEFAULTS: Final = {
    "connections": "1,100",
    "active": "",
    "size": "1K",
    "rate": "",
    "duration": "0.3",
    "repeat": "5",
}
USUAL: Final = {
    "idle": {"connections": "10,100,1000", "active": "1"},
    "files": {"connections": "1,16", "size": ""},
    "claims": {"duration": "0.2", "repeat": "5"},
}


def job_of(form: Any) -> Job:
    """The job that a form asks for. Raises AskedError."""
    if not isinstance(form, dict):
        raise AskedError("the form is no object")
    for name in ("what", *FIELDS):
        if not isinstance(form.get(name), str):
            raise AskedError(f"{name} is missing, or no text")
    if unknown := form.keys() - {"what", *FIELDS}:
        raise AskedError(f"unknown field {min(unknown)!r}")
    if (what := form["what"]) not in TAKES:
        raise AskedError(f"what is {what!r}: choose from {', '.join(TAKES)}")
    for name in FIELDS:
        if form[name].strip() and name not in TAKES[what]:
            raise AskedError(f"{what} has no {name}")
    text = {name: form[name].strip() for name in FIELDS}
    if what == "timelines":
        models = chosen("model", text["models"], MODELS)
        return of_timelines(models, text["workloads"], text["size"], dashes="")
    repeat = number("repeat", text["repeat"], most=1000)
    duration = _number("duration", text["duration"])
    if what == "claims":
        trials = [TRIALS[name] for name in chosen("claim", text["claims"], TRIALS)]
        return of_claims(trials, duration=duration, repeat=repeat, dashes="")
    loads = (text[name] for name in ("workloads", "connections", "active", "size", "rate"))
    settings = Settings(
        models=chosen("model", text["models"], MODELS),
        duration=duration,
        repeat=repeat,
        again=what == CHOICE,  # disturbed repeats are no answer, and the browser is a program beside it, too
        split=what != CHOICE,
        **asked_loads(*loads, dashes=""),
    )
    return of_load(settings, timelines=what == "load and timelines", dashes="")


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise AskedError(f"{name} is {text!r}: it takes a number of seconds") from None
