"""asyncpg against a real PostgreSQL, over TCP, TLS and Unix sockets: rows, COPY, a pool, a cancel."""

import asyncio
import contextlib
import io

import asyncpg
import pytest
from support import loops
from support.peers import payload


@pytest.fixture(params=["tcp", "tls", "unix"])
def options(request, postgres, certificate):
    found = {"user": postgres.user, "database": "postgres", "port": postgres.port, "timeout": 10}
    if request.param == "unix":
        return found | {"host": str(postgres.directory)}
    return found | {"host": "127.0.0.1", "ssl": certificate.client() if request.param == "tls" else False}


@contextlib.asynccontextmanager
async def connected(options):
    connection = await asyncpg.connect(**options)
    try:
        yield connection
    finally:
        await connection.close()


async def test_rows(loop, here, options):
    async with connected(options) as connection:
        assert await connection.fetchval("SELECT $1::text", loops.identify()) == here
        secure = await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert secure == bool(options.get("ssl"))
        await connection.execute("CREATE TEMPORARY TABLE blobs (id int, data bytea)")
        rows = [(size, payload(size)) for size in (0, 1, 8_191, 8_192, 1_000_000)]
        await connection.executemany("INSERT INTO blobs VALUES ($1, $2)", rows)
        assert [tuple(row) for row in await connection.fetch("SELECT * FROM blobs ORDER BY id")] == rows
        with pytest.raises(asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.execute("CREATE UNIQUE INDEX ON blobs (id)")
                await connection.execute("INSERT INTO blobs VALUES (1, NULL)")
        seen = 0
        async with connection.transaction():
            async for row in connection.cursor("SELECT n FROM generate_series(0, 999) n", prefetch=100):
                assert row["n"] == seen
                seen += 1
        assert seen == 1000


async def test_copy(loop, options):
    async with connected(options) as connection:
        await connection.execute("CREATE TEMPORARY TABLE numbers (n int, name text)")
        records = [(n, f"name {n}") for n in range(20_000)]
        await connection.copy_records_to_table("numbers", records=records)
        out = io.BytesIO()
        await connection.copy_from_table("numbers", output=out)
        assert out.getvalue() == b"".join(b"%d\tname %d\n" % (n, n) for n in range(20_000))


async def test_cancelled_query(loop, options):
    """The server is told by a second connection, and the first can be used again."""
    async with connected(options) as connection:
        task = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            await connection.execute("SELECT pg_sleep(60)", timeout=0.05)
        assert await connection.fetchval("SELECT 1") == 1


async def test_pool_and_notifications(loop, options):
    async with asyncpg.create_pool(**options, min_size=1, max_size=5) as pool:
        assert await asyncio.gather(
            *(pool.fetchval("SELECT $1::int FROM pg_sleep(0.01)", index) for index in range(25))
        ) == list(range(25))
        heard = asyncio.Queue()

        def listen(_connection, _pid, _channel, message):
            heard.put_nowait(message)

        async with pool.acquire() as connection:
            await connection.add_listener("news", listen)
            for index in range(20):
                await pool.execute(f"NOTIFY news, '{index}'")
            async with asyncio.timeout(10):
                assert [await heard.get() for _ in range(20)] == [str(index) for index in range(20)]
            await connection.remove_listener("news", listen)
