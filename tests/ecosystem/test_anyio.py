"""anyio and Starlette, told by a backend option: TCP, TLS, UDP, Unix sockets, processes, threads."""

import asyncio
import sys

import anyio
import pytest
from anyio.streams.tls import TLSListener, TLSStream
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from support import loops
from support.peers import payload


@pytest.fixture
def run(new_loop):
    """`anyio.run` on a loop of the engine under test; checks where it ran."""

    def run(function, *args):
        options = {"loop_factory": new_loop}
        return anyio.run(function, *args, backend="asyncio", backend_options=options)

    return run


def test_runs_here(run, engine):
    async def main():
        return loops.identify()

    assert run(main).split()[-1] == (engine if not loops.REFERENCE else "-")


async def exchange(listener, connect):
    """Echo over a listener: a large payload to each of five clients, then one cancelled halfway."""

    async def echo(stream):
        async with stream:
            async for piece in stream:
                await stream.send(piece)

    async def talk(seed, size=1_000_000):
        async with await connect() as client, anyio.create_task_group() as group:
            group.start_soon(client.send, payload(size, seed))
            received = bytearray()
            while len(received) < size:
                received += await client.receive()
        assert received == payload(size, seed)

    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, echo)
        async with anyio.create_task_group() as clients:
            for seed in range(5):
                clients.start_soon(talk, seed)
        async with await connect() as client:
            with anyio.move_on_after(0.05) as scope:
                await client.receive()
            assert scope.cancelled_caught
            await client.send(b"after")
            assert await client.receive() == b"after"
        group.cancel_scope.cancel()


def test_tcp(run):
    async def main():
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        await exchange(listener, lambda: anyio.connect_tcp("127.0.0.1", port))

    run(main)


def test_tls(run, certificate):
    async def main():
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)

        async def connect():
            stream = await anyio.connect_tcp("127.0.0.1", port)
            return await TLSStream.wrap(
                stream, hostname="127.0.0.1", ssl_context=certificate.client(), standard_compatible=False
            )

        await exchange(TLSListener(listener, certificate.server(), standard_compatible=False), connect)

    run(main)


def test_unix(run, tmp_path, unhandled):
    async def main():
        path = tmp_path / "socket"
        await exchange(await anyio.create_unix_listener(path), lambda: anyio.connect_unix(path))

    run(main)
    # anyio's own race, on every loop: a wait that is cancelled in the turn in which its socket is ready.
    assert all(isinstance(problem.exception, asyncio.InvalidStateError) for problem in unhandled.take())


def test_udp(run):
    async def main():
        async with await anyio.create_udp_socket(local_host="127.0.0.1") as server:
            port = server.extra(anyio.abc.SocketAttribute.local_port)
            async with await anyio.create_connected_udp_socket("127.0.0.1", port) as client:
                for size in (1, 1400, 60_000):
                    await client.send(payload(size))
                    data, sender = await server.receive()
                    assert data == payload(size)
                    await server.sendto(data[::-1], *sender)
                    assert await client.receive() == payload(size)[::-1]
                with anyio.move_on_after(0.02) as scope:
                    await client.receive()
                assert scope.cancelled_caught

    run(main)


def test_process(run):
    async def main():
        program = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])"
        done = await anyio.run_process([sys.executable, "-c", program], input=payload(300_000))
        assert done.stdout == payload(300_000)[::-1]
        with anyio.move_on_after(0.1) as scope:
            await anyio.run_process([sys.executable, "-c", "import time; time.sleep(60)"])
        assert scope.cancelled_caught

    run(main)


def test_threads_and_files(run, tmp_path):
    async def main():
        path = anyio.Path(tmp_path / "file")
        await path.write_bytes(payload(200_000))
        assert await path.read_bytes() == payload(200_000)
        assert await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(anyio.sleep, 0.01)) is None

    run(main)


def test_starlette_test_client(engine, new_loop):
    async def where(request):
        return JSONResponse({"loop": loops.identify()})

    async def echo(socket):
        await socket.accept()
        await socket.send_bytes(await socket.receive_bytes())
        await socket.close()

    app = Starlette(routes=[Route("/", where), WebSocketRoute("/echo", echo)])
    with TestClient(app, backend_options={"loop_factory": new_loop}) as client:
        assert client.get("/").json()["loop"].split()[-1] == (engine if not loops.REFERENCE else "-")
        with client.websocket_connect("/echo") as socket:
            socket.send_bytes(payload(100_000))
            assert socket.receive_bytes() == payload(100_000)
