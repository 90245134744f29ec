"""What textbooks say about I/O models, each claim as a test on this machine.

A claim has a text, its source, the measurements that it needs, and a judge: a function of the numbers alone.
To add a claim, write its judge and its trial in a file here, and add its name below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proact.lab.claims.blocking import ASYNCHRONOUS, BLOCKED_IN_SELECT, NONBLOCKING_COPIES, SIGNAL_COPIES
from proact.lab.claims.calls import NICER_FACE, TWO_CALLS
from proact.lab.claims.connections import GAIN, NOT_FASTER, THREAD_COSTS
from proact.lab.claims.costs import POLLING, WATCHING
from proact.lab.claims.files import FILES_NEED_THREADS
from proact.lab.claims.practice import EVEN_SPREAD, SLOW_READERS, TLS_IS_CHEAP

if TYPE_CHECKING:
    from proact.lab.claims.trial import Trial

_ALL: Final = (
    TWO_CALLS,
    NOT_FASTER,
    GAIN,
    BLOCKED_IN_SELECT,
    NONBLOCKING_COPIES,
    SIGNAL_COPIES,
    ASYNCHRONOUS,
    POLLING,
    THREAD_COSTS,
    WATCHING,
    NICER_FACE,
    FILES_NEED_THREADS,
    TLS_IS_CHEAP,
    EVEN_SPREAD,
    SLOW_READERS,
)

#: Every claim by its name, in the order in which they are shown.
TRIALS: Final[dict[str, Trial]] = {trial.name: trial for trial in _ALL}
