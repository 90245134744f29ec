"""`make race`: each engine a share of the time, in its own process; the exit code says if all was well."""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import warnings

from support import loops

from .run import PATIENCE, Race


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make race", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="in all (default: 60)")
    parser.add_argument("--engine", help="only this one (default: each a share)")
    parser.add_argument("--seed", type=int, default=1, help="of the first round (default: 1)")
    parser.add_argument("--threads", type=int, default=8, help="that call (default: 8)")
    return parser.parse_args()


def alone(arguments: argparse.Namespace) -> int:
    warnings.simplefilter("error")
    race = Race(arguments.engine, arguments.seconds, arguments.seed, arguments.threads).run()
    refused = sum(count for name, count in race.calls.items() if name.endswith("(refused)"))
    print(
        f"{race.engine}: {race.rounds} rounds, {race.calls.total()} calls, {refused} of them refused, "
        f"{race.moves} connections handed over"
    )
    for problem in race.problems:
        print(f"  {problem}")
    return 1 if race.problems else 0


def main() -> int:
    arguments = parse()
    if arguments.engine:
        return alone(arguments)
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    built = "free-threaded, " if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    print(f"Python {sys.version.split()[0]}, {built}{'with' if gil else 'without'} the GIL", flush=True)
    engines = [name for name in loops.names() if not loops.unavailable(name)]
    share = arguments.seconds / len(engines)
    failed = []
    for engine in engines:
        command = [sys.executable, "-X", "faulthandler", "-m", "race", f"--engine={engine}"]
        command += [f"--seconds={share}", f"--seed={arguments.seed}", f"--threads={arguments.threads}"]
        try:
            code = subprocess.run(command, timeout=share + 2 * PATIENCE).returncode
        except subprocess.TimeoutExpired:
            code = -1
        if code:
            failed.append(f"{engine} ended with {code}")
    print("; ".join(failed) or "nothing was lost, torn or run twice")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
