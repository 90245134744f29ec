"""A main that swallows its cancellation: the first Ctrl-C is ignored, the second must not be."""

import asyncio

import under_test


async def main():
    print("ready")
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        print("ignored")
    await asyncio.sleep(3600)


under_test.run(main())
