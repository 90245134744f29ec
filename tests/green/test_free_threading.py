"""Importing proact leaves the GIL of a free-threaded Python off.

A greenlet package that does not say that it can do without turns it on, with Python's RuntimeWarning; then
greenlets work as with any GIL.
"""

import os
import subprocess
import sys
import sysconfig

import pytest

pytest.importorskip("proact.green")
pytestmark = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="about free-threaded Pythons"
)

PROGRAM = """
import sys
import threading
import warnings

import proact

assert not sys._is_gil_enabled()
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    from proact import green
assert sys._is_gil_enabled() == any("greenlet" in str(warning.message) for warning in told)


def count(queue):
    return sum(queue.get() for _ in range(100))


def talk():
    queue = green.Queue()
    counting = green.spawn(count, queue)
    for number in range(100):
        queue.put(number)
        green.sleep(0)
    sums.append(counting.get())


sums = []
threads = [threading.Thread(target=green.run_main, args=(talk,)) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert sums == [4950] * 4
"""


def test_the_gil_and_greenlet(engine):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    environment["PROACT_ENGINE"] = engine
    subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True)
