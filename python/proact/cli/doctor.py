"""``proact doctor``: what proact can use on this machine, and why not more; for people, or as JSON."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proact.cli import seccomp
from proact.cli.error import CommandError
from proact.lab import environment


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")] = False,
    seccomp_profile: Annotated[
        bool,
        typer.Option(
            "--seccomp-profile", help="Print a profile for containers that allows io_uring narrowly."
        ),
    ] = False,
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With --seccomp-profile: the runtime's default, to which to add it."
        ),
    ] = None,
) -> int:
    """\b
    Examples:
      proact doctor
      proact doctor --json | jq .engine.chosen
      PROACT_ENGINE=epoll proact doctor
      proact doctor --seccomp-profile > proact.json
      docker run --security-opt seccomp=proact.json ...

    Which engine proact uses on this machine and why, with the ring's features, limits and versions. Exit
    code 0 if any engine works, 1 if none does.
    """
    if base is not None and not seccomp_profile:
        raise CommandError("--base is for --seccomp-profile")
    if seccomp_profile:
        print(json.dumps(seccomp.profile(base), indent=1))
        return 0
    facts = examine()
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        show(facts)
    return 0 if facts["engine"]["chosen"] else 1


def examine() -> dict[str, Any]:
    """What ``--json`` shows. Raises CommandError if PROACT_ENGINE names no engine."""
    from proact import engine_report

    try:
        engine = engine_report()
    except ValueError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        engine = none_works(error)
    return {
        "engine": engine,
        "verdict": verdict(engine),
        "kernel": platform.release(),
        "kernel_version": platform.version(),
        "machine": platform.machine(),
        "cpu": environment.cpu_model(),
        "python": environment.python_version(),
        "packages": environment.package_versions(),
        "aiofastnet": aiofastnet(),
        "limits": environment.limits(),
        "loops": loops_that_fit(),
        "sysctl": {"kernel.io_uring_disabled": environment.sysctl("kernel.io_uring_disabled")},
        "seccomp": environment.seccomp_mode(),
    }


def loops_that_fit() -> dict[str, Any]:
    """How many loops on io_uring fit into the user's limit of locked memory; None: no limit applies.

    All processes of the user share the limit; this can't see how much the other processes hold now.
    """
    from proact import _core

    each, limit = _core.ring_memory()
    return {"fit": None if limit is None else limit // each, "locked_memory": each, "limit": limit}


def none_works(error: OSError) -> dict[str, Any]:
    """The report of a machine where no loop can be made, or not on the engine that PROACT_ENGINE names."""
    requested = os.environ.get("PROACT_ENGINE") or "auto"
    lists: dict[str, Any] = {"engines": {}, "features": {}, "opcodes": {}, "fallbacks": []}
    return {"chosen": None, "requested": requested, "error": str(error)} | lists


def aiofastnet() -> dict[str, Any] | None:
    """What aiofastnet replaces here if it can be imported; None if it can't.

    From 3.15 on aiohttp calls aiofastnet's functions instead of the loop's, unless AIOHTTP_NO_EXTENSIONS is
    set (https://github.com/aio-libs/aiohttp/pull/12822, aiohttp/net_helpers.py): proact's transports and
    TLS are then not in use.
    """
    if importlib.util.find_spec("aiofastnet") is None:
        return None
    aiohttp = environment.package_version("aiohttp")
    version = tuple(int(part) for part in re.findall(r"\d+", aiohttp or "0")[:2])
    switched_off = bool(os.environ.get("AIOHTTP_NO_EXTENSIONS"))
    return {
        "version": environment.package_version("aiofastnet"),
        "replaces": ["create_connection", "create_server", "start_tls", "sendfile"],
        "aiohttp": aiohttp,
        "taken_by_aiohttp": version >= (3, 15) and not switched_off,
        "avoid": "uninstall it, or set AIOHTTP_NO_EXTENSIONS=1, which turns off aiohttp's C parsers too",
    }


def aiofastnet_line(facts: dict[str, Any]) -> Text:
    """The result of ``aiofastnet()`` as one line."""
    has = f"aiohttp {facts['aiohttp']}" if facts["aiohttp"] else "none"
    text = f"{facts['version']}: aiohttp from 3.15 on ({has} here) calls its {', '.join(facts['replaces'])}"
    text += f" instead of proact's; to avoid that {facts['avoid']}"
    return Text(text, style="yellow" if facts["taken_by_aiohttp"] else "")


def verdict(engine: dict[str, Any]) -> str:
    """One line: the engine in use, and if it is not io_uring, why not."""
    chosen = engine["chosen"]
    if not chosen:
        return f"no engine works here (requested: {engine['requested']}): {engine['error']}"
    if chosen == "io_uring":
        return "proact runs on io_uring here"
    ring = engine["engines"]["io_uring"]
    if ring["available"]:
        return f"proact runs on {chosen} here: it was asked for (PROACT_ENGINE={engine['requested']})"
    return f"proact runs on {chosen} here: io_uring is not available: {ring['reason']}"


def show(facts: dict[str, Any]) -> None:
    """The facts as aligned lines."""
    out = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=100)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines(facts):
        table.add_row(name, value)
    out.print(table, soft_wrap=not out.is_terminal)
    out.print()
    style = "green" if facts["engine"]["chosen"] == "io_uring" else "yellow"
    out.print(Text(facts["verdict"], style=style), soft_wrap=True)


def lines(facts: dict[str, Any]) -> list[tuple[str, Text]]:
    """Name and value of each line, the most interesting first."""
    engine = facts["engine"]
    found = [("engine", Text(f"{engine['chosen'] or 'none'} (requested: {engine['requested']})"))]
    for name, state in engine["engines"].items():
        if state["available"]:
            found.append((f"  {name}", Text("available")))
        else:
            found.append((f"  {name}", Text(f"not available: {state['reason']}", style="yellow")))
    for title, names in (("ring features", engine["features"]), ("ring opcodes", engine["opcodes"])):
        found.append((title, switches(names)))
    found.append(("fallbacks", Text("; ".join(engine["fallbacks"]) or "none")))
    disabled = facts["sysctl"]["kernel.io_uring_disabled"]
    found += [
        ("io_uring_disabled", Text("no such sysctl" if disabled is None else disabled)),
        ("seccomp", Text(facts["seccomp"])),
        ("open files", Text(limit(facts["limits"]["open_files"], 1, ""))),
        ("locked memory", Text(limit(facts["limits"]["locked_memory"], 1024, " KiB"))),
        ("loops that fit", Text(fitting(facts["loops"]))),
        ("kernel", Text(f"{facts['kernel']} ({facts['kernel_version']})")),
        ("machine", Text(f"{facts['machine']}, {facts['cpu']}")),
        ("python", Text(facts["python"])),
        (
            "packages",
            Text(", ".join(f"{name} {version or '-'}" for name, version in facts["packages"].items())),
        ),
    ]
    if facts["aiofastnet"]:
        found.append(("aiofastnet", aiofastnet_line(facts["aiofastnet"])))
    return found


def fitting(loops: dict[str, Any]) -> str:
    """How many loops fit, and why."""
    each = f"{loops['locked_memory'] // 1024:,} KiB each"
    if loops["fit"] is None:
        return f"unlimited ({each}, and no limit of locked memory applies)"
    return f"{loops['fit']} ({each} of the {loops['limit'] // 1024:,} KiB that all processes of a user share)"


def switches(names: dict[str, bool]) -> Text:
    """The ``names`` that are there, and those that are not."""
    if not names:
        return Text("none")
    there = [name for name, present in names.items() if present]
    text = Text(f"{len(there)} of {len(names)}: {', '.join(there)}")
    if absent := [name for name, present in names.items() if not present]:
        text.append(f"; missing: {', '.join(absent)}", style="yellow")
    return text


def limit(bounds: dict[str, int | None], unit: int, name: str) -> str:
    """A soft and a hard limit in units of ``unit``."""

    def one(bound: int | None) -> str:
        return "unlimited" if bound is None else f"{bound // unit:,}{name}"

    return f"soft {one(bounds['soft'])}, hard {one(bounds['hard'])}"
