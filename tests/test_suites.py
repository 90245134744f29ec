"""`make suites` reports each test that fails, dies or hangs on proact, unless it also fails on asyncio."""

import sys

import pytest
from suites import __main__ as command
from suites.runner import Runner
from suites.table import Exclusion, Suite

# A suite that fails in each possible way, most of them only on proact.
TESTS = """
import asyncio, os, time

def test_passes():
    asyncio.run(asyncio.sleep(0))

def test_fails_everywhere():
    assert False, "everywhere"

def on_proact():
    loop = asyncio.new_event_loop()
    loop.close()
    return type(loop).__module__.startswith("proact")

def test_fails_on_proact():
    assert not on_proact(), "here alone"

def test_dies_on_proact():
    if on_proact():
        os.abort()

def test_hangs_on_proact():
    if on_proact():
        time.sleep(1000)

def test_is_excluded():
    assert not on_proact()

def test_after_them():
    assert os.environ.get("PROACT_ENGINE", "select") == "select"
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The suite above on asyncio and on proact."""
    tmp_path = tmp_path_factory.mktemp("suite")
    (tmp_path / "test_it.py").write_text(TESTS)
    lines = (Exclusion("*::test_is_excluded", "for this test"),)
    suite = Suite("it", "1", files=("test_*.py",), timeout=3, exclusions=lines)
    runners = [Runner(suite, loop, sys.executable, tmp_path) for loop in ("asyncio", "select")]
    return runners[1], *(runner.run(runner.files(), 1, lambda *_: None) for runner in runners)


def words(run):
    return {test.partition("::test_")[2]: outcome.word for test, outcome in run.outcomes.items()}


def test_every_test_is_charged_with_its_own_end(runs):
    _, standard, run = runs
    everywhere = {"passes": "passed", "fails_everywhere": "failed", "after_them": "passed"}
    here = {"fails_on_proact": "failed", "dies_on_proact": "crashed", "hangs_on_proact": "timeout"}
    assert words(run) == everywhere | here | {"is_excluded": "failed"}
    assert words(standard) == everywhere | dict.fromkeys([*here, "is_excluded"], "passed")
    assert standard.made == 5
    # A test that does not end can't say how many loops it has made.
    assert run.made == 3

    runner, found = runs[0], command.differ(*runs, tries=1)
    assert [line.test.partition("::test_")[2] for line in found] == list(here)
    assert found[0].outcome.why == "AssertionError: here alone"
    assert found[1].outcome.why == "killed by SIGABRT"
    assert runner.alone("test_it.py::test_passes").word == "passed"
    assert runner.alone("test_it.py::test_dies_on_proact").word == "crashed"


def test_what_passes_alone_does_not_count(runs):
    runner, standard, run = runs
    (runner.place / "test_it.py").write_text(TESTS.replace("return type(loop)", "return ''  # "))
    assert command.differ(runner, standard, run, tries=2) == []
