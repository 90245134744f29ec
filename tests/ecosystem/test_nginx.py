"""nginx as a reverse proxy before an application on proact: HTTP, WebSockets, a client that leaves."""

import app as web
import httpx
import test_uvicorn
import websockets
from support import daemons
from support.peers import payload


async def test_reverse_proxy(loop, here):
    app, seen = web.make()
    async with test_uvicorn.serving(app) as upstream:
        with daemons.nginx(f"127.0.0.1:{upstream}") as port:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                answer = await client.get("/loop")
                assert answer.headers["server"].startswith("nginx")
                await web.exercise(client, here, seen)
            async with websockets.connect(f"ws://127.0.0.1:{port}/echo", proxy=None) as socket:
                for size in (0, 1, 126, 65_536, 500_000):
                    await socket.send(payload(size))
                    assert await socket.recv() == payload(size)


async def test_upstream_by_unix_socket(loop, here):
    app, seen = web.make()
    # nginx's worker runs as another user, which can't pass through pytest's directories.
    with daemons.directory() as directory:
        directory.chmod(0o755)
        path = f"{directory}/app.sock"
        async with test_uvicorn.serving(app, uds=path):
            with daemons.nginx(f"unix:{path}") as port:
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                    await web.exercise(client, here, seen)
