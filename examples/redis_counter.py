"""redis-py: a hundred increments at once."""

import asyncio
import os

import redis.asyncio as redis

import proact


async def main() -> None:
    async with redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")) as client:
        await client.delete("counter")
        await asyncio.gather(*(client.incr("counter") for _ in range(100)))
        print(asyncio.get_running_loop(), int(await client.get("counter")))


proact.run(main())
