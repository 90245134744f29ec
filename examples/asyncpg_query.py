"""asyncpg: a pool of connections to PostgreSQL."""

import asyncio
import os

import asyncpg

import proact


async def main() -> None:
    dsn = os.environ.get("DATABASE_URL", "postgresql://postgres@127.0.0.1/postgres")
    async with asyncpg.create_pool(dsn, min_size=1, max_size=4) as pool:
        squares = await asyncio.gather(*(pool.fetchval("SELECT $1::int ^ 2", n) for n in range(10)))
    print(asyncio.get_running_loop(), squares)


proact.run(main())
