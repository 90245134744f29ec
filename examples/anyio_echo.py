"""anyio takes the loop as an option of its backend."""

import asyncio

import anyio

import proact


async def echo(client: anyio.abc.SocketStream) -> None:
    async with client:
        async for data in client:
            await client.send(data)


async def main() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, echo)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"hello")
            print(asyncio.get_running_loop(), await stream.receive())
        group.cancel_scope.cancel()


anyio.run(main, backend_options={"loop_factory": proact.new_event_loop})
