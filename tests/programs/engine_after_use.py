"""Uses a loop in every way that has its own opcode, then prints its report about the engine as JSON."""

import asyncio
import json
import os
import socket

import proact


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def main():
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    # Through transports.
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.close()
    await writer.wait_closed()
    # Through sock_ methods.
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setblocking(False)
        client.setblocking(False)
        accepting = loop.create_task(loop.sock_accept(listener))
        await asyncio.sleep(0)
        await loop.sock_connect(client, listener.getsockname())
        peer, _ = await accepting
        with peer:
            receiving = loop.create_task(loop.sock_recv(peer, 10))
            await asyncio.sleep(0)
            await loop.sock_sendall(client, b"hello")
            assert await receiving == b"hello"
    # Through readiness.
    reading, writing = os.pipe()
    readable = loop.create_future()
    loop.add_reader(reading, lambda: readable.done() or readable.set_result(None))
    await asyncio.sleep(0)
    os.write(writing, b"x")
    await readable
    loop.remove_reader(reading)
    os.close(reading)
    os.close(writing)
    server.close()
    await server.wait_closed()
    print(json.dumps(loop.engine_info()))


proact.run(main())
