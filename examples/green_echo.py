"""A server of plain code: each connection is a greenlet that awaits what only coroutines offer."""

import asyncio

import proact
from proact import green


async def lookup(name: str) -> str:
    await asyncio.sleep(0.01)  # a database that has an asyncio driver
    return f"hello, {name}"


def handler(connection: green.socket) -> None:
    with connection, connection.makefile("rw") as lines:
        for line in lines:
            print(green.await_(lookup(line.strip())), file=lines, flush=True)


def client(address: tuple[str, int]) -> str:
    with green.create_connection(address) as connection, connection.makefile("rw") as lines:
        print("you", file=lines, flush=True)
        return lines.readline()


async def main() -> None:
    with green.listen(("127.0.0.1", 0)) as listener:
        server = green.spawn(green.serve, handler, listener)
        print(asyncio.get_running_loop(), await green.run(client, listener.getsockname()))
        server.kill()
        await server


proact.run(main())
