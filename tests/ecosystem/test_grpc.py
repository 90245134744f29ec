"""grpc.aio: its core waits in a thread of its own and wakes the loop through a socket (add_reader)."""

import asyncio

import grpc
import pytest
from support import leaks, loops
from support.peers import payload


async def unary(request, context):
    return request[::-1]


async def where(request, context):
    return loops.identify().encode()


async def stream(requests, context):
    async for request in requests:
        yield request


async def slow(request, context):
    try:
        await asyncio.sleep(60)
    finally:
        left.set()


left = None
LIMITS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture(scope="module", autouse=True)
def once():
    """grpc opens its poller's fds and threads once and keeps them for the life of the process."""

    async def touch():
        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/none/none")(b"", timeout=0.2)

    asyncio.run(touch())
    leaks.collect()


def test_calls_and_streams(loop, here):
    loop.run_until_complete(calls_and_streams(here))
    # grpc watches its socket on the loop until its last channel and server are collected.
    leaks.collect()


async def calls_and_streams(here):
    global left
    left = asyncio.Event()
    server = grpc.aio.server(options=LIMITS)
    methods = {
        "where": grpc.unary_unary_rpc_method_handler(where),
        "unary": grpc.unary_unary_rpc_method_handler(unary),
        "stream": grpc.stream_stream_rpc_method_handler(stream),
        "slow": grpc.unary_unary_rpc_method_handler(slow),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("proact", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=LIMITS) as channel:
            assert await channel.unary_unary("/proact/where")(b"") == here.encode()
            call = channel.unary_unary("/proact/unary")
            for size in (0, 1, 16_384, 3_000_000):
                assert await call(payload(size)) == payload(size)[::-1]
            assert await asyncio.gather(*(call(b"%d" % n) for n in range(10))) == [
                b"%d" % n for n in range(10)
            ]

            both = channel.stream_stream("/proact/stream")()
            for size in (1, 1000, 100_000) * 5:
                await both.write(payload(size))
                assert await both.read() == payload(size)
            await both.done_writing()
            assert await both.read() is grpc.aio.EOF

            waiting = asyncio.create_task(asyncio.wait_for(channel.unary_unary("/proact/slow")(b""), 0.1))
            with pytest.raises(TimeoutError):
                await waiting
            async with asyncio.timeout(10):
                await left.wait()
            assert await call(b"after") == b"retfa"
    finally:
        await server.stop(None)
