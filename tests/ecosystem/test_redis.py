"""redis-py asyncio against a real Redis: values, pipelines, publish/subscribe, a blocking call cut short."""

import asyncio

import pytest
import redis.asyncio as redis
from support import loops
from support.peers import payload


@pytest.fixture
def client(loop, redis_port):
    made = redis.Redis(host="127.0.0.1", port=redis_port)
    loop.run_until_complete(made.flushall())
    yield made
    loop.run_until_complete(made.aclose())


async def test_values(loop, here, client):
    assert await client.set("loop", loops.identify())
    assert (await client.get("loop")).decode() == here
    values = {f"key{size}": payload(size) for size in (0, 1, 65_535, 65_536, 2_000_000)}
    await client.mset(values)
    assert await client.mget(list(values)) == list(values.values())
    async with client.pipeline(transaction=True) as pipe:
        for index in range(500):
            pipe.rpush("list", index)
        assert await pipe.execute() == list(range(1, 501))
    assert [int(item) for item in await client.lrange("list", 0, -1)] == list(range(500))
    assert await asyncio.gather(*(client.incr("counter") for _ in range(100)))
    assert int(await client.get("counter")) == 100


async def test_cancelled_wait(loop, client):
    waiting = asyncio.create_task(client.blpop("nothing", timeout=0))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.blpop("nothing", timeout=0), 0.05)
    assert await client.ping()


async def test_publish_subscribe(loop, client):
    async with client.pubsub() as channel:
        await channel.subscribe("news")
        assert (await channel.get_message(timeout=5))["type"] == "subscribe"
        for index in range(50):
            assert await client.publish("news", index) == 1
        seen = [await channel.get_message(timeout=5) for _ in range(50)]
        assert [int(message["data"]) for message in seen] == list(range(50))
        assert await channel.get_message(timeout=0.01) is None
