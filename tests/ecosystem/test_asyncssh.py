"""asyncssh, server and client: a command, a copied file, a forwarded port, a command cut off halfway."""

import asyncio
import contextlib

import asyncssh
import pytest
from support import loops
from support.peers import payload


class Server(asyncssh.SSHServer):
    def begin_auth(self, username):
        return False  # no authentication

    def connection_requested(self, *_):
        return True


@contextlib.asynccontextmanager
async def connected(tmp_path):
    ended = asyncio.Event()

    async def process(process):
        try:
            match process.command:
                case "where":
                    process.stdout.write(loops.identify().encode())
                case "cat":
                    while data := await process.stdin.read(65_536):
                        process.stdout.write(data)
                        await process.stdout.drain()
                case "wait":
                    await process.stdin.read()
            process.exit(0)
        finally:
            ended.set()

    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Server,
        server_host_keys=[key],
        process_factory=process,
        sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(tmp_path)),
        encoding=None,
    )
    try:
        async with asyncssh.connect(
            "127.0.0.1",
            server.get_port(),
            known_hosts=None,
            config=None,
            client_keys=None,
            agent_path=None,
            username="me",
        ) as client:
            yield client, ended
    finally:
        server.close()
        await server.wait_closed()


async def test_commands(loop, here, tmp_path):
    async with connected(tmp_path) as (client, ended):
        assert (await client.run("where", encoding=None)).stdout == here.encode()
        data = payload(1_000_000)
        results = await asyncio.gather(*(client.run("cat", input=data, encoding=None) for _ in range(3)))
        assert [result.stdout for result in results] == [data] * 3
        ended.clear()
        async with client.create_process("wait") as waiting:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(waiting.wait(), 0.1)
        async with asyncio.timeout(10):
            await ended.wait()


async def test_files_and_forwarding(loop, tmp_path):
    async def echo(reader, writer):
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as target:
        async with connected(tmp_path) as (client, _):
            async with client.start_sftp_client() as sftp:
                async with sftp.open("file", "wb") as file:
                    await file.write(payload(500_000))
                async with sftp.open("file", "rb") as file:
                    assert await file.read() == payload(500_000)
            assert (tmp_path / "file").read_bytes() == payload(500_000)

            port = target.sockets[0].getsockname()[1]
            async with client.forward_local_port("127.0.0.1", 0, "127.0.0.1", port) as listener:
                reader, writer = await asyncio.open_connection("127.0.0.1", listener.get_port())
                writer.write(payload(300_000))
                writer.write_eof()
                assert await reader.read() == payload(300_000)
                writer.close()
                await writer.wait_closed()
