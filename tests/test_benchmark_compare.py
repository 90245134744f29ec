"""benchmarks/compare.py: the interval decides, and only a clear loss fails."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support import documentation

sys.path.append(str(documentation.ROOT))

from benchmarks import compare


@pytest.mark.parametrize(
    ("ratios", "word", "fails"),
    [
        ([1.2, 1.1, 1.3, 1.2, 1.15, 1.1, 1.4], "slower", True),
        ([1.02, 1.01, 1.03, 1.02, 1.01, 1.02, 1.03], "slower", False),
        ([0.9, 0.8, 0.95, 0.9, 0.7, 0.92, 0.9], "faster", False),
        ([0.9, 1.2, 1.3, 1.2, 0.8, 1.2, 1.3], "level", False),
        # One round of nine that a neighbour has disturbed decides nothing.
        ([0.9, 0.9, 0.9, 0.9, 3.0, 0.9, 0.9, 0.9, 0.9], "faster", False),
        # Of three rounds the whole range counts.
        ([1.2, 1.3, 0.99], "level", False),
    ],
)
def test_the_interval_decides(ratios, word, fails):
    verdict = compare.judged("case", "proact-epoll", "cpu_us", ratios)
    assert verdict.word == word
    assert verdict.exceeds(0.05) is fails


@pytest.mark.parametrize(
    ("n", "left_out"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (11, 1), (12, 2), (15, 3)]
)
def test_how_many_values_lie_outside(n, left_out):
    # The greatest ranks whose interval has at least 95 %: the table of the sign test.
    assert compare.interval([float(value) for value in range(n)]) == (left_out, n - 1 - left_out)


def results(path, ours):
    runs = [
        {"contender": name, "round": n, "rate": 1, "cpu_us": value}
        for name, values in {"proact-epoll": ours, "uvloop": [10] * len(ours)}.items()
        for n, value in enumerate(values)
    ]
    path.write_text(json.dumps({"cases": [{"name": "echo", "runs": runs}]}))


def test_files_are_compared_and_a_loss_fails(tmp_path):
    old, new, out = tmp_path / "old.json", tmp_path / "new.json", tmp_path / "verdicts.json"
    results(old, [10, 11, 10])
    results(new, [14, 15, 14])
    command = [sys.executable, "-m", "benchmarks.compare", old, new, "--json", out]
    ended = subprocess.run(command, cwd=documentation.ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "a loss: echo, proact-epoll: 1.40" in ended.stderr
    [row] = json.loads(out.read_text())
    assert row["verdict"] == "slower"
    assert row["low"] == pytest.approx(14 / 11)
    assert row["high"] == pytest.approx(15 / 10)


def test_a_folder_without_a_build_is_named(tmp_path):
    command = [sys.executable, "-m", "benchmarks.compare", tmp_path, tmp_path]
    ended = subprocess.run(command, cwd=documentation.ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert f"{tmp_path}: no built proact there" in ended.stderr
