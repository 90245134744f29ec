"""psycopg 3 async against a real PostgreSQL: libpq owns the socket, the loop only watches it (add_reader)."""

import asyncio
import contextlib

import psycopg
import pytest
from support import loops
from support.peers import payload


@pytest.fixture(params=["tcp", "tls", "unix"])
def conninfo(request, postgres, certificate):
    host = postgres.directory if request.param == "unix" else "127.0.0.1"
    tls = (
        f"sslmode=verify-full sslrootcert={certificate.authority}"
        if request.param == "tls"
        else "sslmode=disable"
    )
    return f"host={host} port={postgres.port} user={postgres.user} dbname=postgres connect_timeout=10 {tls}"


@contextlib.asynccontextmanager
async def connected(conninfo):
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        yield connection


async def test_rows(loop, here, conninfo):
    async with connected(conninfo) as connection, connection.cursor() as cursor:
        await cursor.execute("SELECT %s", [loops.identify()])
        assert await cursor.fetchone() == (here,)
        await cursor.execute("CREATE TEMPORARY TABLE blobs (id int PRIMARY KEY, data bytea)")
        rows = [(size, payload(size)) for size in (0, 1, 8_191, 8_192, 3_000_000)]
        await cursor.executemany("INSERT INTO blobs VALUES (%s, %s)", rows)
        await cursor.execute("SELECT * FROM blobs ORDER BY id")
        assert await cursor.fetchall() == rows
        with pytest.raises(psycopg.errors.UniqueViolation):
            await cursor.execute("INSERT INTO blobs VALUES (1, NULL)")
        async with connection.pipeline():
            for index in range(200):
                await cursor.execute("SELECT %s::int", [index])
        async with connection.transaction():
            async with connection.cursor("named") as named:
                await named.execute("SELECT n FROM generate_series(0, 999) n")
                assert [row async for row in named] == [(n,) for n in range(1000)]


async def test_copy(loop, conninfo):
    async with connected(conninfo) as connection, connection.cursor() as cursor:
        await cursor.execute("CREATE TEMPORARY TABLE numbers (n int, name text)")
        async with cursor.copy("COPY numbers FROM STDIN") as copy:
            for n in range(20_000):
                await copy.write_row((n, f"name {n}"))
        out = bytearray()
        async with cursor.copy("COPY numbers TO STDOUT") as copy:
            async for piece in copy:
                out += piece
        assert out == b"".join(b"%d\tname %d\n" % (n, n) for n in range(20_000))


async def test_cancelled_query(loop, conninfo):
    async with connected(conninfo) as connection:
        task = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises((asyncio.CancelledError, psycopg.errors.QueryCanceled)):
            await task
        # If a connection is cancelled while it waits, some versions of psycopg close it and others keep it.
    async with connected(conninfo) as connection:
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


async def test_notifications_and_many_connections(loop, conninfo):
    async def query(index):
        async with connected(conninfo) as connection:
            cursor = await connection.execute("SELECT %s::int FROM pg_sleep(0.01)", [index])
            return (await cursor.fetchone())[0]

    assert await asyncio.gather(*(query(index) for index in range(10))) == list(range(10))

    async with connected(conninfo) as listener, connected(conninfo) as speaker:
        await listener.execute("LISTEN news")
        for index in range(20):
            await speaker.execute(f"NOTIFY news, '{index}'")
        heard = [notice.payload async for notice in listener.notifies(timeout=10, stop_after=20)]
        assert heard == [str(index) for index in range(20)]
