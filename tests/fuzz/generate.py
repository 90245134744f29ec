"""Makes a sequence from a seed. It knows the vocabulary's groups, but not what the ops do.

Swarm testing (Groce and others, ISSTA 2012): each seed leaves out most groups, and some ops of the other
groups, because a fault that needs two kinds of op many times seldom shows among all kinds.
"""

from __future__ import annotations

import random

from . import actions
from .vocabulary import SLOT, TABLE, Sequence, sample

GROUPS = {
    "transport": 10,
    "sock": 7,
    "watch": 6,
    "stream": 4,
    "server": 4,
    "callback": 5,
    "thread": 4,
    "fork": 3,
    "drop": 4,
    "sendfile": 3,
    "tls": 3,
    "runs": 4,
    "process": 1,
}
"""The frequency of a group, relative to the others."""
LENGTHS = (5, 10, 20, 40)
NEEDS = {
    "stream": "transport",
    "sendfile": "transport",
    "tls": "transport",
    "thread": "transport",
    "runs": "transport",
    "callback": "transport",
    "drop": "transport",
}
"""A group that does nothing without another one."""


def generate(seed: int) -> Sequence:
    """The sequence of this seed. It is equal on every machine and Python."""
    assert actions.LOADED
    rng = random.Random(seed)
    names = list(GROUPS)
    groups = {"always"}
    for _ in range(rng.choice((1, 2, 2, 3, 5))):
        (group,) = rng.choices(names, list(GROUPS.values()))
        groups |= {group, NEEDS.get(group, group)}
    ops = [op for op in TABLE.values() if op.group in groups]
    openers = [op for op in ops if op.name in actions.OPENERS]
    ops = [op for op in ops if op in openers or rng.random() < 0.7]
    slots = rng.choice(((0,), (0, 1), SLOT))
    sequence = [sample(rng, [op], slots) for op in openers for _ in slots]
    rng.shuffle(sequence)
    sequence = sequence[: rng.choice((2, 3, 5))]
    return sequence + [sample(rng, ops, slots) for _ in range(rng.choice(LENGTHS))]
