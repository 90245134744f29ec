"""Owns: the version, and whether a tree may be released (docs/releasing.md). Standard library alone.

python scripts/release.py version 0.2.0   write the version and today's date into every file that has them
python scripts/release.py check           exit 1, naming what is wrong, unless all of them and the tag agree
python scripts/release.py done            say how to upload what is in dist/
"""

import datetime
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Where the version is written, by a pattern whose group ends before it; Cargo.lock has it once per crate.
PLACES = {
    "pyproject.toml": r'(\[project\]\nname = "proact"\nversion = ")[^"]+',
    "Cargo.toml": r'(\[workspace\.package\]\nversion = ")[^"]+',
    "Cargo.lock": r'(name = "proact-\w+"\nversion = ")[^"]+',
    "python/proact/__init__.py": r'(__version__ = ")[^"]+',
}
NUMBER = r"\d+\.\d+\.\d+"  # cargo and Python spell pre-releases differently


def set_version(root: Path, version: str, date: str) -> None:
    """Write the version into every place, and turn the changelog's "Unreleased" into it."""
    if not re.fullmatch(NUMBER, version):
        raise SystemExit(f"a version is like 0.2.0, not {version!r}")
    for name, pattern in PLACES.items():
        path = root / name
        text, count = re.subn(pattern, rf"\g<1>{version}", path.read_text())
        if not count:
            raise SystemExit(f"{name}: no version found")
        path.write_text(text)
    path = root / "CHANGELOG.md"
    text = path.read_text()
    if f"## [{version}]" not in text:
        text = text.replace("## [Unreleased]\n", f"## [Unreleased]\n\n## [{version}] - {date}\n", 1)
        path.write_text(text)


def problems(root: Path) -> list[str]:
    """What keeps this tree from being released."""
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    found = []
    for name, pattern in PLACES.items():
        places = [match[0].rpartition('"')[2] for match in re.finditer(pattern, (root / name).read_text())]
        if not places or set(places) != {version}:
            found.append(
                f"{name}: the version is {', '.join(sorted(set(places))) or 'missing'}, not {version}"
            )
    unreleased, *sections = re.split(
        r"^## ", (root / "CHANGELOG.md").read_text().partition("## ")[2], flags=re.MULTILINE
    )
    if re.search(r"^- ", unreleased, re.MULTILINE):
        found.append('CHANGELOG.md: there are entries under "Unreleased"')
    newest = sections[0].splitlines()[0] if sections else "missing"
    if not re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", newest):
        found.append(f"CHANGELOG.md: the newest section is {newest!r}, not '[{version}] - YYYY-MM-DD'")
    if git(root, "status", "--porcelain"):
        found.append("git: the work tree has changes that are not committed")
    if f"v{version}" not in git(root, "tag", "--points-at", "HEAD").splitlines():
        found.append(f"git: HEAD has no tag v{version}")
    return found


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout


def main() -> None:
    match sys.argv[1:]:
        case ["version", version]:
            set_version(ROOT, version, datetime.date.today().isoformat())
        case ["check"]:
            found = problems(ROOT)
            for problem in found:
                print(problem, file=sys.stderr)
            if found:
                raise SystemExit("not released (docs/releasing.md)")
        case ["done"]:
            packages = sorted(path.name for path in (ROOT / "dist").glob("proact-*"))
            print("checked:", *packages, sep="\n  ")
            print(
                "upload: build/release/bin/python -m twine upload dist/*   and: git push origin HEAD --tags"
            )
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
