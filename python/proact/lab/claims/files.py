"""A claim about files: whether asynchronous operations on them need threads."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final

from proact.lab.claims.intervals import ratio
from proact.lab.claims.trial import (
    Evidence,
    Finding,
    Need,
    Part,
    Trial,
    decided,
    of_each,
    rate,
    turned,
)
from proact.lab.files import SIZE
from proact.lab.summary import Load

if TYPE_CHECKING:
    from proact.lab.results import Verdict

#: Operations at once: as many as there are threads in the pools of asyncio's users, or about.
AT_ONCE: Final = 16

#: Without threads, a model does at least this share of what as many blocking threads do.
ENOUGH: Final = 0.8

#: The models whose operations the kernel carries out, and the model that has a thread for each.
KERNEL: Final = ("io_uring", "proact.fs")
THREADS: Final = "threads"

#: A read that waits for the device, and a write that waits until the device has it.
WORKLOADS: Final = ("files-random", "files-append")


def load(workload: str) -> Load:
    """So many operations at once on files."""
    return Load(workload, AT_ONCE, AT_ONCE, SIZE, None)


def needs_threads(evidence: Evidence) -> Finding:
    """Find the threads of the models without a pool, the kernel's among them, and how much they do."""

    def judge(what: tuple[str, str]) -> Part:
        workload, model = what
        done = ratio(*(evidence.values(each, load(workload), rate) for each in (model, THREADS)))
        occupied = evidence.occupied(model, load(workload))
        own = max(each["threads"] - each["kernel_threads"] for each in occupied)
        kernel = max(each["kernel_threads"] for each in occupied)
        # The kernel's threads are threads: whoever starts them, they wait for the device one by one.
        alone = own == 1 and kernel == 0
        verdict: Verdict = turned(decided(done, ENOUGH)) if alone else "supported"
        said = (
            f"{workload}: {model} does {done} times as much as {AT_ONCE} threads, with {own} "
            f"of its own and {kernel} of the kernel"
        )
        name = f"{model}, {workload}"
        return {name: verdict}, said, {name: {"rate": done, "threads": own, "kernel_threads": kernel}}

    return of_each(product(WORKLOADS, KERNEL), judge, "{}.", enough=ENOUGH)


FILES_NEED_THREADS: Final = Trial(
    "files-need-threads",
    "Asynchronous file I/O needs threads on Linux.",
    "asyncio's wiki (ThirdParty, Filesystem); Kerrisk, The Linux Programming Interface, ch. 63.1.1",
    needs_threads,
    tuple(Need(model, load(workload)) for workload in WORKLOADS for model in (*KERNEL, THREADS)),
)
