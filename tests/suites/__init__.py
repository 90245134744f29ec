"""The test suites of programs that people run, on proact: what fails there, and not on asyncio.

    python -m tests.suites --suite anyio --engine epoll     one suite, one engine (`make suites`: all of them)

A suite is a package's own tests, out of its source package on PyPI. Each runs on the standard loop first and
then on proact; only the differences are told. table.py says which suites there are and how proact is put
under each; packages.py fetches them, runner.py runs their files, inside/ is what a suite's own pytest loads.
"""
