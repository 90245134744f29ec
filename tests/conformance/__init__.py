"""CPython's own asyncio tests, run against proact: `python -m tests.conformance`.

Every CPython brings the tests of its asyncio as `test.test_asyncio`. Here they are imported and run, never
copied:

    mixins      written to be given a loop (`create_event_loop`, `new_loop`): they get the loop under test.
                These tests are about the loop; one that passes without a loop of ours having been made is an
                error.
    modules     tests of what stands on a loop (streams, TLS, runners, tasks, locks ...): they run as they
                are, with asyncio's default policy making the loop under test.

Which loop really ran is not taken on trust. The harness counts the loops of the class under test that were
made and that were run, in the test's own process. In a module a test counts only if such a loop *ran* in it;
one that passes without (it takes mocks, or makes `TestLoop`, a `BaseEventLoop` with a simulated clock) says
nothing about the loop: it is listed as "not about the loop", in a column of its own, never among the passed.
One that fails counts as a failure whatever ran.

Up to five failures are run once more with nothing beside them, since many of these tests look for a free port
or measure time; what passes then is passed, and named in the results.

An exclusion (exclusions.py) is still run. It has to fail: the day it passes, or no test has its name any
more, the run fails until its line is gone.

Files: groups.py what is run; contenders.py the loops, and the counting; takeover.py the helpers that bring
loops of their own; runner.py a process for each test; exclusions.py the table; outcome.py what came of it;
report.py docs/compatibility.md.
"""
