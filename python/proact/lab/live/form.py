"""From what the page sends to what is measured. Whatever is wrong with it is an AskedError."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Final

from proact.lab.asked import AskedError, chosen, numbers, seconds
from proact.lab.limits import MAX_SIZE, refusal
from proact.lab.registry import MODELS
from proact.lab.run import Settings
from proact.lab.workloads import WORKLOADS

#: What the page starts with: a run of about a minute.
DEFAULTS: Final = {"connections": "1,10,100", "size": "1K", "duration": "0.3", "repeat": "1"}

_FIELDS: Final = ("models", "workloads", *DEFAULTS)


def settings_of(form: Any) -> Settings:
    """What a form asks for. Raises AskedError."""
    if not isinstance(form, dict):
        raise AskedError("the form is no object")
    for name in _FIELDS:
        if not isinstance(form.get(name), str):
            raise AskedError(f"{name} is missing, or no text")
    if unknown := form.keys() - set(_FIELDS):
        raise AskedError(f"unknown field {min(unknown)!r}")
    (repeat, *more) = numbers("repeat", form["repeat"], most=1000)
    if more:
        raise AskedError("repeat takes one number")
    connections = numbers("connections", form["connections"])
    reasons = [refusal(each) for each in connections]
    if all(reasons):  # else the other cells are measured
        raise AskedError(str(reasons[0]))
    return Settings(
        models=chosen("model", form["models"], MODELS),
        workloads=chosen("workload", form["workloads"], WORKLOADS),
        connections=connections,
        sizes=numbers("size", form["size"], most=MAX_SIZE),
        duration=seconds("duration", _number("duration", form["duration"]), least=0.01),
        repeat=repeat,
        split=True,
    )


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise AskedError(f"{name} is {text!r}: it takes a number of seconds") from None


def settings_to_json(settings: Settings) -> str:
    """One line, for the child."""
    return json.dumps(asdict(settings)) + "\n"


def settings_from_json(line: str) -> Settings:
    """What ``settings_to_json`` wrote."""
    found: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(line).items()
    }
    return Settings(**found)
