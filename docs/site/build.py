"""Owns: the documentation as a site, `make docs`: `python docs/site/build.py [OUTPUT]`.

The Markdown of the repository is the source and stays readable without the site. This program copies the
pages to build/docs, where each link is changed to the place that its target has in the site; adds the pages
that are made from something else (API, examples, the list of decisions, the charts of the benchmarks) and the
navigation; and lets Sphinx write build/site. links.py then checks the result. Nothing here uses a network.
"""

from __future__ import annotations

import fnmatch
import inspect
import json
import os
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
STAGE = ROOT / "build" / "docs"
SITE = ROOT / "build" / "site"

sys.path[:0] = [str(HERE), str(ROOT), str(ROOT / "python")]

import links  # noqa: E402

import proact  # noqa: E402
import proact.green  # noqa: E402
from benchmarks import charts  # noqa: E402

# Where pages of the repository are in the site. A page under docs/ has its path from there.
MOVED = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}

# What the public names are that can't have a docstring.
CONSTANTS = {
    "ENGINES": "The names of all engines, in the order in which ``auto`` tries them.",
    "__version__": "The version of proact.",
}

# The navigation: the pages of each part in this order. A pattern stands for the rest that it matches.
NAVIGATION = {
    "Guide": ["guide/programs.md", "guide/uvloop.md", "guide/containers.md", "guide/*.md", "examples.md"],
    "Reference": ["api.rst", "compatibility.md", "changelog.md"],
    "Measurements": ["performance.md", "performance/*.md", "lab.md"],
    "Inside": ["architecture.md", "decisions/index.md", "fuzzing.md", "contributing.md", "*.md"],
}


def pages() -> dict[Path, str]:
    """Each Markdown page of the repository that is part of the site, and its path there."""
    found = {ROOT / name: place for name, place in MOVED.items()}
    for path in sorted((ROOT / "docs").rglob("*.md")):
        found[path] = path.relative_to(ROOT / "docs").as_posix()
    return found


def place(target: Path, known: dict[Path, str]) -> str | None:
    """Where a file or folder of the repository is in the site; None if the page has to be left as it is."""
    if target in known:
        return known[target]
    if target == ROOT / "examples":
        return "examples.md"
    if target == ROOT / "docs" / "decisions":
        return "decisions/index.md"
    if target.is_file():
        # A file that is no page: the site has a copy of it. Sphinx makes the link a download.
        copy = target.relative_to(ROOT / "docs" if target.is_relative_to(ROOT / "docs") else ROOT).as_posix()
        (STAGE / copy).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(target, STAGE / copy)
        return copy
    return None


def relinked(path: Path, known: dict[Path, str]) -> str:
    """The text of a page with the relative links of the site. Raises SystemExit for a broken link."""
    text = path.read_text()
    here = Path(known[path]).parent
    for link in links.of_markdown(text):
        name, hash_, anchor = link.partition("#")
        if links.is_external(link) or not name:
            continue
        found = place((path.parent / name).resolve(), known)
        if found is None:
            raise SystemExit(f"{path.relative_to(ROOT)}: the site has no page for the link {link}")
        new = os.path.relpath(found, here) + hash_ + anchor
        text = text.replace(f"]({link})", f"]({new})")
    return text


def write(name: str, text: str) -> None:
    """A page of the stage."""
    (STAGE / name).parent.mkdir(parents=True, exist_ok=True)
    (STAGE / name).write_text(text)


def title(text: str) -> str:
    """The heading of a page."""
    return text.partition("\n")[0].removeprefix("# ")


def navigation(names: list[str]) -> str:
    """The toctrees, with every page exactly once."""
    left = [name for name in names if name != "index.md" and not re.match(r"decisions/\d", name)]
    parts = []
    for caption, patterns in NAVIGATION.items():
        chosen: list[str] = []
        for pattern in patterns:
            # fnmatch's * matches a slash too; a pattern means the pages of one folder.
            matching = [
                name
                for name in left
                if fnmatch.fnmatch(name, pattern) and name.count("/") == pattern.count("/")
            ]
            chosen += matching
            left = [name for name in left if name not in matching]
        rows = "\n".join(Path(name).with_suffix("").as_posix() for name in chosen)
        parts.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{rows}\n```\n")
    if left:
        raise SystemExit(f"the navigation has no place for {left}")
    return "\n".join(parts)


def with_charts(text: str) -> str:
    """The page of the benchmarks with charts, drawn from the results that the page was made from."""
    (name,) = set(re.findall(r"`(benchmarks/results/[^`/]+\.json)`", text))
    results = json.loads((ROOT / name).read_text())
    # The charts come first, after the list that says where and when it was measured.
    setting = re.search(r"(?m)(?:^- .*\n)+", text)
    assert setting is not None
    head, rest = text[: setting.end()], text[setting.end() :]
    return f"{head}\n{charts.section(results)}\n## How it was measured\n{rest}"


def api() -> str:
    """The page of the public names, from their docstrings."""
    lines = ["API", "===", "", (HERE / "api.rst").read_text(), *described("proact", proact)]
    for module in (proact.fs, proact.green):
        title = module.__name__
        lines += [title, "-" * len(title), "", inspect.getdoc(module) or "", "", *described(title, module)]
    return "\n".join(lines)


def described(of: str, module: ModuleType) -> list[str]:
    """The public names of a module that is no part of another page's list."""
    lines: list[str] = []
    for name in sorted(module.__all__, key=lambda name: (name.startswith("_"), name.lower())):
        thing = getattr(module, name)
        if isinstance(thing, ModuleType) or (module is not proact and getattr(proact, name, None) is thing):
            continue
        if isinstance(thing, type):
            # Not what the base classes in asyncio and the standard library bring: asyncio documents that.
            lines += [
                f".. autoclass:: {of}.{name}",
                "   :members:",
                "   :inherited-members: BaseEventLoop, Exception",
                # A member of that name would be taken for the class `type` in annotations.
                "   :exclude-members: type",
            ]
        elif callable(thing):
            lines += [f".. autofunction:: {of}.{name}"]
        else:
            lines += [f".. py:data:: {of}.{name}", f"   :value: {thing!r}", "", f"   {CONSTANTS[name]}"]
        lines += [""]
    return lines


def examples() -> str:
    """The page of examples/."""
    lines = ["# Examples", "", "Short programs, each on proact; `make ecosystem` runs all of them.", ""]
    for path in sorted((ROOT / "examples").glob("*.py")):
        lines += [f"## {path.name}", "", "```python", path.read_text().rstrip(), "```", ""]
    return "\n".join(lines)


def decisions(names: list[str]) -> str:
    """The list of decisions."""
    rows = "\n".join(Path(name).stem for name in names if re.match(r"decisions/\d", name))
    lines = ["# Decisions", "", "Why the code is as it is, where that is not what one would expect.", ""]
    return "\n".join([*lines, "```{toctree}", ":maxdepth: 1", "", rows, "```", ""])


def stage() -> None:
    """Write all that Sphinx reads."""
    shutil.rmtree(STAGE, ignore_errors=True)
    known = pages()
    texts = {name: relinked(path, known) for path, name in known.items()}
    texts["performance.md"] = with_charts(texts["performance.md"])
    texts["api.rst"] = api()
    texts["examples.md"] = examples()
    texts["decisions/index.md"] = decisions(sorted(texts))
    texts["index.md"] += "\n" + navigation(list(texts))
    for name, text in texts.items():
        write(name, text)


def main() -> None:
    from sphinx.cmd.build import main as sphinx  # the tests use this module without Sphinx

    output = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else SITE
    stage()
    shutil.rmtree(output, ignore_errors=True)
    # -W: a warning is an error; a page without a place or a reference without a target is a warning.
    options = ["-b", "html", "-q", "-W", "--keep-going", "-c", str(HERE), "-d", str(STAGE / ".cache")]
    failed = sphinx([*options, str(STAGE), str(output)])
    problems = [] if failed else links.problems_of_site(output)
    for problem in problems:
        print(problem, file=sys.stderr)
    if failed or problems:
        raise SystemExit(1)
    print(f"wrote {output.relative_to(ROOT) if output.is_relative_to(ROOT) else output}/index.html")


if __name__ == "__main__":
    main()
