"""Packages that block, made green by `green.patch`, against real servers, while the loop turns."""

import signal
import sys
import time

import pytest
import started
from support import daemons
from support.peers import payload

green = pytest.importorskip("proact.green")

SIZES = (0, 1, 4_095, 65_536, 1_000_000)


@pytest.fixture
def main(loop, proact):
    """Runs a function in a greenlet; the loop has to turn all the while."""

    def go(fn, *args):
        turns = [0]

        def count():
            while True:
                turns[0] += 1
                green.sleep(0.01)

        def both():
            counting = green.spawn(count)
            begun = time.monotonic()
            fn(*args)
            spent = time.monotonic() - begun
            counting.kill()
            assert turns[0] > min(spent / 0.3, 5), "the loop was blocked"

        loop.run_until_complete(_awaited(both))

    return go


async def _awaited(fn):
    await green.spawn(fn)


def interrupted(wait):
    """`wait()` would wait for long: it is killed, and ended by a timeout."""
    killed = green.spawn(wait)
    green.sleep(0.05)
    assert not killed.dead
    killed.kill(timeout=20)
    assert isinstance(killed.value, green.GreenletExit)
    with green.Timeout(0.05, False):
        wait()
        raise AssertionError("it was not interrupted")


@pytest.fixture(scope="module")
def mariadb():
    with daemons.mariadb() as server:
        yield server


def test_pymysql(main, mariadb):
    pymysql = green.patch("pymysql")
    assert "pymysql" not in sys.modules or sys.modules["pymysql"] is not pymysql

    def connect():
        return pymysql.connect(
            host="127.0.0.1", port=mariadb.port, user=mariadb.user, database="test", autocommit=True
        )

    def work(number):
        with connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE blobs (size INT, data LONGBLOB)")
            for size in SIZES:
                cursor.execute("INSERT INTO blobs VALUES (%s, %s)", (size, payload(size, number)))
            cursor.execute("SELECT size, data FROM blobs ORDER BY size")
            assert list(cursor) == [(size, payload(size, number)) for size in SIZES]
            with pytest.raises(pymysql.err.ProgrammingError):
                cursor.execute("no SQL")

    def sleeps():
        with connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT SLEEP(25)")

    def all_of_it():
        green.Pool(10).map(work, range(10))
        interrupted(sleeps)
        # The connection's own timeout.
        with (
            pymysql.connect(
                host="127.0.0.1", port=mariadb.port, user=mariadb.user, read_timeout=0.1
            ) as connection,
            connection.cursor() as cursor,
            pytest.raises(pymysql.err.OperationalError),
        ):
            cursor.execute("SELECT SLEEP(25)")

    main(all_of_it)


def test_redis(main, redis_port):
    redis = green.patch("redis")
    client = redis.Redis(port=redis_port, socket_timeout=30, max_connections=50)

    def work(number):
        for size in SIZES:
            assert client.set(f"{number}/{size}", payload(size, number))
            assert client.get(f"{number}/{size}") == payload(size, number)
        with client.pipeline() as pipe:
            for index in range(100):
                pipe.rpush(f"list{number}", index)
            assert pipe.execute() == list(range(1, 101))

    def all_of_it():
        client.flushall()
        green.Pool(10).map(work, range(10))
        interrupted(lambda: client.blpop("nothing", timeout=25))
        with client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe("news")
            channel.get_message(timeout=5)
            green.spawn(lambda: [client.publish("news", index) for index in range(50)])
            seen = []
            while len(seen) < 50:
                if message := channel.get_message(timeout=5):
                    seen.append(int(message["data"]))
            assert seen == list(range(50))
        assert client.ping()
        client.close()

    main(all_of_it)


def test_requests(main):
    requests = green.patch("requests")
    port = daemons.free_port()

    def work(number):
        with requests.Session() as session:
            for size in SIZES:
                body = payload(size, number)
                assert session.post(f"http://127.0.0.1:{port}/echo", data=body, timeout=30).content == body

    def all_of_it():
        green.Pool(10).map(work, range(10))
        interrupted(lambda: requests.get(f"http://127.0.0.1:{port}/slow", timeout=25))
        with pytest.raises(requests.Timeout):
            requests.get(f"http://127.0.0.1:{port}/slow", timeout=0.1)

    arguments = ("-m", "gunicorn", "-k", "gevent", "-b", f"127.0.0.1:{port}")
    with started.running(*arguments, "--graceful-timeout", "20", "wsgi_app:make()", engine="epoll") as child:
        child.until("Booting worker")
        main(all_of_it)
        child.end(signal.SIGTERM)
