"""grpc.aio: a server and a client, without generated code."""

import asyncio

import grpc

import proact


async def echo(request: bytes, context: object) -> bytes:
    return request


async def main() -> None:
    server = grpc.aio.server()
    methods = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("example", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        print(asyncio.get_running_loop(), await channel.unary_unary("/example/Echo")(b"hello"))
    await server.stop(None)


proact.run(main())
