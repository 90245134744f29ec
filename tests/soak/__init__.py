"""The soak: everything that the loop can do, at once, for minutes; every byte is verified, nothing is left at
the end.

    activities.py   the activities, a round at a time
    world.py        the servers that the rounds talk to
    gauges.py       the figures that must return to where they began: fds, tasks, ops, readers, memory
    run.py          workers, pauses in which it is quiet enough to measure, the verdict
    __main__.py     the command line

Nothing here imports proact but `support.loops`: with PROACT_TEST_LOOP=asyncio it soaks asyncio.
"""
