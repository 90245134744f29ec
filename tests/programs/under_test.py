"""The loop under test, for the programs beside this file: proact, or the loop that PROACT_TEST_LOOP names."""

import asyncio
import os

REFERENCE = os.environ.get("PROACT_TEST_LOOP", "")

if REFERENCE == "asyncio":
    new_event_loop = asyncio.new_event_loop
    run = asyncio.run
elif REFERENCE == "uvloop":
    import uvloop

    new_event_loop = uvloop.new_event_loop

    def run(main):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)

else:
    import proact

    new_event_loop = proact.new_event_loop
    run = proact.run
