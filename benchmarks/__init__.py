"""proact measured against its peers, in interleaved runs. `make bench`, or `python -m benchmarks --help`.

    contenders.py  who is measured            servers.py  one echo server, in a process of its own
    cases.py       what is measured           load.py     the load on it, in another
    children.py    processes, cores, clocks   micro.py    what needs no network, in one process
    stats.py       medians and ratios         report.py   docs/performance.md from the newest results
"""
