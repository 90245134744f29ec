"""Programs of gevent, patched process-wide, that test_gevent_programs.py runs on proact's loop.

Each moves bytes that are checked, in many greenlets at once, is interrupted in the middle, and goes on.
"""

from gevent import monkey

monkey.patch_all()

# ruff: noqa: E402  gevent patches before anything else is imported
import sys
import threading
import time

import gevent
import gevent.event
import gevent.queue
from gevent.pool import Pool
from support.peers import payload

SIZES = (0, 1, 4_095, 65_536, 1_000_000)
GREENLETS = 20


def interrupted(wait, ended=lambda: None):
    """`wait()` would wait for long: it is killed, and ended by a timeout."""
    killed = gevent.spawn(wait)
    gevent.sleep(0.05)
    assert not killed.dead
    killed.kill(timeout=10)
    assert isinstance(killed.value, gevent.GreenletExit), killed.exception
    begun = time.monotonic()
    with gevent.Timeout(0.05, False):
        wait()
        raise AssertionError("it was not interrupted")
    assert time.monotonic() - begun < 10


def redis(port):
    import redis

    client = redis.Redis(port=int(port), socket_timeout=30)
    client.flushall()

    def work(number):
        for size in SIZES:
            assert client.set(f"{number}/{size}", payload(size, number))
            assert client.get(f"{number}/{size}") == payload(size, number)
        with client.pipeline() as pipe:
            for index in range(100):
                pipe.rpush(f"list{number}", index)
            assert pipe.execute() == list(range(1, 101))
        client.incr("counter")

    Pool(GREENLETS).map(work, range(GREENLETS))
    assert client.get("counter") == b"%d" % GREENLETS
    interrupted(lambda: client.blpop("nothing", timeout=25))

    with client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe("news")
        assert channel.get_message(timeout=5) is None
        sender = gevent.spawn(lambda: [client.publish("news", index) for index in range(50)])
        seen = []
        while len(seen) < 50:
            if message := channel.get_message(timeout=5):
                seen.append(int(message["data"]))
        assert seen == list(range(50))
        sender.get()
    assert client.ping()
    client.close()


def postgres(address):
    import psycopg2
    from psycogreen.gevent import patch_psycopg
    from sqlalchemy import create_engine, text

    patch_psycopg()
    host, port, user = address.split(",")
    arguments = {"host": host, "port": port, "user": user, "dbname": "postgres", "sslmode": "disable"}

    def work(number):
        with psycopg2.connect(**arguments) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE blobs (size int, data bytea)")
            for size in SIZES:
                cursor.execute("INSERT INTO blobs VALUES (%s, %s)", (size, payload(size, number)))
            cursor.execute("SELECT size, data FROM blobs ORDER BY size")
            assert [(size, bytes(data)) for size, data in cursor] == [(n, payload(n, number)) for n in SIZES]
        connection.close()

    pool = Pool(GREENLETS)
    begun = time.monotonic()
    sleeping = psycopg2.connect(**arguments)
    sleeper = pool.spawn(sleeping.cursor().execute, "SELECT pg_sleep(1)")
    pool.map(work, range(GREENLETS - 1))
    sleeper.get()
    assert time.monotonic() - begun < 60

    def wait():
        connection = psycopg2.connect(**arguments)
        try:
            connection.cursor().execute("SELECT pg_sleep(25)")
        finally:
            connection.close()

    interrupted(wait)
    sleeping.rollback()
    sleeping.close()

    engine = create_engine("postgresql+psycopg2://", connect_args=arguments, pool_size=5, max_overflow=0)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS counts"))
        connection.execute(text("CREATE TABLE counts (n int)"))

    def count(number):
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO counts VALUES (:n)"), {"n": number})
            connection.execute(text("SELECT pg_sleep(0.01)"))

    Pool(GREENLETS).map(count, range(GREENLETS))
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT n FROM counts ORDER BY n")).scalars().all()
        assert rows == list(range(GREENLETS))
        connection.execute(text("DROP TABLE counts"))
    engine.dispose()


def web(url):
    import requests
    import urllib3

    local = threading.local()

    def work(number):
        if not hasattr(local, "session"):
            local.session = requests.Session()
        for size in SIZES:
            answer = local.session.post(f"{url}/echo", data=payload(size, number), timeout=30)
            assert answer.content == payload(size, number)
        local.session.close()

    Pool(GREENLETS).map(work, range(GREENLETS))
    interrupted(lambda: requests.get(f"{url}/slow", timeout=30))
    try:
        requests.get(f"{url}/slow", timeout=0.05)
        raise AssertionError("no timeout")
    except requests.Timeout:
        pass
    manager = urllib3.PoolManager(maxsize=5, block=True)
    bodies = Pool(GREENLETS).map(
        lambda n: manager.request("POST", f"{url}/echo", body=payload(9000, n)).data, range(50)
    )
    assert bodies == [payload(9000, n) for n in range(50)]
    manager.clear()


def mqtt(port):
    import paho.mqtt.client as paho

    got = gevent.queue.Queue()
    made = []
    for name in ("reader", "writer"):
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, name)
        client.connect("127.0.0.1", int(port))
        client.loop_start()  # a thread, which is a greenlet here
        made.append(client)
    reader, writer = made
    reader.on_message = lambda client, data, message: got.put(message.payload)
    subscribed = gevent.event.Event()
    reader.on_subscribe = lambda *_: subscribed.set()
    reader.subscribe("news", qos=1)
    assert subscribed.wait(20)
    sent = [payload(size, 1) for size in (0, 1, 1_000, 100_000)] * 5
    for data in sent:
        writer.publish("news", data, qos=1).wait_for_publish(20)
    assert [got.get(timeout=20) for _ in sent] == sent
    for client in made:
        client.disconnect()
        client.loop_stop()


if __name__ == "__main__":
    kind, address, engine = sys.argv[1:]
    loop = gevent.get_hub().loop
    assert type(loop).__module__ == "proact.green.gevent_loop", loop
    assert loop.backend == engine, loop
    threads = threading.active_count()
    globals()[kind](address)
    assert threading.active_count() == threads
    print("done")
