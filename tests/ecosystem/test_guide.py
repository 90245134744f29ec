"""Checks the general parts of docs/guide/programs.md; test_examples.py checks its other lines.

Here is installed what the blocks of code on any page import, so each is run; tests/test_documentation.py
leaves out what is missing there.
"""

import re
import sys

import pytest
import started
from support import documentation

GUIDE = started.ROOT / "docs" / "guide" / "programs.md"
PROGRAM = "import asyncio\nasync def main(): print(asyncio.get_running_loop())\nasyncio.run(main())\n"


def test_the_examples_that_it_names_exist():
    named = set(re.findall(r"`(\w+\.py)`", GUIDE.read_text()))
    assert named >= {"uvicorn_fastapi.py", "conftest.py"}
    assert not {name for name in named if not (started.ROOT / "examples" / name).exists()}


@pytest.mark.parametrize("words", [("-m", "proact"), ("-m", "proact", "run")], ids=" ".join)
def test_proact_run(engine, tmp_path, words):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    with started.running(*words, path, engine=engine) as child:
        assert f"<EventLoop engine={engine} running=True" in child.end()


@pytest.mark.skipif(sys.version_info >= (3, 16), reason="policies are to be gone from 3.16 on")
def test_policy(engine, tmp_path):
    (block,) = [
        text for text in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL) if "Policy" in text
    ]
    path = tmp_path / "program.py"
    path.write_text(f"import asyncio, proact\n{block}\n{PROGRAM}")
    with started.running("-W", "ignore::DeprecationWarning", path, engine=engine) as child:
        assert f"<EventLoop engine={engine} running=True" in child.end()


@pytest.mark.parametrize("block", documentation.of("python"), ids=str)
def test_each_block_runs(engine, block, tmp_path):
    if block.not_run:
        pytest.skip(f"{block} says that it can't be run: {block.not_run}")
    missing = documentation.missing(block)
    if missing == "uvloop":
        pytest.skip("uvloop is a peer, which is installed for tests/test_documentation.py")
    assert missing is None
    documentation.run(block, engine, tmp_path)
