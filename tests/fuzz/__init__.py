"""The fuzzer: random sequences of ops against a model of what must arrive; `make fuzz`, docs/fuzzing.md.

    vocabulary.py   the ops: JSON lists; the table of them; how to make one simpler
    generate.py     from a seed to a sequence
    model.py        what must arrive: streams of bytes, and the problems found
    link.py         one connection: the loop's end, the peer's end, and the model of both
    protocols.py    the protocols of its near end
    world.py        the interpreter: carries a sequence out, settles, judges, cleans up
    trial.py        a sequence on a fresh loop in this process
    actions.py      imports the ops, by theme: transports.py streams.py sockets.py watches.py servers.py
                    upgrades.py threads.py processes.py callbacks.py
    child.py        a sequence in a forked child: a crash or a hang is a result too
    shrink.py       delta debugging of a failing sequence
    campaign.py     seed after seed until the time is over; findings
    __main__.py     the command line

The model describes asyncio. `--loop asyncio` tests the model itself: where asyncio is known to be wrong,
`World.lenient` makes an exception, with its reason. The order of callbacks and timers is tested by
test_order_model.py, long mixtures of whole activities by tests/soak.
"""
