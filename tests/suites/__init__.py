"""The test suites of programs that people run, on proact: finds tests that fail there but not on asyncio.

    python -m tests.suites --suite anyio --engine epoll     one suite, one engine (`make suites`: all of them)

A suite is a package's own tests, from its source package on PyPI. Each runs on the standard loop first and
then on proact; only the differences are reported. table.py lists the suites and says how proact is put
under each; packages.py fetches them, runner.py runs their files, inside/ is what a suite's own pytest loads.
"""
