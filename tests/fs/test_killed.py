"""What was acknowledged is there after a SIGKILL at any moment, and an atomic file is the old one or the new
one.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent.parent / "programs" / "durable_writer.py"
TRIALS = 5


def killed(engine, kind, folder, seed):
    """Run the writer, kill it at a random moment, and return the numbers that it acknowledged."""
    command = [sys.executable, str(PROGRAM), engine, kind, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        acknowledged = []
        try:
            for _ in range(random.Random(seed).randrange(1, 150)):
                line = child.stdout.readline()
                assert line, "the writer ended by itself"
                acknowledged.append(int(line))
        finally:
            child.kill()
        acknowledged += [int(line) for line in child.stdout.read().splitlines()]
    return acknowledged


@pytest.mark.parametrize("seed", range(TRIALS))
def test_appended(engine, tmp_path, seed):
    acknowledged = killed(engine, "append", tmp_path, seed)
    content = (tmp_path / "log").read_bytes()
    # The last record may have been cut off.
    records = content.split(b"\n")[:-1]
    for record in records:
        number, _, data = record.partition(b":")
        assert data == b"x" * (int(number) % 3000)
    assert {int(record.partition(b":")[0]) for record in records} >= set(acknowledged)


@pytest.mark.parametrize("seed", range(TRIALS))
def test_written(engine, tmp_path, seed):
    for number in killed(engine, "fsync", tmp_path, seed):
        assert (tmp_path / f"{number}").read_bytes() == b"%d" % number * 100


@pytest.mark.parametrize("seed", range(TRIALS))
def test_replaced(engine, tmp_path, seed):
    last = killed(engine, "atomic", tmp_path, seed)[-1]
    content = (tmp_path / "file").read_bytes()
    letter = content[0] - ord("a")
    assert content == content[:1] * (1000 * (letter + 1))
    assert letter in (last % 26, (last + 1) % 26)
    # The one that was being written may be left, as after any crash.
    assert len(os.listdir(tmp_path)) <= 2
