"""Ten seconds of the fuzzer on every engine (`make fuzz` has more), and proof that it finds and shrinks."""

import asyncio
import json
import subprocess
import sys

from fuzz import generate, shrink, trial
from support import children, loops

SEED = 1
SECONDS = 10


def test_random_sequences(engine):
    """A failure prints the seed, the shrunk sequence and how to run it again."""
    command = [sys.executable, "-m", "fuzz", f"--seconds={SECONDS}", f"--engine={engine}", f"--seed={SEED}"]
    command += ["--enough=1", "--shrink=15", f"--loop={loops.REFERENCE or 'proact'}"]
    path = {"PYTHONPATH": f"{children.environment()['PYTHONPATH']}:{children.TESTS}"}
    done = subprocess.run(
        command, env=children.environment() | path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_seed_is_a_sequence():
    one, other = generate.generate(7), generate.generate(8)
    assert one != other
    assert json.loads(json.dumps(one)) == generate.generate(7)


class Forgetful(asyncio.SelectorEventLoop):
    """A faulty receive: it loses ten bytes when many arrive."""

    async def sock_recv(self, sock, count):
        data = await super().sock_recv(sock, count)
        return data if len(data) < 1000 else data[:-10]


def test_a_planted_fault_is_found_and_made_small():
    def kinds(sequence):
        return {kind for kind, _ in trial.perform(sequence, Forgetful, 0.3, lenient=True)}

    def wrong(sequence):
        return bool(kinds(sequence) & {"lost bytes in", "wrong bytes"})

    candidates = (generate.generate(seed) for seed in range(500))
    found = next(
        sequence
        for sequence in candidates
        if {"open_sock", "recv", "feed"} <= {value[0] for value in sequence}
        and not {value[0] for value in sequence} & {"spawn", "daemon", "doomed", "fork"}
        and wrong(sequence)
    )
    small = shrink.shrink(found, wrong, 30)
    assert wrong(small)
    assert sorted({value[0] for value in small}) == ["feed", "open_sock"]
