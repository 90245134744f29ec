"""docs/architecture.md names files and symbols: each of them has to exist.

Each name in backticks is checked, by its form:

- a path (it has a `/`, or ends like a file): the file or folder exists. `core/` and `driver/` stand for the
  `src` folders of those crates;
- a symbol (`name`, `name()`, `name!`, `Type`, `Type::name`, `object.name`, `CONSTANT`): each part of it is a
  word of the code. If an item of a numbered list names files, the word has to be in one of these files;
  otherwise it may be in any file of crates/ or python/. Comments are not code;
- anything else (a command, a system call) has to be in OTHER.

The paths in the drawing of the layers have to exist in some folder of the tree, and so do the whole paths on
the other pages. Each list under "The ways" names at most eight files.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
FOLDERS = {"core": "crates/core/src", "driver": "crates/driver/src"}
SUFFIXES = (".rs", ".py", ".pyi", ".md")
MOST_FILES = 8

# Names of the kernel, of commands and of Python itself, which no file of ours has to define.
OTHER = {
    "await loop.sock_recv(sock, n)",
    "close(2)",
    "io_uring_enter(2)",
    "proact doctor",
}

SYMBOL = re.compile(r"(?:(\w+)(?:::|\.))?(\w+)(?:\(\)|!)?")


def is_path(name: str) -> bool:
    return "/" in name or name.endswith(SUFFIXES)


def resolved(path: str) -> Path:
    first, _, rest = path.partition("/")
    return ROOT / FOLDERS.get(first, first) / rest


@cache
def words(path: Path) -> frozenset[str]:
    """The words of a file's code, or of all code in a folder."""
    if path.is_dir():
        files = [file for suffix in ("rs", "py", "pyi") for file in path.rglob(f"*.{suffix}")]
        return frozenset().union(*map(words, files))
    comment = r"#.*" if path.suffix in (".py", ".pyi") else r"//.*"
    return frozenset(re.findall(r"\w+", re.sub(comment, "", path.read_text())))


@cache
def everywhere() -> frozenset[str]:
    return words(ROOT / "crates") | words(ROOT / "python")


def items() -> list[str]:
    """The text in pieces: the items of numbered lists, and the other paragraphs."""
    prose = re.sub(r"(?m)^    .*\n", "", PAGE)
    return re.split(r"\n\n|\n(?=\d+\. |- )", prose)


def missing_from(item: str) -> list[str]:
    names = [name for name in re.findall(r"`([^`]+)`", item) if name not in OTHER]
    paths = {name: resolved(name) for name in names if is_path(name)}
    missing = [name for name, path in paths.items() if not path.exists()]
    files = [path for path in paths.values() if path.exists()]
    known = everywhere()
    if re.match(r"\d+\. ", item) and files:
        known = frozenset().union(*map(words, files))
    for name in names:
        if name not in paths:
            match = SYMBOL.fullmatch(name)
            parts = [part for part in match.groups() if part] if match else [name]
            missing += [f"{part} (of `{name}`)" for part in parts if part not in known]
    return missing


def test_each_path_and_symbol_exists() -> None:
    missing = [f"{name}: {item.strip()[:70]}" for item in items() for name in missing_from(item)]
    assert not missing, "docs/architecture.md names what does not exist:\n" + "\n".join(missing)


def test_each_path_in_the_drawing_exists() -> None:
    (drawing,) = re.findall(r"(?m)(?:^    .*\n|^\n(?=    ))+", PAGE.partition("## One turn")[0])
    named = set(re.findall(r"[\w/]+(?:\.(?:rs|py)|/)(?!\w)|(?:crates|python)/\w+", drawing))
    assert {"crates/lab", "crates/driver", "crates/core", "python/proact"} <= named
    places = [
        ROOT,
        *(ROOT / f"crates/{crate}/src" for crate in ("core", "driver", "lab")),
        ROOT / "python/proact",
    ]
    assert not {name for name in named if not any((place / name).exists() for place in places)}


def test_a_way_passes_few_files() -> None:
    ways = PAGE.partition("## The ways")[2].partition("\n## ")[0].split("\n### ")[1:]
    assert len(ways) >= 8
    for way in ways:
        title = way.partition("\n")[0]
        listed = re.findall(r"(?ms)^\d+\. .*?(?=^\d+\. |^\n|\Z)", way)
        assert listed, title
        files = {name for item in listed for name in re.findall(r"`([^`]+)`", item) if is_path(name)}
        assert len(files) <= MOST_FILES, f"{title}: {sorted(files)}"


def test_each_path_on_other_pages_exists() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    named = re.compile(r"`((?:crates|python|tests|docs|scripts|benchmarks|examples)/[\w./-]*)`")
    missing = [
        f"{page.name}: {name}"
        for page in pages
        for name in named.findall(page.read_text())
        if not (ROOT / name).exists()
    ]
    assert not missing
