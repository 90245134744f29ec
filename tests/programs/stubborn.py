"""A main that swallows its cancellation: it ignores the first Ctrl-C; the second one must end it."""

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
