"""The documentation is right: its Python runs, its commands exist, its links lead somewhere.

tests/support/documentation.py says which blocks there are and how a block is marked that can't be run. The
site has a check of its own (`make docs`, `make lint`).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib

import pytest
from support import children, documentation
from support.documentation import ROOT, Block

sys.path.append(str(ROOT / "docs" / "site"))

import links

# Commands that only show something, and are quick: these are run.
QUICK = {("make", "help"), ("proact", "doctor"), ("proact", "--version"), ("proact", "--help")}


def of(*languages: str) -> list:
    return [pytest.param(block, id=str(block)) for block in documentation.of(*languages)]


def skip_if_marked(block: Block) -> None:
    if block.not_run:
        pytest.skip(f"{block} says that it can't be run: {block.not_run}")


def test_each_block_says_what_it_is():
    unknown = [
        str(block) for block in documentation.blocks() if block.language not in documentation.LANGUAGES
    ]
    # tests/test_architecture.py reads this drawing.
    (drawing,) = documentation.of("indented")
    assert drawing.page.name == "architecture.md"
    assert unknown == [str(drawing)]


def test_a_marker_has_a_reason():
    marked = [
        block for block in documentation.blocks() if "not run by" in block.text.partition("\n")[0].lower()
    ]
    assert all(block.not_run and len(block.not_run) > 10 for block in marked)


@pytest.mark.parametrize("block", of("python"))
def test_python(proact, block, engine, tmp_path):
    skip_if_marked(block)
    if module := documentation.missing(block):
        pytest.skip(f"{block} needs {module}, which is not installed here")
    documentation.run(block, engine, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "raise SystemExit(1)",
        "import socket; socket.create_connection(('192.0.2.1', 80))",
        "async def main(): await asyncio.open_connection('example.org', 80)\nproact.run(main())",
        "async def main(): asyncio.Future().set_exception(ValueError())\nproact.run(main())",
        "'no server, but the word', 'serve_forever()'",
    ],
)
def test_a_wrong_block_is_found(proact, text, tmp_path):
    with pytest.raises(AssertionError):
        documentation.run(Block(ROOT / "README.md", 1, "python", text), "epoll", tmp_path)


def test_data():
    for block in documentation.of("json", "toml"):
        {"json": json, "toml": tomllib}[block.language].loads(block.text)


@pytest.mark.parametrize("block", of("sh", "console"))
def test_commands(proact, block):
    skip_if_marked(block)
    found = documentation.commands(block)
    assert found
    assert not [(" ".join(words), wrong) for words in found if (wrong := documentation.problem(words))]


def test_commands_in_sentences(proact):
    found = documentation.inline_commands()
    assert len(found) > 30
    assert not [(where, wrong) for where, words in found if (wrong := documentation.problem(words))]


def test_quick_commands_run(proact):
    found = {
        tuple(words) for block in documentation.of("sh", "console") for words in documentation.commands(block)
    }
    found |= {tuple(words) for _, words in documentation.inline_commands()}
    run = QUICK & found
    assert run >= {("make", "help"), ("proact", "doctor")}
    for words in run:
        command = [sys.executable, "-m", *words] if words[0] == "proact" else list(words)
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=children.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "nothing",
        "make nothing",
        "make fuzz FUZZ_ARGS='--nothing 1'",
        "make fuzz NOTHING=1",
        "proact nothing",
        "proact lab nothing",
        "proact lab run --nothing",
        "cd here && PROACT_ENGINE=epoll proact doctor --nothing  # a comment",
        "python tests/nothing.py",
        "python -m benchmarks --nothing",
        "pip install 'proact[nothing]'",
    ],
)
def test_a_wrong_command_is_found(proact, line):
    (*_, words) = documentation.commands(Block(ROOT / "README.md", 1, "sh", line))
    assert documentation.problem(words)


def test_each_name_of_proact_exists(proact):
    """`proact:name`, as servers take it, and `proact.name` in code."""
    named = re.compile(r"\bproact[:.](?!json\b)(\w+)\b(?=[^/\w])")
    text = "\n".join(page.read_text() for page in documentation.PAGES)
    code = re.findall(r"`([^`\n]+)`", text) + [
        block.text for block in documentation.of("python", "sh", "console")
    ]
    names = {name for piece in code for name in named.findall(piece)}
    assert names >= {"new_event_loop", "run", "lab"}
    modules = {path.stem for path in (ROOT / "python" / "proact").iterdir()}
    # The README names these as planned.
    planned = {"open", "Path"}
    assert not {name for name in names - modules - planned if not hasattr(proact, name)}


@pytest.mark.parametrize("page", [*documentation.PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links(page):
    assert not links.problems_of_markdown(page, ROOT)


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "there.md").write_text("# A `heading`, twice\n\n# A heading, twice\n")
    page = tmp_path / "page.md"
    right = "[1](there.md) [2](there.md#a-heading-twice-1) [3](#own) [4](https://example.org/) `[5](nowhere)`"
    page.write_text(f"{right}\n\n# Own\n")
    assert links.problems_of_markdown(page, tmp_path) == []
    wrong = ["nowhere.md", "there.md#nothing", "#nothing", "../out.md", "https://", "htp://example.org/"]
    page.write_text(" ".join(f"[x]({link})" for link in wrong))
    assert len(links.problems_of_markdown(page, tmp_path)) == len(wrong)
