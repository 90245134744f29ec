"""Rust files know each other one way: py <- reactor <- asyncio, and few of them in a circle.

A file knows another if it names something of it by a path (``use crate::a::b::C``, ``super::C``,
``crate::a::b::f()``). The declaration ``mod name;`` is no such knowledge: a parent has to list its children.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CRATES = Path(__file__).parent.parent / "crates"

# The folders of crates/core/src, and which others each may name. `lib.rs` lists what Python sees of all.
FOLDERS = {
    "py": set[str](),
    "reactor": {"py"},
    "asyncio": {"py", "reactor"},
    "gevent": {"py", "reactor"},
    "green": {"py", "reactor"},
    "ring": {"py", "reactor"},
    "lab": {"py"},
}

# The most files that may know each other in a circle. In core: a stream transport, its sending, and the table
# by which completions of a send reach it (stream, sending, send); a datagram transport and its sending.
LARGEST_CIRCLE = {"core": 3, "driver": 0, "lab": 0}

# (file, attribute): private attributes that the reactor names outside of hooks.rs.
PRIVATE_NAMES = {
    # `Handle.cancelled()` would run Python code while the timers are held; the attribute is a slot.
    ("reactor/handle.rs", "_cancelled"),
    # Of proact.green's own class, not of asyncio's.
    ("reactor/hub.rs", "_lost"),
}

_COMMENT = re.compile(r"//[^\n]*")
_STRING = re.compile(r'b?"(?:\\.|[^"\\])*"', re.DOTALL)
_PATH = re.compile(r"\b(?:crate|super|self)(?:::\w+)*(?:::\{)?")


def module_of(path: Path, source: Path) -> tuple[str, ...]:
    parts = path.relative_to(source).with_suffix("").parts
    return parts[:-1] if parts[-1] in ("mod", "lib") else parts


def expanded(text: str) -> list[list[str]]:
    """Each path that begins with crate, super or self, those in braces one by one."""
    found: list[list[str]] = []

    def group(prefix: list[str], at: int) -> int:
        """The names in braces that open before `at`; where they end."""
        name: list[str] = []
        while at < len(text):
            if match := re.compile(r"\w+|\*").match(text, at):
                name.append(match.group())
                at = match.end()
            elif text.startswith("::{", at):
                at = group([*prefix, *name], at + 3)
                name = []
            elif text[at] in ",}":
                if name:
                    found.append([*prefix, *name])
                name = []
                if text[at] == "}":
                    return at + 1
                at += 1
            else:
                at += 2 if text.startswith("::", at) else 1
        return at

    for match in _PATH.finditer(text):
        path = match.group()
        if path.endswith("{"):
            group(path.removesuffix("::{").split("::"), match.end())
        else:
            found.append(path.split("::"))
    return found


def graph(crate: str) -> dict[str, set[str]]:
    """For each file of a crate, the others that it names."""
    source = CRATES / crate / "src"
    modules = {module_of(path, source): path for path in sorted(source.rglob("*.rs"))}
    known: dict[str, set[str]] = {}
    for module, path in modules.items():
        text = _STRING.sub('""', _COMMENT.sub("", path.read_text()))
        text = text.split("#[cfg(test)]")[0]
        name = str(path.relative_to(source))
        known[name] = set()
        for spelled in expanded(text):
            if not set(spelled) - {"crate", "super", "self"}:
                continue  # `pub(crate)`
            at = () if spelled[0] == "crate" else module
            for part in spelled:
                at = at[:-1] if part == "super" else at
            whole = (*at, *(part for part in spelled if part not in ("crate", "super", "self")))
            longest = next(
                whole[:length] for length in range(len(whole), -1, -1) if whole[:length] in modules
            )
            other = str(modules[longest].relative_to(source))
            if other != name:
                known[name].add(other)
    return known


def circles(known: dict[str, set[str]]) -> list[list[str]]:
    """The sets of files of which each leads to each other, the largest first."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            for other in known[ahead.pop()] - seen:
                seen.add(other)
                ahead.append(other)
        return seen

    reach = {name: reached(name) for name in known}
    together = {
        frozenset(other for other in reach[name] if name in reach[other])
        for name in known
        if name in reach[name]
    }
    return sorted((sorted(files) for files in together), key=len, reverse=True)


def test_a_path_is_read_however_it_is_spelled() -> None:
    text = "use crate::a::{b::{C, D}, e::F};\nuse super::g;\nlet x = crate::h::i(self::j::K);"
    spelled = {"::".join(path) for path in expanded(text)}
    assert spelled == {
        "crate::a::b::C",
        "crate::a::b::D",
        "crate::a::e::F",
        "super::g",
        "crate::h::i",
        "self::j::K",
    }


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


@pytest.mark.parametrize("crate", LARGEST_CIRCLE)
def test_circles(crate: str) -> None:
    found = circles(graph(crate))
    assert not found or len(found[0]) <= LARGEST_CIRCLE[crate], found


def test_folders_of_core() -> None:
    known = graph("core")
    folders = {name.split("/")[0].removesuffix(".rs") for name in known} - {"lib"}
    assert folders == set(FOLDERS)
    wrong = {
        (name, other)
        for name, others in known.items()
        for other in others
        if name != "lib.rs"
        and (folder := name.split("/")[0].removesuffix(".rs"))
        != (named := other.split("/")[0].removesuffix(".rs"))
        and named not in FOLDERS[folder]
    }
    assert not wrong


def test_the_reactor_names_nothing_of_asyncio() -> None:
    source = CRATES / "core" / "src"
    private, modules = set(), set()
    for path in [*source.glob("py/**/*.rs"), *source.glob("reactor/**/*.rs")]:
        name = str(path.relative_to(source))
        text = _COMMENT.sub("", path.read_text())
        if name != "reactor/hooks.rs":
            private |= {(name, attribute) for attribute in re.findall(r'name!\("(_[a-z]\w*)"\)', text)}
        modules |= {(name, string) for string in _STRING.findall(text) if "asyncio" in string}
    # CPython's own module of sockets.
    private = {(name, attribute) for name, attribute in private if attribute != "_socket"}
    assert private == PRIVATE_NAMES
    assert not modules
