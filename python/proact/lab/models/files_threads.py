"""Files with threads that block (Stevens, fig. 6.1), as many as operations are wanted at once.

Each thread sleeps in its call until the device has answered; meanwhile the others go on.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from proact.lab.files.calls import follow

if TYPE_CHECKING:
    from proact.lab.files.work import Work


def run(work: Work) -> None:
    """A thread follows each lane."""
    work.how = "a thread for each operation at once, in blocking calls"
    with ThreadPoolExecutor(work.concurrency) as pool:
        for lanes in work:
            for _ in pool.map(follow, lanes):
                pass
