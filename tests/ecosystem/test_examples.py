"""Every file of examples/ runs, on proact: clients to their end, servers until they are told to stop."""

import signal
import time

import httpx
import pytest
import started
from support import daemons

EXAMPLES = started.ROOT / "examples"

SERVERS = ["uvicorn_fastapi", "hypercorn_server", "granian_server", "aiohttp_server", "tornado_server"]
# The output of each of the other examples, besides the loop that it ran on.
PROGRAMS = {
    "anyio_echo": "b'hello'",
    "green_echo": "hello, you",
    "websockets_echo": "hello",
    "grpc_echo": "b'hello'",
    "dask_cluster": "328350",
    "asyncssh_echo": "you asked for hello",
    "redis_counter": "100",
    "asyncpg_query": "81.0",
    "psycopg_query": "(5, 25)",
}
# static_server has tests of its own in tests/fs.
OTHERS = {"httpx_client", "gunicorn_uvicorn", "conftest", "test_with_pytest_asyncio", "static_server"}


def get(port: int) -> str:
    deadline = time.monotonic() + 30
    while True:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/").text
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def runs_on(engine: str, text: str) -> None:
    assert f"<EventLoop engine={engine} running=True" in text


def test_all_are_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*SERVERS, *PROGRAMS, *OTHERS}


@pytest.mark.parametrize("name", SERVERS)
def test_server(engine, name):
    port = daemons.free_port()
    with started.running(EXAMPLES / f"{name}.py", engine=engine, PORT=str(port)) as child:
        runs_on(engine, get(port))
        if name == "uvicorn_fastapi":
            url = f"http://127.0.0.1:{port}"
            with started.running(EXAMPLES / "httpx_client.py", engine=engine, URL=url) as client:
                text = client.end()
                runs_on(engine, text)
                assert str([200] * 10) in text
        child.end(signal.SIGINT)


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(engine, name, redis_port, postgres):
    extra = {
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}",
        "DATABASE_URL": f"postgresql://{postgres.user}@127.0.0.1:{postgres.port}/postgres",
    }
    with started.running(EXAMPLES / f"{name}.py", engine=engine, **extra) as child:
        text = child.end()
    runs_on(engine, text)
    assert PROGRAMS[name] in text


def test_dask_workers_too(engine):
    with started.running(EXAMPLES / "dask_cluster.py", engine=engine) as child:
        assert child.end().count(f"<EventLoop engine={engine} running=True") == 2


def test_gunicorn(engine):
    port = daemons.free_port()
    options = (
        "-k",
        "proact.gunicorn.ProactWorker",
        "-w",
        "2",
        "-b",
        f"127.0.0.1:{port}",
        "--no-control-socket",
    )
    with started.running(
        "-m", "gunicorn", "gunicorn_uvicorn:app", *options, engine=engine, cwd=EXAMPLES
    ) as child:
        for _ in range(4):
            runs_on(engine, get(port))
        child.end(signal.SIGTERM)


@pytest.mark.parametrize(
    "options",
    [
        (
            "gunicorn",
            "gunicorn_uvicorn:app",
            "-k",
            "asgi",
            "--asgi-loop",
            "asyncio",
            "--no-control-socket",
            "-b",
        ),
        ("hypercorn", "gunicorn_uvicorn:app", "-w", "0", "-b"),
    ],
    ids=lambda options: options[0],
)
def test_a_server_that_has_no_option_for_the_loop(engine, options):
    port = daemons.free_port()
    words = ("-m", "proact", "-m", *options, f"127.0.0.1:{port}")
    with started.running(*words, engine=engine, cwd=EXAMPLES) as child:
        runs_on(engine, get(port))
        child.end(signal.SIGTERM)


def test_pytest_asyncio(engine):
    """The hook of examples/conftest.py, in a separate pytest, because this one runs without the plugin."""
    options = ("-p", "no:cacheprovider", "-c", "/dev/null", f"--rootdir={EXAMPLES}", "-W", "error")
    with started.running(
        "-m",
        "pytest",
        *options,
        "-o",
        "asyncio_default_fixture_loop_scope=function",
        EXAMPLES,
        engine=engine,
        PYTEST_ADDOPTS="",
    ) as child:
        assert "1 passed" in child.end()
