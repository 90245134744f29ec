"""`make fuzz`: each engine a share of the time, failures shrunk; the exit code is the verdict."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="in all (default: 120)")
    parser.add_argument("--engine", help="only this one (default: each a share)")
    parser.add_argument(
        "--loop", choices=("proact", "asyncio", "uvloop"), default="proact", help="whose loop"
    )
    parser.add_argument("--seed", type=int, help="the first seed (default: the time)")
    parser.add_argument("--shrink", type=float, default=30.0, help="seconds for each failure (default: 30)")
    parser.add_argument(
        "--patience", type=float, default=3.0, help="seconds after which nothing comes any more"
    )
    parser.add_argument(
        "--without", default="", metavar="OP,...", help="leave these ops out of the sequences"
    )
    parser.add_argument("--enough", type=int, default=1000, help="findings after which an engine is left")
    parser.add_argument(
        "--save", type=Path, metavar="DIRECTORY", help="write each finding to a JSON file there"
    )
    parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="run this finding again, or this seed's number"
    )
    parser.add_argument("--show", type=int, metavar="SEED", help="print the sequence of this seed")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    if arguments.loop != "proact":
        os.environ["PROACT_TEST_LOOP"] = arguments.loop
    # The loop under test is chosen when these are imported.
    from support import loops

    from . import campaign, child, generate

    if arguments.show is not None:
        print("\n".join(json.dumps(value) for value in generate.generate(arguments.show)))
        return 0
    engines = [arguments.engine] if arguments.engine else []
    for name in [] if engines else loops.names():
        if reason := loops.unavailable(name):
            print(f"left out: {reason}", file=sys.stderr)
        else:
            engines.append(name)
    if arguments.replay:
        name = str(arguments.replay)
        sequence = (
            generate.generate(int(name))
            if name.isdigit()
            else json.loads(arguments.replay.read_text())["sequence"]
        )
        outcomes = {engine: child.alone(sequence, engine, arguments.patience) for engine in engines}
        for engine, failure in outcomes.items():
            print(f"{engine}: {'passed' if failure is None else ': '.join(failure)}")
        return int(any(outcomes.values()))
    seed = arguments.seed if arguments.seed is not None else int(time.time()) % 1_000_000 * 1000
    bad = False
    for engine in engines:
        print(f"{engine}: from seed {seed} on, for {arguments.seconds / len(engines):.0f} s", flush=True)
        work = campaign.Campaign(
            engine,
            arguments.seconds / len(engines),
            seed,
            shrinking=arguments.shrink,
            patience=arguments.patience,
            enough=arguments.enough,
            without=frozenset(arguments.without.split(",")),
            directory=arguments.save,
            tell=lambda line: print(line, flush=True),
        )
        count, findings = work.run()
        for finding in findings:
            print(f"        {finding.count} x {finding.kind} (seed {finding.seed})")
        bad |= bool(findings)
        verdict = "FAILED" if findings else "passed"
        print(f"{verdict}  {engine}: seeds {seed} to {seed + count - 1}, {len(findings)} findings")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
