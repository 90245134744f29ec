"""proact measured against its peers, in interleaved runs. `make bench`, or `python -m benchmarks --help`.

contenders.py  what is compared           servers.py  one echo server, in a separate process
cases.py       what is measured           load.py     the load on it, in another one; tls_load.py for TLS
runner.py      rounds, A B A B            web.py      one HTTP server; wrk.py the load on it
micro.py       the loop by itself         idle.py     connections that idle, and their cost
starts.py      imports and first loops    million.py  as many connections as fit (`make million`)
programs.py    clients, websockets, gRPC  slope.py    memory of an idle connection
instructions.py  one message, by function
children.py    processes, cores, clocks   machine.py  where it was measured
stats.py       medians and ratios         table.py    one case as a table
sections.py    parts of the page beside its tables
__main__.py    the command line           report.py   docs/performance.md from the newest results
"""
