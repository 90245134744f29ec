"""`make soak`: each engine a share of the time, in its own process; the exit code says if all was well."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from pathlib import Path

from support import loops

from .run import PATIENCE, Soak


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="in all (default: 5)")
    parser.add_argument("--engine", help="only this one (default: each a share)")
    parser.add_argument("--seed", type=int, default=1, help="which rounds in which order (default: 1)")
    parser.add_argument("--width", type=int, default=24, help="rounds at a time (default: 24)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only activities whose name has it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file")
    return parser.parse_args()


def alone(arguments: argparse.Namespace) -> list[dict]:
    """One engine, in this process."""
    warnings.simplefilter("error")
    soak = Soak(
        arguments.engine,
        arguments.minutes * 60,
        seed=arguments.seed,
        width=arguments.width,
        only=arguments.only,
        # A sample every few seconds; a short soak has the fewest that can show a trend.
        phases=max(6, min(30, round(arguments.minutes * 6))),
        progress=True,
    )
    return [soak.run().report()]


def each(arguments: argparse.Namespace, engines: list[str], results: Path) -> list[dict]:
    """Every engine, one after the other, so that none sees what another has left."""
    reports = []
    for engine in engines:
        share = arguments.minutes / len(engines)
        command = [sys.executable, "-m", "soak", f"--engine={engine}", f"--minutes={share}"]
        command += [f"--seed={arguments.seed}", f"--width={arguments.width}", f"--only={arguments.only}"]
        results.unlink(missing_ok=True)
        limit = share * 60 * 1.5 + 6 * PATIENCE
        try:
            code = subprocess.run([*command, f"--json={results}"], timeout=limit).returncode
        except subprocess.TimeoutExpired:
            code = -1
        if results.exists():
            reports += json.loads(results.read_text())
        else:
            reports.append({"engine": engine, "rounds": {}, "problems": [f"ended with {code}, no results"]})
    return reports


def main() -> int:
    arguments = parse()
    if arguments.engine:
        reports = alone(arguments)
    else:
        import tempfile

        engines = []
        for name in loops.names():
            if reason := loops.unavailable(name):
                print(f"left out: {reason}", file=sys.stderr)
            else:
                engines.append(name)
        with tempfile.TemporaryDirectory() as directory:
            reports = each(arguments, engines, Path(directory, "soak.json"))
    if arguments.json:
        arguments.json.write_text(json.dumps(reports, indent=1) + "\n")
    for report in reports:
        if not arguments.engine or not arguments.json:
            print("\n" if sys.stderr.isatty() else "", end="", file=sys.stderr)
            total = sum(report["rounds"].values())
            verdict = "FAILED" if report["problems"] else "passed"
            print(f"{verdict}  {report['engine']}: {total} rounds of {len(report['rounds'])} kinds")
            for problem in report["problems"][:20]:
                print(f"        {problem}")
    return int(any(report["problems"] for report in reports))


if __name__ == "__main__":
    sys.exit(main())
