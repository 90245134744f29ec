"""The vocabulary: every op by name, with the values that its arguments may have. It knows no loop and no
world.

An op in a sequence is a list `[name, argument, ...]` of JSON values. The functions that carry ops out
register here, so that the generator, the interpreter and the shrinker use the same ops.

A worked sequence, which found a fault in 0.1:

    ["open_link", 0, "plain", "unix"]   slot 0 gets a new connection: a plain protocol over a Unix socket
    ["write", 0, 1, "bytes"]            the protocol of slot 0 writes 1 byte, given as a `bytes` object
    ["end", 0, "abort"]                 its transport is aborted

After the last op, the interpreter (world.py) compares what the peer has received with what the model says.
The socket had room, so asyncio would have sent the byte within `write`, and the model promises it. On 0.1 it
did not arrive: "bytes do not leave". The shrinker had found this sequence by leaving ops out of a longer one.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Value = list[Any]
Sequence = list[Value]
Choices = tuple[Any, ...]

# The choices of an argument, in the order in which the shrinker prefers them.
SLOT: Choices = (0, 1, 2)
SIZE: Choices = (1, 10, 100, 4000, 20_000, 70_000, 300_000)
SMALL: Choices = (1, 10, 100, 1000, 4000)
TURNS: Choices = (0, 1, 2, 3, 6)
WAIT: Choices = (1, 5, 20)
FAMILY: Choices = ("unix", "tcp")
YES: Choices = (False, True)
SCRIPT: Choices = ("a list of ops that run inside a callback",)

STEPS = 4
"""The longest script."""


@dataclass(frozen=True)
class Op:
    name: str
    group: str
    weight: int
    arguments: tuple[Choices, ...]
    run: Callable[..., Any]
    waits: bool
    """The op is a coroutine: it needs the running loop, and can't be part of a script."""


TABLE: dict[str, Op] = {}


def op(group: str, weight: int, *arguments: Choices) -> Callable[[Any], Any]:
    """Register the decorated function `name(world, *arguments)` as an op; plain or `async`."""

    def register(function: Any) -> Any:
        name = function.__name__
        TABLE[name] = Op(name, group, weight, arguments, function, inspect.iscoroutinefunction(function))
        return function

    return register


def sample(rng: random.Random, ops: list[Op], slots: Choices = SLOT, deep: bool = False) -> Value:
    """A random op on one of the slots; `deep`: for the inside of a script, which can't contain another
    script.
    """
    usable = [each for each in ops if not (deep and (each.waits or SCRIPT in each.arguments))]
    if not usable:
        return ["nothing"]
    (chosen,) = rng.choices(usable, [each.weight for each in usable])
    value: Value = [chosen.name]
    for choices in chosen.arguments:
        if choices is SCRIPT:
            value.append([sample(rng, ops, slots, True) for _ in range(rng.randrange(1, STEPS))])
        else:
            value.append(rng.choice(slots if choices is SLOT else choices))
    return value


def simpler(value: Value) -> list[Value]:
    """The op with one argument simplified, in each possible way, the simplest first."""
    found = []
    for index, choices in enumerate(TABLE[value[0]].arguments, 1):
        now = value[index]
        if choices is SCRIPT:
            others = [now[:at] + now[at + 1 :] for at in range(len(now))]
            others += [
                [*now[:at], each, *now[at + 1 :]] for at, old in enumerate(now) for each in simpler(old)
            ]
        else:
            others = list(dict.fromkeys(choices[: choices.index(now)])) if now in choices else []
        found += [[*value[:index], other, *value[index + 1 :]] for other in others]
    return found


@op("always", 1)
def nothing(world: Any) -> None:
    """Do nothing."""
