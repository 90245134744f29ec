"""Forks a child in a callback or a task of the running loop, which ends as told; prints its status."""

import asyncio
import os
import sys

import under_test

where, how = sys.argv[1:]


def end():
    if how == "exit":
        sys.exit(0)
    if how == "status":
        raise SystemExit(5)


async def main():
    loop = asyncio.get_running_loop()
    children = []
    other = asyncio.ensure_future(asyncio.sleep(60))  # the clean-up has something to cancel

    def fork():
        child = os.fork()
        if not child:
            end()
        children.append(child)
        return child

    if where == "callback":
        loop.call_soon(fork)
        while not children:
            await asyncio.sleep(0)
        child = children[0]
    else:
        child = fork()
    if child:
        other.cancel()
        await asyncio.sleep(0.01)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


under_test.run(main())
