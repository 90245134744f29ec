"""proact measured against its peers, in interleaved runs. `make bench`, or `python -m benchmarks --help`.

contenders.py  who is measured            servers.py  one echo server, in a process of its own
cases.py       what is measured           load.py     the load on it, in another; tls_load.py over TLS
runner.py      rounds, A B A B            web.py      one HTTP server; wrk.py the load on it
micro.py       what needs no network      idle.py     connections that idle, and what they cost
children.py    processes, cores, clocks   machine.py  where it was measured
stats.py       medians and ratios         table.py    one case as a table
__main__.py    the command line           report.py   docs/performance.md from the newest results
"""
