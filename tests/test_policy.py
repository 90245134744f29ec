"""The names that users of uvloop know, `install` and `EventLoopPolicy`, also on a Python without policies."""

import subprocess
import sys

import pytest
from support import children

# Some Python will have no event loop policies (3.16, it is said). This makes it of any Python.
WITHOUT_POLICIES = """
import asyncio, asyncio.unix_events
asyncio.new_event_loop().close()  # asyncio itself still has its policy
for module in (asyncio, asyncio.unix_events):
    for name in [name for name in vars(module) if name.endswith("DefaultEventLoopPolicy")]:
        delattr(module, name)
"""

INSTALL = """
import warnings
warnings.simplefilter("error")
import proact
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    proact.install()
(warning,) = caught
assert warning.category is DeprecationWarning, warning
assert "proact.run(main())" in str(warning.message), warning
assert warning.filename == "<string>", warning
"""

SHOW = """
import asyncio, threading
async def engine():
    loop = asyncio.get_running_loop()
    print(type(loop) is proact.EventLoop, loop.engine)
def use():
    asyncio.run(engine())
    with asyncio.Runner() as runner:
        runner.run(engine())
    loop = asyncio.new_event_loop()
    loop.run_until_complete(engine())
    loop.close()
use()
thread = threading.Thread(target=use)
thread.start()
thread.join()
"""


def python(code, engine=None):
    """Run the code in a child; return its output."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=children.environment(engine),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("policies", ["with policies", "without"])
def test_after_install_asyncio_makes_proacts_loops(proact, engine, policies):
    before = WITHOUT_POLICIES if policies == "without" else ""
    assert python(before + INSTALL + SHOW, engine) == f"True {engine}\n" * 6


@pytest.mark.parametrize("action", ["error", "error::DeprecationWarning"])
def test_importing_proact_warns_of_nothing(proact, action):
    done = subprocess.run(
        [sys.executable, "-W", action, "-c", "import proact; from proact import *; print(install.__name__)"],
        env=children.environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.stdout, done.stderr) == ("install\n", "")


def test_the_policy_makes_proacts_loops(proact, engine):
    told = python(
        """
import asyncio, warnings
warnings.simplefilter("error")
import proact
policy = proact.EventLoopPolicy
assert policy is proact.EventLoopPolicy and isinstance(policy(), policy)
assert (policy.__module__, policy.__qualname__) == ("proact", "EventLoopPolicy")
warnings.simplefilter("ignore")  # from here on the caller uses asyncio's own deprecated names
assert issubclass(policy, asyncio.AbstractEventLoopPolicy)
asyncio.set_event_loop_policy(policy())
assert isinstance(asyncio.get_event_loop_policy(), policy)
"""
        + SHOW,
        engine,
    )
    assert told == f"True {engine}\n" * 6


def test_get_event_loop_works_as_under_asyncios_policy(proact, engine):
    # Up to 3.13 it makes the main thread's first loop; from 3.14 on it makes none.
    told = python(
        """
import asyncio, sys, warnings
warnings.simplefilter("ignore")
import proact
proact.install()
try:
    loop = asyncio.get_event_loop()
except RuntimeError:
    loop = None
assert (loop is None) == (sys.version_info >= (3, 14)), loop
loop = loop or asyncio.new_event_loop()
asyncio.set_event_loop(loop)
assert asyncio.get_event_loop() is loop
print(loop.engine)
asyncio.set_event_loop(None)
loop.close()
""",
        engine,
    )
    assert told == f"{engine}\n"


def test_where_policies_are_gone_so_is_ours(proact):
    told = python(
        WITHOUT_POLICIES
        + """
import proact
assert not hasattr(proact, "EventLoopPolicy")
try:
    proact.EventLoopPolicy
except AttributeError as error:
    print(error)
"""
    )
    assert "proact.run()" in told


def test_other_names_are_not_there(proact):
    with pytest.raises(AttributeError, match="module 'proact' has no attribute 'EventLoopPolice'"):
        proact.EventLoopPolice  # noqa: B018 - the access is the test
