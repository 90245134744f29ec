"""The soak: all that the loop does at once, for minutes; every byte verified, nothing left at the end.

    activities.py   what is done, a round at a time
    world.py        the servers that the rounds talk to
    gauges.py       what must be where it began: fds, tasks, ops, readers, memory
    run.py          workers, pauses in which it is quiet enough to measure, the verdict
    __main__.py     the command line

Nothing here imports proact but `support.loops`: with PROACT_TEST_LOOP=asyncio it soaks asyncio.
"""
