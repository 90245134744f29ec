"""asyncssh: a server that runs one command, and a client that asks for it."""

import asyncio

import asyncssh

import proact


class Open(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return False  # no authentication: for an example only


async def greet(process: asyncssh.SSHServerProcess[str]) -> None:
    process.stdout.write(f"you asked for {process.command}")
    process.exit(0)


async def main() -> None:
    keys = [asyncssh.generate_private_key("ssh-ed25519")]
    options = {"server_factory": Open, "server_host_keys": keys, "process_factory": greet}
    async with asyncssh.listen("127.0.0.1", 0, **options) as server:
        async with asyncssh.connect(
            "127.0.0.1", server.get_port(), known_hosts=None, username="me"
        ) as client:
            print(asyncio.get_running_loop(), (await client.run("hello")).stdout)


proact.run(main())
