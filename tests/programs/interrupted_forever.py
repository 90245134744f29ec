"""run_forever without a runner: Ctrl-C raises KeyboardInterrupt from it, and the loop runs again."""

import asyncio
import sys

import under_test

loop = under_test.new_event_loop()


def again():
    loop.call_soon(again)


loop.call_soon(print, "ready")
if sys.argv[1] == "busy":
    loop.call_soon(again)
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("interrupted")
print(loop.run_until_complete(asyncio.sleep(0.01, "again")))
loop.close()
print("closed")
