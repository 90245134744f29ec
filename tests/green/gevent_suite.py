"""gevent's own test suite, file by file, on libev and on proact: what passes on libev has to pass on proact.

    python tests/green/gevent_suite.py [--on libev,io_uring,epoll] [--jobs 3] [--limit 150] [test__x.py ...]

`--on` also takes io_uring-readiness, epoll-readiness and so on: gevent's sockets without native methods.

Prints a line for each file whose outcome is not "pass" everywhere, and how many passed. A file that fails is
run once more, since some depend on the load of the machine. The exit status is 1 if a file that passes on
libev does not pass on proact and has no reason in `gevent_exclusions.toml`. gevent's own runner runs each
file, so that its lists of known failures hold for both.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@dataclass(frozen=True)
class Outcome:
    """How one file ended on one loop."""

    word: str  # pass, fail, or slow: it was ended at the limit of time
    cases: int
    seconds: float
    output: str


def exclusions() -> dict[str, str]:
    """The files that need not pass on proact, and why."""
    reasons: dict[str, str] = tomllib.loads((HERE / "gevent_exclusions.toml").read_text())
    return reasons


def names() -> list[str]:
    """All files of the suite."""
    import gevent.tests

    folder = Path(next(iter(gevent.tests.__path__)))
    return sorted(path.name for path in folder.glob("test_*.py"))


def environment(on: str) -> dict[str, str]:
    """The environment of a run on libev, or on one of proact's engines."""
    paths = [str(ROOT / "python"), os.environ.get("PYTHONPATH", "")]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(paths))
    env.pop("PROACT_ENGINE", None)
    if on == "libev":
        env["GEVENT_LOOP"] = "libev-cext"
    else:
        engine, _, readiness = on.partition("-")
        loop = "ReadinessLoop" if readiness else "Loop"
        env |= {"GEVENT_LOOP": f"proact.green.gevent_loop.{loop}", "PROACT_ENGINE": engine}
    return env


def run(name: str, on: str, limit: float) -> Outcome:
    """Run one file, and if it fails once more."""
    first = run_once(name, on, limit)
    return first if first.word == "pass" else run_once(name, on, limit)


def run_once(name: str, on: str, limit: float) -> Outcome:
    """Run one file in a process of its own."""
    begun = monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "gevent.tests", "--verbose", name],
        env=environment(on),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
        word = "fail" if process.returncode else "pass"
    except subprocess.TimeoutExpired:
        # gevent's runner gives its child a group of its own; asked to end, it ends both.
        process.terminate()
        try:
            output, _ = process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = "", process.wait()
        word = "slow"
    cases = sum(int(count) for count in re.findall(r"^Ran (\d+) tests? in", output, re.MULTILINE))
    return Outcome(word, cases, monotonic() - begun, output)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*")
    parser.add_argument("--on", default="libev,io_uring,epoll")
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("--limit", type=float, default=150.0)
    parser.add_argument("--logs", type=Path, help="a folder for the output of what does not pass")
    options = parser.parse_args()
    loops = options.on.split(",")
    files = options.files or names()
    reasons = exclusions()
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {(name, on): pool.submit(run, name, on, options.limit) for name in files for on in loops}
        wrong = []
        passed = dict.fromkeys(loops, 0)
        cases = dict.fromkeys(loops, 0)
        for name in files:
            outcomes = {on: running[name, on].result() for on in loops}
            for on, outcome in outcomes.items():
                passed[on] += outcome.word == "pass"
                cases[on] += outcome.cases
                if outcome.word != "pass" and options.logs:
                    options.logs.mkdir(parents=True, exist_ok=True)
                    (options.logs / f"{name}.{on}").write_text(outcome.output)
                excused = name in reasons or outcomes.get("libev", outcome).word != "pass"
                if outcome.word != "pass" and on != "libev" and not excused:
                    wrong.append(f"{name} on {on}")
            if any(outcome.word != "pass" for outcome in outcomes.values()):
                shown = "  ".join(
                    f"{on}: {outcome.word} ({outcome.cases} cases, {outcome.seconds:.0f} s)"
                    for on, outcome in outcomes.items()
                )
                print(f"{name:45} {shown}{'  excluded' if name in reasons else ''}", flush=True)
    for on in loops:
        print(f"{on}: {passed[on]} of {len(files)} files pass, {cases[on]} cases ran")
    for line in wrong:
        print(f"passes on libev only: {line}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
