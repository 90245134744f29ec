"""Programs of gevent on proact's loop: gunicorn with Flask, locust, and clients of real servers.

`GEVENT_LOOP` chooses the loop, and nothing in the programs knows of proact.
"""

import concurrent.futures
import re
import signal

import pytest
import requests
import started
from support import daemons, loops
from support.peers import payload

pytestmark = pytest.mark.skipif(bool(loops.REFERENCE), reason="gevent's loop is proact's or its own")


def on_gevent(*arguments, engine):
    return started.running(
        *arguments, engine=engine, GEVENT_LOOP="proact.green.gevent_loop.Loop", GEVENT_BACKEND=engine
    )


@pytest.fixture
def gunicorn(engine):
    """gunicorn's gevent worker serving Flask: its URL."""
    port = daemons.free_port()
    arguments = (
        "-k",
        "gevent",
        "-w",
        "2",
        "-b",
        f"127.0.0.1:{port}",
        "--graceful-timeout",
        "20",
        "wsgi_app:make()",
    )
    with on_gevent("-m", "gunicorn", *arguments, engine=engine) as child:
        child.until("Booting worker", 2)
        yield f"http://127.0.0.1:{port}"
        said = child.end(signal.SIGTERM)
    assert said.count("Worker exiting") == 2, said


def run(kind, address, engine):
    with on_gevent(started.HERE / "gevent_programs.py", kind, address, engine, engine=engine) as child:
        assert child.end().endswith("done\n")


def test_gunicorn_serves_flask(gunicorn, engine):
    assert requests.get(f"{gunicorn}/loop", timeout=30).text == f"proact.green.gevent_loop {engine}"

    def client(number):
        with requests.Session() as session:
            for size in (0, 1, 65_536, 1_000_000):
                body = payload(size, number)
                assert session.post(f"{gunicorn}/echo", data=body, timeout=30).content == body

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        slow = [pool.submit(requests.get, f"{gunicorn}/slow", timeout=0.5) for _ in range(3)]
        list(pool.map(client, range(10)))
        for waiting in slow:
            assert isinstance(waiting.exception(), requests.Timeout)


def test_requests_and_urllib3(gunicorn, engine):
    run("web", gunicorn, engine)


def test_locust(gunicorn, engine):
    arguments = (
        "-f",
        started.HERE / "wsgi_app.py",
        "--headless",
        "-u",
        "20",
        "-r",
        "20",
        "-t",
        "3s",
        "--host",
        gunicorn,
    )
    with on_gevent("-m", "locust", *arguments, "--stop-timeout", "5", engine=engine) as child:
        said = child.end()
    asked, failed = re.findall(r"Aggregated +(\d+) +(\d+)\(", said)[-1]
    assert int(asked) > 20
    assert int(failed) == 0


def test_redis(redis_port, engine):
    run("redis", str(redis_port), engine)


def test_psycopg2_and_sqlalchemy(postgres, engine):
    run("postgres", f"{postgres.directory},{postgres.port},{postgres.user}", engine)
    run("postgres", f"127.0.0.1,{postgres.port},{postgres.user}", engine)


def test_mqtt(engine):
    with daemons.mosquitto() as port:
        run("mqtt", str(port), engine)
