"""Owns: build/suites: each suite's source package, unpacked, and a virtual environment to run it in."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from . import table

if TYPE_CHECKING:
    from .table import Suite

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build" / "suites"
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


class CannotFetchError(Exception):
    """The index has no such package, or can't be reached."""


def sources(suite: Suite) -> Path:
    """The unpacked source package, without the package itself, so that its tests find the installed one."""
    place = BUILD / suite.requirement
    if not place.exists():
        sdists = BUILD / "sdists"
        _pip(
            sys.executable,
            "download",
            "--no-binary",
            suite.name,
            "--no-deps",
            "--dest",
            str(sdists),
            suite.requirement,
        )
        fresh = BUILD / f"{suite.requirement}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        with tarfile.open(sdists / f"{suite.name}-{suite.version}.tar.gz") as archive:
            archive.extractall(fresh, filter="data")
        inner = fresh / f"{suite.name}-{suite.version}"
        shutil.rmtree(inner / (suite.package or suite.name), ignore_errors=True)
        inner.rename(place)
        fresh.rmdir()
    return place


def environment(suite: Suite) -> Path:
    """The Python of a virtual environment with the package, what its tests need, and pytest."""
    venv = BUILD / f"venv-{MINOR}-{suite.name}"
    wanted = [suite.requirement, *suite.needs, *table.PYTEST]
    stamp = venv / "installed.txt"
    if not stamp.exists() or stamp.read_text().splitlines() != [sys.version.replace("\n", " "), *wanted]:
        shutil.rmtree(venv, ignore_errors=True)
        base = getattr(sys, "_base_executable", sys.executable)
        subprocess.run([base, "-m", "venv", str(venv)], check=True)
        _pip(str(venv / "bin" / "python"), "install", *wanted)
        stamp.write_text("\n".join([sys.version.replace("\n", " "), *wanted]) + "\n")
    return venv / "bin" / "python"


def _pip(python: str, *arguments: str) -> None:
    command = [python, "-m", "pip", "--disable-pip-version-check", arguments[0], "--quiet", *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotFetchError(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
