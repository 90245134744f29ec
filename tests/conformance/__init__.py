"""CPython's own asyncio tests, run against proact: `python -m tests.conformance`.

Every CPython brings the tests of its asyncio as `test.test_asyncio`. Here they are imported and run, never
copied:

    mixins      written to be given a loop (`create_event_loop`, `new_loop`): they get the loop under test.
                These tests are about the loop; one that passes without a loop of ours having been made is an
                error.
    modules     tests of code that uses a loop (streams, TLS, runners, tasks, locks ...): they run as they
                are, with asyncio's default policy making the loop under test.

The harness checks which loop really ran. It counts the loops of the class under test that were made and that
were run, in the test's own process. In a module, a test counts only if such a loop *ran* in it. A test that
passes without one (it takes mocks, or makes `TestLoop`, a `BaseEventLoop` with a simulated clock) says
nothing about the loop: it is listed as "not about the loop", in a separate column, never among the passed. A
test that fails counts as a failure, whatever ran.

Up to five failures are run once more with nothing beside them, because many of these tests look for a free
port or measure time; a test that passes then counts as passed, and is named in the results.

An excluded test (exclusions.py) is still run, and has to fail: when it passes, or when no test has its name
any more, the run fails until its line is removed.

Files: groups.py the tests that are run; contenders.py the loops, and the counting; takeover.py the helpers
that bring their own loops; runner.py a process for each test; exclusions.py the table; outcome.py the outcome
of a test; report.py docs/compatibility.md.
"""
