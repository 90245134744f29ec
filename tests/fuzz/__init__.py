"""The fuzzer: random sequences of ops against a model of what must arrive; `make fuzz`, docs/fuzzing.md.

    vocabulary.py   what an op is: a JSON list; which there are; how one is made simpler
    generate.py     from a seed to a sequence
    model.py        what must arrive: streams of bytes, and the problems found
    link.py         one connection: the loop's end, the peer's end, what the model says of both
    protocols.py    the protocols of its near end
    world.py        the interpreter: carries a sequence out, settles, judges, cleans up
    trial.py        a sequence on a fresh loop in this process
    actions.py      imports the ops, by theme: transports.py streams.py sockets.py watches.py servers.py
                    upgrades.py threads.py processes.py callbacks.py
    child.py        a sequence in a forked child: what crashes or hangs is a result too
    shrink.py       delta debugging of a failing sequence
    campaign.py     seed after seed until the time is over; findings
    __main__.py     the command line

The model is asyncio. With `--loop asyncio` the model itself is tested: where asyncio is known to be wrong,
`World.lenient` makes an exception, with its reason. The order of callbacks and timers is tested by
test_order_model.py, long mixtures of whole activities by tests/soak.
"""
