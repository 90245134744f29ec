"""README.md's quick start on a free port, which it prints; it says so when its server has ended."""

import asyncio

import under_test


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1])
    try:
        await server.serve_forever()
    finally:
        print("closed")


under_test.run(main())
