"""psycopg 3: rows from PostgreSQL as they come."""

import asyncio
import os

import psycopg

import proact


async def main() -> None:
    dsn = os.environ.get("DATABASE_URL", "postgresql://postgres@127.0.0.1/postgres")
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        cursor = await connection.execute("SELECT n, n * n FROM generate_series(1, 5) n")
        print(asyncio.get_running_loop(), [row async for row in cursor])


proact.run(main())
