"""`loop.stats()["syscalls"]` is the truth: the kernel counts as many.

A program (programs/count_calls.py) does some work three times, and prints before and after each round what
its loop has counted. Meanwhile the kernel counts the program's calls: perf, or ptrace where perf is not
allowed.
"""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from support import loops

from proact._core import SyscallCounter

PROGRAM = Path(__file__).parent / "programs" / "count_calls.py"
ROUNDS = 3

# What the program calls around a round: read(stdin), write(stdout).
AROUND = 2
# What Python's own memory takes in a round: brk, mmap, munmap.
MEMORY = 12

pytestmark = [
    pytest.mark.skipif(bool(loops.REFERENCE), reason="asyncio and uvloop don't count"),
    pytest.mark.timeout(120),
]


@pytest.mark.parametrize("work", ["protocols", "operations", "datagrams", "pipes"])
def test_the_kernel_counts_as_many(engine, work):
    command = [sys.executable, "-X", "faulthandler", str(PROGRAM), engine, work]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        told = [int(program.stdout.readline())]
        try:
            counter = SyscallCounter(program.pid)
        except OSError as error:
            program.kill()
            pytest.skip(f"nothing may count here: {error}")
        counted = [counter.read()]
        # Closed before anything waits for the program: a wait would take the stops of a ptrace counter.
        with closing(counter):
            for _ in range(ROUNDS):
                program.stdin.write("\n")
                program.stdin.flush()
                told.append(int(program.stdout.readline()))
                counted.append(counter.read())
        program.stdin.write("\n")
        program.stdin.close()
        assert program.wait() == 0
    for number in range(ROUNDS):
        loop = told[number + 1] - told[number]
        kernel = counted[number + 1] - counted[number]
        assert loop >= 200 * (number + 1), "the loop made calls"
        assert 0 <= kernel - AROUND - loop <= MEMORY, f"round {number}: {loop} told, {kernel} counted"
