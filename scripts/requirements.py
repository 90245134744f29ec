"""Owns: the packages of an extra or a dependency group of pyproject.toml. It prints one requirement
per line.

pip can install a dependency group only since 25.1, and Python 3.11 brings an older pip. Also, `pip install
.[extra]` would build proact a second time. So this script resolves the names, with the standard library
alone:

    python scripts/requirements.py cli lab test
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def resolve(name: str, project: dict) -> list[str]:
    """The requirements of one extra or group, with `proact[extra]` and include-group followed."""
    extras = project["project"]["optional-dependencies"]
    groups = project["dependency-groups"]
    if name not in extras and name not in groups:
        raise SystemExit(f"pyproject.toml has no extra and no dependency group named {name!r}")
    found: list[str] = []
    for item in extras.get(name) or groups[name]:
        if isinstance(item, dict):
            found += resolve(item["include-group"], project)
        elif own := re.fullmatch(r"proact\[(.+)\]", item):
            for extra in own[1].split(","):
                found += resolve(extra.strip(), project)
        else:
            found.append(item)
    return found


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = [requirement for name in sys.argv[1:] for requirement in resolve(name, project)]
    print("\n".join(dict.fromkeys(names)))


if __name__ == "__main__":
    main()
